r"""Numbers as a person writes them when the work is done, with or without a unit: 42, -3/4,
1\frac{1}{2}, 4.5 \times 10^{33}, 36 dollars, 9.8 m/s^2."""
import functools
import re
from fractions import Fraction
from typing import NamedTuple

# ---------- units ----------

# A line has the names of a unit, how many base units it is, and these. Names of lines with a star
# take the prefixes: mm, kilometer. A plural "s" is left away.
TABLE = """
* m meter metre = 1 m
* g gram gramme = 1/1000 kg
* s sec second = 1 s
* A ampere amp = 1 A
* K kelvin = 1 K
* mol mole = 1 mol
* cd candela = 1 cd
* Hz hertz = 1 s-1
* N newton = 1 kg m s-2
* Pa pascal = 1 kg m-1 s-2
* J joule = 1 kg m2 s-2
* W watt = 1 kg m2 s-3
* C coulomb = 1 A s
* V volt = 1 kg m2 s-3 A-1
* F farad = 1 kg-1 m-2 s4 A2
* Ω ohm = 1 kg m2 s-3 A-2
* S siemens = 1 kg-1 m-2 s3 A2
* Wb weber = 1 kg m2 s-2 A-1
* T tesla = 1 kg s-2 A-1
* H henry = 1 kg m2 s-2 A-2
* L l liter litre = 1/1000 m3
* M molar = 1000 mol m-3
* eV electronvolt = 1 eV
* cal calorie = 4184/1000 kg m2 s-2
* bar = 100000 kg m-1 s-2
* pc parsec = 1 parsec
* byte B = 8 bit
* bit = 1 bit
min minute = 60 s
h hr hour = 3600 s
day d = 86400 s
week wk = 604800 s
month = 1 month
year yr = 12 month
decade = 120 month
century centuries = 1200 month
km/h kph kmh kmph = 5/18 m s-1
mph = 44704/100000 m s-1
rpm = 1 round s-1
in inch inches = 254/10000 m
ft foot feet = 3048/10000 m
yd yard = 9144/10000 m
mi mile = 1609344/1000 m
Å angstrom = 1/10000000000 m
AU = 1 astronomical
ly lightyear = 1 lightyear
lb lbs pound = 45359237/100000000 kg
oz ounce = 45359237/1600000000 kg
ton tonne t = 1000 kg
acre = 1 acre
hectare ha = 10000 m2
gallon gal = 1 gallon
quart qt = 1/4 gallon
pint pt = 1/8 gallon
cup = 1/16 gallon
atm atmosphere = 101325 kg m-1 s-2
torr mmHg = 101325/760 kg m-1 s-2
erg = 1/10000000 kg m2 s-2
dyn dyne = 1/100000 kg m s-2
rad radian = 1 rad
sr steradian = 1 sr
° deg degree = 1 degree
°C ℃ celsius = 1 celsius
°F ℉ fahrenheit = 1 fahrenheit
u amu dalton = 1 dalton
$ dollar usd buck = 100 cent
¢ cent penny pennies = 1 cent
€ euro eur = 1 euro
£ gbp = 1 sterling
¥ yen jpy yuan rmb cny = 1 yen
₹ rupee rs inr = 1 rupee
"""
PREFIXES = {
    "p": "1/1000000000000", "n": "1/1000000000", "μ": "1/1000000", "m": "1/1000", "c": "1/100",
    "d": "1/10", "k": "1000", "M": "1000000", "G": "1000000000", "T": "1000000000000",
    "f": "1/1000000000000000", "h": "100",
    "pico": "1/1000000000000", "nano": "1/1000000000", "micro": "1/1000000", "milli": "1/1000",
    "centi": "1/100", "deci": "1/10", "kilo": "1000", "mega": "1000000", "giga": "1000000000",
    "tera": "1000000000000",
}
MULTIPLIERS = {  # 3 dozen is 36
    "dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9,
    "trillion": 10**12,
}
# What is counted says nothing about the number: 12 students are 12.
NOUNS = """
apple arrangement bag ball banana bird block boat book bottle box boxes boy bracelet bus buses cake
candies candy car card cat chair chicken child children choice circle clip coin color combination
cookie cow crayon cube customer diagonal digit dog drink duck edge egg element employee face factor
families family fish flower friend fruit game girl glass glasses goal group guest horse house
integer item kid leg lemon lesson letter level lion man marble match matches meal member men muffin
mug number object orange outcome outfit page painting paper passenger path pen pencil people
permutation person piece pizza plant plate player point problem question rabbit reader rectangle
region revolution rock room root row seat session sheep shell shirt shot slice soldier solution song
stamp step sticker stone store student subset symbol team term ticket tile toy train tree triangle
trip unit vehicle vertex vertices video visitor vote way woman women word worker
"""
COUNTED = frozenset(NOUNS.split())


