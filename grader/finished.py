r"""Expressions as trees of sympy: whether a calculator has nothing left to do in one, and whether
two have equal values.

What is finished is a list, because a list of what is not has holes. An answer may use the commands
that answers use (COMMANDS). In its tree, which the parser leaves unevaluated, no sum has like
terms, no product two plain numbers, no power or function of plain numbers a simpler value. What the
reference leaves undone, the answer may too.
"""
import functools
import math
import re

from grader.quantities import quantity

DIGITS = 20_000  # of the largest number that is computed with
LARGE = 10**15  # a number from here on may stay a power or a factorial


# ---------- trees ----------

# i is the imaginary unit, but not in \sin or x_i; the parser takes I for it, also that of I_0.
IMAGINARY = re.compile(r"\\[a-zA-Z]+|_\s*(?:\{[^{}]*\}|\w)|[iI]")
READ_AS = {"i": "I", "I": r"\Xi "}
IGNORED = re.compile(r"\\text|\d\s*_")  # what the parser would drop: words, the base of 42_7


@functools.lru_cache(4096)
def tree(latex):
    """The unevaluated tree for cleaned LaTeX, or None where it is no mathematics, or holds a number
    too large to be computed."""
    from latex2sympy2_extended import latex2sympy

    if IGNORED.search(latex):
        return None
    latex = IMAGINARY.sub(lambda part: READ_AS.get(part[0], part[0]), latex)
    try:
        parsed = latex2sympy(latex, is_real=True, normalization_config=None)
        return parsed if size(parsed) < DIGITS else None
    except Exception:  # the parser raises a bare Exception, and what it calls many others
        return None


def size(node):
    """Digits of the largest number that evaluating a tree would meet, about."""
    return max([abs(magnitude(node)), *(size(part) for part in node.args)])


@functools.lru_cache(4096)
def magnitude(node):
    """The decimal logarithm of the absolute value of a tree, about: 100 of 10^{100}. A letter
    counts as 3."""
    import sympy

    if node.is_Number:
        return float(sympy.log(abs(node), 10).evalf(5)) if node.is_finite and node else 0.0
    if node.is_Atom:
        return 0.5
    parts = [magnitude(part) for part in node.args]
    value = 10.0 ** min(parts[-1], 300)  # of the exponent, or of the argument
    if isinstance(node, sympy.Pow):
        return min(value * max(abs(parts[0]), 1e-3), 1e300)
    if isinstance(node, (sympy.factorial, sympy.exp, sympy.gamma)):
        return min(value * max(parts[0], 0.5), 1e300)
    if isinstance(node, sympy.Mul):
        return sum(parts)
    return max(parts) + math.log10(len(parts))


# ---------- finished ----------

# Besides these an answer may use the commands that its reference uses.
ORDINARY = r"""
\frac \sqrt \pi \cdot \times \infty \ln \log \exp \sin \cos \tan \cot \sec \csc \arcsin \arccos
\arctan \sinh \cosh \tanh \lfloor \rfloor \lceil \rceil \binom \emptyset \mathbb \pm \le \ge \ne
\alpha \beta \gamma \delta \epsilon \varepsilon \zeta \eta \theta \vartheta \iota \kappa \lambda
\mu \nu \xi \rho \sigma \tau \upsilon \phi \varphi \chi \psi \omega \Gamma \Delta \Theta \Lambda
\Sigma \Phi \Psi \Omega \hbar \ell \{ \} \setminus \overline \angle \triangle \vec \hat
"""
COMMANDS = frozenset(ORDINARY.split())
COMMAND = re.compile(r"\\(?:[a-zA-Z]+|.)")  # \frac or \{
WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{4,}")  # maybe
CHOOSE = re.compile(r"\\binom\s*\{?\s*\d+\s*\}?\s*\{?\s*\d")  # \binom{5}{2}
# \frac{4}{2} or 4/2, which the parser makes a 2 of
FRACTION = re.compile(r"\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d+)\s*/\s*(\d+)")
# 1 \cdot x, x \cdot 1, x^1, --x, which the tree does not show
IDLE = re.compile(r"(?<![\d.}])1\s*(?:\\cdot|\\times|\*)|(?:\\cdot|\\times|\*)\s*1(?![\d.])"
                  r"|\^1(?![\d./])|-\s*\(?\s*-")
