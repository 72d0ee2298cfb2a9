"""Mathematical answers: where a response states its answer, and whether that is the reference answer, by mathematics or as a text."""
import functools
import itertools
import re
import unicodedata
from decimal import Decimal

LONGEST = 300  # characters; a longer answer is wrong unless it is the same text
DEEPEST = 20  # brackets inside brackets: parsers backtrack


# ---------- the answer in a response ----------

ANSWER_LINE = re.compile(r"\banswer[*_ ]{0,4}[:：][*_\s]{0,8}([^\n]*[^\s*_][^\n]*)", re.IGNORECASE)
ESCAPED_OR_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def extract(response):
    """The answer in a response: inside its last \\boxed{}, or else after its last "Answer:" -> text, or None. A last box that is empty or
    never closes (the response was cut) holds no answer: what an earlier one says was not the last word."""
    start = max(response.rfind("\\boxed"), response.rfind("\\fbox"))
    if start < 0:
        lines = ANSWER_LINE.findall(response)
        return lines[-1].strip("*_ \t\r") if lines else None
    box = re.compile(r"\\(?:boxed|fbox)\s*").match(response, start).end()
    if response[box : box + 1] != "{":  # \boxed 5
        bare = re.compile(r"[^\s$]{1,%d}" % LONGEST).match(response, box)
        return bare and bare[0]
    depth = 0
    for brace in ESCAPED_OR_BRACE.finditer(response, box, box + 4 * LONGEST):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)  # an escaped brace is no brace
        if depth == 0:
            return response[box + 1 : brace.start()].strip() or None
    return response[box + 1 :] if len(response) > box + 4 * LONGEST else None


FRACTIONS = dict(zip("½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞", "12 13 23 14 34 15 25 35 45 16 56 18 38 58 78".split()))
SYMBOLS = {ord(c): rf"\frac{{{d[0]}}}{{{d[1]}}}" for c, d in FRACTIONS.items()} | {ord(c): "-" for c in "−–—‐‑‒"}
SYMBOLS |= {ord(c): rf" \{latex} " for c, latex in zip("π∞≤≥≠×·∪∩∅±θ∈≈", "pi infty le ge ne times cdot cup cap emptyset pm theta in approx".split())} | {ord(c): r"^\circ" for c in "°º"}
RAISED, LOWERED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "₀₁₂₃₄₅₆₇₈₉"
SPACE = re.compile(r"(?<!\\)\\[,;: ]|(?<!\\)\\!\s*|\\q?quad\b|~|\\(?:displaystyle|left|right|[bB]igg?[lr]?)(?![a-zA-Z])")
SCIENTIFIC = re.compile(r"([-+]?\d+(?:\.\d*)?)[eE]([-+]?\d+)")
WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"))


def clean(answer):
    """An answer as LaTeX: Unicode mathematics written out, no dollars, no spacing commands, no full stop."""
    answer = re.sub(f"[{RAISED}]+", lambda m: "^{" + m[0].translate(str.maketrans(RAISED, "0123456789-+n")) + "}", answer)
    answer = re.sub(f"[{LOWERED}]+", lambda m: "_{" + m[0].translate(str.maketrans(LOWERED, "0123456789")) + "}", answer)
    answer = unicodedata.normalize("NFKC", answer.translate(SYMBOLS)).replace("\N{FRACTION SLASH}", "/").strip()
    answer = re.sub(r"√\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+|[a-zA-Z]))", lambda m: rf"\sqrt{{{m[1] or m[2] or m[3]}}}", answer)
    unwrapped = None
    while answer != unwrapped:
        unwrapped = answer
        for left, right in WRAPPERS:
            if len(answer) > len(left + right) and answer.startswith(left) and answer.endswith(right) and left not in answer[len(left) : -len(right)]:
                answer = answer[len(left) : -len(right)]
        answer = answer.strip()
        if answer.endswith(".") and not answer.endswith(".."):
            answer = answer[:-1].strip()
    answer = re.sub(r"(?<!\\)\$", "", answer)
    answer = re.sub(r",\\!\s*|\{,\}", ",", answer).replace(r"\varnothing", r"\emptyset").removeprefix(r"\approx")
    answer = re.sub(r"(?<=\d)(?:\\[ ;:]|~)(?=\d{3}(?!\d))", "", answer)  # 12\ 345
    answer = SPACE.sub(lambda m: "" if m[0] == r"\," or m[0].startswith(r"\!") else " ", answer)
    answer = re.sub(r"^\s*[a-zA-Z]\s*\\in(?![a-z])", "", answer).strip()
    return SCIENTIFIC.sub(r"\1 \\times 10^{\2}", answer) if SCIENTIFIC.fullmatch(answer) else answer