class Unit(NamedTuple):
    scale: Fraction  # how many of the base units
    bases: tuple  # ((base unit, its power), ...), sorted
    multiplier: int = 1  # 10**6 of a million dollars
    certain: bool = True  # False of the m in "5 m", which may be a variable


def read_table():
    """-> {name: Unit}, {name: Unit} of those that take prefixes."""
    units = {}
    prefixed = {}
    for line in TABLE.strip().splitlines():
        names, _, meaning = line.lstrip("* ").partition(" = ")
        scale, *bases = meaning.split()
        powers = [re.fullmatch(r"(\D+?)(-?\d*)", base).groups() for base in bases]
        unit = Unit(Fraction(scale), tuple(sorted((base, int(n or 1)) for base, n in powers)))
        units |= dict.fromkeys(names.split(), unit)
        if line.startswith("*"):
            prefixed |= dict.fromkeys(names.split(), unit)
    return units, prefixed


UNITS, PREFIXED = read_table()


@functools.lru_cache(4096)
def unit_named(word):
    """The Unit that one word is, or None. "cm", "kilometers", "students"."""
    candidates = [word] + [word[:-1]] * (len(word) > 2 and word.endswith("s"))
    if len(word) > 2:
        candidates += [candidate.lower() for candidate in candidates]
    for name in candidates:
        if name in UNITS:
            return UNITS[name]
        if name in COUNTED:
            return Unit(Fraction(1), ())
        for prefix, scale in PREFIXES.items():
            base = PREFIXED.get(name.removeprefix(prefix)) if name.startswith(prefix) else None
            # A short prefix goes with a short name: mm, but not mmeter.
            if base and (len(prefix) > 2) == (len(name) - len(prefix) > 3):
                return base._replace(scale=base.scale * Fraction(scale))
    return None


