r"""Answers, reference answers and the verdict each must get, written by hand: what a careful person
who marks competition answers would say.

CASES has rows (style, answer in the box, reference, is it right, why). An answer stands for a
response that ends in \boxed{answer}. Where a pair has no reason of its own, that of its style
holds.
RESPONSES are whole responses with the verdict that each must get.
"""

RIGHT, WRONG, NO_ANSWER = "right", "wrong", "no_answer"
CASES = []


def cases(style, why, right=(), wrong=()):
    """Adds pairs (answer, reference) or (answer, reference, reason) to CASES."""
    for is_right, pairs in ((True, right), (False, wrong)):
        for answer, reference, *reason in pairs:
            CASES.append((style, answer, reference, is_right, *(reason or [why])))


# ---------- numbers ----------

cases(
    "integers", "the same integer however it is written, and no other",
    right=[
        ("42", "42"), (" 42 ", "42"), ("42.", "42"), ("-7", "-7"), ("−7", "-7"), ("025", "25"),
        ("25", "025"), ("27", "27.0"), ("27.0", "27"), ("+5", "5"), ("1,000", "1000"),
        ("1{,}000", "1000"), (r"1\,000", "1000"), ("1000000", "1,000,000"), (r"12\ 345", "12345"),
        ("12~345", "12345"), (r"11,\! 111,\! 111", "11111111"), ("10,080", "10080"),
        (r"11,\! 111,\! 100", "11111100"), ("12 345 678", "12345678"), ("{2019}", "2019"),
        ("(42)", "42"), ("- 7", "-7"), (r"\,42\,", "42"), ("４２", "42"), ("000", "0"), ("-0", "0"),
        ("42.00", "42"), ("42.", "42.0"), (r"\phantom{0}42", "42"), (r"\underline{34}", "34"),
        (r"\color{red}{34}", "34"), (r"\textcolor{blue}{34}", "34"), (r"\therefore 25", "25"),
        (r"\mathbf{x=42}", "42"), ("2 500", "2500"),
    ],
    wrong=[
        ("42", "43"), ("7", "-7"), ("25", "250"), ("27.5", "27.0"), ("1,000", "1"),
        ("12345678", "12345679"), ("10", "1"), ("1 2", "12"), ("4 2", "42"), ("--7", "7"),
        ("1,00", "100"), ("042 0", "420"), ("42?", "42"), ("2?", "2"), ("42!", "42", "a factorial"),
        ("--42", "42"), ("0x2A", "42"), ("42e0e0", "42"), (r"\{34, 35\}", "34"), ("(34,0)", "34"),
        (r"34 \equiv 4 \pmod{10}", "34"),
    ])

cases(
    "fractions", "a fraction, reduced or not, a mixed number, or the decimal that it is",
    right=[
        (r"\frac{1}{2}", "1/2"), (r"\frac12", r"\frac{1}{2}"), (r"\dfrac{3}{4}", r"\tfrac{3}{4}"),
        ("3/4", r"\frac{3}{4}"), (r"\frac{2}{4}", r"\frac{1}{2}", "not reduced, but a fraction"),
        (r"-\frac{1}{2}", r"\frac{-1}{2}"), (r"\frac{1}{-2}", r"-\frac{1}{2}"),
        ("½", r"\frac{1}{2}"), ("1½", "1.5"), (r"1\frac{1}{2}", r"\frac{3}{2}"), ("3 1/2", "7/2"),
        (r"3\ 1/2", "3.5"), (r"-2\frac{1}{4}", r"-\frac{9}{4}"), (r"\frac 3 4", "0.75"),
        (r"{3 \over 4}", "3/4"), (r"\frac{3}4", "3/4"), ("0.5", r"\frac{1}{2}"),
        ("0.333333333", r"\frac{1}{3}"), (r"0.\overline{3}", r"\frac{1}{3}"),
        (r"0.1\overline{6}", "1/6"), (r"\frac{5}{3}", r"1\frac{2}{3}"), ("1 2/3", r"\frac{5}{3}"),
        (r"\frac{x+1}{2}", r"\frac{1+x}{2}"), (r"\frac{-3}{-4}", "0.75"), ("7 / 2", "3.5"),
        (r"\left(\frac{3}{4}\right)", "3/4"), (r"3\,\frac{1}{2}", "7/2"), ("3:4", "3/4", "a ratio"),
        ("-(7/3)", "-7/3"), ("(-7)/3", "-7/3"), (r"-2.\dot{3}", "-7/3"),
        ("-2.333333", "-7/3", "six decimals"),
    ],
    wrong=[
        (r"\frac{1}{3}", r"\frac{1}{2}"), (r"\frac{2}{1}", r"\frac{1}{2}"),
        ("0.33", r"\frac{1}{3}", "rounded"), ("0.667", "2/3", "rounded"),
        (r"\frac{\frac{1}{2}}{3}", r"\frac{1}{6}", "a division is left"),
        (r"3\frac{1}{2}", r"\frac{3}{2}", "a mixed number, not a product"), (r"\frac{7}{0}", "7"),
        (r"\frac{3}{4}", r"\frac{4}{3}"), (r"0.\overline{3}", "0.3"),
        ("1.5/2", "0.75", "a division is left"), (r"\frac{1}{2}+", r"\frac{1}{2}"),
        ("1/2/3", "1/6"), ("42:1", "42"), (r"\frac{42}{42}", "42"),
    ])

cases(
    "decimals and powers of ten", "plain numbers are compared exactly, whatever their size",
    right=[
        (".5", "0.5"), ("0.50", "0.5"), ("6.63e-34", r"6.63 \times 10^{-34}"),
        ("10^{-7}", "0.0000001"), (r"3 \times 10^8", "3e8"),
        (r"3 \cdot 10^{8}\ \mathrm{m/s}", "300000000"), ("4.5e33", r"4.5 \times 10^{33}"),
        ("1.2e-5", "0.000012"), ("10^{-5}", "1e-5"), (r"4.5 \cdot 10^{33}", "4.5e33"),
        ("10¹²", "10^{12}"), ("10⁻⁵", "1e-5"), ("4.5×10^{33}", "4.5e33"), ("4.5 x 10^33", "4.5e33"),
        ("4.5*10^(33)", "4.5e33"), ("1E5", "100000"), (r"6.02\times10^{23}", "6.02e23"),
        (r"0.602 \times 10^{24}", "6.02e23"), ("12.50", "12.5"),
        (r"-1.6\times 10^{-19}", "-1.6e-19"), (r"0.0033\ \mathrm{K^{-1}}", "0.0033"),
        ("4.5E+33", "4.5e33"),
    ],
    wrong=[
        ("6.62e-34", "6.63e-34"), (r"6.62 \times 10^{-34} \text{ J s}", "6.63e-34"),
        ("0.0000001", "0.0000002"), ("1e-7", "1e-8"), ("4.5e33", "4.5e34"), ("2.5", "2.6"),
        ("3.14", r"\pi", "rounded"), (r"\pi", "3.14159", "the reference is rounded"),
        ("x-x", "1.6e-19"), (r"-1.6 \times 10^{-19}", "1.6e-19"), (r"\frac{1}{2^{30}}", "0.0"),
        ("0.0", r"\frac{1}{2^{30}}"), ("e^{-40}", "e^{-41}"), ("4.5e", "4.5"),
        (r"3 \times 10^{8}", r"3 \times 10^{9}"), ("1.000001", "1", "no tolerance between numbers"),
        ("1.000000001", "1", "no tolerance between numbers"),
    ])

