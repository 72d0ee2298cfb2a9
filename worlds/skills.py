"""Two embedded worlds with decoys: stand-ins for a reasoning data set, harder than `arith`.

Each has 24 rules and 144 skills, six of each of 24 levels A to X. A prompt names a skill and lists
symbols. The right response follows the skill's rule, all symbols right.
`chains`: the name of the rule, and the running result after every digit. The rule of skill Da is a,
which adds modulo 10: "Da38459=" is answered by "a1509" (3+8 is 1, +4 is 5, +5 is 0, +9 is 9).
`orders`: the name of the rule, and the letters in another order. The rule of skill Aa is 2, which
reverses: "Aacabjdf=" is answered by "2fdjbac".

What makes a skill hard are its decoys: five other rules, which the base policy takes for the right
one, at each level more often than at the one before (make_base.py). The likeliest response to a
problem of a hard skill is wrong, so that it does not help to become surer of it, and what one skill
teaches says little about the others.
"""
from dataclasses import dataclass
from itertools import product

import numpy as np

from worlds import problems
from worlds.problems import Problem, draw_digits


@dataclass(frozen=True)
class Skill:
    name: str  # its level, and a lower letter
    rules: tuple  # the right one, then its decoys
    chances: tuple  # with which the base policy follows them

    def draw(self, rng):
        """A rule for a demonstration -> its index, and what the token that shows it must weigh in
        the loss. Half of the draws are even, so that rare rules are learned as fluently as common
        ones; the weight makes up for it."""
        chances = np.array(self.chances)
        drawn_with = (chances + 1 / len(chances)) / 2
        i = rng.choice(len(chances), p=drawn_with)
        return i, chances[i] / drawn_with[i]


@dataclass(frozen=True)
class SkillWorld:
    symbols: str
    skills: tuple
    draw: object  # rng -> indices of the prompt's symbols
    follow: object  # (rule, indices, rng or None) -> response, with slips where there is an rng
    names: str = ""  # further symbols, of responses alone
    steps: int = 1500  # of the pretraining
    stride: int = 1

    grad_clip = 1.0

    @property
    def tokens(self):
        return [*self.symbols, *[skill.name for skill in self.skills], *self.names]

    def prompt(self, skill, drawn):
        return skill.name + "".join(self.symbols[i] for i in drawn) + "="

    def demonstration(self, rng, number, held_out):
        """A prompt that is not held out, and a response that follows one of the skill's rules
        -> prompt, response, a weight in the loss for each of its symbols and its end."""
        skill = self.skills[number % len(self.skills)]
        prompt = None
        while prompt is None or prompt in held_out:
            drawn = self.draw(rng)
            prompt = self.prompt(skill, drawn)
        rule, weight = skill.draw(rng)
        response = self.follow(skill.rules[rule], drawn, rng)
        weights = np.ones(len(response) + 1)
        weights[0] = weight  # all rules of a skill begin otherwise
        return prompt, response, weights


LEVELS = "ABCDEFGHIJKLMNOPQRSTUVWX"
KINDS = "abcdef"  # of each level
# Of the other responses. Decoys are common and rare, so that a rare rule is not likelier to be the
# right one: if it were, all skills would be learned at once.
DECOYS = np.geomspace(1, 0.01, 5) / np.geomspace(1, 0.01, 5).sum()
SLIP = 0.005  # chance that a symbol of a demonstration is wrong


def skills(rules, rarest):
    """The skills of all levels. The chance of the right rule goes from 0.9 down to `rarest`,
    evenly in the logarithm: a heavy tail of hard skills. Every rule is right for as many of them,
    and all rules of a skill begin otherwise."""
    right = np.geomspace(0.9, rarest, len(LEVELS))
    rng = np.random.default_rng(7)
    turn = rng.permutation(len(LEVELS) * len(KINDS))
    found = []
    for i, (level, kind) in zip(turn, product(range(len(LEVELS)), KINDS), strict=True):
        own = [rules[i % len(rules)]]
        while len(own) <= len(DECOYS):
            other = rules[rng.integers(len(rules))]
            if other[0] not in [rule[0] for rule in own]:
                own.append(other)
        chances = (right[level], *(1 - right[level]) * DECOYS)
        found.append(Skill(LEVELS[level] + kind, tuple(own), chances))
    return tuple(found)


# ---------- chains ----------

OPERATIONS = (lambda r, d: r + d, lambda r, d: r - d, max, min)
# name, operation, constant that is added after it: six times four
SUMS = [(name, i % 4, i // 4) for i, name in enumerate("abcdefghijklmnopqrstuvwx")]


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


CHAINS = SkillWorld("0123456789", skills(SUMS, 0.003), draw_digits, running_results,
                    names="".join(name for name, _, _ in SUMS))


# ---------- orders ----------

ORDER_NAMES = "0123456789klmnopqrstuvwx"


def all_orders():
    """24 orders of six letters, each its name and then places in the prompt: begun at any of the
    six, on to the right or to the left, and with neighbours swapped or not."""
    found = []
    for start in range(6):
        turned = [(start + i) % 6 for i in range(6)]
        for order in (turned, turned[::-1]):
            found += [order, [order[i] for i in (1, 0, 3, 2, 5, 4)]]
    return [(name, *order) for name, order in zip(ORDER_NAMES, found, strict=True)]


def draw_letters(rng):
    """Six different letters, as numbers."""
    return tuple(int(i) for i in rng.permutation(10)[:6])


def reordered(rule, letters, rng=None):
    """The rule's name, and the letters in its order. With `rng` a letter may be a wrong one."""
    name, *order = rule
    response = name
    for place in order:
        letter = letters[place]
        if rng is not None and rng.random() < SLIP:
            letter = (letter + int(rng.integers(1, 10))) % 10
        response += ORDERS.symbols[letter]
    return response


# Its skills are learned sooner than those of `chains`, so that the tail is longer.
ORDERS = SkillWorld("abcdefghij", skills(all_orders(), 0.001), draw_letters, reordered,
                    ORDER_NAMES, stride=len(KINDS))

# ---------- problems ----------

TRAIN, EVAL = 720, 288  # prompts, equally many of each skill


def split_of(world, split):
    """The `train` or `eval` problems of a world, grouped by level; no prompt is in both."""
    rng = np.random.default_rng(problems.SEED)
    seen = set()
    # Both splits are drawn whichever is asked for, the evaluation set first: a prompt that is in it
    # is not drawn again.
    splits = {"eval": [], "train": []}
    for name, size in (("eval", EVAL), ("train", TRAIN)):
        while len(splits[name]) < size:
            skill = world.skills[len(splits[name]) % len(world.skills)]
            drawn = world.draw(rng)
            prompt = world.prompt(skill, drawn)
            if prompt not in seen:
                seen.add(prompt)
                answer = world.follow(skill.rules[0], drawn)
                splits[name].append(Problem(prompt, prompt, answer, skill.name[0]))
    return splits[split]


def chains(split):
    return split_of(CHAINS, split)


def orders(split):
    return split_of(ORDERS, split)
