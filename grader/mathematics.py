r"""Whether an answer is the reference, by mathematics, and finished: the rewards of `math`.

A policy soon learns to repeat the question as its answer. So where the reference is a number, an
answer is one of the ways to write a number down: 42, 3/4, 4.5e33, 50 %, 36 dollars (quantities.py);
where it is an expression, one with nothing left to work out (finished.py). Lists, tuples,
intervals, sets and matrices are compared part by part, so that this holds for each part.
"""
import itertools
import re

from grader.answers import CHOICE, LONGEST, clean, extract, letter, plain, tight, wording
from grader.finished import LARGE, equal, finished, number_of, tree
from grader.quantities import UNITS, quantity, same_quantity, same_unit, unit_of

DEEPEST = 12  # brackets inside brackets: parsers backtrack


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
    try:
        return same(alone(gold), alone(found))
    except (MemoryError, RecursionError):
        raise
    except Exception:  # sympy raises many kinds
        return False


def boxed(answer):
    """A right response, for the canary."""
    return f"\\boxed{{{answer}}}"


math.example = boxed


def warm_up():
    """Imports and builds tables, so that the first answer need not."""
    same(r"\frac{x}{2}", "0.5x")
    same("x=y+1", "y=x+1")


def nesting(latex):
    """How many brackets are open at once, at most."""
    steps = [(c in "([{") - (c in ")]}") for c in latex]
    return max(itertools.accumulate(steps), default=0)


def alone(latex):
    r"""A set of one member as that member: \{5\} is 5, but \{\{5\}\} is not."""
    single = re.fullmatch(r"\\\{([^{}]*)\\\}", latex)
    if not single or r"\emptyset" in latex or BUILDER.match(latex):
        return latex
    parts = parts_of(single[1])
    return single[1] if not parts or parts[0] == "()" else latex


# ---------- kinds of answers ----------

def same(gold, found):
    """Whether cleaned LaTeX says the same as the cleaned reference."""
    if tight(gold) == tight(found):
        return True
    if quantity(gold) and quantity(found):
        return same_term(gold, found)
    gold, found = spelled(gold), spelled(found)
    if gold == found:
        return True
    if as_time(gold) or as_time(found):
        return as_time(gold) == as_time(found)
    if wording(gold) or wording(found):
        return wording(gold) == wording(found) or plain(gold).lower() == plain(found).lower()
    if as_based(gold) or as_based(found):  # the base may be left out, but 42_7 is not 42
        return bool(as_based(gold)) and (
            as_based(found) == as_based(gold) or found == as_based(gold)[0])
    gold_set, found_set = as_set(gold), as_set(found)
    if (gold_set, found_set) != (gold, found) and parts_of(gold_set) and parts_of(found_set):
        # 2 < x < 3 is no list of answers.
        is_list = gold_set == gold and parts_of(gold)[0] == "list"
        return not is_list and same(gold_set, found_set)
    if parts_of(gold) or parts_of(found):
        return same_parts(gold, found)
    return same_side(gold, found)


WHOLE_TEXT = re.compile(r"\\text\{[^{}]*\}")
SAYINGS = {  # words -> what they mean in LaTeX
    "no solution": r"\emptyset", "no solutions": r"\emptyset", "empty set": r"\emptyset",
    "all real numbers": r"\mathbb{R}", "infinity": r"\infty",
}


def spelled(latex):
    r"""Words as the LaTeX they mean, \text{no solution}, and a list of words in pieces,
    \text{A, C}."""
    if "," in latex and WHOLE_TEXT.fullmatch(latex):
        return plain(latex)
    return SAYINGS.get(wording(latex), latex)


CLOCK = re.compile(r"(\d{1,2}):(\d\d)\s*(?:([ap])\.?\s?m\.?)?", re.IGNORECASE)  # 9:30 a.m.
HOUR = re.compile(r"(\d{1,2})()\s*([ap])\.?\s?m\.?", re.IGNORECASE)  # 9 p.m.


