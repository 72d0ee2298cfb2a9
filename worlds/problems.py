"""Two embedded worlds: stand-ins for a reasoning data set, small enough to train on a CPU.

Each has 24 families of problems and 24 rules. A prompt names a family and lists symbols. The right
response follows the family's rule, all symbols right.
`arith`: the name of the rule, and the running result after every digit. The rule of family H is a,
which adds modulo 10: "H38459=" is answered by "a1509" (3+8 is 1, +4 is 5, +5 is 0, +9 is 9).
`letters`: the list in another order. Family U reverses: "Ucabjdf=" is answered by "fdjbac".

What makes a family hard is its decoy: the rule of another family, which the base policy takes for
the right one, in some families more often than in others (make_base.py). The likeliest response to
a problem of a hard family is wrong, so that it does not help to become surer of it, and what one
family teaches says nothing about the others.
"""
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Problem:
    uid: str  # stable id: the classifier remembers a problem by it
    prompt: str  # the text the policy continues
    answer: str  # what the grader compares with
    group: str = ""  # family, subject or level; evaluation reports each group and the worst


@dataclass(frozen=True)
class Family:
    letter: str
    rule: object  # what the right response follows
    decoy: object  # what the base policy follows otherwise
    chance: float  # that the base policy follows the right rule


@dataclass(frozen=True)
class World:
    symbols: str
    families: tuple
    draw: object  # rng -> indices of the prompt's symbols
    follow: object  # (rule, indices, rng or None) -> response, with slips where there is an rng
    names: str = ""  # further symbols, of responses alone


LETTERS_OF_FAMILIES = "ABCDEFGHIJKLMNOPQRSTUVWX"
SLIP = 0.005  # chance that a symbol of a demonstration is wrong
# From nearly always to nearly never, evenly in the logarithm: a heavy tail of hard families.
CHANCES = np.geomspace(0.9, 0.003, len(LETTERS_OF_FAMILIES))


def families(rules, conflict):
    """A family for each letter, its rule and its decoy drawn from `rules`. Rules that `conflict`
    begin alike: neither is the other's decoy."""
    rng = np.random.default_rng(7)
    order = rng.permutation(len(rules))
    while True:
        decoys = rng.permutation(len(rules))
        if not any(conflict(rules[a], rules[b]) for a, b in zip(order, decoys, strict=True)):
            break
    return tuple(Family(letter, rules[a], rules[b], float(chance)) for letter, a, b, chance
                 in zip(LETTERS_OF_FAMILIES, order, decoys, CHANCES, strict=True))


# ---------- arith ----------

OPERATIONS = (lambda r, d: r + d, lambda r, d: r - d, max, min)


@dataclass(frozen=True)
class Sum:
    name: str
    operation: int
    constant: int

    # (running result, next digit) -> new running result
    def __call__(self, result, digit):
        return (OPERATIONS[self.operation](result, digit) + self.constant) % 10


# four operations, six constants
NAMES = "abcdefghijklmnopqrstuvwx"
SUMS = tuple(Sum(name, i % 4, i // 4) for i, name in enumerate(NAMES))


def draw_digits(rng):
    """Five or six digits."""
    return tuple(int(d) for d in rng.integers(0, 10, rng.integers(5, 7)))


def running_results(rule, digits, rng=None):
    """The rule's name, and the running result after every digit but the first. With `rng` a result
    may be wrong, and is carried on, as by somebody who slips."""
    result = digits[0]
    response = rule.name
    for digit in digits[1:]:
        result = rule(result, digit)
        if rng is not None and rng.random() < SLIP:
            result = (result + int(rng.integers(1, 10))) % 10
        response += str(result)
    return response


ARITH = World("0123456789", families(SUMS, lambda a, b: a == b), draw_digits, running_results,
              NAMES)


# ---------- letters ----------

def orders():
    """24 orders of six letters, as their places in the prompt: begun at any of the six, on to the
    right or to the left, and with neighbours swapped or not."""
    found = []
    for start in range(6):
        turned = [(start + i) % 6 for i in range(6)]
        for order in (turned, turned[::-1]):
            swapped = [order[i] for i in (1, 0, 3, 2, 5, 4)]
            found += [tuple(order), tuple(swapped)]
    return found


def draw_letters(rng):
    """Six different letters, as numbers."""
    return tuple(int(i) for i in rng.permutation(10)[:6])


def reordered(order, letters, rng=None):
    """The letters in another order. With `rng` a letter may be a wrong one."""
    response = ""
    for place in order:
        letter = letters[place]
        if rng is not None and rng.random() < SLIP:
            letter = (letter + int(rng.integers(1, 10))) % 10
        response += LETTERS.symbols[letter]
    return response


# the first letter of a response tells which of the two orders it follows
LETTERS = World("abcdefghij", families(orders(), lambda a, b: a[0] == b[0]), draw_letters,
                reordered)

# ---------- problems ----------

SEED = 0  # other seeds: other problems of the same kinds
TRAIN, EVAL = 768, 312  # prompts, equally many of each family


def prompt_of(world, family, drawn):
    return family.letter + "".join(world.symbols[i] for i in drawn) + "="


def problems(world, split):
    """The `train` or `eval` problems of a world; no prompt is in both."""
    rng = np.random.default_rng(SEED)
    seen = set()
    # Both splits are drawn whichever is asked for, the evaluation set first: a prompt that is in it
    # is not drawn again.
    splits = {"eval": [], "train": []}
    for name, size in (("eval", EVAL), ("train", TRAIN)):
        while len(splits[name]) < size:
            family = world.families[len(splits[name]) % len(world.families)]
            drawn = world.draw(rng)
            prompt = prompt_of(world, family, drawn)
            if prompt not in seen:
                seen.add(prompt)
                answer = world.follow(family.rule, drawn)
                splits[name].append(Problem(prompt, prompt, answer, family.letter))
    return splits[split]


def arith(split):
    return problems(ARITH, split)


def letters(split):
    return problems(LETTERS, split)
