r"""Whether an answer is the reference, by mathematics, and finished.

A policy soon learns to repeat the question as its answer, so there is a list of what is finished:
- For a number, the ways to write a number down: 42, 3/4, 4.5e33, 50 %, 36 dollars (quantities.py).
- For an expression, one in which a calculator finds nothing to do: no sum, product, power or
  function of plain numbers with a simpler value, no like terms, no command that answers do not use.
- What the reference leaves undone, the answer may too.
Lists, tuples, intervals, sets and matrices are compared part by part, so this holds for each.
"""
import functools
import itertools
import math as numbers
import re

from answers import CHOICE, LONGEST, clean, extract, letter, plain, tight, wording
from quantities import UNITS, quantity, same_quantity, same_unit, unit_of

DEEPEST = 20  # brackets inside brackets: parsers backtrack
DIGITS = 20_000  # of the largest number that is computed with
LARGE = 10**15  # numbers over it may stay powers or factorials


def math(response, answer):
    """Right when the response's answer equals the reference mathematically and is finished, or is
    the same text, or, where the reference is a capital letter A to J, names that choice."""
    found = extract(response)
    if found is None:
        return None
    if len(found) > LONGEST:
        return found == answer.strip()
    gold, found = clean(answer), clean(found)
    if tight(found) == tight(gold):
        return True
    if choice := CHOICE.fullmatch(plain(gold)):
        return letter(found) == choice[1]
    if nesting(found) > DEEPEST:
        return False
    return same(alone(gold), alone(STATED.sub("", found)))


STATED = re.compile(  # The answer is
    r"^(?:\\text\{\s*)?(?:the\s+)?(?:final\s+|correct\s+)*answer\s*(?:is|:)\s*:?\s*\}?(?=[^}]*$)",
    re.IGNORECASE)


def alone(latex):
    r"""A set of one member as that member: \{5\} is 5."""
    single = re.fullmatch(r"\\\{([^{}]*)\\\}", latex)
    one = single and "empty" not in latex and not parts_of(single[1]) and not BUILDER.match(latex)
    return single[1] if one else latex


def boxed(answer):
    """A right response, for the canary."""
    return f"\\boxed{{{answer}}}"


math.example = boxed


def nesting(latex):
    """How many brackets are open at once, at most."""
    steps = [(c in "([{") - (c in ")]}") for c in latex]
    return max(itertools.accumulate(steps), default=0)


# ---------- kinds of answers ----------

def same(gold, found):
    """Whether cleaned LaTeX says the same as the cleaned reference."""
    if tight(gold) == tight(found):
        return True
    if quantity(gold) and quantity(found):
        return same_term(gold, found)
    gold, found = (plain(latex) if "," in latex and LISTED.fullmatch(latex) else latex
                   for latex in (gold, found))
    gold, found = (SAYINGS.get(wording(latex), latex) for latex in (gold, found))
    if as_time(gold) is not None:
        return as_time(gold) == as_time(found)
    if wording(gold) or wording(found):
        return plain(gold).casefold() == plain(found).casefold() or wording(gold) == wording(found)
    if as_based(gold) or as_based(found):  # the base may be left out, but 42_7 is not 42
        return as_based(gold) is not None and (
            as_based(gold) == as_based(found) or as_based(gold)[0] == found)
    gold_set, found_set = as_set(gold), as_set(found)
    if (gold_set, found_set) != (gold, found) and parts_of(gold_set) and parts_of(found_set):
        return same(gold_set, found_set)
    if parts_of(gold) or parts_of(found):
        return same_parts(gold, found)
    return same_side(gold, found)


LISTED = re.compile(r"\\text\{[^{}]*\}")  # \text{A, C}
CLOCK = re.compile(r"(\d{1,2}):(\d\d)\s*(?:([ap])\.?\s?m\.?)?", re.IGNORECASE)  # 9:30 a.m.
HOUR = re.compile(r"(\d{1,2})()\s*([ap])\.?\s?m\.?", re.IGNORECASE)  # 9 p.m.