def as_time(latex):
    """A time of day -> (hour, minute), or None: (21, 30) of 9:30 p.m."""
    time = CLOCK.fullmatch(plain(latex)) or HOUR.fullmatch(plain(latex))
    if not time:
        return None
    hour, half = int(time[1]), (time[3] or "").lower()
    return (hour % 12 + 12 * (half == "p") if half else hour), int(time[2] or 0)


BASED = re.compile(  # 4210_{5} or (4210)_{five} or B1_{16}
    r"\(?(\d[0-9A-F]*|[A-F]+\d[0-9A-F]*)\)?\s*_\s*\{?\s*(\d+|[a-z]{3,9})\s*\}?")


def as_based(latex):
    """A number with its base -> ("4210", "5") of 4210_5, or None."""
    based = BASED.fullmatch(plain(latex))
    return based and based.groups()


# ---------- sets of numbers ----------

INEQUALITY = re.compile(r"\s*(\\(?:le|ge|ne)(?![a-z])|[<>])\s*")  # \le or <
VARIABLE = re.compile(r"[a-zA-Z]|\\(?!pi|infty)[a-z]+")  # x or \theta
CONSTANT = re.compile(r"\\(?:frac|sqrt|pi|infty|ln|log)")  # letters that are no variable: \sqrt
REALS = re.compile(r"\\mathbb\s*\{?R\}?")
BUILDER = re.compile(  # \{x \in \mathbb{R} : x > 3\}
    r"\\\{\s*[a-zA-Z]\s*(?:\\in\s*(?:\\mathbb\s*\{?R\}?|R))?\s*(?:\\mid|[|:])(.*)\\\}")
OUTWARD = re.compile(r"\]([^][]*,[^][]*)\[")  # ]0,1[
MIRROR = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\ne": r"\ne"}
RAYS = {
    "<": r"(-\infty,{0})", r"\le": r"(-\infty,{0}]", ">": r"({0},\infty)", r"\ge": r"[{0},\infty)",
    r"\ne": r"(-\infty,{0}) \cup ({0},\infty)",
}


def as_set(latex):
    r"""Inequalities of one variable as an interval or a union of them, and intervals in one
    spelling: x \ge 3 is [3,\infty), ]0,1[ is (0,1). Not x^2 > 9, which may be the question."""
    if REALS.fullmatch(latex):
        return r"(-\infty,\infty)"
    if builder := BUILDER.fullmatch(latex):
        latex = builder[1].strip()
    if outward := OUTWARD.fullmatch(latex):
        return f"({outward[1]})"
    intervals = [as_interval(part) for part in split(latex, ",")]
    return r" \cup ".join(intervals) if all(intervals) else latex


def as_interval(latex):
    r"""-2 < x \le 7 -> (-2,7], x > 3 -> (3,\infty); None for what is no such inequality."""
    sides = INEQUALITY.split(latex)
    if len(sides) > 1 and not VARIABLE.fullmatch(sides[0]):  # 3 < x
        sides = [MIRROR.get(side, side) for side in reversed(sides)]
    if len(sides) == 3 and VARIABLE.fullmatch(sides[0]) and is_bound(sides[2]):
        return RAYS[sides[1]].replace("{0}", sides[2])
    if len(sides) == 5 and VARIABLE.fullmatch(sides[2]) and is_bound(sides[0] + sides[4]):
        if sides[1] in ("<", r"\le"):
            sides = [MIRROR.get(side, side) for side in reversed(sides)]
        high, second, _, first, low = sides
        if first in (">", r"\ge") and second in (">", r"\ge"):
            return f"{'(' if first == '>' else '['}{low},{high}{')' if second == '>' else ']'}"
    return None


def is_bound(latex):
    """Whether LaTeX has no letters: 3 or \\frac{\\pi}{2}."""
    return not re.search("[a-zA-Z]", CONSTANT.sub("", latex))


# ---------- answers of several parts ----------

TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|.", re.DOTALL)  # \langle or \{ or 4
OPENING = {"(", "[", "{", r"\{", r"\langle", r"\begin"}
CLOSING = {")", "]", "}", r"\}", r"\rangle", r"\end"}
BRACKETS = {
    (r"\{", r"\}"): "set", ("(", ")"): "()", ("[", "]"): "[]", ("(", "]"): "(]", ("[", ")"): "[)",
    (r"\langle", r"\rangle"): "()",
}
MATRIX = re.compile(
    r"[(\[]?\s*\\begin\s*\{([pbB]?matrix|smallmatrix|array)\}(?:\{[clr|]*\})?(.*?)\\end\s*\{\1\}\s*[)\]]?")

SYSTEM = re.compile(r"\\begin\s*\{(cases|aligned)\}(.*?)\\end\s*\{\1\}")
SCALED = re.compile(r"([^{}]*(?:\{[^{}]*\}[^{}]*)*?)\s*(?:\\cdot\s*)?([(\[]?\s*\\begin.*)")


def depths(latex):
    """The tokens of LaTeX, each with the number of brackets that are open after it."""
    tokens = TOKEN.findall(latex)
    steps = [(token in OPENING) - (token in CLOSING) for token in tokens]
    return list(zip(tokens, itertools.accumulate(steps), strict=True))


def split(latex, *separators):
    """The pieces between separators that stand in no bracket."""
    pieces = [""]
    for token, depth in depths(latex):
        if token in separators and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += token
    return [piece.strip() for piece in pieces]


def parts_of(latex):
    r"""The kind and the parts of an answer that has several, or None: ("()", ["1", "2"]) of (1, 2),
    ("list", ["1", "2"]) of 1,2, ("set", ...) of \{1,2\}, also "union", "ratio", "row" and
    "matrix"."""
    if quantity(latex):  # 1,000
        return None
    if matrix := MATRIX.fullmatch(latex):
        rows = [split(row, "&") for row in matrix[2].split(r"\\") if row.strip()]
        kind = "row" if len(rows) == 1 else f"matrix of {len(rows)} rows"
        return kind, list(itertools.chain(*rows))
    if (system := SYSTEM.fullmatch(latex)) and "&" not in latex:
        return "list", [row.strip() for row in system[2].split(r"\\") if row.strip()]
    ratio = split(latex, ":")
    if len(ratio) > 1 and all(map(quantity, ratio)):
        return "ratio", ratio
    union = split(latex, r"\cup")
    if len(union) > 1:
        return "union", union
    members = members_of(latex)
    if len(members) > 1:
        return "list", members
    tokens = depths(latex)
    kind = tokens and BRACKETS.get((tokens[0][0], tokens[-1][0]))
    # Not (1,2)-(3,4), where the first bracket closes early.
    if not kind or any(depth == 0 for _, depth in tokens[:-1]):
        return None
    members = members_of("".join(token for token, _ in tokens[1:-1]))
    return (kind, members) if len(members) > 1 or kind == "set" else None


def members_of(latex):
    r"""What stands between commas and semicolons; 1 \pm x are two members."""
    members = []
    for member in split(latex, ",", ";"):
        if member.count(r"\pm") == 1 and r"\mp" not in member:
            left, right = member.split(r"\pm")
            # No plus sign at the beginning of a term.
            plus = "+" if left.strip() and left.strip()[-1] not in "=({" else ""
            members += [left + plus + right, f"{left}-{right}"]
        elif member:
            members.append(member)
    return members


NAMED = re.compile(  # (x,y)= of (x,y)=(1,2)
    r"^\s*(?:\(\s*\\?[a-zA-Z]+(?:\s*,\s*\\?[a-zA-Z]+)+\s*\)|[a-zA-Z])\s*=\s*(?=[\[({\\])")
ASSIGNED = re.compile(r"^\s*\\?[a-zA-Z]+(?:_\{?\w+\}?)?\s*=\s*(?=[^=]*$)")  # x= of x=1


