"""Where a response states its answer, the answer as clean LaTeX, and what is compared as a text:
letters of multiple choice, words, and the second scorer of evaluation."""
import re
import unicodedata

from grader.quantities import unit_of

LONGEST = 300  # characters; a longer answer is wrong unless it is the same text


# ---------- the answer in a response ----------

# Answer: 42    **Final answer**: 42    答案 Answer：42
ANSWER_LINE = re.compile(
    r"\banswer[*_ ]{0,4}[:：][*_\s]{0,8}([^\n]*[^\s*_][^\n]*)", re.IGNORECASE)
BOX = re.compile(r"\\(?:boxed|fbox)\s*")  # \boxed of \boxed{42}
BARE = re.compile(rf"[^\s$]{{1,{LONGEST}}}")  # 5 of $\boxed 5$
ESCAPED_OR_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # \{ or { or }
JOINT = re.compile(r"[\s$*,;.]{0,9}(?:\\text\{)?(?:and|or)?[\s$*}\\(]{0,9}")  # , and
BOXES = 9  # that one answer may have


def extract(response):
    """The answer in a response: inside its last \\boxed{}, or else after its last "Answer:"
    -> text, or None.

    A last box that is empty or never closes (the response was cut) holds no answer: what an earlier
    one says was not the last word. Boxes inside a box are part of it, and boxes joined by "and" are
    one answer.
    """
    start = last_box(response, len(response))
    if start < 0:
        lines = ANSWER_LINE.findall(response)
        return lines[-1].strip("*_ \t\r") if lines else None
    inside, end = box_at(response, start)
    if not inside or len(inside) > LONGEST:
        return inside
    for _ in range(BOXES):
        earlier = last_box(response, start)
        if earlier < 0:
            break
        text, stop = box_at(response, earlier)
        if text and stop >= end:  # \boxed{x = \boxed{42}}
            inside, end = text, stop
        elif text and JOINT.fullmatch(response, stop, start):  # \boxed{2} and \boxed{3}
            inside = inside if text == inside else f"{text}, {inside}"
        else:
            break
        start = earlier
    return BOX.sub("", inside)


def last_box(response, end):
    """Where the last \\boxed or \\fbox before `end` begins, or -1."""
    return max(response.rfind("\\boxed", 0, end), response.rfind("\\fbox", 0, end))


def box_at(response, start):
    """What the box that begins at `start` holds -> text or None, and where the box ends."""
    box = BOX.match(response, start).end()
    if response[box : box + 1] != "{":
        bare = BARE.match(response, box)
        return (bare[0], bare.end()) if bare else (None, box)
    # A box that does not close within a few times the longest answer is not read to its end.
    limit = box + 4 * LONGEST
    depth = 0
    for brace in ESCAPED_OR_BRACE.finditer(response, box, limit):
        depth += (brace[0] == "{") - (brace[0] == "}")  # an escaped brace is neither
        if depth == 0:
            return response[box + 1 : brace.start()].strip() or None, brace.end()
    return (response[box + 1 :] if len(response) > limit else None), len(response)


# ---------- the answer as clean LaTeX ----------

SYMBOLS = {
    "∞": "infty", "≤": "le", "≥": "ge", "≠": "ne", "×": "times", "·": "cdot", "⋅": "cdot",
    "∪": "cup", "∩": "cap", "∅": "emptyset", "±": "pm", "∓": "mp", "∈": "in", "≈": "approx",
    "⌊": "lfloor", "⌋": "rfloor", "⌈": "lceil", "⌉": "rceil", "⟨": "langle", "⟩": "rangle",
    "÷": "div", "∖": "setminus", "ℝ": "mathbb{R}", "ℤ": "mathbb{Z}", "∣": "mid", "∑": "sum",
    "∫": "int", "∏": "prod", "→": "to", "∠": "angle", "△": "triangle",
}
LATEX = {ord(symbol): rf" \{name} " for symbol, name in SYMBOLS.items()}
for code in range(0x3B1, 0x3CA):  # α is "GREEK SMALL LETTER ALPHA"; λ is a "LAMDA"
    name = unicodedata.name(chr(code)).split()[-1].lower().replace("lamda", "lambda")
    LATEX[code] = rf" \{name} "
for degree in "°º":
    LATEX[ord(degree)] = r"^\circ "