def tight(latex):
    """Without the white space that means nothing (between two digits it does)."""
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", latex)


# ---------- letters of multiple choice ----------

TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|operatorname)\s*\{([^{}]*)\}")
CHOICE = re.compile(r"\(?([A-J])\)?")
CHOSEN = re.compile(r"(?:option|choice)?\s*[(\[{]?([A-J])[)\]}]?\s*($|[-–.:,)(=].*)", re.IGNORECASE | re.DOTALL)
ANOTHER = re.compile(r"\([A-J]\)|(?:,|\bor\b|\band\b|/|&)\s*[A-J](?!\w)|(?<!\w)[A-J]\s*[.)]")


def letter(answer):
    """The one letter that a multiple-choice answer names: B of "B", "(b)", "\\text{B}" or "B. 12 cm" -> capital, or None. Two letters are none."""
    chosen = CHOSEN.fullmatch(TEXT.sub(r"\1", answer).strip())
    return chosen[1].upper() if chosen and not ANOTHER.search(chosen[2]) else None


# ---------- right by mathematics ----------

TOWER = re.compile(r"\^\s*(?:[({]\s*[^(){}^]*)?\d+\s*\^\s*[({]?\s*\d|\^\s*[({]?\s*-?\d{5}")  # 9^9^9, 2^{10^{10}}, 10^{100000}
UNIT = re.compile(r"(?<=[\d}])\s*\\(?:text|mathrm|rm)\s*\{[^{}\d]*(?:\^\d)?\}(?:\s*\^\s*\{?-?\d\}?)?$|(?<=\d)\s+(?!pi\b)[a-zA-Z]{2,}(?:[ /][a-zA-Z]+)*$|(?<=\d)\s+[a-zA-Z]+/[a-zA-Z]+$")
PERCENT = re.compile(r"\s*\\?%$")
POWER_OF_TEN = r"10\s*\^\s*\{?\s*([-+]?\d{1,4})\s*\}?"
NUMBER = re.compile(r"([-+]?)\s*(?:(\d+\.?\d*|\.\d+)(?:\s*\\(?:times|cdot)\s*" + POWER_OF_TEN + ")?|" + POWER_OF_TEN + ")")
BASED = re.compile(r"(\w+?)\s*_\s*\{?(\d+)\}?")
OPERATION = re.compile(r"\\(?:sum|prod|i?int|lim|max|min|gcd|lcm|det|[bp]?mod|lfloor|lceil|[lc]?dots)(?![a-z])")
ARITHMETIC = re.compile(r"(?:[a-zA-Z]\s*=)?(?:[\d\s.()]|[-+*]|\\cdot|\\times)*[\d)]\s*(?:[-+*]|\\cdot|\\times)(?:[\d\s.()]|[-+*]|\\cdot|\\times)+")
TWO_NUMBERS = re.compile(r"\d[^\\]*\\(?:text|mathrm)\s*\{[^{}]*\}.*(?<!\^)(?<!\^\{)\d|\d[^\\]*\\(?:text|mathrm)\s*\{[^{}]*(?<!\^)\d")  # 6 hours and 30 minutes
RELATION = re.compile(r"\\(?:leq?|geq?|lt|gt)(?![a-z])|[<>]")


