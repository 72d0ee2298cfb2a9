"""
Share of the tokens in micro-batches that are real, for responses of a heavy-tailed length.
$ python bench/padding.py
$ python bench/padding.py --tail=1.2 --tokens_per_micro_batch=16384
Lengths are log-normal and cut at the limit, as those of a reasoning policy are. Whatever the cut
into micro-batches, loss and gradient are the same (tests/test_loss.py).
"""
import argparse
import os
import sys
from types import SimpleNamespace

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from batch import plan_updates


def draw_rollouts(rng, args):
    """Rollouts of which only the lengths matter."""
    prompts = rng.integers(60, 300, args.prompts)
    shape = (args.prompts, args.rollouts)
    lengths = rng.lognormal(np.log(args.median), args.tail, shape)
    lengths = np.clip(lengths, 1, args.limit).astype(int)
    return [
        SimpleNamespace(
            prompt_id=i,
            prompt_ids=[0] * prompts[i],
            response_ids=[0] * length,
            engine_logprobs=[0.0] * length,
        )
        for i in range(args.prompts)
        for length in lengths[i]
    ]


def shares_of_real_tokens(rollouts, world, args):
    """Real tokens over those computed: in micro-batches, in them with the waiting of ranks for the
    largest counted in, and in one padded batch."""
    sizes = []  # [ranks, micro-batches] tokens, padding included
    for rank in range(world):
        limit = args.tokens_per_micro_batch
        plan = plan_updates(rollouts, args.prompts, args.updates, limit, rank=rank, world=world)
        sizes.append([micro.input_ids.numel() for update in plan for micro in update])
    sizes = np.array(sizes)
    waited_for = sizes.max(axis=0).sum() * world
    lengths = [len(r.prompt_ids) + len(r.response_ids) for r in rollouts]
    real = sum(lengths)
    return real / sizes.sum(), real / waited_for, real / (len(lengths) * max(lengths))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--rollouts", type=int, default=4)
    parser.add_argument("--updates", type=int, default=2)
    parser.add_argument("--median", type=int, default=700, help="of the length of a response")
    parser.add_argument("--limit", type=int, default=4096, help="of the length of a response")
    parser.add_argument("--tokens_per_micro_batch", type=int, default=16_384)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument(
        "--tail", type=float, default=0.9, help="standard deviation of the logarithm of a length"
    )
    args = parser.parse_args()
    print(
        f"{args.prompts} prompts x {args.rollouts} rollouts, {args.updates} updates, "
        f"{args.tokens_per_micro_batch:,} tokens a micro-batch, "
        f"response median {args.median}, log-sd {args.tail}; "
        f"percent of real tokens over {args.steps} steps: median (lowest - highest)"
    )
    waiting = "the wait for the largest of the ranks counted in"
    print(f"| ranks | in micro-batches | {waiting} | in one padded batch |\n|---|---|---|---|")
    for world in (1, 8):
        steps = []
        for step in range(args.steps):
            rollouts = draw_rollouts(np.random.default_rng(step), args)
            steps.append(shares_of_real_tokens(rollouts, world, args))
        percents = 100 * np.transpose(steps)  # [3, steps]
        cells = [f"{np.median(p):.1f} ({p.min():.1f} - {p.max():.1f})" for p in percents]
        print(f"| {world} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
