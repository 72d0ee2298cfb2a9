"""
Whether a policy drifts into unfinished answers: one that boxes the question now and then (41+7 for
48) is trained by reward=math, and again by math-verify alone.
$ python bench/unfinished.py               # minutes; writes out/unfinished/, prints the table
$ python bench/unfinished.py --out=out/other --seed=1 --lr=1e-4
$ python bench/unfinished.py --out=out/quick --quick     # a few steps: whether it runs
"""
import argparse
import contextlib
import json
import os
import sys
from dataclasses import dataclass
from itertools import product

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import train
from bench.grading import judge_records
from reward import Grader
from worlds.make_base import pretrain

REWARDS = {"math": "math",
           "math-verify alone": os.path.join(ROOT, "bench", "grading.py:math_verify_alone")}
RIGHT, QUESTION = 0.55, 0.15  # shares of the demonstrations; the others box a wrong number
SUMS = [f"{tens}+{units}" for tens, units in product(range(10, 100), range(1, 10))]
EVAL = 128  # sums that are not trained on
BLOCKS = 5  # of steps: the rows of the table
HEADER = ("| steps | under `math`: right | unfinished | the question boxed "
          "| under math-verify alone: right | unfinished | the question boxed |\n"
          "|---|---|---|---|---|---|---|")


@dataclass
class World:
    """What the base policy is pretrained on, for worlds/make_base.py."""
    steps: int

    tokens = [*"0123456789+", r"\boxed{", "}"]
    stride = 1
    grad_clip = 1.0

    def demonstration(self, rng, number, held_out):
        """A sum that is not held out, and a box -> prompt, response, weights of its tokens."""
        prompt = None
        while prompt is None or prompt in held_out:
            question = SUMS[rng.integers(len(SUMS))]
            prompt = question + "="
        draw = rng.random()
        slip = 0 if draw < RIGHT else int(rng.integers(1, 10))
        content = question if draw > 1 - QUESTION else str(solved(question) + slip)
        # the box takes two tokens, and the end one
        return prompt, rf"\boxed{{{content}}}", np.ones(len(content) + 3)


def solved(question):
    return sum(map(int, question.split("+")))


def write_problems(folder):
    """train.jsonl and eval.jsonl, with no sum in both -> prompts of the latter."""
    order = np.random.default_rng(0).permutation(len(SUMS))
    for name, chosen in (("eval", order[:EVAL]), ("train", order[EVAL:])):
        with open(os.path.join(folder, f"{name}.jsonl"), "w") as file:
            for i in chosen:
                row = {"prompt": SUMS[i] + "=", "answer": str(solved(SUMS[i]))}
                file.write(json.dumps(row) + "\n")
    return {SUMS[i] + "=" for i in order[:EVAL]}


def learn(reward, out, args, steps):
    """Train by one reward -> the records of all responses."""
    run = os.path.join(out, reward.replace(" ", "_"))
    train.main([
        f"--model={out}/base", f"--dataset={out}/train.jsonl", f"--eval_sets={out}/eval.jsonl",
        f"--reward={REWARDS[reward]}", "--template=bare", f"--lr={args.lr}", f"--seed={args.seed}",
        f"--steps={steps}", f"--eval_every={steps}", f"--save_every={steps}", "--samples=all",
        "--samples_every=1", "--device=cpu", f"--out_dir={run}"])
    with open(os.path.join(run, "samples.jsonl")) as file:
        return [json.loads(line) for line in file]


def shares(records, grader):
    """Of the responses: right by `math`, unfinished, and with the question in the box."""
    right, unfinished = judge_records(records, grader)
    repeated = [rf"\boxed{{{record['prompt'].rstrip('=')}}}" == record["response"]
                for record in records]
    return [f"{np.mean(each):.1%}" for each in (right, unfinished, repeated)]


def print_table(records, steps):
    """The shares in blocks of steps; `records` are those of the run of each reward."""
    grader = Grader("math")
    print(HEADER)
    width = steps // BLOCKS
    blocks = [(first, first + width) for first in range(0, steps, width)]
    # the first step is sampled before the first update, from the base policy
    for first, end in [(0, 1), *blocks]:
        label = f"{first + 1} to {end}" if end > first + 1 else end
        cells = [cell for of_run in records for cell in
                 shares([r for r in of_run if first <= r["step"] < end], grader)]
        print(f"| {label} | {' | '.join(cells)} |", flush=True)
    grader.close()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="out/unfinished")
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if os.path.exists(args.out):
        parser.error(f"{args.out} is there already: give another --out")
    os.makedirs(args.out)
    steps = BLOCKS if args.quick else 100
    with contextlib.redirect_stdout(sys.stderr):  # the standard output is the table
        held_out = write_problems(args.out)
        pretrain(World(steps=40 if args.quick else 600), held_out, f"{args.out}/base")
        records = [learn(reward, args.out, args, steps) for reward in REWARDS]
    print_table(records, steps)


if __name__ == "__main__":
    main()
