"""Mathematical answers: where a response states its answer, and whether that is the reference
answer, by mathematics or as a text."""
import functools
import itertools
import re
import unicodedata
from decimal import Decimal

LONGEST = 300  # characters; a longer answer is wrong unless it is the same text
DEEPEST = 20  # brackets inside brackets: parsers backtrack


# ---------- the answer in a response ----------

# Answer: 42    **Final answer**: 42    答案 Answer：42
ANSWER_LINE = re.compile(
    r"\banswer[*_ ]{0,4}[:：][*_\s]{0,8}([^\n]*[^\s*_][^\n]*)", re.IGNORECASE)
BOX = re.compile(r"\\(?:boxed|fbox)\s*")  # \boxed of \boxed{42}
BARE = re.compile(rf"[^\s$]{{1,{LONGEST}}}")  # 5 of $\boxed 5$
ESCAPED_OR_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # \{ or { or }


def extract(response):
    """The answer in a response: inside its last \\boxed{}, or else after its last "Answer:"
    -> text, or None.

    A last box that is empty or never closes (the response was cut) holds no answer: what an earlier
    one says was not the last word.
    """
    start = max(response.rfind("\\boxed"), response.rfind("\\fbox"))
    if start < 0:
        lines = ANSWER_LINE.findall(response)
        return lines[-1].strip("*_ \t\r") if lines else None
    box = BOX.match(response, start).end()
    if response[box : box + 1] != "{":
        bare = BARE.match(response, box)
        return bare and bare[0]
    # A box that does not close within a few times the longest answer is not read to its end.
    limit = box + 4 * LONGEST
    depth = 0
    for brace in ESCAPED_OR_BRACE.finditer(response, box, limit):
        depth += (brace[0] == "{") - (brace[0] == "}")  # an escaped brace is neither
        if depth == 0:
            return response[box + 1 : brace.start()].strip() or None
    return response[box + 1 :] if len(response) > limit else None


SYMBOLS = {
    "π": "pi", "∞": "infty", "≤": "le", "≥": "ge", "≠": "ne", "×": "times", "·": "cdot",
    "∪": "cup", "∩": "cap", "∅": "emptyset", "±": "pm", "θ": "theta", "∈": "in", "≈": "approx",
}
LATEX = {ord(symbol): rf" \{name} " for symbol, name in SYMBOLS.items()}
for degree in "°º":
    LATEX[ord(degree)] = r"^\circ"
for dash in "−–—‐‑‒⁻":
    LATEX[ord(dash)] = "-"
for fraction in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞":
    # NFKC writes ½ as 1⁄2, with a slash of its own.
    over, under = unicodedata.normalize("NFKC", fraction).split("\N{FRACTION SLASH}")
    LATEX[ord(fraction)] = rf"\frac{{{over}}}{{{under}}}"
RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+")  # ⁻⁵ of 10⁻⁵
LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")  # ₅ of 4210₅
ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+|[a-zA-Z]))")  # √(x+1), √{12} or √2
WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"))
COMMA = re.compile(r",\\!\s*|\{,\}")  # of 11,\! 111 or of 1{,}000
THOUSANDS = re.compile(r"(?<=\d)(?:\\[ ;:]|~)(?=\d{3}(?!\d))")  # between 12\ 345
SPACE = re.compile(
    r"(?<!\\)\\[,;: ]|(?<!\\)\\!\s*|\\q?quad\b|~"  # 2\,x    2\!x    2\quad x    2~x
    r"|\\(?:displaystyle|left|right|[bB]igg?[lr]?)(?![a-zA-Z])")  # \left( and \right)
MEMBER = re.compile(r"^\s*[a-zA-Z]\s*\\in(?![a-z])")  # x \in of x \in [0,1]
SCIENTIFIC = re.compile(r"([-+]?\d+(?:\.\d*)?)[eE]([-+]?\d+)")  # 4.5e33


def clean(answer):
    """An answer as LaTeX: Unicode mathematics written out, no dollars, no spacing commands, no full
    stop."""
    # NFKC turns raised and lowered digits into plain ones: mark them before.
    answer = RAISED.sub(r"^{\g<0>}", answer)
    answer = LOWERED.sub(r"_{\g<0>}", answer)
    answer = unicodedata.normalize("NFKC", answer.translate(LATEX))
    answer = answer.replace("\N{FRACTION SLASH}", "/").strip()
    answer = ROOT.sub(r"\\sqrt{\1\2\3}", answer)
    before = None
    while answer != before:  # **$42$.** is wrapped twice
        before = answer
        for left, right in WRAPPERS:
            inside = answer[len(left) : -len(right)]
            # $1$, $2$ begins and ends with a dollar too, but is not wrapped in one pair.
            if inside and left not in inside and answer == left + inside + right:
                answer = inside
        answer = answer.strip()
        if answer.endswith(".") and not answer.endswith(".."):
            answer = answer[:-1].strip()
    answer = re.sub(r"(?<!\\)\$", "", answer)
    answer = COMMA.sub(",", answer).replace(r"\varnothing", r"\emptyset").removeprefix(r"\approx")
    answer = THOUSANDS.sub("", answer)
    # Thin and negative spaces stand inside numbers and products; others keep words apart.
    answer = SPACE.sub(lambda m: "" if m[0][:2] in (r"\,", r"\!") else " ", answer)
    answer = MEMBER.sub("", answer).strip()
    if SCIENTIFIC.fullmatch(answer):
        answer = SCIENTIFIC.sub(r"\1 \\times 10^{\2}", answer)
    return answer