def as_time(latex):
    """A time of day -> minutes since midnight, or None: 9:30 p.m. is 1290."""
    time = CLOCK.fullmatch(plain(latex)) or HOUR.fullmatch(plain(latex))
    if not time:
        return None
    hours, minutes, half = int(time[1]), int(time[2] or 0), (time[3] or "").lower()
    return (hours % 12 + 12 * (half == "p") if half else hours) * 60 + minutes


SAYINGS = {  # words -> what they mean in LaTeX
    "no solution": r"\emptyset", "no solutions": r"\emptyset", "empty set": r"\emptyset",
    "all real numbers": r"\mathbb{R}", "infinity": r"\infty",
}


def as_based(latex):
    """A number with its base, 4210_{5} -> ("4210", "5"), or None."""
    based = re.fullmatch(r"\(?(\w+?)\)?\s*_\s*\{?\s*(?:\\text\{)?(\d+|[a-z]{3,9})\s*\}{0,2}", latex)
    return based.groups() if based and based[1][0].isdigit() else None


INEQUALITY = re.compile(r"\s*(\\(?:le|ge|ne)(?![a-z])|[<>])\s*")  # \le or <
CONSTANT = re.compile(r"\\(?:frac|sqrt|pi|infty|ln|log)")  # letters that are no variable: \sqrt
BUILDER = re.compile(  # \{x \in \mathbb{R} : x > 3\}
    r"\\\{\s*([a-zA-Z])\s*(?:\\in\s*(?:\\mathbb\s*\{?R\}?|R))?\s*(?:\\mid|\\vert|[|:])(.*)\\\}")


def as_set(latex):
    r"""Inequalities of one variable as an interval or a union of them, and intervals in one
    spelling: x \ge 3 is [3,\infty), ]0,1[ is (0,1). Not x^2 > 9, which may be the question."""
    if builder := BUILDER.fullmatch(latex):
        latex = builder[2].strip()
    if outside := re.fullmatch(r"\]([^][]*,[^][]*)\[", latex):
        return f"({outside[1]})"
    ranges = [as_interval(part) for part in split(latex, ",") ]
    return r" \cup ".join(ranges) if all(ranges) else latex


def as_interval(latex):
    r"""-2 < x \le 7 -> (-2, 7], or None for what is no such inequality."""
    sides = INEQUALITY.split(latex)
    if len(sides) not in (3, 5):
        return None
    variables = [i for i, side in enumerate(sides) if re.fullmatch(r"\\?[a-zA-Z]+", side)
                 and not CONSTANT.fullmatch(side) and i % 2 == 0 and (len(side) == 1 or "\\" in side)]
    bounds = [side for i, side in enumerate(sides) if i % 2 == 0 and i not in variables]
    if len(variables) != 1 or any(re.search("[a-zA-Z]", CONSTANT.sub("", b)) for b in bounds):
        return None
    if len(sides) == 5:
        low, first, _, second, high = sides
        if variables != [2] or {first[-1], second[-1]} not in ({"<"}, {"e"}, {"<", "e"}, {">"},
                                                               {">", "e"}):
            return None
        if ">" in (first, second) or "ge" in first + second:
            low, first, second, high = high, MIRROR[second], MIRROR[first], low
        if {first, second} - {"<", r"\le"}:
            return None
        return f"{'(' if first == '<' else '['}{low},{high}{')' if second == '<' else ']'}"
    left, sign, right = sides
    if variables == [2]:
        left, sign, right = right, MIRROR[sign], left
    return {"<": rf"(-\infty,{right})", r"\le": rf"(-\infty,{right}]", ">": rf"({right},\infty)",
            r"\ge": rf"[{right},\infty)",
            r"\ne": rf"(-\infty,{right}) \cup ({right},\infty)"}[sign]


MIRROR = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\ne": r"\ne"}


# ---------- answers of several parts ----------

TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|.", re.DOTALL)  # \langle or \{ or 4
OPENING = {"(", "[", "{", r"\{", r"\langle", r"\begin"}
CLOSING = {")", "]", "}", r"\}", r"\rangle", r"\end"}
MATRIX = re.compile(
    r"[(\[]?\s*\\begin\s*\{([pbB]?matrix|array)\}(?:\{[clr|]*\})?(.*?)\\end\s*\{\1\}\s*[)\]]?")


