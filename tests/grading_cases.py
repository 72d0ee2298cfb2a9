r"""Responses, reference answers and the verdict each must get, written and reviewed by hand. A bare answer stands for \boxed{answer}."""

RIGHT, WRONG, NO_ANSWER = "right", "wrong", "no_answer"

# (answer inside the box, reference answer, verdict)
ANSWERS = {
    "integers": [
        ("42", "42", RIGHT), ("42", "43", WRONG), (" 42 ", "42", RIGHT), ("42.", "42", RIGHT), ("-7", "-7", RIGHT), ("7", "-7", WRONG), ("−7", "-7", RIGHT),
        ("025", "25", RIGHT), ("25", "025", RIGHT), ("25", "250", WRONG), ("27", "27.0", RIGHT), ("27.0", "27", RIGHT), ("27.5", "27.0", WRONG), ("+5", "5", RIGHT),
        ("1,000", "1000", RIGHT), ("1{,}000", "1000", RIGHT), (r"1\,000", "1000", RIGHT), ("1000000", "1,000,000", RIGHT), ("1,000", "1", WRONG),
    ],
    "fractions": [
        (r"\frac{1}{2}", "1/2", RIGHT), (r"\frac12", r"\frac{1}{2}", RIGHT), (r"\dfrac{3}{4}", r"\tfrac{3}{4}", RIGHT), ("3/4", r"\frac{3}{4}", RIGHT), (r"\frac{2}{4}", r"\frac{1}{2}", RIGHT),
        (r"-\frac{1}{2}", r"\frac{-1}{2}", RIGHT), (r"\frac{1}{-2}", r"-\frac{1}{2}", RIGHT), (r"\frac{1}{3}", r"\frac{1}{2}", WRONG), ("½", r"\frac{1}{2}", RIGHT), ("1½", "1.5", RIGHT),
        (r"1\frac{1}{2}", r"\frac{3}{2}", RIGHT), (r"\frac{\frac{1}{2}}{3}", r"\frac{1}{6}", RIGHT), (r"\frac{x+1}{2}", r"\frac{1+x}{2}", RIGHT), (r"\frac{2}{1}", r"\frac{1}{2}", WRONG),
    ],
    "small and large numbers": [
        ("6.63e-34", r"6.63 \times 10^{-34}", RIGHT), ("6.62e-34", "6.63e-34", WRONG), (r"6.62 \times 10^{-34} \text{ J s}", "6.63e-34", WRONG), ("0.0000001", "0.0000002", WRONG), (r"10^{-7}", "0.0000001", RIGHT),
        (r"3 \times 10^8", "3e8", RIGHT), (r"3 \cdot 10^{8}\ \mathrm{m/s}", "300000000", RIGHT), ("12345678", "12345679", WRONG), ("10,080", "10080", RIGHT), (r"11,\! 111,\! 100", "11111100", RIGHT), ("1e-7", "1e-8", WRONG),
    ],
    "work left undone": [
        ("41+1", "42", WRONG), (r"6 \cdot 7", "42", WRONG), ("x=41+1", "42", WRONG), (r"\sum_{i=1}^{42} 1", "42", WRONG), (r"\int_0^{42} 1 dx", "42", WRONG), (r"\lim_{x \to 42} x", "42", WRONG),
        (r"\gcd(84, 126)", "42", WRONG), (r"\sum_{i=1}^{n} i", r"\sum_{i=1}^{n} i", RIGHT), (r"2^{10}-1", "1023", RIGHT), ("84/2", "42", RIGHT), ("43-1", "42", WRONG),
    ],
    "powers that are no towers": [
        (r"2^3 \cdot 3^2", "72", RIGHT), (r"2^3\cdot 3^2", r"2^3 \cdot 3^2", RIGHT), ("x^2+2^2", "x^2+4", RIGHT), (r"2^2 3^2", "36", RIGHT), ("10¹²", "10^{12}", RIGHT), ("10⁻⁵", "1e-5", RIGHT), ("x¹⁰", "x^{10}", RIGHT),
        ("4210₅", "4210_5", RIGHT), (r"\frac{1}{2^{30}}", "0.0", WRONG), ("0.0", r"\frac{1}{2^{30}}", WRONG), (r"e^{-40}", r"e^{-41}", WRONG), ("x-x", "1.6e-19", WRONG), (r"-1.6 \times 10^{-19}", "1.6e-19", WRONG), (r"0.01\%", "0.01", RIGHT),
    ],
    "inequalities for intervals": [
        (r"x \ge 3", r"[3,\infty)", RIGHT), ("3<x<5", "(3,5)", RIGHT), (r"-2 \le x \le 7", r"x \in [-2,7]", RIGHT), ("x > 3", r"[3,\infty)", WRONG), ("x^2-5x+6>0", r"(-\infty,2)\cup(3,\infty)", WRONG), ("x^2<9", "(-3,3)", WRONG),
    ],
    "number bases and subscripts": [
        ("4210_5", "4210_{5}", RIGHT), ("4210_7", "4210_{5}", WRONG), ("4210", "4210_5", RIGHT), ("11_2", "3", WRONG), ("x_1", "x_{1}", RIGHT), ("x_1", "x_2", WRONG),
    ],
    "decimals and powers of ten": [
        ("0.5", r"\frac{1}{2}", RIGHT), (".5", "0.5", RIGHT), ("0.50", "0.5", RIGHT), ("0.33", r"\frac{1}{3}", WRONG), ("0.333333333", r"\frac{1}{3}", RIGHT), ("3.14", r"\pi", WRONG),
        ("4.5e33", r"4.5 \times 10^{33}", RIGHT), ("1.2e-5", "0.000012", RIGHT), (r"10^{-5}", "1e-5", RIGHT), ("4.5e33", "4.5e34", WRONG), ("2.5", "2.6", WRONG), (r"4.5 \cdot 10^{33}", "4.5e33", RIGHT),
    ],
    "percent, money, degrees, units": [
        (r"50\%", "50", RIGHT), ("50%", r"50\%", RIGHT), (r"50\%", "0.5", RIGHT), (r"5\%", "50", WRONG), (r"\$5", "5", RIGHT), (r"\$5.00", "5", RIGHT), ("$5$", "5", RIGHT),
        (r"90^\circ", "90", RIGHT), ("90°", "90", RIGHT), (r"90^{\circ}", r"90^\circ", RIGHT), ("45°", "90", WRONG), (r"5 \text{ cm}", "5", RIGHT), ("5", r"5\text{ cm}", RIGHT),
        (r"5\,\mathrm{m/s}", "5", RIGHT), (r"12 \text{ square units}", "12", RIGHT), (r"6 \text{ cm}^2", "6", RIGHT), (r"6 \text{ cm}", "7", WRONG), ("3 km/h", "3", RIGHT), ("2 dollars", "2", RIGHT), (r"\text{3 hours}", "3", RIGHT), (r"6 \text{ hours and } 30 \text{ minutes}", "6", WRONG), (r"2 \text{ (or 3)}", "2", WRONG), ("12 pi", "12", WRONG), ("2 x", "2", WRONG),
        (r"12\ 345", "12345", RIGHT), ("12~345", "12345", RIGHT), (r"11,\! 111,\! 111", "11111111", RIGHT),
    ],
    "roots, powers, logarithms, constants": [
        (r"\sqrt{12}", r"2\sqrt{3}", RIGHT), (r"\sqrt2", r"\sqrt{2}", RIGHT), ("√2", r"\sqrt{2}", RIGHT), (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}", RIGHT), (r"\sqrt{3}", r"\sqrt{2}", WRONG),
        ("2π", r"2\pi", RIGHT), (r"\pi", "3.14159", WRONG), ("1024", "2^{10}", RIGHT), ("2^{10}", "1024", RIGHT), (r"2^{3}5^{2}", "200", RIGHT), (r"\ln 4", r"2 \ln 2", RIGHT), (r"\sqrt[3]{8}", "2", RIGHT),
        ("120", "5!", RIGHT), (r"\binom{5}{2}", "10", RIGHT), (r"e^{2}", "e^2", RIGHT), (r"e^{2}", "e^3", WRONG),
    ],
    "expressions and equations": [
        ("x+1", "1+x", RIGHT), ("(x+1)^2", "x^2+2x+1", RIGHT), ("x^2 + 1", "x^2 - 1", WRONG), ("x=5", "5", RIGHT), ("5", "x=5", RIGHT), ("x=5", "x=6", WRONG), ("y=2x+1", "2x+1", RIGHT),
        ("3+4i", "4i+3", RIGHT), ("3-4i", "3+4i", WRONG), ("x²", "x^2", RIGHT), ("2x", "x", WRONG), (r"\sin^2 x + \cos^2 x", "1", RIGHT), (r"a \cdot b", "ab", RIGHT),
    ],
    "intervals, inequalities, sets, tuples": [
        ("(0,1)", "(0, 1)", RIGHT), ("[0,1)", "[0,1)", RIGHT), ("[0,1)", "(0,1)", WRONG), ("[0,1]", "[0,2]", WRONG), (r"(-\infty, 3]", r"(-\infty,3]", RIGHT), ("(−∞,3]", r"(-\infty,3]", RIGHT),
        (r"(-\infty,3]", r"x \le 3", RIGHT), (r"(3,4)\cup(1,2)", r"(1,2)\cup(3,4)", RIGHT), ("(1,2)∪(3,4)", r"(1,2)\cup(3,4)", RIGHT), (r"\{2,1\}", r"\{1,2\}", RIGHT), ("2, 1", "1,2", RIGHT),
        (r"\{1,2\}", r"\{1,3\}", WRONG), ("1", "1,2", WRONG), ("1,2,3", "1,2", WRONG), (r"\left(1,2\right)", "(1,2)", RIGHT), ("(2,1)", "(1,2)", WRONG), ("x=1 \\text{ or } x=2", "1,2", RIGHT),
        (r"1 \pm \sqrt{2}", r"1+\sqrt{2}, 1-\sqrt{2}", RIGHT), (r"\emptyset", "∅", RIGHT), (r"\varnothing", r"\emptyset", RIGHT), (r"x \in [-2,7]", "[-2,7]", RIGHT), (r"[2,\infty)", r"k \ge 2", RIGHT), ("k>2", r"k \ge 2", WRONG), (r"(3,\pi/2)", r"\left( 3, \frac{\pi}{2} \right)", RIGHT), (r"x > 3", r"x < 3", WRONG),
    ],
    "matrices and vectors": [
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}", RIGHT), (r"\begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}", r"\begin{pmatrix}1&0\\0&1\end{pmatrix}", RIGHT),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}", WRONG), (r"\begin{pmatrix} 1/2 \\ 3 \end{pmatrix}", r"\begin{pmatrix} \frac{1}{2} \\ 3 \end{pmatrix}", RIGHT),
    ],
    "text": [
        (r"\text{east}", "east", RIGHT), ("East", r"\text{east}", RIGHT), (r"\text{west}", r"\text{east}", WRONG), (r"\text{Evelyn}", "Evelyn", RIGHT), (r"\textbf{even}", r"\text{even}", RIGHT),
        ("odd", "even", WRONG), ("No solution", r"\text{no solution}", RIGHT), ("None", "No solution", WRONG), (r"\text{No}", r"\text{Yes}", WRONG), ("9:30", "9:30", RIGHT), ("the answer is $2$", "2", WRONG), ("$1$, $2$", "1,2", RIGHT), ("x = $2$", "2", RIGHT),
    ],
    "several answers, or noise around one": [
        ("2 or 3", "2", WRONG), (r"2 \text{ or } 3", "2", WRONG), ("maybe 2", "2", WRONG), (")))2", "2", WRONG), (r"2\\3", "2", WRONG), ("1 2", "12", WRONG), ("2?", "2", WRONG), (r"\pm 2", "2", WRONG),
        (r"2 \ne 3", "2", WRONG), ("2,3", "3", WRONG), ("10", "1", WRONG), (r"42 \text{ or } 43", "43", WRONG),
    ],
    "letters": [
        ("C", "C", RIGHT), ("(C)", "C", RIGHT), (r"\text{C}", "C", RIGHT), (r"\text{(C)}", "C", RIGHT), ("c", "C", RIGHT), ("C.", "C", RIGHT), ("C. 12 m/s", "C", RIGHT), ("C) 12", "C", RIGHT),
        (r"\textbf{(C)}\ 12", "C", RIGHT), ("B", "C", WRONG), ("(B)", "C", WRONG), ("12", "C", WRONG), ("Cat", "C", WRONG), ("A and C", "C", WRONG), ("A, B", "A", WRONG), ("(A) or (B)", "A", WRONG), ("(A)(B)(C)(D)", "A", WRONG), ("A. B. C. D.", "A", WRONG), ("B) pion, C) kaon", "B", WRONG), (r"B \text{ (pion)}", "B", RIGHT), ("Option B", "B", RIGHT),
        (r"\text{B - pion}", "B", RIGHT), ("[B]", "B", RIGHT), ("b. pion", "B", RIGHT), ("A. 3.2 J", "A", RIGHT), ("C", r"\text{(C)}", RIGHT), ("B", r"\text{(C)}", WRONG),
    ],
}

