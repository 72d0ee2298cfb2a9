r"""Answers nobody should have to grade: what a policy writes by accident, or to break the grader.
More than 200, each inside a \boxed{}."""

import random


def hostile_answers():
    return [
        *towers(),
        *factorials(),
        *nested(),
        *digits(),
        *characters(),
        *BROKEN,
        *SOLVING,
        *noise(),
    ]


def towers():
    """Powers of powers, up to numbers that no memory holds."""
    return [
        *["^".join(["9"] * n) for n in range(3, 13)],
        *["9" + "^{9" * n + "}" * n for n in range(2, 12)],
        *["(" * n + "9" + "^9)" * n for n in range(2, 12)],
        *[rf"10^{{{n}}}" for n in (9_999, 99_999, 10**6, 10**9, 10**12)],
        "2^(2^(2^(2^5)))",
        "7^{7^{7^x}}",
        r"\exp(\exp(\exp(\exp(\exp(9)))))",
        "9**9**9**9",
        "(10^9)!",
    ]


def factorials():
    return [
        *["!" * n for n in (1, 50)],
        *[f"{n}!" for n in (10**4, 10**5, 10**6, 10**7, 10**9)],
        "((5!)!)!",
        "(((3!)!)!)!",
        "100!" * 50,
        r"\binom{10^9}{10^8}",
        r"\binom{1000000}{500000}",
    ]


def nested():
    """Brackets inside brackets: parsers backtrack, or overflow the stack."""
    brackets = (("(", ")"), ("{", "}"), (r"\{", r"\}"), ("[", "]"), (r"\left(", r"\right)"))
    answers = []
    for n in (10, 50, 90, 140, 5000):
        answers += [left * n + "1" + right * n for left, right in brackets]
    answers += [r"\frac{1}{" * n + "2" + "}" * n for n in (5, 20, 30, 1000)]
    answers += [r"\sqrt{" * n + "2" + "}" * n for n in (5, 20, 40, 1000)]
    answers += ["|" * n + "x" + "|" * n for n in (10, 100)]
    return answers


def digits():
    """Numbers of many digits, and signs without end."""
    return [
        *["7" * n for n in (299, 301, 10_000, 1_000_000, 5_000_000)],
        "0." + "3" * 250,
        "1" + "0" * 280,
        "1e999",
        "1e-999",
        "1e99999999",
        "1.5e123456789",
        "0" * 290 + "1",
        "-" * 200 + "1",
        "+-" * 140 + "1",
    ]


def characters():
    """Control characters, invisible ones, half a character, and what means something to a shell."""
    controls = (0, 1, 7, 8, 9, 10, 13, 27, 127)
    unusual = (0x202E, 0x200B, 0xFEFF, 0x0301, 0x1F600, 0xD800, 0xFFFF)
    answers = []
    for code in controls + unusual:
        answers += [chr(code), chr(code) * 100]
    return answers + [
        "\x00".join("12345"),
        "4\u0332" * 50,
        "\u0661\u0662\u0663",
        "\\" * 100,
        "\\\\" * 70,
        "$" * 99,
        "$$$",
        "%" * 99,
        "&" * 99,
        "#" * 99,
        "\n" * 250,
        "`rm`",
        "'; DROP TABLE",
        "__import__('os').abort()",
    ]


# Not LaTeX, not mathematics, or LaTeX that asks for much work.
BROKEN = [
    r"\frac",
    r"\frac{}{}",
    r"\frac{1}{0}",
    "1/0",
    "0/0",
    r"0^0",
    r"\sqrt",
    r"\sqrt[0]{2}",
    r"\left(",
    r"\right)",
    r"\begin{matrix}",
    r"\end{matrix}",
    r"\begin{pmatrix}" + "1&" * 90 + r"\end{pmatrix}",
    r"\begin{pmatrix}" + r"1\\" * 70 + r"\end{pmatrix}",
    r"\text{" * 20 + "}" * 20,
    r"x_{x_{x_{x_{x}}}}",
    "_" * 50,
    "^" * 50,
    "=" * 50,
    "1=2=3=4=5=6",
    "<" * 50,
    "1<2<3<4<x<y<z",
    ",".join("1" * 140),
    ",".join(map(str, range(70))),
    r"\input{/etc/passwd}",
    r"\def\x{\x\x}\x",
    r"\undefined{3}",
    r"\int_0^\infty e^{-x^2} dx",
    r"\sum_{n=1}^{\infty} \frac{1}{n^2}",
    r"\sum_{n=1}^{10^{9}} \frac{1}{n}",
    r"\prod_{k=1}^{1000000} k",
    r"\lim_{x \to 0} \frac{\sin x}{x}",
    r"\int \int \int \int x^x dx dx dx dx",
    r"\lim_{n \to \infty} \sum_{k=1}^{n} \sin(k!)",
    r"\frac{d^{100}}{dx^{100}} x^x",
    r"\gcd(10^{50}!, 7)",
    "\\log" * 40 + "2",
    r"\sin" * 50 + "x",
]

# What computer algebra would expand or solve, and take long over.
SOLVING = [
    "x^{50}+x^{49}+x+1=0",
    "(x+1)^{4000}",
    "(x+y+z+w)^{90}",
    "(x+y+z)^{400}",
    r"\sqrt{x+\sqrt{x+\sqrt{x+\sqrt{x+1}}}}=x^7",
    "x^{x^{x^x}}=2",
    r"\sin(x)^{99}+\cos(x)^{98}=\tan(x)^{97}",
    "x^{9999}-1=0",
    r"\{x : x^5+x+1>0\}",
    r"1.0000000001^{9999}",
    "7^{9999}",
    r"7^{9999} \cdot 11^{9999} / 13^{9999}",
    "2^{9999}+3^{9999}",
    r"\frac{7^{9999}}{7^{9998}}",
    r"\sqrt{7^{9999}}",
    r"\sin(10^{4000})",
    r"\lfloor \pi^{2000} \rfloor",
    "+".join(f"x^{{{n}}}" for n in range(2, 45)),
]


def noise():
    """Symbols of mathematics at random."""
    rng = random.Random(0)
    symbols = r"0123456789xyz+-*/^_=<>()[]{}\,.!|&%$ "
    answers = []
    for _ in range(60):
        length = rng.randint(5, 290)
        answers.append("".join(rng.choice(symbols) for _ in range(length)))
    return answers