def split(latex, *separators):
    """The pieces between separators that stand in no bracket."""
    pieces = [""]
    depth = 0
    for token in TOKEN.findall(latex):
        depth += (token in OPENING) - (token in CLOSING)
        if token in separators and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += token
    return [piece.strip() for piece in pieces]


def parts_of(latex):
    r"""The kind and the parts of an answer that has several, or None: ("()", ["1", "2"]) of (1, 2),
    ("list", ["1", "2"]) of 1,2, ("set", ...) of \{1,2\}."""
    if quantity(latex):  # 1,000
        return None
    if matrix := MATRIX.fullmatch(latex):
        rows = [row for row in re.split(r"\\\\", matrix[2]) if row.strip()]
        cells = [split(row, "&") for row in rows]
        return ("row" if len(cells) == 1 else f"matrix {len(cells)}"), list(itertools.chain(*cells))
    pieces = split(latex, r"\cup")
    if len(pieces) > 1:
        return "union", pieces
    pieces = [piece for piece in split(latex, ",", ";") if piece]
    pieces = [signed for piece in pieces for signed in both_signs(piece)]
    if len(pieces) > 1:
        return "list", pieces
    tokens = TOKEN.findall(latex.strip())
    kind = BRACKETS.get((tokens[0], tokens[-1])) if tokens else None
    inside = "".join(tokens[1:-1])
    if kind and balanced(inside):
        pieces = split(inside, ",", ";")
        if len(pieces) > 1 or kind == "set":
            return kind, [signed for piece in pieces for signed in both_signs(piece)]
    return None


BRACKETS = {(r"\{", r"\}"): "set", ("(", ")"): "()", ("[", "]"): "[]", ("(", "]"): "(]",
            ("[", ")"): "[)", (r"\langle", r"\rangle"): "()"}


def balanced(latex):
    """Whether no bracket is closed before it opens: in 1,2 but not in 1),(2."""
    steps = [(token in OPENING) - (token in CLOSING) for token in TOKEN.findall(latex)]
    return min(itertools.accumulate(steps), default=0) >= 0


def both_signs(latex):
    r"""1 \pm x -> 1 + x and 1 - x; anything else as it is."""
    if r"\pm" not in latex or latex.count(r"\pm") > 1 or r"\mp" in latex:
        return [latex]
    left = latex.split(r"\pm")[0].strip()
    plus = latex.replace(r"\pm", "+" if left and left[-1] not in "=({" else "")
    return [plus.strip(), latex.replace(r"\pm", "-").strip()]


def same_parts(gold, found):
    """Two answers of several parts: in order for tuples, intervals and matrices, in any order for
    lists, sets and unions."""
    if NAMED.match(gold) and not NAMED.match(found):
        gold = NAMED.sub("", gold)
    found = NAMED.sub("", found) if not NAMED.match(gold) else found
    if not (parts_of(gold) and parts_of(found)):
        return False
    (gold_kind, golds), (found_kind, founds) = parts_of(gold), parts_of(found)
    if len(golds) != len(founds):
        return False
    kinds = {gold_kind, found_kind}
    if kinds == {"list", "()"}:  # x=1, y=2 for (1,2)
        golds, founds = ([ASSIGNED.sub("", part) for part in parts] for parts in (golds, founds))
    elif len(kinds) > 1 and kinds not in ({"list", "set"}, {"row", "()"},
                                          {f"matrix {len(golds)}", "()"}):
        return False
    elif gold_kind in ("list", "set", "union"):
        if not all(map(ASSIGNED.match, golds)):
            founds = [ASSIGNED.sub("", part) for part in founds]
        return same_in_any_order(golds, founds)
    return all(itertools.starmap(same, zip(golds, founds, strict=True)))


NAMED = re.compile(  # (x,y)= of (x,y)=(1,2)
    r"^\s*(?:\(\s*\\?[a-zA-Z]+(?:\s*,\s*\\?[a-zA-Z]+)+\s*\)|[a-zA-Z])\s*=\s*(?=[\[({\\])")