def tight(latex):
    """Without the white space that means nothing (between two digits it does)."""
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", latex)


# ---------- letters of multiple choice ----------

TEXT = re.compile(  # \text{east}
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|operatorname)\s*\{([^{}]*)\}")
CHOICE = re.compile(r"\(?([A-J])\)?")  # C or (C)
CHOSEN = re.compile(  # B or (b) or Option B or B. 12 cm
    r"(?:option|choice)?\s*[(\[{]?([A-J])[)\]}]?\s*($|[-–.:,)(=].*)", re.IGNORECASE | re.DOTALL)
ANOTHER = re.compile(
    r"\([A-J]\)"  # (C) after B
    r"|(?:,|\bor\b|\band\b|/|&)\s*[A-J](?!\w)"  # , C or / C
    r"|(?<!\w)[A-J]\s*[.)]")  # C) or C.


def plain(latex):
    r"""Without the commands around words: \text{(C)} is (C)."""
    return TEXT.sub(r"\1", latex).strip()


def letter(answer):
    """The one letter that a multiple-choice answer names -> capital, or None. It is B in "B",
    "(b)", "\\text{B}" or "B. 12 cm". Two letters are none."""
    chosen = CHOSEN.fullmatch(plain(answer))
    return chosen[1].upper() if chosen and not ANOTHER.search(chosen[2]) else None


# ---------- right by mathematics ----------

TOWER = re.compile(
    r"\^\s*(?:[({]\s*[^(){}^]*)?\d+\s*\^\s*[({]?\s*\d"  # 9^9^9 or 2^{10^{10}}
    r"|\^\s*[({]?\s*-?\d{5}")  # 10^{100000}
UNIT = re.compile(
    # 5\text{ cm} or 6\mathrm{m}^2
    r"(?<=[\d}])\s*\\(?:text|mathrm|rm)\s*\{[^{}\d]*(?:\^\d)?\}(?:\s*\^\s*\{?-?\d\}?)?$"
    r"|(?<=\d)\s+(?!pi\b)[a-zA-Z]{2,}(?:[ /][a-zA-Z]+)*$"  # 12 square units, but not 12 pi
    r"|(?<=\d)\s+[a-zA-Z]+/[a-zA-Z]+$")  # 3 m/s
PERCENT = re.compile(r"\s*\\?%$")  # % of 50\%
POWER_OF_TEN = r"10\s*\^\s*\{?\s*([-+]?\d{1,4})\s*\}?"  # 10^{-34}
NUMBER = re.compile(  # -4.5 or 4.5 \times 10^{33} or 10^8
    r"([-+]?)\s*(?:(\d+\.?\d*|\.\d+)(?:\s*\\(?:times|cdot)\s*" + POWER_OF_TEN + ")?"
    "|" + POWER_OF_TEN + ")")
BASED = re.compile(r"(\w+?)\s*_\s*\{?(\d+)\}?")  # 4210_5
OPERATION = re.compile(  # \sum of \sum_{i=1}^{42} 1
    r"\\(?:sum|prod|i?int|lim|max|min|gcd|lcm|det|[bp]?mod|lfloor|lceil|[lc]?dots)(?![a-z])")
PARTS = r"(?:[\d\s.()]|[-+*]|\\cdot|\\times)"  # of sums and products of plain numbers
ARITHMETIC = re.compile(  # 41+1 or x = 6 \cdot 7
    rf"(?:[a-zA-Z]\s*=)?{PARTS}*[\d)]\s*(?:[-+*]|\\cdot|\\times){PARTS}+")
TWO_NUMBERS = re.compile(
    # 6 \text{ hours and } 30 \text{ minutes}
    r"\d[^\\]*\\(?:text|mathrm)\s*\{[^{}]*\}.*(?<!\^)(?<!\^\{)\d"
    r"|\d[^\\]*\\(?:text|mathrm)\s*\{[^{}]*(?<!\^)\d")  # 2 \text{ (or 3)}
RELATION = re.compile(r"\\(?:leq?|geq?|lt|gt)(?![a-z])|[<>]")  # \le or <
CONSTANT = re.compile(r"\\(?:[dt]?frac|sqrt|pi|infty)")  # letters that are no variable: \sqrt