def same_parts(gold, found):
    """Two answers, at least one of several parts: in order for tuples, intervals and matrices, in
    any order for lists, sets and unions."""
    gold, found = (NAMED.sub("", latex) for latex in (gold, found))
    gold_kind, golds = parts_of(gold) or ("one", [gold])
    found_kind, founds = parts_of(found) or ("one", [found])
    kinds = {gold_kind, found_kind}
    if r"\begin" in gold and r"\begin" in found and "one" in kinds:
        return same_scaled(gold, found)
    if kinds == {"one"}:
        return same_side(gold, found)
    if kinds == {"ratio", "one"}:  # 3:4 for 3/4
        return same_fraction(gold.replace(":", "/"), found.replace(":", "/"))
    if len(golds) != len(founds):
        return False
    if kinds == {"ratio"}:
        return same_ratio(golds, founds)
    if kinds == {"list", "()"}:  # x=1, y=2 for (1,2)
        return in_order(by_name(golds), by_name(founds))
    if kinds in ({"list"}, {"set"}, {"union"}, {"list", "set"}):
        if not all(map(ASSIGNED.match, golds)):
            founds = [ASSIGNED.sub("", part) for part in founds]
        return in_any_order(golds, founds)
    vectors = ({"row", "()"}, {f"matrix of {len(golds)} rows", "()"})
    return (len(kinds) == 1 or kinds in vectors) and in_order(golds, founds)


def same_fraction(gold, found):
    """Two fractions, neither of which comes out even: 42:1 is no 42."""
    numbers = quantity(gold), quantity(found)
    return all(number and number.value.denominator > 1 for number in numbers) and (
        same_quantity(*numbers))


def same_scaled(gold, found):
    r"""\frac{1}{3}\begin{pmatrix}1\\2\end{pmatrix}: matrices of which one has a factor. One that is
    no fraction is a product left undone, unless the reference has a factor too."""
    (gold_factor, golds), (found_factor, founds) = scaled(gold), scaled(found)
    if not golds or not founds or golds[0] != founds[0] or len(golds[1]) != len(founds[1]):
        return False
    number = quantity(found_factor)
    if gold_factor == "1" != found_factor and not (number and number.value.denominator > 1):
        return False
    return all(
        finished(y, x) and equal(rf"({gold_factor}) \cdot ({x})", rf"({found_factor}) \cdot ({y})")
        for x, y in zip(golds[1], founds[1], strict=True))


def scaled(latex):
    """A matrix with a factor -> the factor, and the kind and cells; "1" where there is none."""
    factor, matrix = SCALED.fullmatch(latex).groups() if SCALED.fullmatch(latex) else ("", latex)
    return factor.strip() or "1", parts_of(matrix) if MATRIX.fullmatch(matrix) else None


def same_ratio(golds, founds):
    """2:4 for 1:2, by lists of numbers as texts."""
    golds, founds = ([quantity(part).value for part in parts] for parts in (golds, founds))
    return all(founds) and all(
        golds[0] * found == founds[0] * gold for gold, found in zip(golds, founds, strict=True))


def by_name(parts):
    """Values without their names; in the order of the names where all have one: y=2, x=1 is
    (1,2)."""
    if all(map(ASSIGNED.match, parts)):
        parts = sorted(parts, key=lambda part: part.split("=")[0].strip())
    return [ASSIGNED.sub("", part) for part in parts]


def in_order(golds, founds):
    return all(itertools.starmap(same, zip(golds, founds, strict=True)))


def in_any_order(golds, founds):
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
BOUND = re.compile(  # \sum_{k=1}^8 or the _1 of x_1: letters that are no unknown
    r"\\[a-zA-Z]+(?:\s*[_^]\s*(?:\w|\{[^{}]*\}))*|_\s*(?:\w|\{[^{}]*\})")
UNSOLVED = re.compile(  # 3x, x+1, x^2
    r"\d\s*[a-zA-Z]|[a-zA-Z]\s*[-+]\s*\d|\d\s*[-+]\s*[a-zA-Z]|^[a-zA-Z]\s*\^\s*\{?\d")
OPERATION = re.compile(r"\\(?!frac|cdot|times|sqrt|pi)[a-z]")  # \gcd