ASSIGNED = re.compile(r"^\s*\\?[a-zA-Z]+(?:_\{?\w+\}?)?\s*=\s*(?=[^=]*$)")  # x= of x=1


def same_in_any_order(golds, founds):
    founds = list(founds)
    for gold in golds:
        match = next((i for i, found in enumerate(founds) if same(gold, found)), None)
        if match is None:
            return False
        del founds[match]
    return True


# ---------- equations ----------

NAME = re.compile(  # x, x_1, k_{\max}, f(x), P(A), \alpha, AB
    r"\\?[a-zA-Z]+\s*(?:_\s*(?:\w|\{[^{}]*\}))?'*\s*(?:\([^()]*\))?\s*")
UNSOLVED = re.compile(  # 3x, x+1, x^2
    r"\d\s*[a-zA-Z]|[a-zA-Z]\s*[-+]\s*\d|\d\s*[-+]\s*[a-zA-Z]|^[a-zA-Z]\s*\^\s*\{?\d")


def same_side(gold, found):
    r"""Two answers without parts. Of x = 5 or 41 + 1 = 42 what follows the last = is the answer;
    x = 5 is not y = 5, and 3x = 15 is a question."""
    golds, founds = split(gold, "="), split(found, "=")
    named = len(golds) > 1 and NAME.fullmatch(golds[0])
    if len(golds) > 1 and not named:
        return same_relation(gold, found)
    if len(founds) > 1:
        if named and not NAME.fullmatch(founds[0]):
            return not quantity(golds[1]) and same_relation(gold, found)
        if named and tight(founds[0]) != tight(golds[0]):
            return False
        if not leads_to(founds[0], founds[-1], UNSOLVED):
            return False
        if not all(leads_to(left, founds[-1]) for left in founds[1:-1]):
            return False
    if INEQUALITY.search(gold) or INEQUALITY.search(found):
        return same_relation(gold, found)
    exact, *rounded = split(founds[-1], r"\approx")
    if rounded and NAME.fullmatch(exact) and "\\" not in exact:  # x \approx 3.14
        exact, *rounded = rounded
    if rounded and not (len(rounded) == 1 and is_about(exact, rounded[0])):
        return False
    return any(same_term(golds[-1], side) for side in (exact, *rounded))


def leads_to(left, right, unsolved=None):
    """Whether left = right may stand in an answer: not 41 = 42, and not 3x = 42."""
    bare = BOUND.sub(" ", left)
    letters = set(re.findall("[a-zA-Z]", bare))
    if letters:
        return not (unsolved and len(letters) == 1 and unsolved.search(bare))
    if re.search(r"\d", left) and not re.search(r"\\(?!frac|cdot|times|sqrt|pi)[a-z]", left):
        return equal_by_value(left, right)
    return True


BOUND = re.compile(  # \\sum_{k=1}^8 or _1 of x_1
    r"\\[a-zA-Z]+(?:\s*[_^]\s*(?:\w|\{[^{}]*\}))*|_\s*(?:\w|\{[^{}]*\})")


def is_about(exact, rounded):
    r"""Of \frac{22}{7} \approx 3.14, whether it is true to a hundredth."""
    decimal = quantity(rounded)
    value = number_of(exact)
    return bool(decimal) and value is not None and (
        abs(value - decimal.value) <= abs(decimal.value) / 100)


def same_relation(gold, found):
    """Equations and inequalities of several variables, by math-verify."""
    from math_verify import verify

    trees = tree(gold), tree(found)
    return None not in trees and finished(found, gold) and bool(
        verify(*trees, timeout_seconds=None))


# ---------- terms ----------

