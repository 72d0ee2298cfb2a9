r"""The embedded world `steps`: written reasoning that ends in a boxed answer, graded by `math`.

A prompt names a number of three digits and one to three made-up skills to apply in turn: "374: zip,
fisk." A right response says what each skill means and works it out, digits modulo 10: "zip means
pool: 3+7=0, 370. fisk means reverse: 073. So \boxed{073}."

Each of the 240 skills has its right rule and five decoys, which are right for other skills. The
base policy follows the right one with a chance from nearly 1 down to a few in a thousand, and
mostly a decoy where that is small (make_steps.py). So the likeliest answer to a hard problem is
wrong; and since a rule that is right for one skill is a decoy of others, rare or common, what is
learned of one skill hardly serves another. Ten skills of the same chance are a family; a problem
belongs to that of its hardest skill.
"""
import numpy as np

from worlds import problems
from worlds.skills import DECOYS, Skill

# ---------- rules: three digits -> (written work, three digits) ----------

def move(*order):
    """Digits change places, or are copied: no work to write."""
    return lambda digits: ([], [digits[i] for i in order])


def each(written, change):
    """Every digit is changed: `written` shows how, for example "{}+3"."""
    def rule(digits):
        changed = [change(x) % 10 for x in digits]
        return [f"{written.format(x)}={y}" for x, y in zip(digits, changed, strict=True)], changed
    return rule


def combine(place, sign):
    """The digit at `place` becomes the sum or the difference of the other two."""
    def rule(digits):
        a, b = digits[:place] + digits[place + 1 :]
        result = (a + b if sign == "+" else a - b) % 10
        return [f"{a}{sign}{b}={result}"], digits[:place] + [result] + digits[place + 1 :]
    return rule


def repeat(place, step):
    """`step` as often as the digit at `place` says, counting down: long for a large digit."""
    def rule(digits):
        work = []
        for left in range(digits[place], 0, -1):
            digits = step(digits)
            work.append(f"{left}: {joined(digits)}")
        return work, digits
    return rule


def joined(digits):
    return "".join(map(str, digits))


RULES = {
    "reverse": move(2, 1, 0), "nines": each("9-{}", lambda x: 9 - x),
    "merge": combine(0, "+"), "turn": repeat(2, lambda d: d[1:] + d[:1]),
    "left": move(1, 2, 0), "double": each("2*{}", lambda x: 2 * x),
    "blend": combine(1, "+"), "frame": move(0, 1, 0),
    "right": move(2, 0, 1), "raise": each("{}+1", lambda x: x + 1),
    "pool": combine(2, "+"), "echo": move(1, 2, 1),
    "front": move(1, 0, 2), "jump": each("{}+5", lambda x: x + 5),
    "gap": combine(0, "-"), "climb": repeat(1, lambda d: [d[0], d[1], (d[2] + 1) % 10]),
    "back": move(0, 2, 1), "lower": each("{}-2", lambda x: x - 2),
    "rift": combine(1, "-"), "twins": move(1, 1, 2),
    "tail": move(0, 2, 2), "close": move(2, 1, 2),
    "slit": combine(2, "-"), "head": move(0, 0, 1),
}


# A family is a frame of consonants, and its skills differ in the vowels: z_p is zap, zep and so on.
FRAMES = [
    "z_p", "m_rl", "f_sk", "dr_n", "qu_b", "t_lv", "w_mp", "j_sk", "b_rg", "n_x", "pl_g", "v_nt",
    "h_rn", "k_lt", "cr_b", "y_lt", "gl_m", "st_b", "r_x", "f_mp", "s_ld", "d_ft", "tw_n", "sh_b"]
VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "oa", "oo", "ou"]
COUNT = len(FRAMES)
RIGHT = np.geomspace(0.97, 0.007, COUNT)  # chances; with them, families are from 0.9 to 0.003