cases(
    "a calculator is not done: the reference is a number",
    "work is left; a policy could copy the question",
    right=[
        ("41+1=42", "42", "done after the last ="), ("x = 41+1 = 42", "42"),
        (r"6 \cdot 7 = 42", "42"), (r"\frac{84}{2} = 42", "42"), ("1024", "2^{10}"), ("120", "5!"),
        ("1023", "2^{10}-1"), ("2^{10}", "2^{10}", "the reference's own text"),
        ("9^{9^{9}}", "9^{9^{9}}"), (r"\frac{3}{4}+\frac{1}{2}=\frac{5}{4}", "5/4"),
        (r"\sqrt{1764} = 42", "42"), (r"2^3 \cdot 3^2 = 72", "72"), (r"\binom{5}{2}=10", "10"),
        (r"\binom{9}{4} = 126", "126"), ("200", "2^{3}5^{2}"),
        (r"\frac{1}{6}", r"\frac{1}{2}\cdot\frac{1}{3}"),
    ],
    wrong=[
        ("41+1", "42"), (r"6 \cdot 7", "42"), ("x=41+1", "42"), (r"\sum_{i=1}^{42} 1", "42"),
        (r"\int_0^{42} 1 dx", "42"), (r"\lim_{x \to 42} x", "42"), (r"\gcd(84, 126)", "42"),
        ("43-1", "42"), ("{41}+{1}", "42"), (r"41+\frac{2}{2}", "42"), ("|41+1|", "42"),
        ("x = 41 + 1^1", "42"), (r"\operatorname{gcd}(84,126)", "42"), ("|-42|", "42"),
        (r"\begin{vmatrix} 7 & 0 \\ 0 & 6 \end{vmatrix}", "42"),
        (r"\det\begin{pmatrix} 7 & 0 \\ 0 & 6 \end{pmatrix}", "42"), ("1^2+2^2+3^2", "14"),
        (r"1^2+2^2+\cdots+10^2", "385"), ("2^{10}-1", "1023"), (r"2^3 \cdot 3^2", "72"),
        ("2^2 3^2", "36"), ("2^{3}5^{2}", "200"), ("2^{10}", "1024"), (r"\sqrt[3]{8}", "2"),
        (r"\sqrt{1764}", "42"), (r"\binom{5}{2}", "10"), ("5!", "120"),
        ("84/2", "42", "a division that comes out even"), (r"\frac{84}{2}", "42"),
        (r"\sin^2 x + \cos^2 x", "1"), (r"\frac{3}{4}+\frac{1}{2}", "5/4"), (r"\log_2 8", "3"),
        (r"\lfloor 42.7 \rfloor", "42"), (r"\max(3, 42)", "42"), (r"0.5 \cdot 84", "42"),
        (r"\frac{1}{2} \cdot \frac{1}{3}", r"\frac{1}{6}"), (r"1-\frac{5}{6}", r"\frac{1}{6}"),
        (r"7 \times 6", "42"), ("7*6", "42"), ("(7)(6)", "42"), ("7(6)", "42"), ("6^2+6", "42"),
        (r"\frac{10!}{8!\,2!}", "45"), (r"42 \bmod 100", "42"), ("42+0", "42"), ("42^1", "42"),
        (r"42 \cdot 1", "42"), ("-(-42)", "42"), ("e^0", "1"), (r"\ln e", "1"), ("i^4", "1"),
        (r"\sin 90^\circ", "1"), (r"\tan\frac{\pi}{4}", "1"), ("100 - 58", "42"),
        ("40 + 2 text", "42"), (r"\text{the sum } 41+1", "42"), (r"3! \cdot 7", "42"),
        (r"\sum_{k=1}^{3} k^2", "14"), (r"\prod_{k=1}^{4} k", "24"),
        (r"1 + 2 + 3 + \ldots + 8", "36"), ("0.1+0.2", "0.3"), (r"\frac{6 \cdot 7}{1}", "42"),
        (r"\frac{41+1}{1}", "42"), (r"\sqrt{9}+39", "42"),
        (r"\text{number of divisors of } 12", "6"), ("10^2 - 58", "42"), ("42.0 + 0.0", "42"),
        (r"\operatorname{lcm}(6,7)", "42"), (r"\phi(49)", "42"), (r"\cfrac{84}{2}", "42"),
        ("84 ÷ 2", "42"), ("6**2+6", "42"), ("max(42, 1)", "42"), (r"\frac{7!}{5!}", "42"),
        (r"{7 \choose 2} \cdot 2", "42"), ("1764^{1/2}", "42"), (r"\operatorname{Re}(42+i)", "42"),
        ("F_{9}", "34"), (r"\varphi(43)", "42"), ("(42x)'", "42"),
        (r"\left.42x\right|_{x=1}", "42"), (r"(\sqrt{42})^2", "42"), (r"(1,2)\cdot(3,4)", "11"),
        ("|3+4i|", "5"), (r"\cos 60^\circ", r"\frac12"), (r"9 \times \$2", "18"), ("3 x 6", "18"),
    ])