def same_term(gold, found):
    """Two numbers or expressions, with or without a unit."""
    if tight(gold) == tight(found):
        return True
    gold_number, found_number = quantity(gold), quantity(found)
    turned = gold_number and gold_number.unit == UNITS["°"] and r"\pi" in found
    if gold_number and not turned and abs(gold_number.value) < LARGE:
        if not found_number or found_number.even and gold_number.value.denominator == 1:
            return ratio(gold, found)
        return same_quantity(gold_number, found_number)
    if gold_number and found_number:
        return same_quantity(gold_number, found_number)
    gold, found = in_radians(gold, found)
    (gold, gold_unit), (found, found_unit) = without_unit(gold), without_unit(found)
    if not same_unit(gold_unit, found_unit):
        return False
    if gold_unit and found_unit and gold_unit.scale != found_unit.scale:
        found = rf"{found_unit.scale / gold_unit.scale} \cdot ({found})"
    return finished(found, gold) and equal_by_value(gold, found)


def ratio(gold, found):
    """3 : 4 for 3/4, which nothing else with a colon is."""
    return bool(re.fullmatch(r"\d+ ?: ?\d+", found)) and same_term(gold, found.replace(":", "/"))


DEGREES = re.compile(r"\s*\^\s*\{?\s*\\circ\s*\}?")  # ^\circ
UNIT_AT_END = re.compile(  # \text{ cm}^2 or km/h
    r"(?<=[\w})!])\s*(\\text\s*\{.*|(?<=[ }])[a-zA-Z]{2,}(?:[ /^][a-zA-Z/^ 0-9{}-]*)?)$")


def in_radians(gold, found):
    r"""60^\circ and \pi/3 can be compared; degrees in both, outside of functions, are a unit."""
    if bool(DEGREES.search(gold)) != bool(DEGREES.search(found)) and r"\pi" in gold + found:
        return DEGREES.sub(r" \\cdot \\frac{\\pi}{180} ", gold), DEGREES.sub(
            r" \\cdot \\frac{\\pi}{180} ", found)
    return DEGREES.sub(r" \\cdot \\frac{\\pi}{180} ", gold), DEGREES.sub(
        r" \\cdot \\frac{\\pi}{180} ", found)


def without_unit(latex):
    r"""12\pi \text{ cm}^2 -> "12\pi" and its Unit, or None for the latter."""
    end = UNIT_AT_END.search(latex)
    unit = end and unit_of(end[1])
    return (latex[: end.start()].strip(), unit) if unit else (latex, None)


# ---------- finished ----------

# Besides these an answer may use the commands that its reference uses.
COMMANDS = set(r"""
\frac \sqrt \pi \cdot \times \infty \ln \log \exp \sin \cos \tan \cot \sec \csc \arcsin \arccos
\arctan \sinh \cosh \tanh \lfloor \rfloor \lceil \rceil \binom \emptyset \mathbb \pm \le \ge \ne
\alpha \beta \gamma \delta \epsilon \varepsilon \zeta \eta \theta \vartheta \iota \kappa \lambda
\mu \nu \xi \rho \sigma \tau \upsilon \phi \varphi \chi \psi \omega \Gamma \Delta \Theta \Lambda
\Sigma \Phi \Psi \Omega \hbar \ell \{ \} \setminus \overline \angle \triangle \vec \hat
""".split())
COMMAND = re.compile(r"\\(?:[a-zA-Z]+|.)")  # \frac or \{
CHOOSE = re.compile(r"\\binom\s*\{?\s*\d+\s*\}?\s*\{?\s*\d")  # \binom{5}{2}
EVEN = re.compile(r"\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d+)\s*/\s*(\d+)")  # \frac{4}{2}
WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{4,}")  # maybe


def finished(found, gold):
    """Whether a calculator has nothing left to do in an expression, apart from what the reference
    leaves undone."""
    if set(COMMAND.findall(found)) - set(COMMAND.findall(gold)) - COMMANDS:
        return False
    if set(WORD.findall(found)) - set(WORD.findall(gold)) or found.count("'") != gold.count("'"):
        return False
    counting = r"\binom" in gold or "!" in gold
    if CHOOSE.search(found) and not counting:
        return False
    for over, under, left, right in EVEN.findall(found):
        over, under = int(over or left), int(under or right)
        if under > 1 and over % under == 0 and not re.search(r"\d\s*/\s*\d|\\frac", gold):
            return False
    found_tree, gold_tree = tree(found), tree(gold)
    if found_tree is None or gold_tree is None:
        return False
    allowed = undone(gold_tree) | ({"factorial", "product"} if counting else set())
    if (number := quantity(gold)) and abs(number.value) >= LARGE:
        allowed |= {"power", "factorial"}
    if allowed & {"power", "factorial"}:
        allowed.add("product")
    return undone(found_tree) <= allowed