for invisible in "\u200b\u200c\u200d\u2060\ufeff":
    LATEX[ord(invisible)] = None
for dash in "−–—‐‑‒⁻":
    LATEX[ord(dash)] = "-"
for fraction in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞":
    # NFKC writes ½ as 1⁄2, with a slash of its own.
    over, under = unicodedata.normalize("NFKC", fraction).split("\N{FRACTION SLASH}")
    LATEX[ord(fraction)] = rf"\frac{{{over}}}{{{under}}}"
RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+")  # ⁻⁵ of 10⁻⁵
LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")  # ₅ of 4210₅
WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"))
FUNCTIONS = (
    "sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|ln|log|exp|gcd|lcm|max|min|det")
WORDS = re.compile(  # \textbf{(C)} or {\rm cm} or \operatorname{gcd}
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|textup|textnormal|emph|mathrm|mbox|hbox|mathsf"
    r"|operatorname\*?|rm|bf|it)(?![a-z])\s*\{((?:[^{}]|\{[^{}]*\})*)\}|\{\\(?:rm|bf|it)\s+([^{}]*)\}")
FONT = re.compile(  # \mathbf of \mathbf{26}, \Large of \Large 5
    r"\\(?:mathbf|boldsymbol|bm|mathit|mathtt|pmb|mathnormal|mathcal|underline|bf|bfseries|rm|it"
    r"|Large|large|LARGE|huge|Huge|small|normalsize|displaystyle|textstyle|scriptstyle|limits"
    r"|left|right|[bB]igg?[lrm]?|therefore)(?![a-zA-Z])\s*|\\(?:text)?color\s*\{\w*\}")
REWRITTEN = (  # as -> is, in this order
    (re.compile(r"(\\[a-zA-Z]+)\s+(?=\{)"), r"\1"),  # \sqrt {2}
    (re.compile(r"\\\\\s*\[[^\]]{0,9}\]"), r"\\\\"),  # \\[4pt] between rows
    (re.compile(r",\\!\s*|\{,\}(?=\d{3})"), ","),  # 11,\! 111 or 1{,}000
    (re.compile(r"(?<=\d)(?:\\[ ,;:]|~)(?=\d{3}(?!\d))"), ""),  # 12\ 345
    (re.compile(r"(?<!\\)\\[,!]"), ""),  # 2\,x: thin space, inside numbers and products
    (re.compile(r"(?<!\\)\\[;: >]|\\q?quad\b|~|\\(?:hspace|phantom)\*?\{[^{}]*\}"), " "),
    (re.compile(r"\\[dtc]frac(?![a-z])"), r"\\frac"),  # \dfrac{1}{2}
    (re.compile(r"\\frac\s*(\w)"), r"\\frac{\1}"),  # \frac12
    (re.compile(r"(\\frac\s*\{[^{}]*\})\s*(\w)"), r"\1{\2}"),  # \frac{1}2
    (re.compile(r"(?:\{|^)([^{}]{1,20})\\over(?![a-z])([^{}]{1,20})(?:\}|$)"), r"\\frac{\1}{\2}"),
    # {1 \over 2} above, √(x+1) and sqrt(3) below
    (re.compile(r"√\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+|[a-zA-Z]))"), r"\\sqrt{\1\2\3}"),
    (re.compile(r"(?<![\\a-zA-Z])sqrt\s*(?:\(([^()]*)\)|\{([^{}]*)\})"), r"\\sqrt{\1\2}"),
    (re.compile(r"\\sqrt\s*(\w)|(?<![\\a-zA-Z])sqrt\s*(\d+)"), r"\\sqrt{\1\2}"),  # \sqrt2
    (re.compile(r"(?<![\\a-zA-Z])pi(?![a-zA-Z])"), r"\\pi "),  # 2*pi
    (re.compile(r"\^\s*\(([^()]*)\)"), r"^{\1}"),  # x^(1/2)
    (re.compile(rf"(?<![\\a-zA-Z])({FUNCTIONS})(?=\s*[\d(^])"), r"\\\1 "),  # sin(x)
    (re.compile(r"\\(?:leq|leqslant)(?![a-z])|<="), r"\\le "),
    (re.compile(r"\\(?:geq|geqslant)(?![a-z])|>="), r"\\ge "),
    (re.compile(r"\\lt(?![a-z])"), "<"),
    (re.compile(r"\\gt(?![a-z])"), ">"),
    (re.compile(r"\\neq(?![a-z])"), r"\\ne "),
    (re.compile(r"\\(?:varnothing|O(?![a-z]))|\\\{\s*\\\}"), r"\\emptyset "),  # \{\}
    (re.compile(r"\\lbrace(?![a-z])\s*"), r"\\{"),
    (re.compile(r"\\rbrace(?![a-z])\s*"), r"\\}"),
    (re.compile(r"\\imath(?![a-z])"), "i "),
    (re.compile(r"\\mathbb\s*([A-Z])"), r"\\mathbb{\1}"),
    (re.compile(r"\^\s*\{?\s*\\(?:prime)\s*\}?"), "'"),  # f^{\prime}
    (re.compile(r"\\(?:lvert|rvert|vert)(?![a-z])\s*"), "|"),
    (re.compile(r"(?<=\d)\s*÷\s*(?=\d)"), "/"),
    (re.compile(r"\\approxeq|\\simeq(?![a-z])|\\sim(?![a-z])"), r"\\approx "),
    (re.compile(r"(?<![\\\w}\])^])\{(\w+)\}(?![\w{])"), r"\1"),  # {2019}
    (re.compile(r"\s*\\text\{\s*(?:degrees?|deg)\s*\}|(?<=\d) degrees?$|\\degree"), r"^\\circ "),
    (re.compile(r"([_^])\s*\{\s*(\w)\s*\}(?!\w)"), r"\1\2"),  # x_{1}
    (re.compile(r",?\s*(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])"), " , "),  # 1 and 2
    (re.compile(r"\s+"), " "),
)
GROUP = re.compile(r"\{(?:[^{}\\]|\{[^{}]*\}|\\[a-zA-Z])*\}")  # {x=42}
STATED = re.compile(  # \text{The answer is } or \text{The answer is B}
    r"^(\\text\{\s*)?(?:the\s+)?(?:final\s+|correct\s+)*answer\s*(?:is|:)\s*:?\s*(\}?)",
    re.IGNORECASE)
