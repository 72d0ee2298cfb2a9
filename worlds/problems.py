"""`arith`, a heavy-tailed stand-in for a reasoning data set, small enough to train on a CPU.

It has eight families of problems. A prompt names a family and lists digits; the right response is
the running result after every digit, all of them right. Family B adds modulo 10, so that "B38459="
is answered by "1509" (3+8 is 1, +4 is 5, +5 is 0, +9 is 9).

The base policy is pretrained on demonstrations that slip, in some families more than in others
(make_base.py): that makes the tail.
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
    rule: object  # (running result, next digit) -> new running result, before modulo 10
    error: float  # chance that one symbol of a demonstration is wrong: sets the success rate
    share: float  # of the training prompts; the evaluation set has equally many of each family


@dataclass(frozen=True)
class World:
    symbols: str
    families: tuple
    draw: object  # rng -> indices of the prompt's symbols
    solve: object  # (family, indices, rng or None) -> response, with slips where there is an rng

    # of the pretraining: steps, every how many kinds it begins with, the gradient norm
    steps = 1500
    stride = 1
    grad_clip = float("inf")

    @property
    def tokens(self):
        return [*self.symbols, *[family.letter for family in self.families]]

    def prompt(self, family, drawn):
        return family.letter + "".join(self.symbols[i] for i in drawn) + "="

    def demonstration(self, rng, number, held_out):
        """A prompt that is not held out, and a response that slips -> prompt, response, a weight in
        the loss for each of its symbols and its end."""
        family = self.families[number % len(self.families)]
        prompt = None
        while prompt is None or prompt in held_out:
            drawn = self.draw(rng)
            prompt = self.prompt(family, drawn)
        response = self.solve(family, drawn, rng)
        return prompt, response, np.ones(len(response) + 1)


def draw_digits(rng):
    """Five or six digits."""
    return tuple(int(d) for d in rng.integers(0, 10, rng.integers(5, 7)))


def arith_trace(family, digits, rng=None):
    """The running results for `digits`, as a string one digit shorter. With `rng` a step goes wrong
    with the family's `error`, and the trace carries the wrong result on, as a demonstration by
    somebody who slips would."""
    result = digits[0]
    trace = []
    for digit in digits[1:]:
        result = family.rule(result, digit) % 10
        if rng is not None and rng.random() < family.error:
            result = (result + rng.integers(1, 10)) % 10
        trace.append(str(result))
    return "".join(trace)


ARITH_FAMILIES = (
    Family("A", lambda r, d: max(r, d), error=0.02, share=0.44),
    Family("B", lambda r, d: r + d, error=0.11, share=0.28),
    Family("C", lambda r, d: r - d, error=0.3, share=0.14),
    Family("D", lambda r, d: r * d, error=0.45, share=0.04),
    Family("E", lambda r, d: 3 * r + d, error=0.53, share=0.03),
    Family("F", lambda r, d: r + 7 * d, error=0.59, share=0.03),
    Family("G", lambda r, d: r * r + d, error=0.65, share=0.02),
    Family("H", lambda r, d: r * d + d, error=0.69, share=0.02),
)
ARITH = World("0123456789", ARITH_FAMILIES, draw_digits, arith_trace)

SEED = 0  # other seeds: other problems of the same kinds
TRAIN, EVAL = 768, 320  # prompts


def problems(world, split):
    """The `train` (heavy-tailed) or `eval` (families in equal parts) problems of a world; no prompt
    is in both."""
    train_sizes = [round(f.share * TRAIN) for f in world.families]
    train_sizes[0] += TRAIN - sum(train_sizes)  # what rounding lost
    eval_sizes = [EVAL // len(world.families)] * len(world.families)
    rng = np.random.default_rng(SEED)
    seen = set()
    # Both splits are drawn whichever is asked for, the evaluation set first: a prompt that is in it
    # is not drawn again.
    splits = {"eval": [], "train": []}
    for name, sizes in (("eval", eval_sizes), ("train", train_sizes)):
        for family, size in zip(world.families, sizes, strict=True):
            while size:
                drawn = world.draw(rng)
                prompt = world.prompt(family, drawn)
                if prompt not in seen:
                    seen.add(prompt)
                    answer = world.solve(family, drawn)
                    splits[name].append(Problem(prompt, prompt, answer, family.letter))
                    size -= 1
    return splits[split]


def arith(split):
    return problems(ARITH, split)