def undone(tree):
    """What a calculator would still do in a tree of sympy -> set of names of operations."""
    import sympy

    names = set()
    for node in sympy.preorder_traversal(tree):
        if isinstance(node, sympy.Basic) and (name := undone_at(node)):
            names.add(name)
    return names


def undone_at(node):
    """The operation that is left undone at a node of a tree, or None."""
    import sympy

    if isinstance(node, sympy.Add):
        return "sum" if has_like_terms(node) else None
    if isinstance(node, sympy.Mul):
        return "product" if has_plain_product(node) else None
    if isinstance(node, (sympy.Derivative, sympy.Integral, sympy.Sum, sympy.Product, sympy.Limit,
                         sympy.MatMul, sympy.MatAdd, sympy.MatPow)):
        return type(node).__name__
    if node.free_symbols and isinstance(node, sympy.Pow) and node.args[1].is_negative:
        # (x^2-1)/(x-1) may be a division left; 1/2^n and 1/e^x are not.
        return "division" if node.args[0].is_polynomial() else None
    if node.is_Atom or node.free_symbols:
        return None
    if isinstance(node, sympy.Pow):
        base, exponent = node.args
        if exponent == -1 or base == 10 and exponent.is_Integer:  # 1/3, 10^8
            return None
        if isinstance(base, sympy.Add) and exponent.is_Integer:
            return "power"  # (1+\sqrt{2})^2
        return "power" if value_of(node).is_Rational else None
    # \sin 30^\circ, \arctan 1, |-3|, 5!: the function is gone from what sympy makes of it.
    return type(node).__name__ if not value_of(node).has(type(node)) else None


def value_of(node):
    """What sympy makes of a tree of plain numbers by itself, without expanding it."""
    return node.doit() if isinstance(size(node), float) and size(node) < DIGITS else node


def has_like_terms(node):
    """41+1, \\pi+\\pi, 2x+3x: fewer terms are left when sympy adds them up."""
    import sympy

    terms = []
    for term in node.args:
        terms += sympy.Add.make_args(term)
    added = sympy.Add(*[value_of(term) for term in terms])
    return len(sympy.Add.make_args(added)) < len(terms)


def has_plain_product(node):
    r"""2 \cdot 3\pi, \frac{4\pi}{2}, x \cdot x: two numbers to multiply, or a fraction that comes
    out even, or a letter twice."""
    import sympy

    over, under, letters, roots = [], [], [], 0
    factors = list(node.args)
    while factors:
        factor = factors.pop()
        if isinstance(factor, sympy.Mul):
            factors += factor.args
        elif isinstance(factor, sympy.Pow) and factor.args[1] == -1 and factor.args[0].is_Integer:
            under.append(factor.args[0])
        elif isinstance(factor, sympy.Rational) and not factor.is_Integer:
            over.append(factor)
        elif factor.is_Number and abs(factor) != 1:
            over.append(factor)
        elif not factor.free_symbols and (factor.is_Add or factor.is_Pow and (
                factor.args[0].is_Integer and factor.args[1].is_positive)):
            roots += 1
        else:
            letters.append(factor.args[0] if isinstance(factor, sympy.Pow) else factor)
    letters = [letter for letter in letters if letter.is_Symbol]
    if roots > 1 or len(letters) > len(set(letters)):
        return True
    if over and over[0] == 10 or sympy.Pow(10, 1, evaluate=False) in over:
        return False
    even = len(over) == len(under) == 1 and over[0].is_Integer and over[0] % under[0] == 0
    return len(over) > 1 or len(under) > 1 or even


# ---------- values ----------

IMAGINARY = re.compile(r"\\[a-zA-Z]+|_\s*(?:\{[^{}]*\}|\w)|[iI]")  # i, but not of \sin or x_i