# (whole response, reference answer, verdict)
RESPONSES = [
    ("", "42", NO_ANSWER), ("I do not know.", "42", NO_ANSWER), ("42", "42", NO_ANSWER), ("So the result is 42.", "42", NO_ANSWER),  # a lucky number at the end does not count
    (r"So \boxed{42}.", "42", RIGHT), (r"So $\boxed{42}$.", "42", RIGHT), (r"\[ x = \boxed{42} \]", "42", RIGHT), (r"\boxed{x = 42}", "42", RIGHT),
    (r"First \boxed{1}, then \boxed{42}", "42", RIGHT), (r"First \boxed{42}, then \boxed{1}", "42", WRONG),  # the last box is the answer
    (r"First \boxed{42}, then \boxed{", "42", NO_ANSWER), (r"Hence \boxed{\frac{1}{2", r"\frac{1}{2}", NO_ANSWER), (r"\boxed{}", "42", NO_ANSWER), (r"\boxed", "42", NO_ANSWER),
    (r"\boxed{\boxed{42}}", "42", RIGHT), (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{\sqrt{2}}{2}", RIGHT), (r"\boxed{\left\{1, 2\right\}}", r"\{1,2\}", RIGHT), (r"\boxed{\{1, 2\}} are all", "1,2", RIGHT),
    (r"\boxed 5", "5", RIGHT), (r"$\boxed 5$", "5", RIGHT), (r"\fbox{42}", "42", RIGHT), (r"\boxed {42}", "42", RIGHT), ("\\boxed{\n42\n}", "42", RIGHT), (r"\boxed{$42$}", "42", RIGHT),
    ("Answer: 42", "42", RIGHT), ("answer : 42.", "42", RIGHT), ("**Final Answer:** 42", "42", RIGHT), ("**Answer**: $\\frac{1}{2}$", "1/2", RIGHT), ("Answer: 41\nAnswer: 42", "42", RIGHT),
    ("**Answer: 42**", "42", RIGHT), ("Answer: **42**", "42", RIGHT), ("**Answer:** **42**", "42", RIGHT), ("**Answer: $42$**", "42", RIGHT), ("**Answer: C**", "C", RIGHT), ("**Answer:**\n\n42", "42", RIGHT), ("Answer: ** ", "42", NO_ANSWER),
    ("Answer:", "42", NO_ANSWER), ("Answer: 43", "42", WRONG), (r"Answer: 43 \boxed{42}", "42", RIGHT), ("Answer: B", "B", RIGHT), ("The answer is (B)", "B", NO_ANSWER),
    ("答案 Answer：42", "42", RIGHT), ("\\boxed{42}\x00", "42", RIGHT), ("\\boxed{４２}", "42", RIGHT), ("<think>\\boxed{1}</think> \\boxed{42}", "42", RIGHT),
    (r"\boxed{" + "1" * 301 + "}", "1" * 301, RIGHT), (r"\boxed{" + "1" * 302 + "}", "42", WRONG), (r"\boxed{9^{9^{9}}}", "42", WRONG), (r"\boxed{9^{9^{9}}}", "9^{9^{9}}", RIGHT),
    (r"\boxed{2^{2^n}+1}", "2^{2^n}+1", RIGHT), (r"\boxed{x^2y^2}", "(xy)^2", RIGHT), (r"\boxed{e^{x^2}}", r"e^{x^2}", RIGHT),
]
