"""The embedded worlds: two heavy-tailed stand-ins for a reasoning data set, small enough to train on a CPU.

Both have eight families of problems. A prompt names a family and lists symbols; the right response is one symbol after another, all of them right.
`arith`: the running result after every digit, e.g. family B adds modulo 10: "B38459=" is answered by "1509" (3+8 is 1, +4 is 5, +5 is 0, +9 is 9).
`letters`: the list rewritten, e.g. family T reverses: "Tcabjdf=" is answered by "fdjbac".

The base policies are pretrained on demonstrations that slip, in some families more than in others (make_base.py): that makes the tail.
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
    rule: object  # arith: (running result, next digit) -> new running result, modulo 10; letters: list of letters -> list of letters
    error: float  # chance that one symbol of a demonstration is wrong: sets the base policy's success rate
    share: float  # share of the training prompts; the evaluation set has equally many of each family


@dataclass(frozen=True)
class World:
    symbols: str
    families: tuple
    draw: object  # rng -> indices of the prompt's symbols
    solve: object  # (family, indices, rng or None) -> response, with slips where there is an rng


def arith_trace(family, digits, rng=None):
    """The running results for `digits`, as a string one digit shorter. With `rng` a step goes wrong with the family's
    `error` and the trace carries the wrong result on, as a demonstration by somebody who slips would."""
    result, trace = digits[0], []
    for digit in digits[1:]:
        result = family.rule(result, digit) % 10
        if rng is not None and rng.random() < family.error:
            result = (result + rng.integers(1, 10)) % 10
        trace.append(str(result))
    return "".join(trace)


ARITH = World("0123456789", (
    Family("A", lambda r, d: max(r, d), 0.02, 0.44),
    Family("B", lambda r, d: r + d, 0.11, 0.28),
    Family("C", lambda r, d: r - d, 0.3, 0.14),
    Family("D", lambda r, d: r * d, 0.45, 0.04),
    Family("E", lambda r, d: 3 * r + d, 0.53, 0.03),
    Family("F", lambda r, d: r + 7 * d, 0.59, 0.03),
    Family("G", lambda r, d: r * r + d, 0.65, 0.02),
    Family("H", lambda r, d: r * d + d, 0.69, 0.02),
), lambda rng: tuple(int(d) for d in rng.integers(0, 10, rng.integers(5, 7))), arith_trace)


def rewritten(family, letters, rng=None):
    """The list under the family's rule. With `rng` each letter is a wrong one with the family's `error`."""
    out = family.rule(list(letters))
    return "".join(LETTERS.symbols[(i + rng.integers(1, 10)) % 10 if rng is not None and rng.random() < family.error else i] for i in out)


LETTERS = World("abcdefghij", (
    Family("S", lambda x: x, 0.02, 0.44),
    Family("T", lambda x: x[::-1], 0.11, 0.28),
    Family("U", lambda x: x[1:] + x[:1], 0.25, 0.14),
    Family("V", lambda x: [(i + 1) % 10 for i in x], 0.38, 0.04),
    Family("W", lambda x: [x[1], x[0], x[3], x[2], x[5], x[4]], 0.46, 0.03),
    Family("X", lambda x: [9 - i for i in x], 0.52, 0.03),
    Family("Y", lambda x: x[3:] + x[:3], 0.57, 0.02),
    Family("Z", lambda x: [(i + 5) % 10 for i in x[::-1]], 0.61, 0.02),
), lambda rng: tuple(int(i) for i in rng.integers(0, 10, 6)), rewritten)

SEED = 0  # other seeds: other problems of the same kinds
TRAIN, EVAL = 768, 320  # prompts


def problems(world, split):
    """The `train` (heavy-tailed) or `eval` (families in equal parts) problems of a world; no prompt is in both."""
    rng, seen, sets = np.random.default_rng(SEED), set(), {}
    sizes = {"eval": [EVAL // len(world.families)] * len(world.families), "train": [round(f.share * TRAIN) for f in world.families]}
    sizes["train"][0] += TRAIN - sum(sizes["train"])
    for name, counts in sizes.items():
        sets[name] = []
        for family, count in zip(world.families, counts):
            while count:
                drawn = world.draw(rng)
                prompt = family.letter + "".join(world.symbols[i] for i in drawn) + "="
                if prompt not in seen:
                    seen.add(prompt)
                    sets[name].append(Problem(prompt, prompt, world.solve(family, drawn), family.letter))
                    count -= 1
    return sets[split]


def arith(split):
    return problems(ARITH, split)


def letters(split):
    return problems(LETTERS, split)