MEMBER = re.compile(r"^\s*[a-zA-Z]\s*\\in(?![a-z])")  # x \in of x \in [0,1]


def words_of(match):
    r"""A match of WORDS in one spelling: \text{cm}; functions as commands, numbers as they are."""
    inside = match[1] if match[1] is not None else match[2]
    inside = re.sub(r"\\[,;:! ]|~|\\cdot(?![a-z])", " ", inside)  # N \cdot m
    # \mathrm{min} are minutes.
    if re.fullmatch(FUNCTIONS, inside.strip()) and inside not in ("sec", "min", " sec", " min"):
        return rf"\{inside.strip()} "
    if inside.strip() in ("i", "e", "d") and "text" not in match[0][:5]:  # \mathrm{i}
        return inside.strip()
    if re.fullmatch(r"\s*,?\s*(?:and|or)\s*", inside):
        return " , "
    if not re.search("[a-zA-Z%$]", inside) or "\\" in inside or "=" in inside:
        return inside
    return rf"\text{{{re.sub('[{}]', '', inside)}}}"  # K^{-1}


def unwrapped(answer):
    """Without dollars, brackets of mathematics or stars around it, and without a full stop."""
    before = None
    while answer != before:  # **$42$.** is wrapped twice
        before = answer
        for left, right in WRAPPERS:
            inside = answer[len(left) : -len(right)]
            # $1$, $2$ begins and ends with a dollar too, but is not wrapped in one pair.
            if inside and left not in inside and answer == left + inside + right:
                answer = inside
        if GROUP.fullmatch(answer):
            answer = answer[1:-1]
        answer = answer.strip()
        if answer.endswith(".") and not answer.endswith(".."):
            answer = answer[:-1].strip()
    return re.sub(r"(?<!\\)\$", "", answer)