@functools.lru_cache(4096)
def tree(latex):
    """The unevaluated tree of sympy for cleaned LaTeX, or None where it is none, or too large."""
    from latex2sympy2_extended import latex2sympy

    # The parser reads I as the imaginary unit, also that of I_0; no case matters to it.
    latex = IMAGINARY.sub(lambda m: {"i": "I", "I": r"\Xi "}.get(m[0], m[0]), latex)
    if re.search(r"\\text|\d\s*_|[^\s]\?", latex):
        return None
    try:
        parsed = latex2sympy(latex.replace("'", r"\prime"), is_real=True,
                             normalization_config=None)
        return parsed if size(parsed) < DIGITS else None
    except Exception:  # the parser raises many kinds
        return None


def size(node):
    """Digits of the largest number that evaluating a tree meets, about: of 10^{100} about 100."""
    largest = max((size(part) for part in node.args), default=0.0)
    return max(largest, abs(magnitude(node)))


@functools.lru_cache(4096)
def magnitude(node):
    """The decimal logarithm of the absolute value of a tree, about; letters count as 3."""
    import sympy

    if node.is_Number:
        return float(sympy.log(abs(node), 10).evalf(5)) if node.is_finite and node else 0.0
    if node.is_Atom:
        return 0.5
    parts = [magnitude(part) for part in node.args]
    if isinstance(node, sympy.Pow):
        base, exponent = parts
        return min(10.0**min(exponent, 300) * max(abs(base), 1e-3), 1e300)
    if isinstance(node, (sympy.factorial, sympy.exp, sympy.gamma)):
        return min(10.0**min(parts[0], 300) * max(parts[0], 0.5), 1e300)
    if isinstance(node, sympy.Mul):
        return sum(parts)
    return max(parts, default=0.0) + numbers.log10(max(1, len(parts)))


def number_of(latex):
    """The value of an expression without letters, a sympy number of 30 digits, or None."""
    parsed = tree(latex)
    if parsed is None or not hasattr(parsed, "evalf") or parsed.free_symbols:
        return None
    value = parsed.evalf(30)
    return value if value.is_number and value.is_finite else None


POINTS = (0.7361, -1.2893, 2.3717, 0.1931, -0.5479, 1.6180, 3.1073, -2.2361)


def equal_by_value(gold, found):
    """Whether two expressions have equal values; with letters in them, wherever we look."""
    import sympy

    left, right = tree(gold), tree(found)
    if not isinstance(left, sympy.Expr) or not isinstance(right, sympy.Expr):
        from math_verify import verify

        return None not in (left, right) and bool(verify(left, right, timeout_seconds=None))
    letters = sorted(left.free_symbols | right.free_symbols, key=str)
    rounded = bool(left.atoms(sympy.Float) | right.atoms(sympy.Float))
    if not letters and not rounded:
        difference = left.doit() - right.doit()
        if difference.is_Rational:
            return difference == 0
    # Letters of a formula are lengths, masses, times: \sqrt{m^2 g} is m\sqrt{g}.
    positive = len(letters) > 1 and not (left.has(sympy.Abs) or right.has(sympy.Abs))
    seen = 0
    for shift in range(4 if letters else 1):
        point = {letter: POINTS[(i + 3 * shift) % len(POINTS)] + i // len(POINTS)
                 for i, letter in enumerate(letters)}
        point = {letter: sympy.Float(abs(value) if positive else value, 60)
                 for letter, value in point.items()}
        x, y = (side.evalf(60, subs=point) for side in (left, right))
        if not (x.is_number and y.is_number) or sympy.nan in (x, y):
            return False
        if not (x.is_finite and y.is_finite):
            if x != y:
                return False
            continue
        if not close(x, y, rounded):
            return False
        seen += 1
    return seen > 0 or not letters


def close(x, y, rounded):
    """Equal to forty digits; where one is a decimal number, to six decimals and six digits."""
    larger = max(abs(x), abs(y))
    return abs(x - y) <= (1e-6 * min(1, larger) if rounded else 1e-40 * larger)


def warm_up():
    """Imports and builds tables, so that the first answer need not."""
    same(r"\frac{x}{2}", r"0.5x")
    same("x=y+1", "y=x+1")