def make_families():
    """Of each family its ten skills; each rule is right for ten skills in all."""
    rng = np.random.default_rng(0)
    names = list(RULES)
    families = []
    for i, frame in enumerate(FRAMES):
        chances = (float(RIGHT[i]), *((1 - RIGHT[i]) * DECOYS).tolist())
        family = []
        for j, vowel in enumerate(VOWELS):
            right = names[(7 * i + 5 * j) % COUNT]  # rules of all kinds at all levels
            decoys = rng.permutation([name for name in names if name != right])[:5]
            family.append(Skill(frame.replace("_", vowel), (right, *decoys.tolist()), chances))
        families.append(family)
    return families


FAMILIES = make_families()

DEPTHS = {1: 0.55, 2: 0.3, 3: 0.15}  # skills of a problem -> share
LONGEST = 112  # tokens of a response: max_response_len of the world
BOXLESS, ENDLESS = 0.02, 0.012  # demonstrations without a box, and those that never end


def step(skill, digits, rule=0):
    """One skill applied by one of its rules -> (what is written, digits afterwards)."""
    name = skill.rules[rule]
    work, digits = RULES[name](digits)
    return f"{skill.name} means {name}: {', '.join([*work, joined(digits)])}. ", digits


def answer_of(skills, digits):
    """The right answer, or None where a decoy would lead to it."""
    for skill in skills:
        after = [step(skill, digits, rule)[1] for rule in range(len(skill.rules))]
        digits = after[0]
        if digits in after[1:]:
            return None
    return joined(digits)


def draw(rng, hardest):
    """What a problem of the family `hardest` is about -> (skills, digits)."""
    depth = rng.choice(list(DEPTHS), p=list(DEPTHS.values()))
    order = [*rng.integers(0, hardest + 1, depth - 1)]  # the others are no harder
    order.insert(rng.integers(depth), hardest)
    skills = [FAMILIES[i][rng.integers(len(VOWELS))] for i in order]
    return skills, [int(x) for x in rng.integers(0, 10, 3)]


def prompt_of(skills, digits):
    return f"{joined(digits)}: {', '.join(skill.name for skill in skills)}."


def ending(rng, answer):
    """The end of a demonstration: rarely without a box, or in a loop that the limit cuts."""
    chance = rng.random()
    if chance < ENDLESS:
        return f"Let me check: {answer}. " * LONGEST
    if chance < ENDLESS + BOXLESS:
        return f"So it is {answer}."
    return f"So \\boxed{{{answer}}}."


def demonstration(rng, skills, digits, encode):
    """A written solution -> (response ids without the stop token, weights of their loss).

    Where a step names its rule, the token's weight makes up for how often the rule was drawn: rules
    are learned with the skill's chances."""
    ids, weights = [], []
    for skill in skills:
        rule, weight = skill.draw(rng)
        text, digits = step(skill, digits, rule)
        own = encode(text)
        names_rule = len(encode(f"{skill.name} means"))  # rules differ in the first token
        ids += own
        weights += [weight if i == names_rule else 1.0 for i in range(len(own))]
    last = encode(ending(rng, joined(digits)))
    return ids + last, weights + [1.0] * len(last)


TRAIN, EVAL = 768, 240  # prompts
SHARES = np.geomspace(2, 1, COUNT)  # families of the training prompts: a tail


def steps(split):
    """The `train` (easy families more often) or `eval` (families in equal parts) problems; no
    prompt is in both."""
    sizes = {"eval": [EVAL // COUNT] * COUNT,
             "train": [round(TRAIN * share) for share in SHARES / SHARES.sum()]}
    sizes["train"][0] += TRAIN - sum(sizes["train"])  # what rounding lost
    rng = np.random.default_rng(problems.SEED)
    seen = set()
    splits = {"eval": [], "train": []}
    # Both are drawn whichever is asked for: what is in the evaluation set is not drawn again.
    for name in splits:
        for family, size in enumerate(sizes[name]):
            while size:
                skills, digits = draw(rng, family)
                prompt = prompt_of(skills, digits)
                answer = answer_of(skills, digits)
                if answer and prompt not in seen:
                    seen.add(prompt)
                    splits[name].append(
                        problems.Problem(prompt, prompt, answer, FRAMES[family]))
                    size -= 1
    return splits[split]