def clean(answer):
    r"""An answer as LaTeX in one spelling: on one line, Unicode mathematics written out, words as
    \text{}, no dollars, no fonts, no spacing commands, no full stop."""
    # NFKC turns raised and lowered digits into plain ones: mark them before.
    answer = RAISED.sub(r"^{\g<0>}", answer)
    answer = LOWERED.sub(r"_{\g<0>}", answer)
    answer = unicodedata.normalize("NFKC", answer.translate(LATEX)).translate(LATEX)
    answer = unwrapped(answer.replace("\N{FRACTION SLASH}", "/").strip())
    answer = FONT.sub("", WORDS.sub(words_of, answer))
    for written, meant in REWRITTEN:
        answer = written.sub(meant, answer)
    answer = STATED.sub(lambda m: r"\text{" if m[1] and not m[2] else "", answer.strip())
    answer = unwrapped(MEMBER.sub("", answer))
    return answer.removeprefix(r"\approx").strip()


def tight(latex):
    """Without the white space that means nothing (between two digits it does)."""
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", latex)


# ---------- letters of multiple choice ----------

TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")  # \text{east}
PREFACE = re.compile(  # The correct answer is
    r"^\s*(?:(?:hence|so|thus|therefore)\s*,?\s*)?(?:the\s+)?(?:(?:final|correct|best|right)\s+)*"
    r"(?:answer|option|choice)?\s*(?:choice|option)?\s*(?:is|:|=)?\s*(?:option|choice)?\s*"
    r"(?:is|:|=)?\s*", re.IGNORECASE)
CHOICE = re.compile(r"\(?([A-J])\)?")  # C or (C)
CHOSEN = re.compile(  # B or (b) or B. 12 cm
    r"(?:[(\[{]\s*([A-J])\s*[)\]}]|([A-J]))\s*($|(?<=[)\]}]).*|[-.:,;)(=].*)",
    re.IGNORECASE | re.DOTALL)
ANOTHER = re.compile(  # a letter by itself: the C of "B or C"; neither f(x) nor 3.2 J nor "a car"
    r"(?<![\w\\^_+*/{])(?:(?<!\d )|(?=.[.):]))(?!a (?!is|was|or|and|may|might|could|also)[a-z]{2})"
    r"([A-HJ])(?![\w^_=+*]|\s*[=(]|'\w)", re.IGNORECASE)
DOUBT = re.compile(  # of "B, not sure"
    r"^\W*(?:but|not|or|maybe|perhaps|probably|is|isn't|wrong|incorrect|false)\b", re.IGNORECASE)


def plain(latex):
    r"""Without the commands around words: \text{(C)} is (C)."""
    return TEXT.sub(r"\1", latex).strip()


def letter(answer):
    r"""The one letter that a multiple-choice answer names -> capital, or None. It is B in "B",
    "(b)", "\text{B}", "The answer is B" or "B. 12 cm". Two letters are none."""
    text = plain(answer)
    chosen = CHOSEN.fullmatch(PREFACE.sub("", text)) or CHOSEN.fullmatch(text)
    if not chosen:
        return None
    own = (chosen[1] or chosen[2]).upper()
    others = {other.upper() for other in ANOTHER.findall(chosen[3])}
    return None if others - {own} or DOUBT.search(chosen[3]) else own


# ---------- right as a text ----------

def wording(latex):
    """The words of an answer that is nothing but words, for comparison -> lower case, or None:
    "no solution", "east", "BCA". Not "x", and not "12 cm"."""
    text = plain(latex)
    if not re.fullmatch(r"[^\W\d_](?:[^\W\d_]|[ .'&-])*", text) or "\\" in text:
        return None
    is_word = "\\text" in latex or len(text) > 3 or (text[0].isupper() and len(text) > 1)
    return " ".join(re.sub(r"[.'&-]", " ", text).lower().split()) if is_word else None


def normal(answer):
    """An answer as a text that is equal for the usual ways to write it: what papers compare that do
    not use computer algebra."""
    text = clean(answer)
    if words := wording(text):  # East
        return words
    text = re.sub(r"^([-+]?[\d.]+)[eE]([-+]?\d+)$", r"\1\\times10^{\2}", text)  # 4.5e33
    # Units, percent and dollars mean nothing, and neither does the x= of x=5.
    text = re.sub(r"\\?[%$]|^\s*x\s*=\s*", "", text)
    number = re.match(r"[-+]?[\d.,/]+|", text)[0]
    unit = number and unit_of(text.removeprefix(number))
    text = tight(number if unit and unit.certain and unit.multiplier == 1 else text)
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