def math(response, answer):
    """Right when the response's answer equals the reference mathematically (math-verify), or is the
    same text, or, where the reference is a capital letter A to J, names that choice.

    Wrong unread: answers that are over-long, deeply nested or towers of powers; and those that
    leave the work undone, 41+1 or a sum or a limit, where the reference does not: a policy soon
    learns to repeat the question.
    """
    found = extract(response)
    if found is None:
        return None
    if len(found) > LONGEST:
        return found == answer.strip()
    gold, found = clean(answer), clean(found)
    if tight(found) == tight(gold) or PERCENT.sub("", found) == PERCENT.sub("", gold):
        return True
    if nesting(found) > DEEPEST or TOWER.search(found):
        return False
    if OPERATION.search(found) and not OPERATION.search(gold):
        return False
    if choice := CHOICE.fullmatch(plain(gold)):
        return letter(found) == choice[1]
    gold_number = number_of(gold)
    if gold_number is not None:
        found_number = number_of(found)
        if found_number is not None:
            # Exactly: math-verify rounds to six decimals, and 6.62e-34 would be 6.63e-34.
            return found_number == gold_number
        if ARITHMETIC.fullmatch(found) or TWO_NUMBERS.search(found):
            return False
    gold_based, found_based = BASED.fullmatch(gold), BASED.fullmatch(found)
    # The base may be left out on either side, but not be another.
    if gold_based and found_based:
        return gold_based.groups() == found_based.groups()
    if gold_based:
        return gold_based[1] == found
    if found_based:
        return found_based[1] == gold
    return equivalent(gold, found)


def boxed(answer):
    """A right response, for the canary."""
    return f"\\boxed{{{answer}}}"


math.example = boxed


def nesting(latex):
    """How many brackets are open at once, at most."""
    steps = [(c in "([{") - (c in ")]}") for c in latex]
    return max(itertools.accumulate(steps), default=0)


def number_of(latex):
    """A plain number, with or without a power of ten and a unit, as a Decimal, or None."""
    text = TEXT.fullmatch(latex)  # \text{3 hours}
    latex = UNIT.sub("", text[1].strip() if text else latex)
    if re.fullmatch(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", latex):  # 1,000,000
        latex = latex.replace(",", "")
    number = NUMBER.fullmatch(latex)
    if not number:
        return None
    sign, mantissa, exponent, bare_exponent = number.groups()
    return Decimal(f"{sign}{mantissa or 1}E{exponent or bare_exponent or 0}")


def equivalent(gold, found):
    """By math-verify; where both are smaller than its rounding to six decimals, to six digits."""
    from math_verify import verify

    # The reference goes first: the order matters.
    if not verify(parsed(gold), parsed(found), timeout_seconds=None,
                  allow_set_relation_comp=is_range(found)):
        return False
    if "%" in gold or "%" in found:
        return True
    try:
        x, y = complex(parsed(gold)[0]), complex(parsed(found)[0])
    except (TypeError, ValueError, IndexError):  # no numbers
        return True
    larger = max(abs(x), abs(y))
    return not larger < 1e-3 or abs(x - y) <= 1e-6 * larger


def is_range(latex):
    """x > 3 or -2 < x < 7, which an interval equals. Not x^2 > 9, which may be the question."""
    sides = [side.strip() for side in RELATION.split(latex)]
    numbers = [side for side in sides if not re.search(r"[a-zA-Z]", CONSTANT.sub("", side))]
    has_variable = any(re.fullmatch("[a-zA-Z]", side) for side in sides)
    return len(sides) in (2, 3) and len(numbers) == len(sides) - 1 and has_variable


@functools.lru_cache(4096)
def parsed(latex):
    from math_verify import LatexExtractionConfig, parse

    # Plain expressions are LaTeX too; the other config would fish a number out of anything.
    return parse(f"${latex}$", [LatexExtractionConfig()], parsing_timeout=None)


# ---------- right as a text ----------

def normal(answer):
    """An answer as a text that is equal for the usual ways to write it: what papers compare that do
    not use computer algebra."""
    text = clean(answer).replace("dfrac", "frac").replace("tfrac", "frac")
    text = re.sub(r"\\text\s*\{\s*(?:and|or)\s*\}", ",", text)
    if words := TEXT.fullmatch(text):
        text = words[1]
    if re.fullmatch(r"[A-Za-z ]{2,}", text):  # East, but not a letter of multiple choice
        text = text.lower()
    text = UNIT.sub("", text)
    # Degrees, percent and dollars mean nothing, and neither does the x= of x=5.
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?|\\degree|\\?[%$]|^\s*[a-zA-Z]\s*=", "", text)
    text = tight(text)
    text = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", text)  # \frac12
    text = re.sub(r"\\sqrt(\d)", r"\\sqrt{\1}", text)  # \sqrt2
    text = re.sub(r"^(-?)(\d+)/(\d+)$", r"\1\\frac{\2}{\3}", text)  # -1/2
    if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", text):  # 1,000,000
        text = text.replace(",", "")
    number = re.fullmatch(r"(-?)0*(\d*)(?:\.(\d*?)0*)?", text)  # 025, 27.0, .5
    if number and text.strip("-."):
        sign, whole, decimals = number.groups(default="")
        text = sign + (whole or "0") + (decimals and "." + decimals)
    return text


def string_match(response, answer):
    """Right when the response's answer is the reference as a normalised text, or names its letter
    -> bool."""
    found = extract(response)
    if found is None or len(found) > LONGEST:
        return False
    if choice := CHOICE.fullmatch(plain(clean(answer))):
        return letter(clean(found)) == choice[1]
    return normal(found) == normal(answer)