SPELLED = (  # what a unit is written with -> plain text; in this order
    (re.compile(r"\\text\s*\{([^{}]*)\}"), r" \1 "),  # \text{cm}
    (re.compile(r"\^\s*\{?\s*(?:\\circ|\\degree)\s*\}?|\\degree"), "°"),  # ^\circ
    (re.compile(r"\^\s*\{\s*(-?\d)\s*\}"), r"^\1"),  # ^{-1}
    (re.compile(r"°\s+(?=[CF]\b)"), "°"),  # ° C
    (re.compile(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"\1/\2"),  # \frac{m}{s^2}
    (re.compile(r"\\mu\s*"), "μ"),  # \mu m
    (re.compile(r"\\Omega"), "Ω"),
    (re.compile(r"\\\$"), "$"),
    (re.compile(r"\\ell\b"), "L"),
    (re.compile(r"\bper\b"), "/"),  # miles per hour
    (re.compile(r"\b(?:square|sq\.?)\s+([a-zA-Z]+)"), r"\1^2"),  # square meters
    (re.compile(r"\b(?:cubic|cu\.?)\s+([a-zA-Z]+)"), r"\1^3"),  # cubic feet
    (re.compile(r"\s+squared\b"), "^2"),  # meters squared
    (re.compile(r"\s+cubed\b"), "^3"),
    (re.compile(r"\\cdot|\\times|[*·()]|\bof\b"), " "),  # N \cdot m
    (re.compile(r"\b([a-zA-Z]{2,})\.(?!\w)"), r"\1"),  # in.
    (re.compile(r"(?<=\w) +(?:old|long|tall|wide|high|deep|each|total|left) *$"), ""),  # years old
)
FACTOR = re.compile(r"\s*(/?)\s*([a-zA-ZΩμÅ°$¢€£¥₹]+)(?:(?:\s*\^\s*)?(-?\d))?\s*")  # /s^2 or cm2


@functools.lru_cache(4096)
def unit_of(latex):
    r"""The Unit that a piece of LaTeX is, or None: \text{ cm}^2, m/s^2, \text{J mol}^{-1}, million
    dollars. All after the bar of a fraction is under it."""
    text = latex
    for pattern, plain in SPELLED:
        text = pattern.sub(plain, text)
    scale, multiplier, sign, certain = Fraction(1), 1, 1, "\\text" in latex or "/" in text
    powers = {}
    at = 0
    while at < len(text.rstrip()):
        factor = FACTOR.match(text, at)
        if not factor:
            return None
        at = factor.end()
        bar, word, power = factor.groups()
        sign = -1 if bar else sign
        if word.lower().removesuffix("s") in MULTIPLIERS and not power:
            multiplier *= MULTIPLIERS[word.lower().removesuffix("s")]
            certain = True
            continue
        unit = unit_named(word)
        if unit is None:
            return None
        certain = certain or len(word) > 1 or not (word.isascii() and word.isalpha())
        power = sign * int(power or 1)
        scale *= unit.scale**power
        for base, n in unit.bases:
            powers[base] = powers.get(base, 0) + n * power
    bases = tuple(sorted((base, n) for base, n in powers.items() if n))
    # Two bare letters are a product: 2 m g.
    letters = "\\text" not in latex and re.search(r"(?<![a-zA-Z/])[a-zA-Z]\s+[a-zA-Z]\b", text)
    return Unit(scale, bases, multiplier, certain and not letters)


def same_unit(x, y):
    """Whether two units (or None) can stand for each other, up to their scales: cm and m, or a unit
    and none."""
    return not (x and y) or not (x.bases and y.bases) or x.bases == y.bases


# ---------- numbers ----------

WHOLE = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?:[ ]\d{3})+|\d+)(?![\d])"  # 42 or 1,000 or 1 000
NUMBER = re.compile(rf"""
    (?P<sign>[-+]?)\s*
    (?:(?P<mixed>\d+)?\s*\\frac\s*\{{\s*(?P<over>-?\d+)\s*\}}\s*\{{\s*(?P<under>-?\d+)\s*\}}
      |(?:(?P<mixed_2>\d+)\ +)?(?P<over_2>\d+)\s*/\s*(?P<under_2>-?\d+)   # 3/4 or 1 1/2
      |10\s*\^\s*(?:\{{\s*(?P<power>[-+]?\d{{1,4}})\s*\}}|(?P<power_2>\d))       # 10^{{-34}}
      |(?P<whole>{WHOLE})?(?:\.(?P<decimals>\d*)
          (?:\\(?:overline|bar|dot)\s*\{{?(?P<repeating>\d+)\}}?)?)?      # 4.5 or 0.\overline{{3}}
       (?:\s*(?:\\times|\\cdot|[*x×])\s*10\s*\^\s*
          (?:\{{\s*(?P<times>[-+]?\d{{1,4}})\s*\}}|\(\s*(?P<times_2>[-+]?\d{{1,4}})\s*\)
            |(?P<times_3>-?\d{{1,4}}))
         |[eE](?P<times_4>[-+]?\d{{1,4}}))?                         # \times 10^{{33}} or e33
    )""", re.VERBOSE)
PERCENT = re.compile(r"\s*(?:\\?%|\\?\s*\\text\{\s*percent\s*\}|percent\b)\s*(?=$|\S)")  # 50\%
MONEY = re.compile(r"^([-+]?)\s*(?:US|USD)?\s*\\?([$€£¥₹])\s*")  # $36
PARENTHESES = re.compile(r"^([-+]?)\s*\(([^()]*)\)$|\((-?\d+)\)(?=\s*/)")  # -(7/3) or (-7)/3
PER = re.compile(r"(?:\\text\{)?\s*(?:/|per\b)")  # \text{ per hour}
WHOLE_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")  # \text{3 hours}


class Quantity(NamedTuple):
    value: Fraction  # the number as written, with its multiplier: 50 of 50 %
    unit: Unit | None = None
    percent: bool = False
    decimals: int | None = None  # digits after the point; None without one
    even: bool = False  # a fraction that comes out even: 84/2


def first(*values):
    return next((value for value in values if value is not None), None)