def math(response, answer):
    """Right when the response's answer equals the reference mathematically (math-verify), or is the same text, or, where the reference is a
    capital letter A to J, names that choice. Wrong unread: answers that are over-long, deeply nested or towers of powers; and those that leave the
    work undone, 41+1 or a sum or a limit, where the reference does not: a policy soon learns to repeat the question."""
    found = extract(response)
    if found is None:
        return None
    if len(found) > LONGEST:
        return found == answer.strip()
    gold, found = clean(answer), clean(found)
    if tight(found) == tight(gold) or PERCENT.sub("", found) == PERCENT.sub("", gold):
        return True
    depth = max(itertools.accumulate({"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(c, 0) for c in found), default=0)
    if depth > DEEPEST or TOWER.search(found) or OPERATION.search(found) and not OPERATION.search(gold):
        return False
    if choice := CHOICE.fullmatch(TEXT.sub(r"\1", gold).strip()):
        return letter(found) == choice[1]
    if (number := number_of(gold)) is not None:
        if (mine := number_of(found)) is not None:
            return mine == number  # exactly: math-verify rounds to six decimals, and 6.62e-34 would be 6.63e-34
        if ARITHMETIC.fullmatch(found) or TWO_NUMBERS.search(found):
            return False
    if BASED.fullmatch(gold) or BASED.fullmatch(found):  # 4210_5: the base may be left out, but not be another
        (digits, base), (mine, my_base) = (m.groups() if (m := BASED.fullmatch(x)) else (x, None) for x in (gold, found))
        return digits == mine and (base is None or my_base is None or base == my_base)
    return equivalent(gold, found)


math.example = lambda answer: f"\\boxed{{{answer}}}"


def number_of(latex):
    """A plain number, with or without a power of ten and a unit, as a Decimal; None for anything else."""
    whole = TEXT.fullmatch(latex)
    latex = UNIT.sub("", whole[1].strip() if whole else latex)
    if re.fullmatch(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", latex):
        latex = latex.replace(",", "")
    if not (parts := NUMBER.fullmatch(latex)):
        return None
    sign, mantissa, exponent, bare = parts.groups()
    return Decimal(f"{sign}{mantissa or 1}E{exponent or bare or 0}")


def equivalent(gold, found):
    """By math-verify; and where both are smaller than its rounding to six decimals, to six digits."""
    from math_verify import verify

    if not verify(parsed(gold), parsed(found), timeout_seconds=None, allow_set_relation_comp=is_range(found)):  # gold first: the order matters
        return False
    if "%" in gold or "%" in found:
        return True
    try:
        x, y = complex(parsed(gold)[0]), complex(parsed(found)[0])
    except (TypeError, ValueError, IndexError):  # no numbers
        return True
    return not max(abs(x), abs(y)) < 1e-3 or abs(x - y) <= 1e-6 * max(abs(x), abs(y))


def is_range(latex):
    """x > 3 or -2 < x < 7, which an interval equals. Not x^2 > 9, which may be the question."""
    sides = [side.strip() for side in RELATION.split(latex)]
    numbers = [side for side in sides if not re.search(r"[a-zA-Z]", re.sub(r"\\(?:[dt]?frac|sqrt|pi|infty)", "", side))]
    return len(sides) in (2, 3) and len(numbers) == len(sides) - 1 and any(re.fullmatch("[a-zA-Z]", side) for side in sides)


@functools.lru_cache(4096)
def parsed(latex):
    from math_verify import LatexExtractionConfig, parse

    return parse(f"${latex}$", [LatexExtractionConfig()], parsing_timeout=None)  # plain expressions are LaTeX too; the other config would fish a number out of anything


# ---------- right as a text ----------

def normal(answer):
    """An answer as a text that is equal for the usual ways to write it: what papers compare that do not use computer algebra."""
    text = clean(answer).replace("dfrac", "frac").replace("tfrac", "frac")
    text = re.sub(r"\\text\s*\{\s*(?:and|or)\s*\}", ",", text)
    if words := TEXT.fullmatch(text):
        text = words[1]
    if re.fullmatch(r"[A-Za-z ]{2,}", text):
        text = text.lower()
    text = UNIT.sub("", text)
    text = tight(re.sub(r"\^\s*\{?\s*\\circ\s*\}?|\\degree|\\?[%$]|^\s*[a-zA-Z]\s*=", "", text))
    text = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\sqrt(\d)", r"\\sqrt{\1}", text)
    text = re.sub(r"^(-?)(\d+)/(\d+)$", r"\1\\frac{\2}{\3}", text)
    if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", text):
        text = text.replace(",", "")
    if number := re.fullmatch(r"(-?)0*(\d*)(?:\.(\d*?)0*)?", text):  # 025, 27.0, .5
        sign, whole, decimals = number.groups(default="")
        text = sign + (whole or "0") + (decimals and "." + decimals) if text.strip("-.") else text
    return text


def string_match(response, answer):
    """Right when the response's answer is the reference as a normalised text, or names its letter -> bool."""
    found = extract(response)
    if found is None or len(found) > LONGEST:
        return False
    if choice := CHOICE.fullmatch(TEXT.sub(r"\1", clean(answer)).strip()):
        return letter(clean(found)) == choice[1]
    return normal(found) == normal(answer)