COUNTING = re.compile(r"\\binom|!")


def finished(found, gold):
    """Whether a calculator has nothing left to do in an expression, apart from what the reference
    leaves undone. Both are cleaned LaTeX."""
    for pattern in (COMMAND, WORD):
        known = COMMANDS.union(pattern.findall(gold))
        if not known.issuperset(pattern.findall(found)):
            return False
    if found.count("'") != gold.count("'"):  # f' is read as f
        return False
    if IDLE.search(found) and not IDLE.search(gold):
        return False
    if CHOOSE.search(found) and not COUNTING.search(gold):
        return False
    if any(map(comes_out_even, FRACTION.findall(found))) and not FRACTION.search(gold):
        return False
    found_tree, gold_tree = tree(found), tree(gold)
    if found_tree is None or gold_tree is None:
        return False
    return undone(found_tree) <= undone(gold_tree) | allowed_by(gold, gold_tree)


def comes_out_even(fraction):
    """A match of FRACTION whose value is a whole number, but for the 3/1 of 3."""
    over, under, left, right = fraction
    over, under = int(over or left), int(under or right)
    return under > 1 and over % under == 0


def allowed_by(gold, gold_tree):
    """What an answer may leave undone although the reference does not do the very same: 2^{100}
    where the reference is written out, factorials for binomials, a product of powers."""
    number = quantity(gold)
    if COUNTING.search(gold):
        return {"factorial", "binomial", "product"}
    if number and abs(number.value) >= LARGE:
        return {"power", "factorial", "product"}
    return {"product"} if "power" in undone(gold_tree) else set()


def undone(node):
    """What a calculator would still do in a tree -> set of names of operations."""
    import sympy

    nodes = [part for part in sympy.preorder_traversal(node) if isinstance(part, sympy.Basic)]
    return set(map(undone_at, nodes)) - {None}


def undone_at(node):
    """The operation that is left undone at one node of a tree, or None."""
    import sympy

    if isinstance(node, sympy.Add):
        return "sum" if has_like_terms(node) else None
    if isinstance(node, sympy.Mul):
        return "product" if has_plain_product(node) else None
    if isinstance(node, sympy.Pow):
        return undone_power(*node.args)
    if isinstance(node, (sympy.Derivative, sympy.Integral, sympy.Sum, sympy.Product, sympy.Limit,
                         sympy.MatMul, sympy.MatAdd, sympy.MatPow)):
        return type(node).__name__
    if node.is_Atom or node.free_symbols or not isinstance(node, sympy.Expr):
        return None
    # \sin 30^\circ, \arctan 1, |-3|, 5!: sympy makes something else of it.
    return None if evaluated(node).has(type(node)) else type(node).__name__


def undone_power(base, exponent):
    r"""2^{10}, \sqrt{4}, (1+\sqrt{2})^2, (2x)^2, (x^2)^3 -> "power"; 1/(x-1) ->
    "division", which may cancel, unlike that of 1/2^n and 1/e^x; else None."""
    import sympy

    power = sympy.Pow(base, exponent, evaluate=False)
    if exponent.is_Integer and exponent > 1 and (
            base.is_Pow and base.args[1].is_Integer
            or base.is_Mul and any(factor.is_Integer for factor in base.args)):
        return "power"
    if power.free_symbols:
        return "division" if exponent.is_negative and base.is_polynomial() else None
    if exponent == -1 or base == 10 and exponent.is_Integer:  # 1/3, 10^8
        return None
    of_sum = isinstance(base, sympy.Add) and exponent.is_Integer
    return "power" if of_sum or evaluated(power).is_Rational else None


def evaluated(node):
    """What sympy makes of a tree of plain numbers by itself, without expanding it."""
    return node.doit() if size(node) < DIGITS else node