def value_of(number):
    """A match of NUMBER -> (value, digits after the point or None, whether it is a fraction that
    comes out even), or None."""
    part = number.groupdict()
    sign = -1 if part["sign"] == "-" else 1
    over, under = first(part["over"], part["over_2"]), first(part["under"], part["under_2"])
    if under is not None:
        mixed = int(first(part["mixed"], part["mixed_2"]) or 0)
        over, under = int(over), int(under)
        if under == 0:
            return None
        even = under not in (1, -1) and over % under == 0
        return sign * (mixed + Fraction(over, under)), None, even
    power = first(part["power"], part["power_2"])
    if power is not None:
        return sign * Fraction(10) ** int(power), None, False
    whole, decimals = part["whole"] or "", part["decimals"]
    if not whole and not decimals:
        return None
    value = Fraction(re.sub("[, ]", "", whole) or 0)
    if decimals:
        value += Fraction(int(decimals), 10 ** len(decimals))
    if repeating := part["repeating"]:
        value += Fraction(int(repeating), (10 ** len(repeating) - 1) * 10 ** len(decimals or ""))
        decimals = None
    times = first(*(part[name] for name in ("times", "times_2", "times_3", "times_4")))
    digits = None if decimals is None or times else len(decimals)
    return sign * value * Fraction(10) ** int(times or 0), digits, False


def quantity(latex):
    """The Quantity that cleaned LaTeX is, or None where it is anything else."""
    latex = latex.strip()
    if text := WHOLE_TEXT.fullmatch(latex):
        latex = text[1].strip()
    currency = MONEY.match(latex)
    if currency:
        latex = currency[1] + latex[currency.end() :]
    latex = PARENTHESES.sub(r"\1\2\3", latex)
    number = NUMBER.match(latex)
    value = number and value_of(number)
    if not value:
        return None
    value, decimals, even = value
    rest = latex[number.end() :].strip()
    percent = PERCENT.match(rest)
    if percent:
        rest = rest[percent.end() :]
    rest = re.sub(r"^-(?=\\text|[a-z])|^\\(?=\s|$)", "", rest)  # 5-\text{cm}
    unit = UNITS[currency[2]] if currency else None
    if not rest.strip():
        return Quantity(value, unit, bool(percent), decimals, even)
    named = unit_of(rest)
    if named is None or percent and named.bases:
        return compound(value, rest)
    if currency:  # $5 million and $5 per hour, but not $5 meters
        if named.bases not in ((), unit.bases) and not PER.match(rest):
            return None
        named = unit._replace(multiplier=named.multiplier)
    return Quantity(value * named.multiplier, named, bool(percent), decimals, even)


def compound(value, rest):
    """2 hours and 30 minutes, as the value and what follows it -> a Quantity, or None."""
    rest = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", rest)
    for gap in re.finditer(r"(?<=[a-z])[\s,]+(?:and\s+)?(?=\d)", rest):
        first_unit = unit_of(rest[: gap.start()])
        second = quantity(rest[gap.end() :])
        # Only units of one kind can be added, large ones first; 5 cm, 6 cm are two answers.
        if first_unit and second and second.unit and (
                first_unit.bases == second.unit.bases and first_unit.scale > second.unit.scale):
            total = value * first_unit.scale + second.value * second.unit.scale
            return Quantity(total / first_unit.scale, first_unit._replace(certain=False))
    return None


def same_value(x, y):
    """Whether two fractions are equal, where a decimal of at least six digits may stand for a
    fraction that is not one: 0.333333 for 1/3."""
    if x.value == y.value:
        return True
    decimal, other = (x, y) if y.decimals is None else (y, x)
    # 10^n is a multiple of the denominators of all decimals of n digits.
    if (decimal.decimals or 0) < 6 or 10**99 % other.value.denominator == 0:
        return False
    larger = max(abs(x.value), abs(y.value))
    return abs(x.value - y.value) <= Fraction(1, 10**6) * min(1, larger)


def same_quantity(gold, found):
    """Whether a Quantity is the reference's: 500 cm for 5 m, 5 cm or 50 % for a bare 5 or 50."""
    if not same_unit(gold.unit, found.unit):
        return False
    if found.unit and not found.unit.certain and not (gold.unit and gold.unit.bases):
        return False
    if gold.percent != found.percent:  # 50 % is 50 and 0.5
        if gold.unit or found.unit:
            return False
        whole, part = (gold, found) if found.percent else (found, gold)
        return same_value(whole, part) or same_value(whole, part._replace(value=part.value / 100))
    if gold.unit and found.unit and gold.unit.bases and found.unit.bases:
        scale = found.unit.scale / gold.unit.scale
        found = found._replace(value=found.value * scale)
    return same_value(gold, found)