cases(
    "a calculator is not done: other references",
    "a sum, product, power or function of plain numbers that has a simpler value",
    right=[
        (r"\sqrt{12}", r"2\sqrt{3}", "a root, only not the shortest"), (r"\sqrt2", r"\sqrt{2}"),
        ("√2", r"\sqrt{2}"), (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"), ("2π", r"2\pi"),
        (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"), (r"\ln 4", r"2 \ln 2"), ("e^{2}", "e^2"),
        (r"\frac{\pi}{4}", r"\pi/4"), (r"0.25\pi", r"\frac{\pi}{4}"),
        (r"\frac{1}{4}\pi", r"\frac{\pi}{4}"), (r"1+\sqrt{2}", r"\sqrt{2}+1"),
        (r"2(1+\sqrt{2})", r"2+2\sqrt{2}"),
        (r"\frac{1+\sqrt{5}}{2}", r"\frac{1}{2}+\frac{\sqrt{5}}{2}"), ("2^{2023}", "2^{2023}"),
        (r"\frac{4\sqrt{3}}{3}", r"\frac{4}{\sqrt{3}}"), (r"\sqrt[3]{4}", "4^{1/3}"),
        (r"2\pi + \pi = 3\pi", r"3\pi", "done after the last ="), ("184756", r"\binom{20}{10}"),
        (r"\frac{20!}{10!\,10!}", r"\binom{20}{10}", "the reference is left undone too"),
        (r"\log_2 3", r"\frac{\ln 3}{\ln 2}"), (r"3-2\sqrt{2}", r"-2\sqrt{2}+3"),
        (r"\sqrt{3}/2", r"\frac{\sqrt{3}}{2}"), (r"e\pi", r"\pi e"),
        (r"\sqrt{6}\pi", r"\pi\sqrt{6}"),
        (r"\frac{\sqrt{6}+\sqrt{2}}{4}", r"\frac{\sqrt{2}+\sqrt{6}}{4}"),
        (r"\arctan\frac{1}{2}", r"\arctan \frac12"), ("1.41421356", r"\sqrt{2}", "six decimals"),
        (r"\cos 20^\circ", r"\cos\frac{\pi}{9}"), (r"\pi^2", r"\pi^{2}"),
        ("2^{100}", "1267650600228229401496703205376", "no calculator writes it out"),
        (r"\sqrt {51}", r"\sqrt{51}"), ("2*pi", r"2\pi"), ("pi/4", r"\frac{\pi}{4}"),
        ("sqrt(3)/2", r"\frac{\sqrt3}{2}"), ("sqrt2", r"\sqrt{2}"), (r"1-\frac{1}{e}", "1-e^{-1}"),
        (r"\frac{2017!}{2}", "2017!/2"),
    ],
    wrong=[
        (r"\pi+\pi", r"2\pi"), (r"2 \cdot 3\pi", r"6\pi"), (r"\sqrt{2}+\sqrt{2}", r"2\sqrt{2}"),
        (r"\sqrt{8}+\sqrt{2}", r"3\sqrt{2}"), (r"\sin 60^\circ", r"\frac{\sqrt{3}}{2}"),
        (r"\arctan 1", r"\frac{\pi}{4}"), (r"\tan 60^\circ", r"\sqrt{3}"),
        (r"\frac{12\pi}{3}", r"4\pi"), (r"(1+\sqrt{2})^2", r"3+2\sqrt{2}"),
        (r"1+1+\sqrt{2}", r"2+\sqrt{2}"), (r"2^2\pi", r"4\pi"), (r"\pi \cdot 3^2", r"9\pi"),
        (r"\pi(5^2-4^2)", r"9\pi"), (r"\frac{\pi}{2}+\frac{\pi}{4}", r"\frac{3\pi}{4}"),
        (r"\sqrt{5+7}", r"2\sqrt{3}"), (r"\sqrt{3^2+2^2}", r"\sqrt{13}"),
        (r"2\sqrt{3} \cdot \sqrt{2}", r"2\sqrt{6}"),
        (r"\frac{1}{2}\cdot 6 \cdot \sqrt{3}", r"3\sqrt{3}"), (r"\ln 2 + \ln 2", r"2\ln 2"),
        (r"\ln(3 \cdot 5)", r"\ln 15"), ("e^{1+1}", "e^2"), (r"\sqrt{3}", r"\sqrt{2}"),
        ("e^2", "e^3"), ("12 pi", "12"), (r"\pi", r"2\pi"),
        (r"\int_0^1 \frac{1}{1+x^2}\,dx", r"\frac{\pi}{4}"),
        (r"\sum_{n=1}^\infty \frac{1}{n^2}", r"\frac{\pi^2}{6}"),
        (r"\lim_{n\to\infty} (1+1/n)^n", "e"), (r"\frac{10!}{5!}+1", r"\sqrt{2}"),
        ("2023!", "2023! + 1"), ("1.41", r"\sqrt{2}", "rounded"),
        (r"512 \cdot 512 + 512 \cdot 512", "2^{19}", "a sum, and the reference has none"),
        (r"2(1+\sqrt{2})+1", r"3+2\sqrt2"), (r"\frac{10\pi}{2}", r"5\pi"),
        ("2^{2018}", "2^{2018}-1"), (r"e^{\ln 3}", "3"), (r"\sqrt{2}\cdot\sqrt{3}", r"\sqrt{6}"),
        (r"|-\sqrt{2}|", r"\sqrt2"), (r"\zeta(2)", r"\frac{\pi^2}{6}"),
    ])

cases(
    "expressions", "equal by algebra, as far evaluated as a simplified form",
    right=[
        ("x+1", "1+x"), ("(x+1)^2", "x^2+2x+1"), ("y=2x+1", "2x+1"), ("3+4i", "4i+3"),
        ("x²", "x^2"), (r"a \cdot b", "ab"), ("x^2+2x+1", "(x+1)^2"),
        (r"\frac{x+1}{2}", r"\frac{x}{2}+\frac{1}{2}"), (r"\frac{n(n+1)}{2}", r"\frac{n^2+n}{2}"),
        (r"\sin 2x", r"2\sin x\cos x"), ("x¹⁰", "x^{10}"), ("x^2y^2", "(xy)^2"),
        ("e^{x^2}", "e^{x^2}"), ("2^{2^n}+1", "2^{2^n}+1"), ("2^{n+1}-1", r"2 \cdot 2^n - 1"),
        (r"\frac{1}{x^2}", "x^{-2}"), (r"\sqrt{x}", "x^{1/2}"), ("-x+3", "3-x"), ("-(x-3)", "3-x"),
        ("6x", "6x"), (r"\lfloor n/2 \rfloor", r"\left\lfloor \frac{n}{2} \right\rfloor"),
        ("⌊n/2⌋", r"\lfloor \frac{n}{2} \rfloor"), (r"x\sqrt{2}", r"\sqrt{2}x"),
        (r"\frac{2}{3}x^3 + C", r"\frac{2x^3}{3}+C"), ("n!", "n!"),
        (r"\binom{n}{2}", r"\frac{n(n-1)}{2}"), (r"\ln|x|+C", r"C+\ln|x|"),
        (r"\pi r^2 h", r"\pi h r^2"), (r"\frac12 g t^2", r"\frac{g t^2}{2}"),
        (r"\mathbf{x}+1", "x+1"),
        (r"\sum_{i=1}^{n} i", r"\sum_{i=1}^{n} i", "the reference's own text"),
        (r"\frac{1}{2}mv^2", r"\frac{mv^{2}}{2}"), (r"\frac{mg}{k}", "mg/k"), ("3x^2", r"3\,x^2"),
        ("f(x)=x^2+1", "x^2+1"), ("x^2+1", "f(x)=x^2+1"), (r"2x\cos(x^2)", r"2 x \cos x^2"),
        (r"\alpha+\beta", r"\beta+\alpha"), ("α+β", r"\alpha+\beta"), ("(x-1)(x+1)", "x^2-1"),
        (r"\frac{a}{b}c", r"\frac{ac}{b}"),
        (r"\sqrt{\frac{2 m U}{\hbar^2}}",
         r"\frac{\sqrt{2mU}}{\hbar}",
         "letters of a formula are positive"),
        (r"I_0 e^{-t/\tau}", r"I_{0} e^{-\frac{t}{\tau}}"), ("x^(1/2)", r"\sqrt{x}"),
        ("(x+1)/(x-1)", r"\frac{x+1}{x-1}"),
    ],
    wrong=[
        ("x^2 + 1", "x^2 - 1"), ("2x", "x"), ("x^2+2^2", "x^2+4", "a power is left"),
        (r"\frac{d}{dx} x^2", "2x"), (r"\int 2x\,dx", "x^2"), ("2x+3x", "5x", "like terms"),
        ("x+x", "2x", "like terms"), (r"2 \cdot 3x", "6x"), (r"x \cdot x", "x^2"),
        (r"x^2 \cdot x^3", "x^5"), (r"\frac{x^2-1}{x-1}", "x+1", "not cancelled"),
        (r"\frac{6x^2}{2x}", "3x"), (r"\frac{6x}{2}", "3x"),
        (r"\lim_{h\to 0}\frac{(x+h)^2-x^2}{h}", "2x"),
        (r"\frac{1}{2} g t", "1/2", "letters are no unit"), ("2 m g", "2"),
        (r"\pi r^2 h", r"\pi r^2"), (r"\sqrt{3}s", r"\sqrt{3}"), ("2 x", "2"), ("5a", "5"),
        (r"\frac{\pi}{4} r", r"\frac{\pi}{4}"), (r"12 \pi h", r"12\pi"), ("f'(x)", "f(x)"),
        ("x+1+2", "x+3"), (r"\sum_{i=1}^{n} i", r"\frac{n(n+1)}{2}"), ("x", "y"), ("x^3", "x^2"),
        ("a+b", "ab"), ("2^n", "n^2"), ("x h", "x"), ("3(x+2)+1", "3x+7", "like terms"),
        (r"I_1 e^{-t/\tau}", r"I_0 e^{-t/\tau}"), ("|x|", "x"), (r"\sqrt{x^2}", "x"),
        ("x^{2+1}", "x^3"), (r"(\sin x)'", r"\cos x"),
    ])

cases(
    "the last = sign", "what follows the last = is the answer, if what stands before agrees",
    right=[
        ("x=5", "5"), ("5", "x=5"), (r"k_{\max} = 6", "6"), (r"\gcd(a,b) = 6", "6"),
        (r"\lfloor 100\pi \rfloor = 314", "314"), (r"\lim_{n \to \infty} a_n = 8", "8"),
        ("m+n = 42", "42"), ("f(3) = 42", "42"), (r"P(A) = \frac{1}{4}", "1/4"),
        ("S_{10} = 55", "55"), (r"\angle ABC = 60^\circ", "60"), (r"AB = 5\sqrt{2}", r"5\sqrt{2}"),
        (r"\int_0^1 x\,dx = \frac12", "1/2"), ("|z|^2 = 25", "25"), (r"\text{Area} = 12", "12"),
        (r"\sum_{k=1}^{8} k = 36", "36"), ("x = $2$", "2"), (r"\max f = 7", "7"),
        ("n = 2k+1 = 7", "7"), ("a+b+c=10", "10"), (r"\pi \approx 3.14", "3.14"),
        (r"\frac{22}{7} \approx 3.143", r"\frac{22}{7}"), (r"x \approx 3.14", "3.14"),
        (r"\frac{dy}{dx} = 3", "3"), ("x_1 = 5", "x_{1} = 5"), (r"\overline{AB} = 7", "7"),
        (r"\det A = -2", "-2"), (r"\cos\theta = \frac{3}{5}", "3/5"),
        (r"P(X=2) = \frac{3}{8}", "3/8"),
    ],
    wrong=[
        ("x=5", "x=6"), ("x=5", "y=5", "another variable"), ("41=42", "42", "false"),
        ("42=41", "41"), ("3x=15", "5", "not solved"), ("3x=42", "42", "then x is 14"),
        ("2x=84", "x=42", "not solved"), ("x+1=43", "42"), ("x^2=16", "4"), ("x^2=16", "16"),
        ("x-42=0", "42"), ("x-42=0", "0"), ("42=x=43", "42"), ("40+1=42", "42", "false"),
        (r"2 \ne 3", "2"), ("x=", "5"), ("=5=6", "5"), (r"x \approx 42 \approx 43", "42"),
        (r"42 \approx 50", "42", "untrue"), (r"x \ne 5", "5"), ("x>5", "5"),
        (r"42 = 6 \cdot 7", "42", "the work stands last"),
    ])

cases(
    "equations", "an equation as the reference: the same curve",
    right=[
        ("x^2+y^2=25", "x^2 + y^2 = 25"), ("x^2+y^2-25=0", "x^2+y^2=25"), ("2x-y+1=0", "y=2x+1"),
        ("y = 2x+1", "y=1+2x"), ("4x+6y=12", "2x+3y=6"),
        (r"\frac{x^2}{4}+\frac{y^2}{9}=1", r"\frac{y^2}{9}+\frac{x^2}{4}=1"), ("y=-3x", "3x+y=0"),
        ("x=2", "x = 2"), ("y = x^2", "y=x^{2}"),
    ],
    wrong=[
        ("x^2+y^2=16", "x^2+y^2=25"), ("y=2x-1", "y=2x+1"), ("x=2", "y=2"), ("25", "x^2+y^2=25"),
        ("x^2+y^2", "x^2+y^2=25"), ("y>2x+1", "y=2x+1"),
    ])

# ---------- units and words after a number ----------

cases(
    "units", "a unit from the list, in any spelling; where both have one, the same quantity",
    right=[
        (r"5 \text{ cm}", "5"), ("5", r"5\text{ cm}"), (r"5\,\mathrm{m/s}", "5"),
        (r"12 \text{ square units}", "12"), (r"6 \text{ cm}^2", "6"), ("3 km/h", "3"),
        (r"\text{3 hours}", "3"), ("9.8 m/s²", "9.8"),
        (r"9.8\ \frac{\mathrm{m}}{\mathrm{s}^2}", "9.8"),
        (r"8.314 \text{ J mol}^{-1}\text{ K}^{-1}", "8.314"), (r"50\ \Omega", "50"),
        (r"3\ \mu\text{m}", "3"), (r"5\text{ m}", r"500\text{ cm}", "converted"),
        ("2 hours", r"120 \text{ minutes}"), (r"1.5\times 10^{-6}\text{ m}", r"1.5\ \mu\mathrm{m}"),
        ("12 cm^2", "12"), (r"30 \text{ mph}", "30"), (r"30 \text{ miles per hour}", "30 mph"),
        (r"5\,\text{kg}\cdot\text{m/s}^2", r"5\text{ N}"), (r"100\,^\circ\text{C}", "100"),
        ("20°C", r"20^\circ\mathrm{C}"),
        (r"2.5 \text{ hours}", r"2 \text{ hours } 30 \text{ minutes}"),
        (r"2 \text{ hours and } 30 \text{ minutes}", r"150 \text{ minutes}"),
        (r"12\pi \text{ cm}^2", r"12\pi"), (r"12\pi", r"12\pi \text{ square inches}"),
        (r"2\sqrt{3}\text{ m}", r"2\sqrt{3}"), (r"36 \text{ students}", "36"), ("12 apples", "12"),
        (r"18 \text{ eggs}", "18"), (r"4 \text{ solutions}", "4"), (r"6 \text{ ways}", "6"),
        (r"5{\rm \ cm}", "5"), (r"3\text{kW}", r"3000 \text{ W}"), (r"7\text{ ft}", "7 feet"),
        (r"10\text{ kg m}^2/\text{s}", "10"), (r"4.2\ \mathrm{kJ/mol}", "4.2"),
        (r"\frac{3}{4} \text{ inch}", "3/4"), (r"\frac{1}{2}\text{ mile}", "0.5"),
        (r"3\frac{1}{2} \text{ hours}", "7/2"),
        (r"9.8 \text{ meters per second squared}", r"9.8 \text{ m/s}^2"),
        (r"1.6 \times 10^{-19} \text{ C}", "1.6e-19"), (r"25 \text{ cubic feet}", "25"),
        (r"5\mbox{ cm}", "5"), ("5 m", r"5\text{ m}"),
        (r"10\text{ N}\cdot\text{m}", r"10 \text{ J}"), (r"2 \text{ days}", "48 hours"),
        (r"3\ \text{Å}", "3"), (r"1{,}500 \text{ m}", "1.5 km"), (r"42 \text{ units}", "42"),
        (r"42 \text{ points}", "42"), ("4 in.", "4"),
        (r"656 \text{ nm}", r"6.56 \times 10^{-7} \text{ m}"), (r"60 \text{ sec}", "1 min"),
        (r"3 \text{ books}", "3"), (r"15 \text{ people}", "15"), (r"120 \text{ km/h}", "120"),
        ("13.6 eV", "13.6"), (r"5\ \mathrm{cm^2}", "5"),
        (r"25 \text{ m}^2", r"25 \text{ square meters}"), ("2 hrs", "2"),
        ("6 feet 2 inches", "74 inches"), (r"60 \text{ years old}", "60"),
        (r"4700\ \Omega", r"4.7\ \mathrm{k\Omega}"), (r"72\text{ km/h}", r"20\text{ m/s}"),
        ("7 dollars and 50 cents", r"\$7.50"),
    ],
    wrong=[
        (r"6 \text{ cm}", "7"), (r"5\text{ cm}", r"5 \text{ m}", "another length"),
        (r"5 \text{ kg}", r"5 \text{ m}"), (r"6 \text{ hours and } 30 \text{ minutes}", "6"),
        (r"60 \text{ minutes}", r"60 \text{ seconds}"), (r"5 \text{ m/s}", r"5 \text{ m/s}^2"),
        (r"5 \text{ cm}^2", r"5 \text{ cm}^3"), ("42 or none", "42"),
        (r"42 \text{ is wrong}", "42"), (r"42 \text{ or so}", "42"), (r"42 \text{ (maybe)}", "42"),
        (r"42 \text{ approximately}", "42"), (r"42 \text{ plus one}", "42"),
        (r"42 \text{ times } x", "42"), (r"42 \text{ not}", "42"), (r"42 \text{ minus } 1", "42"),
        ("42 guess", "42"), (r"42 \text{ squared}", "42"), (r"2 \text{ (or 3)}", "2"),
        ("2 or 3", "2"), ("maybe 2", "2"), (r"\text{about } 42", "42"), (r"\text{not } 42", "42"),
        (r"\text{less than } 42", "42"), (r"42 \text{ pi}", "42"), (r"42 \text{ half}", "42"),
        ("5 m x", "5"), (r"5 \text{ km}", r"5 \text{ miles}"), (r"\text{at least } 42", "42"),
        (r"3\text{ mW}", r"3\text{ MW}", "milli is not mega"),
        (r"12\pi \text{ cm}", r"12\pi \text{ m}"), (r"42 \text{ tens}", "42"),
        (r"42 \text{ thirds}", "42"), (r"42\text{ if }x>0", "42"), ("42 else", "42"),
        (r"42 \text{ in base } 7", "42"), (r"42\text{ fewer}", "42"), ("42 unless", "42"),
        (r"5\text{ cm} \times 2", "5"), ("5 and a half", "5"), ("50% of 84", "42"),
        ("half of 84", "42"), ("twice 21", "42"), ("5 cm or 6 cm", "5"),
        (r"\pi \text{ is wrong}", r"\pi"), ("5 pairs of two", "5"),
    ])

cases(
    "multipliers, percent, money, degrees",
    "a multiplier multiplies; percent, money and degrees as people write them",
    right=[
        (r"42 \text{ million}", "42000000"), ("42 million", "42,000,000"),
        (r"3 \text{ dozen}", "36"), (r"\$5.2 \text{ million}", "5200000"),
        (r"5.2 \text{ million dollars}", "5,200,000"), ("3 hundred", "300"),
        (r"1.5 \text{ billion}", r"1.5 \times 10^9"),
        (r"42 \text{ million}", r"42 \text{ million}"), (r"50\%", "50"), ("50%", r"50\%"),
        (r"50\%", "0.5"), ("0.5", r"50\%"), (r"0.01\%", "0.01"), (r"50 \text{ percent}", r"50\%"),
        ("50 percent", "50"), (r"12.5\,\%", r"12.5\%"), (r"33\frac{1}{3}\%", r"\frac{1}{3}"),
        (r"\$5", "5"), (r"\$5.00", "5"), ("$5$", "5"), ("36 dollars", r"\$36"),
        (r"\$36", r"36 \text{ dollars}"), ("36", r"\$36"), ("€30", "30"), ("30 euros", "€30"),
        (r"30 \text{ euros}", "30"), (r"50 \text{ cents}", r"\$0.50"), ("75¢", "75 cents"),
        ("2 dollars", "2"), (r"\$1{,}250", "1250"), (r"\$18 \text{ per hour}", "18"), ("£20", "20"),
        (r"-\$5", "-5"), (r"\$ 12.50", "12.5"), (r"90^\circ", "90"), ("90°", "90"),
        (r"90^{\circ}", r"90^\circ"), (r"60^\circ", r"\frac{\pi}{3}"),
        (r"\frac{\pi}{3}", r"60^\circ"), (r"\frac{\pi}{3} \text{ radians}", r"\frac{\pi}{3}"),
        (r"45 \text{ degrees}", r"45^\circ"), (r"90 \text{ deg}", "90"),
        (r"\frac{\pi}{2} \text{ rad}", r"\frac{\pi}{2}"), (r"22.5^\circ", "22.5"),
        (r"\frac{\pi}{3}", r"60 \text{ degrees}"),
        (r"\sqrt{3}", r"\tan 60^\circ", "the reference is left undone"),
        (r"\cos 40^{\circ}", r"\cos 40^\circ"), (r"\sin(40^\circ)", r"\sin 40^\circ"),
        (r"135\degree", "135"),
    ],
    wrong=[
        ("42 million", "42"), ("42 dozen", "42"), (r"42 \text{ thousand}", "42"),
        (r"5 \text{ million}", r"5 \text{ billion}"), (r"42 \text{ hundred}", "42"), (r"5\%", "50"),
        (r"50\%", "5"), (r"5\%", "0.5"), ("45°", "90"), (r"\$5", "€5", "another currency"),
        ("5 cents", r"\$5"), (r"30^\circ", r"\frac{\pi}{3}"),
        (r"\frac{\pi}{3}", "60", "no degrees are asked for"),
        (r"\sin 40", r"\sin 40^\circ", "radians"), (r"\cos 20", r"\cos 20^\circ"),
        ("60", r"\frac{\pi}{3}"), (r"\$42 \text{ thousand}", "42"), (r"\$5 \text{ meters}", "5"),
        (r"\frac{\pi}{3}^\circ", r"\frac{\pi}{3}", "degrees of radians"),
        (r"\pi \text{ dozen}", r"\pi"), (r"5\pi \text{ million}", r"5\pi"), ("$18-$20", "18"),
    ])

cases(
    "times and ratios", "a time of day is the same minute; a ratio is the same ratio",
    right=[
        ("9:30", "9:30"), ("9:30 a.m.", "9:30 AM"), ("9:30 am", "9:30"), ("09:30", "9:30"),
        (r"9:30 \text{ p.m.}", "9:30 PM"), ("3 p.m.", "3:00 pm"), ("15:00", "3 p.m."),
        ("3:4", "3:4"), ("3 : 4", "3:4"), ("1:2:3", "1:2:3"), ("6:8", "6 : 8"),
        (r"\frac{3}{4}", "3:4"), ("2:4", "1:2"),
    ],
    wrong=[
        ("9:30 a.m.", "9:30 p.m."), ("3 p.m.", "3 a.m."), ("9:30", "9:31"), ("9:30", "21:30"),
        (r"3:30 \text{ a.m.}", "15:30"), ("3:4", "4:3"), ("1:2:3", "3:2:1"), ("3:4", "3"),
        ("1:3:2", "1:2:3"),
    ])

cases(
    "a number and other words", "one answer, and no hedge around it",
    right=[
        ("the answer is $2$", "2"), (r"\text{The answer is } 42", "42"),
        (r"\text{The final answer is: } 42", "42"), (r"\text{Answer: } 42", "42"),
        (r"{\bf 2019}", "2019"), (r"\Large 42", "42"), (r"\mathbf{26}", "26"),
        (r"\textbf{26}", "26"), (r"\displaystyle \frac{1}{2}", "1/2"), (r"\text{42}", "42"),
        (r"\boldsymbol{42}", "42"), (r"\bf{42}", "42"), (r"\mathrm{42}", "42"),
    ],
    wrong=[
        (")))2", "2"), (r"2\\3", "2"), (r"\pm 2", "2"), ("2,3", "3"), (r"42 \text{ or } 43", "43"),
        (r"42 \text{ or } 43", "42"), (r"\text{The answer is not } 42", "42"),
        (r"\text{either } 42", "42"), ("42/43", "42"), ("42 43", "42"), ("42; 43", "42"),
        (r"42\quad 43", "43"), (r"\text{I think } 42", "42"), ("??42", "42"),
        (r"42 \text{ and } 42.5", "42"), ("between 41 and 43", "42"), ("41 < x < 43", "42"),
        ("[42]", "43"), ("42 (43)", "42"), (r"42 \cup 43", "42"),
    ])

# ---------- letters and words ----------

cases(
    "letters", "one letter, by itself or with its option's text, and nothing that names another",
    right=[
        ("C", "C"), ("(C)", "C"), (r"\text{C}", "C"), (r"\text{(C)}", "C"), ("c", "C"), ("C.", "C"),
        ("C. 12 m/s", "C"), ("C) 12", "C"), (r"\textbf{(C)}\ 12", "C"), (r"B \text{ (pion)}", "B"),
        ("Option B", "B"), (r"\text{B - pion}", "B"), ("[B]", "B"), ("b. pion", "B"),
        ("A. 3.2 J", "A"), ("C", r"\text{(C)}"), (r"\textbf{(B) } 26", "B"),
        (r"\boldsymbol{B}", "B"), (r"\text{The answer is B}", "B"), ("(b)", "B"),
        (r"\mathbf{D}", "D"), (r"\mathrm{(D)}", "D"), (r"\textbf{(E)}", "E"),
        (r"\text{Choice D}", "D"), ("D: 14", "D"), ("(D) 14", "D"),
        (r"\text{The correct answer is (D)}", "D"), (r"\text{Answer: D}", "D"),
        ("B. A proton and an electron", "B", "an article"),
        (r"\text{C) a decrease in entropy}", "C"), ("D. 5 A", "D", "ampere"),
        (r"(B)\ \frac{1}{2}", "B"), (r"\mathsf{B}", "B"), (r"\textbf{B}", "B"),
        (r"\text{option (A)}", "A"), ("{A}", "A"), ("A.", "(A)"), (r"\text{B. } E = mc^2", "B"),
        (r"B) \(\pi/2\)", "B"), (r"\text{(C) } 3\pi", "C"), ("**B**", "B"), (r"\Large B", "B"),
        ("B, 12 cm", "B"), (r"\underline{C}", "C"), (r"\text{C. Both I and II}", "C", "numerals"),
        ("C) I only", "C"), ("B) I and II only", "B"), (r"\text{(C) neither of them}", "C"),
        ("Therefore, the answer is C", "C"),
        (r"\text{D. The reaction is a Diels-Alder reaction}", "D"), ("D. at a distance d", "D"),
    ],
    wrong=[
        ("B", "C"), ("(B)", "C"), ("12", "C"), ("Cat", "C"), ("A and C", "C"), ("A, B", "A"),
        ("(A) or (B)", "A"), ("(A)(B)(C)(D)", "A"), ("A. B. C. D.", "A"), ("B) pion, C) kaon", "B"),
        ("B", r"\text{(C)}"), ("A-B-C-D", "A"), ("A. B", "A"), ("A, but more likely B", "A"),
        ("a,b,c,d", "A"), ("(a) or (b)", "A"), ("A/B", "A"), ("A or B", "A"), ("A B C D", "A"),
        ("ABCD", "A"), ("A; B", "A"), ("A = B", "A"), (r"\text{A (not B)}", "A"), ("not A", "A"),
        (r"\text{A is wrong}", "A"), ("A? B?", "A"), ("A: no, B", "A"), ("A. or B.", "A"),
        ("A|B", "A"), ("A & B", "A"), ("A + B", "A"), (r"A \text{ or } C", "A"), ("A-D", "A"),
        ("A to D", "A"), (r"\{A, B\}", "A"), ("all", "A"), (r"\text{none}", "A"), ("(A", "B"),
        ("A, maybe", "A"), ("B, or else A", "B"), ("A)B)C)D)", "A"),
        (r"\text{A. 12 or B. 13}", "A"), ("AA", "A"), ("C. 27 D. 28", "C"), ("B (A is close)", "B"),
        ("D=A", "D"), ("C: 27; D: 28", "C"), (r"\text{either B or C}", "C"), ("D -> A", "D"),
        (r"\text{C is incorrect}", "C"), ("C?", "C"),
    ])

cases(
    "words", "the same words, in either case; a word is no product of letters",
    right=[
        (r"\text{east}", "east"), ("East", r"\text{east}"), (r"\text{Evelyn}", "Evelyn"),
        (r"\textbf{even}", r"\text{even}"), ("No solution", r"\text{no solution}"),
        (r"\text{Yes}", "Yes"), ("yes", r"\text{Yes}"), (r"\text{BCA}", "BCA"),
        ("BCA", r"\text{BCA}"), (r"\text{ellipse}", r"\text{Ellipse}"), (r"\mathrm{True}", "True"),
        ("Monday", r"\text{Monday}"), (r"\text{no solution}", r"\emptyset"),
        (r"\text{All real numbers}", r"\text{all real numbers}"),
        (r"\text{Navin}", r"\text{Navin}"), (r"\text{odd}", r"\text{ odd}"),
        (r"\text{Thursday.}", "Thursday"), (r"\text{neither}", "neither"),
        (r"\operatorname{even}", "even"), (r"\mathbf{Yes}", "Yes"),
        (r"\text{No solutions}", r"\varnothing"), (r"\infty", r"\text{infinity}"),
    ],
    wrong=[
        (r"\text{west}", r"\text{east}"), ("odd", "even"), ("None", "No solution"),
        (r"\text{No}", r"\text{Yes}"), ("BCA", "ABC", "an order"),
        (r"\text{tea}", r"\text{eat}", "other words"), (r"\text{yes or no}", "yes"),
        (r"\text{not even}", r"\text{even}"), (r"\text{even or odd}", r"\text{even}"),
        ("ADBC", "ABCD"), (r"\text{Yes, No}", "Yes"), (r"\text{north east}", r"\text{east}"),
        (r"\text{Tuesday or Monday}", "Monday"), ("eves", "seve"),
        (r"\text{true/false}", r"\text{true}"),
    ])

# ---------- several parts ----------

cases(
    "lists and sets", "the same members, in any order; each as finished as the reference's",
    right=[
        (r"\{2,1\}", r"\{1,2\}"), ("2, 1", "1,2"), (r"x=1 \text{ or } x=2", "1,2"),
        (r"1 \pm \sqrt{2}", r"1+\sqrt{2}, 1-\sqrt{2}"), (r"\emptyset", "∅"),
        (r"\varnothing", r"\emptyset"), ("$1$, $2$", "1,2"), ("1 and 2", "1,2"),
        (r"1 \text{ and } 2", r"\{1,2\}"), (r"\pm 2", "2, -2"), (r"\pm 2", r"\{-2,2\}"),
        ("-2,2", r"\pm 2"), (r"\{1, 2, 3\}", "1,2,3"), ("x=1, x=2", "x=2, x=1"), (r"\{5\}", "5"),
        ("5", r"\{5\}"), (r"\{\}", r"\emptyset"),
        (r"\left\{-1, \frac12\right\}", r"\frac{1}{2}, -1"), ("1; 2", "1,2"),
        (r"0, \pm 1", "-1,0,1"), (r"x \in \{1,2\}", "1,2"), (r"x = \pm 3", r"\pm 3"),
        ("x = 3, -3", r"\pm 3"), (r"\{1, 2\}", "2,1"),
        (r"\frac{1 \pm \sqrt{5}}{2}", r"\frac{1+\sqrt{5}}{2}, \frac{1-\sqrt{5}}{2}"),
        ("3, 5, and 7", "3,5,7"), (r"\sqrt{2}, -\sqrt{2}", r"\pm\sqrt{2}"),
        (r"\{(1,2),(3,4)\}", "(3,4),(1,2)"), (r"(1,2) \text{ and } (3,4)", "(1,2), (3,4)"),
        ("x=2, y=3", "x = 2, y = 3"), ("y=3, x=2", "x=2, y=3"),
        (r"\{x \in \mathbb{R} : x > 3\}", r"(3, \infty)"), (r"\text{A, C}", "A, C"),
        ("C, A", "A, C"), ("x_1=2, x_2=3", "2,3"),
        (r"1, \frac{-1\pm i\sqrt{3}}{2}",
         r"1, -\frac12+\frac{\sqrt3}{2}i, -\frac12-\frac{\sqrt3}{2}i"),
    ],
    wrong=[
        (r"\{1,2\}", r"\{1,3\}"), ("1", "1,2"), ("1,2,3", "1,2"),
        (r"\{\{1\},\{2\}\}", r"\{1,2\}", "sets in a set"), (r"\{\{1,2\}\}", r"\{1,2\}"),
        (r"\{1,1+1\}", r"\{1,2\}", "unfinished"), ("1,2,2", "1,2"), ("2", r"\pm 2"),
        (r"1+\sqrt{2}", r"1 \pm \sqrt{2}"), (r"\{0\}", r"\emptyset"), (r"x<\infty", r"\emptyset"),
        (r"\{\emptyset\}", r"\emptyset"), ("x=2, y=1", "x=1, y=2", "swapped"),
        (r"\{(2,1)\}", r"\{(1,2)\}"), ("A, B", "A, C"), (r"\{1,2\}", "(1,2)", "a set has no order"),
        ("1,2 or 3", "1,2"), (r"\{\{5\}\}", "5"), ("0", r"\emptyset"),
        (r"\{1,2,\ldots\}", r"\{1,2\}"), ("x^2=4", r"\pm 2", "not solved"),
        ("2<x<3", "2,3", "an interval"), ("x=1 or x=1+1", "1,2"),
    ])

cases(
    "tuples and intervals",
    "the same ends in the same order, each open or closed as in the reference",
    right=[
        ("(0,1)", "(0, 1)"), ("[0,1)", "[0,1)"), (r"(-\infty, 3]", r"(-\infty,3]"),
        ("(−∞,3]", r"(-\infty,3]"), (r"(-\infty,3]", r"x \le 3"),
        (r"(3,4)\cup(1,2)", r"(1,2)\cup(3,4)"), ("(1,2)∪(3,4)", r"(1,2)\cup(3,4)"),
        (r"\left(1,2\right)", "(1,2)"), (r"x \in [-2,7]", "[-2,7]"), (r"[2,\infty)", r"k \ge 2"),
        (r"(3,\pi/2)", r"\left( 3, \frac{\pi}{2} \right)"), (r"x \ge 3", r"[3,\infty)"),
        ("3<x<5", "(3,5)"), (r"-2 \le x \le 7", r"x \in [-2,7]"), ("]0,1[", "(0,1)"),
        (r"\{x \mid 0 < x < 1\}", "(0,1)"), (r"\{x : x \ge 3\}", r"[3,\infty)"),
        (r"x < -1 \text{ or } x > 3", r"(-\infty,-1)\cup(3,\infty)"),
        (r"(-\infty,-1)\cup(3,\infty)", r"x<-1 \text{ or } x>3"), ("5 > x > 3", "(3,5)"),
        ("3 < x", "x > 3"), (r"x \neq 2", r"(-\infty,2)\cup(2,\infty)"),
        (r"\langle 1,2 \rangle", "(1,2)"), ("(x,y)=(1,2)", "(1,2)"), ("x=1, y=2", "(1,2)"),
        ("(1,2)", "x=1, y=2"), ("1,2", "(1,2)"), (r"\left(\frac12, 3\right)", "(0.5,3)"),
        (r"[0, +\infty)", r"[0,\infty)"), ("(a,b,c) = (1,2,3)", "(1,2,3)"),
        (r"\left[-\tfrac12,\tfrac12\right]", r"[-\frac{1}{2},\frac{1}{2}]"),
        (r"0 \leqslant x < 1", "[0,1)"), ("A = (1,2)", "(1,2)"),
        (r"(r,\theta) = (3, \frac{\pi}{2})", r"(3,\frac{\pi}{2})"), (r"x \leq 3", r"x\le3"),
        (r"(-\infty, \infty)", r"(-\infty,+\infty)"), ("(1,\n2)", "(1,2)"), (r"\{(1,2)\}", "(1,2)"),
        (r"\mathbb{R}", r"(-\infty,\infty)"),
        (r"1 \leq x < 2 \text{ or } x > 5", r"[1,2)\cup(5,\infty)"), ("y=2, x=1", "(1,2)"),
    ],
    wrong=[
        ("[0,1)", "(0,1)"), ("[0,1]", "[0,2]"), ("(2,1)", "(1,2)"), ("k>2", r"k \ge 2"),
        ("x > 3", "x < 3"), ("x > 3", r"[3,\infty)"),
        ("x^2-5x+6>0", r"(-\infty,2)\cup(3,\infty)", "not solved"),
        ("x^2<9", "(-3,3)", "not solved"), ("(1,2,3)", "(1,2)"), ("]0,1[", "[0,1]"),
        (r"(1,2)\cup(3,5)", r"(1,2)\cup(3,4)"), ("(1,1+1)", "(1,2)", "unfinished"),
        ("(1,2)", "(1,2,3)"), (r"(-\infty,3)", r"(-\infty,3]"),
        (r"\{x \mid x^2 < 1\}", "(-1,1)", "not solved"), ("x^2 < 1", "(-1,1)", "not solved"),
        ("(x,y)=(2,1)", "(1,2)"), ("(1,2), (3,4)", "(1,2)"), ("0<x<1", "[0,1]"),
        ("[1,2]", r"\{1,2\}"), ("x<3", "3"), ("x>3", "3"), (r"x \ge 3", "3"),
        ("0 < x > 1", "(0,1)"), ("(1.5,2)", "(1,2)"), (r"(2\cdot 3, \frac{4}{2})", "(6,2)"),
        ("b=2, a=3", "(2,3)", "swapped"), (r"(\cos 0,\sin 0)", "(1,0)"),
    ])

cases(
    "matrices and vectors", "the same entries in the same places, each finished",
    right=[
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}"),
        (r"\begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}", r"\begin{pmatrix}1&0\\0&1\end{pmatrix}"),
        (r"\begin{pmatrix} 1/2 \\ 3 \end{pmatrix}",
         r"\begin{pmatrix} \frac{1}{2} \\ 3 \end{pmatrix}"),
        (r"\begin{pmatrix} 1 \\[4pt] 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        ("\\begin{pmatrix}\n1 & 2 \\\\\n3 & 4\n\\end{pmatrix}",
         r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
        (r"\left(\begin{array}{cc} 1 & 2 \\ 3 & 4 \end{array}\right)",
         r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \\ \end{pmatrix}",
         r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
        (r"A = \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
         r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
        (r"\mathbf{v} = \begin{pmatrix} 1 \\ 2 \end{pmatrix}",
         r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
        ("(1,2)", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "a vector"),
        (r"\left[\begin{matrix} 1 \\ 2 \end{matrix}\right]",
         r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
        (r"\begin{pmatrix} \sqrt{2} & 0 \\ 0 & x+1 \end{pmatrix}",
         r"\begin{pmatrix} \sqrt2 & 0 \\ 0 & 1+x \end{pmatrix}"),
        (r"\begin{pmatrix} \dfrac12 \\ -3 \end{pmatrix}",
         r"\begin{pmatrix} 1/2 \\ -3 \end{pmatrix}"),
        (r"\langle 1,2,3\rangle", r"\begin{pmatrix}1\\2\\3\end{pmatrix}"),
    ],
    wrong=[
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
         r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}"),
        (r"\begin{pmatrix} 1 & 0 \\ 0 & 2 \end{pmatrix}\begin{pmatrix} 1 \\ 1 \end{pmatrix}",
         r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
         "a product is left"),
        (r"\begin{pmatrix}1\\1\end{pmatrix}+\begin{pmatrix}0\\1\end{pmatrix}",
         r"\begin{pmatrix}1\\2\end{pmatrix}",
         "a sum is left"),
        (r"\begin{pmatrix} 1 \\ 1+1 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        (r"\begin{pmatrix} 1 & 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", "a row"),
        (r"\begin{pmatrix} 1 & 2 & 3 & 4 \end{pmatrix}",
         r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}^{-1}",
         r"\begin{pmatrix} -2 & 1 \\ 3/2 & -1/2 \end{pmatrix}"),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", "-2"),
        (r"2\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\4\end{pmatrix}"),
    ])

# ---------- indices, bases, complex numbers, white space ----------

cases(
    "bases and indices", "a base or an index belongs to what it stands at",
    right=[
        ("4210_5", "4210_{5}"), ("4210₅", "4210_5"), ("x_1", "x_{1}"),
        (r"4210_{\text{5}}", "4210_5"), ("a_n", "a_{n}"), ("(4210)_5", "4210_5"),
        ("2A_16", "2A_{16}"), ("x_1+x_2", "x_2+x_1"), ("4210", "4210_5", "the base was given"),
        ("a_{n+1}", "a_{n + 1}"),
    ],
    wrong=[
        ("4210_7", "4210_{5}"), ("11_2", "3"), ("x_1", "x_2"), ("42_7", "42", "in base 7 it is 30"),
        ("x", "x_1"), ("x_1", "x"), ("101_2", "101"), ("a_n", "a_m"), ("a_{10}", "a_1"),
        ("4211_5", "4210_5"), ("x_1+x_2", "x_1+x_3"), ("420_5", "4210_5"),
    ])

cases(
    "complex numbers", "i is the imaginary unit in whatever font; powers of it are worked out",
    right=[
        (r"6-5\mathrm{i}", "6-5i"), ("1/i", "-i"),
        (r"e^{i\pi/3}", r"\frac{1}{2}+\frac{\sqrt{3}}{2}i"), ("-5i+6", "6-5i"),
        (r"\frac{1}{2}(1+i\sqrt{3})", r"\frac{1+\sqrt{3}i}{2}"), ("3+4 i", "3+4i"),
        (r"2i\sqrt{2}", r"2\sqrt{2}i"), (r"\pm i", "i, -i"),
        (r"e^{\frac{2\pi i}{5}}", r"e^{2\pi i/5}"), (r"-\mathrm{i}", "-i"), ("a+bi", "bi+a"),
        (r"\frac{3+4i}{5}", r"\frac{3}{5}+\frac{4}{5}i"), ("z = 3+4i", "3+4i"),
    ],
    wrong=[
        ("3-4i", "3+4i"), ("i^2", "-1"), ("(1+i)^2", "2i"), (r"e^{i\pi}", "-1"), ("3+4", "3+4i"),
        ("i", "-i"), ("(2+i)+(1+3i)", "3+4i"), ("(1+i)(2-i)", "3+i"),
        ("5", "3+4i", "its size is no complex number"),
    ])

cases(
    "white space", "a new line is a space, and a space between digits is not nothing",
    right=[
        ("\n42\n", "42"), ("x\n=\n5", "5"), ("-\n\\frac{3}{4}", r"-\frac{3}{4}"),
        ("\\frac{3}{4}\n", "3/4"), ("1,\n2", "1,2"), ("\\{1,\n2\\}", r"\{1,2\}"), ("\t42", "42"),
        ("x\n+\n1", "x+1"), ("\\text{no\nsolution}", "no solution"),
    ],
    wrong=[
        ("-\n\\frac{3}{4}", r"\frac{3}{4}", "the sign stands in another line"), ("41\n42", "42"),
        ("42\n41", "42"), ("2\n\\pi", "2"), ("1\n2", "12"), ("41\n+1", "42"), ("43\n\n42", "42"),
        ("-\n42", "42"), ("\\sqrt{2}\n+1", r"\sqrt{2}"), ("42\n\\text{no, }43", "42"),
    ])

cases(
    "large",
    "towers are refused unread, by the size of their value; the reference's own text is right",
    right=[
        ("2^{2023}-1", "2^{2023}-1"), ("3^{100}", "3^{100}"), ("9^{50}", "3^{100}"),
        ("2023!", "2023!"), ("10^{100}", "10^{100}"),
    ],
    wrong=[
        ("9^{9^{9}}", "42"), ("(9999^{9999})^{9999}", "42"), ("(9999!)!", "42"), ("2^{99!}", "42"),
        ("9^{9^{9}}", r"\pi"), ("(9999^{9999})^{9999}", r"\pi"), ("(9999!)!", r"\pi"),
        ("2^{99!}", r"x+\pi"), ("10^{10^{10}}", "2^{100}"), ("2^{2024}", "2^{2023}"),
    ])

# (whole response, reference answer, verdict)
RESPONSES = [
    ("", "42", NO_ANSWER),
    ("I do not know.", "42", NO_ANSWER),
    ("42", "42", NO_ANSWER),
    ("So the result is 42.", "42", NO_ANSWER),  # a lucky number at the end does not count
    (r"So \boxed{42}.", "42", RIGHT),
    (r"So $\boxed{42}$.", "42", RIGHT),
    (r"\[ x = \boxed{42} \]", "42", RIGHT),
    (r"\boxed{x = 42}", "42", RIGHT),
    (r"First \boxed{1}, then \boxed{42}", "42", RIGHT),
    (r"First \boxed{42}, then \boxed{1}", "42", WRONG),  # the last box is the answer
    (r"First \boxed{42}, then \boxed{", "42", NO_ANSWER),
    (r"Hence \boxed{\frac{1}{2", r"\frac{1}{2}", NO_ANSWER),
    (r"\boxed{}", "42", NO_ANSWER),
    (r"\boxed", "42", NO_ANSWER),
    (r"\boxed{\boxed{42}}", "42", RIGHT),
    (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{\sqrt{2}}{2}", RIGHT),
    (r"\boxed{\left\{1, 2\right\}}", r"\{1,2\}", RIGHT),
    (r"\boxed{\{1, 2\}} are all", "1,2", RIGHT),
    (r"\boxed 5", "5", RIGHT),
    (r"$\boxed 5$", "5", RIGHT),
    (r"\fbox{42}", "42", RIGHT),
    (r"\boxed {42}", "42", RIGHT),
    ("\\boxed{\n42\n}", "42", RIGHT),
    (r"\boxed{$42$}", "42", RIGHT),
    ("Answer: 42", "42", RIGHT),
    ("answer : 42.", "42", RIGHT),
    ("**Final Answer:** 42", "42", RIGHT),
    ("**Answer**: $\\frac{1}{2}$", "1/2", RIGHT),
    ("Answer: 41\nAnswer: 42", "42", RIGHT),
    ("**Answer: 42**", "42", RIGHT),
    ("Answer: **42**", "42", RIGHT),
    ("**Answer:** **42**", "42", RIGHT),
    ("**Answer: $42$**", "42", RIGHT),
    ("**Answer: C**", "C", RIGHT),
    ("**Answer:**\n\n42", "42", RIGHT),
    ("Answer: ** ", "42", NO_ANSWER),
    ("Answer:", "42", NO_ANSWER),
    ("Answer: 43", "42", WRONG),
    (r"Answer: 43 \boxed{42}", "42", RIGHT),
    ("Answer: B", "B", RIGHT),
    ("The answer is (B)", "B", NO_ANSWER),
    ("答案 Answer：42", "42", RIGHT),
    ("\\boxed{42}\x00", "42", RIGHT),
    ("\\boxed{４２}", "42", RIGHT),
    ("<think>\\boxed{1}</think> \\boxed{42}", "42", RIGHT),
    (r"\boxed{" + "1" * 301 + "}", "1" * 301, RIGHT),
    (r"\boxed{" + "1" * 302 + "}", "42", WRONG),
    (r"\boxed{9^{9^{9}}}", "42", WRONG),
    (r"\boxed{9^{9^{9}}}", "9^{9^{9}}", RIGHT),
    (r"\boxed{2^{2^n}+1}", "2^{2^n}+1", RIGHT),
    (r"\boxed{x^2y^2}", "(xy)^2", RIGHT),
    (r"\boxed{e^{x^2}}", r"e^{x^2}", RIGHT),
]