def has_like_terms(node):
    r"""Whether fewer terms are left when sympy adds them up: 41+1, \pi+\pi, 2x+3x, 3(x+2)+1."""
    import sympy

    terms = []
    for term in node.args:
        if term.as_coeff_Mul()[1].is_Add:
            term = sympy.expand_mul(term)
        terms += sympy.Add.make_args(term)
    # \ln 4 is 2\ln 2.
    added = sympy.Add(*(sympy.expand_log(evaluated(term)) for term in terms))
    return len(sympy.Add.make_args(added)) < len(terms)


def has_plain_product(node):
    r"""Whether there are two numbers to multiply (2 \cdot 3\pi), two roots or sums of numbers
    (\sqrt{2}\sqrt{3}), a letter twice (x \cdot x) or a fraction that comes out even (4\pi/2)."""
    import sympy

    constants = (sympy.pi, sympy.E, sympy.I)
    numbers, divisors, roots, letters = [], [], [], []
    factors = list(node.args)
    while factors:
        factor = factors.pop()
        base, exponent = factor.as_base_exp()
        if factor.is_Mul:
            factors += factor.args
        elif factor.is_Number and abs(factor) != 1:
            numbers.append(factor)
        elif exponent == -1 and base.is_Integer:
            divisors.append(base)
        elif (base.is_Symbol or base in constants) and exponent.is_number:
            letters.append(base)
        elif not factor.free_symbols and (
                factor.is_Add or factor.is_Pow and base.is_Integer and exponent.is_positive):
            roots += [factor] * (base != 10)
    if max(map(len, (numbers, divisors, roots)), default=0) > 1 or len(letters) > len(set(letters)):
        return True
    return bool(numbers and divisors) and numbers[0].is_Integer and numbers[0] % divisors[0] == 0


# ---------- values ----------

POINTS = (0.7361, -1.2893, 2.3717, 0.1931, -0.5479, 1.6180, 3.1073, -2.2361)


def number_of(latex):
    """The value of an expression without letters, a sympy number of 30 digits, or None."""
    import sympy

    parsed = tree(latex)
    if not isinstance(parsed, sympy.Expr) or parsed.free_symbols:
        return None
    value = parsed.evalf(30)
    return value if value.is_number and value.is_finite else None


def equal(gold, found):
    """Whether two expressions have equal values: exactly where these are fractions, else to forty
    digits; where one has a decimal number, to six decimals and six digits. With letters, at several
    points. Anything but expressions is for math-verify."""
    import sympy
    from math_verify import verify

    left, right = tree(gold), tree(found)
    if left is None or right is None:
        return False
    if not isinstance(left, sympy.Expr) or not isinstance(right, sympy.Expr):
        return bool(verify(left, right, timeout_seconds=None))  # the reference goes first
    rounded = bool(left.atoms(sympy.Float) | right.atoms(sympy.Float))
    letters = sorted(left.free_symbols | right.free_symbols, key=str)
    if not letters and not rounded and (difference := left.doit() - right.doit()).is_Rational:
        return difference == 0
    # Letters of a formula are lengths, masses, times: \sqrt{m^2 g} is m\sqrt{g}.
    positive = len(letters) > 1 and not (left.has(sympy.Abs) or right.has(sympy.Abs))
    verdicts = set()
    for shift in range(4 if letters else 1):
        point = {}
        for i, letter in enumerate(letters):
            value = POINTS[(i + 3 * shift) % len(POINTS)] + i // len(POINTS)
            point[letter] = sympy.Float(abs(value) if positive else value, 60)
        verdicts.add(close(*(side.evalf(60, subs=point) for side in (left, right)), rounded))
    return False not in verdicts and (True in verdicts or not letters)


def close(x, y, rounded):
    """Whether two values are equal -> bool, or None where neither is finite."""
    import sympy

    if not (x.is_number and y.is_number) or sympy.nan in (x, y):
        return False
    if not (x.is_finite and y.is_finite):
        return None if x == y else False
    larger = max(abs(x), abs(y))
    return bool(abs(x - y) <= (1e-6 * min(1, larger) if rounded else 1e-40 * larger))