def same_side(gold, found):
    r"""Two answers without parts. Of x = 5 or 41 + 1 = 42 what follows the last = is the answer;
    x = 5 is not y = 5, and 3x = 15 is a question."""
    golds, founds = split(gold, "="), split(found, "=")
    named = len(golds) > 1 and NAME.fullmatch(golds[0])
    if len(golds) > 1 and not named or INEQUALITY.search(gold + found):
        return same_relation(gold, found)
    if len(founds) > 1:
        if named and not NAME.fullmatch(founds[0]):  # 2x-y+1=0 for y=2x+1, but not 2x=84 for x=42
            return not quantity(golds[1]) and same_relation(gold, found)
        if named and tight(founds[0]) != tight(golds[0]):
            return False
        if is_question(founds[0]) or not all(may_equal(side, founds[-1]) for side in founds[:-1]):
            return False
    exact, *rounded = split(founds[-1], r"\approx")
    if rounded and VARIABLE.fullmatch(exact):  # x \approx 3.14
        exact, *rounded = rounded
    if rounded and not (len(rounded) == 1 and is_about(exact, rounded[0])):
        return False
    return any(same_term(golds[-1], side) for side in (exact, *rounded))


def is_question(left):
    """Whether the left side of an equation leaves it to be solved: 3x, but not x, 2x+y or f(3)."""
    bare = BOUND.sub(" ", left)
    return len(set(re.findall("[a-zA-Z]", bare))) == 1 and bool(UNSOLVED.search(bare))


def may_equal(left, right):
    """Whether left = right may stand in an answer: not 41 = 42."""
    has_letters = re.search("[a-zA-Z]", BOUND.sub(" ", left)) or OPERATION.search(left)
    return has_letters or not re.search(r"\d", left) or equal(left, right)


def is_about(exact, rounded):
    r"""Of \frac{22}{7} \approx 3.14, whether it is true to a hundredth."""
    decimal, value = quantity(rounded), number_of(exact)
    if not decimal or value is None:
        return False
    return bool(abs(value - decimal.value) <= abs(decimal.value) / 100)


def same_relation(gold, found):
    """Equations and inequalities of several variables, by math-verify."""
    from math_verify import verify

    if not finished(found, gold):
        return False
    return bool(verify(tree(gold), tree(found), timeout_seconds=None))  # the reference goes first


# ---------- terms ----------

DEGREES = re.compile(r"\s*\^\s*\{?\s*\\circ\s*\}?")  # ^\circ
UNIT_AT_END = re.compile(  # \text{ cm}^2 or km/h
    r"(?<=[\w})!])\s*(\\text\s*\{.*|(?<=[ }])[a-zA-Z]{2,}(?:[ /^][a-zA-Z/^ 0-9{}-]*)?)$")


def same_term(gold, found):
    """Two numbers or expressions, with or without a unit."""
    gold_number, found_number = quantity(gold), quantity(found)
    if gold_number and found_number:
        even = found_number.even and not gold_number.even and tight(gold) != tight(found)
        return not even and same_quantity(gold_number, found_number)
    in_degrees = gold_number and gold_number.unit == UNITS["°"]
    if gold_number and abs(gold_number.value) < LARGE and not (in_degrees and r"\pi" in found):
        return False
    gold, found = (DEGREES.sub(r" \\cdot \\frac{\\pi}{180} ", latex) for latex in (gold, found))
    (gold, gold_unit), (found, found_unit) = without_unit(gold), without_unit(found)
    if not same_unit(gold_unit, found_unit) or not (found_number or finished(found, gold)):
        return False
    scale = found_unit.multiplier if found_unit else 1
    if gold_unit and found_unit:
        scale *= found_unit.scale / gold_unit.scale / gold_unit.multiplier
    return equal(gold, found if scale == 1 else rf"({scale}) \cdot ({found})")


def without_unit(latex):
    r"""12\pi \text{ cm}^2 -> "12\pi" and its Unit, or None for the latter."""
    end = UNIT_AT_END.search(latex)
    unit = end and unit_of(end[1])
    return (latex[: end.start()].strip(), unit) if unit else (latex, None)
