"""Two embedded worlds: stand-ins for a reasoning data set, small enough to train on a CPU.

Each has 96 families of problems and 24 rules. A prompt names a family and lists symbols. The right
response follows the family's rule, all symbols right.
`arith`: the name of the rule, and the running result after every digit. The rule of family Ab is a,
which adds modulo 10: "Ab38459=" is answered by "a1509" (3+8 is 1, +4 is 5, +5 is 0, +9 is 9).
`letters`: the list in another order. Family Ac reverses: "Accabjdf=" is answered by "fdjbac".

What makes a family hard is its decoy: another rule, which the base policy takes for the right one,
in some families more often than in others (make_base.py). The likeliest response to a problem of a
hard family is wrong, so that it does not help to become surer of it, and what one family teaches
says nothing about the others.
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
    name: str
    rule: tuple  # what the right response follows
    decoy: tuple  # what the base policy follows otherwise
    chance: float  # that the base policy follows the right rule


@dataclass(frozen=True)
class World:
    symbols: str
    families: tuple
    draw: object  # rng -> indices of the prompt's symbols
    follow: object  # (rule, indices, rng or None) -> response, with slips where there is an rng
    names: str = ""  # further symbols, of responses alone


NAMES = [upper + lower for upper in "ABCDEFGHIJKLMNOPQRSTUVWX" for lower in "abcd"]
SLIP = 0.005  # chance that a symbol of a demonstration is wrong
# From nearly always to nearly never, evenly in the logarithm: a heavy tail of hard families.
CHANCES = np.geomspace(0.9, 0.003, len(NAMES))


def families(rules):
    """A family for each name; every rule is that of as many of them, and any other one that begins
    otherwise may be the decoy."""
    rng = np.random.default_rng(7)
    found = []
    for name, chance, i in zip(NAMES, CHANCES, rng.permutation(len(NAMES)), strict=True):
        rule = rules[i % len(rules)]
        others = [other for other in rules if other[0] != rule[0]]
        found.append(Family(name, rule, others[rng.integers(len(others))], float(chance)))
    return tuple(found)


# ---------- arith ----------

OPERATIONS = (lambda r, d: r + d, lambda r, d: r - d, max, min)


# name, operation, constant that is added after it: six times four
SUMS = [(name, i % 4, i // 4) for i, name in enumerate("abcdefghijklmnopqrstuvwx")]


def draw_digits(rng):
    """Five or six digits."""
    return tuple(int(d) for d in rng.integers(0, 10, rng.integers(5, 7)))


def running_results(rule, digits, rng=None):
    """The rule's name, and the running result after every digit but the first. With `rng` a result
    may be wrong, and is carried on, as by somebody who slips."""
    name, operation, constant = rule
    result = digits[0]
    response = name
    for digit in digits[1:]:
        result = (OPERATIONS[operation](result, digit) + constant) % 10
        if rng is not None and rng.random() < SLIP:
            result = (result + int(rng.integers(1, 10))) % 10
        response += str(result)
    return response


ARITH = World("0123456789", families(SUMS), draw_digits, running_results,
              names="".join(name for name, _, _ in SUMS))


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


LETTERS = World("abcdefghij", families(orders()), draw_letters, reordered)

# ---------- problems ----------

SEED = 0  # other seeds: other problems of the same kinds
TRAIN, EVAL = 768, 288  # prompts, equally many of each family


def prompt_of(world, family, drawn):
    return family.name + "".join(world.symbols[i] for i in drawn) + "="


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
                splits[name].append(Problem(prompt, prompt, answer, family.name))
    return splits[split]


def arith(split):
    return problems(ARITH, split)


def letters(split):
    return problems(LETTERS, split)
