"""
Share of the tokens in micro-batches that are real, for responses of a heavy-tailed length.
$ python bench/padding.py
$ python bench/padding.py --tail=1.2 --tokens_per_micro_batch=16384
Lengths are log-normal and cut at the limit, as those of a reasoning policy are. Whatever the cut into micro-batches, loss and gradient are the same (tests/test_loss.py).
"""
import argparse
import os
import sys
from types import SimpleNamespace

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from batch import plan_updates


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"prompts": 256, "rollouts": 4, "updates": 2, "median": 700, "limit": 4096, "tokens_per_micro_batch": 16_384, "steps": 20}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--tail", type=float, default=0.9, help="standard deviation of the logarithm of a length")
    args = parser.parse_args()
    print(f"{args.prompts} prompts x {args.rollouts} rollouts, {args.updates} updates, {args.tokens_per_micro_batch:,} tokens a micro-batch, response median {args.median}, log-sd {args.tail}; "
          f"percent of real tokens over {args.steps} steps: median (lowest - highest)")
    print("| ranks | in micro-batches | the wait for the largest of the ranks counted in | in one padded batch |\n|---|---|---|---|")
    for world in (1, 8):
        shares = []
        for step in range(args.steps):
            rng = np.random.default_rng(step)
            prompts = rng.integers(60, 300, args.prompts)
            lengths = np.clip(rng.lognormal(np.log(args.median), args.tail, (args.prompts, args.rollouts)), 1, args.limit).astype(int)
            rollouts = [SimpleNamespace(prompt_id=i, prompt_ids=[0] * prompts[i], response_ids=[0] * n, engine_logprobs=[0.0] * n) for i in range(args.prompts) for n in lengths[i]]
            plans = [plan_updates(rollouts, args.prompts, args.updates, args.tokens_per_micro_batch, rank=rank, world=world) for rank in range(world)]
            padded = np.array([[micro.input_ids.numel() for update in plan for micro in update] for plan in plans])  # [ranks, micro-batches]
            real = sum(len(r.prompt_ids) + len(r.response_ids) for r in rollouts)
            shares.append((real / padded.sum(), real / (padded.max(axis=0).sum() * world), real / (len(rollouts) * max(len(r.prompt_ids) + len(r.response_ids) for r in rollouts))))
        print(f"| {world} | " + " | ".join(f"{100 * np.median(s):.1f} ({100 * min(s):.1f} - {100 * max(s):.1f})" for s in zip(*shares)) + " |")


if __name__ == "__main__":
    main()
