"""
Tokens a second of the plain engine beside transformers' generate, and with ragged rollout counts.
$ python bench/generation.py
$ python bench/generation.py --device=cuda --width=1024 --layers=28 --tokens=512
All on the same model, prompts, lengths and device. Responses end at any of several stop tokens, so
that their lengths differ as those of a policy do.
"""
import argparse
import os
import sys
import tempfile
import time

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)


def generate_here(engine, prompts, counts, tokens):
    """The plain engine, `counts` rollouts of the prompts -> tokens generated."""
    from rollout import Sampling, seed_of

    seeds = [[seed_of(i, j) for j in range(count)] for i, count in enumerate(counts)]
    rollouts = engine.generate(prompts, seeds, Sampling(tokens), None)
    return sum(len(rollout.response_ids) for rollout in rollouts)


def generate_there(engine, prompts, counts, tokens):
    """transformers' generate with the engine's model; it needs equal counts -> tokens generated."""
    import torch

    pad = engine.tokenizer.pad_token_id
    ids = torch.tensor(prompts, device=engine.stop_ids.device)
    ids = ids.repeat_interleave(counts[0], 0)
    out = engine.hf.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=tokens,
        eos_token_id=engine.stop_ids.tolist(),
        pad_token_id=pad,
    )
    return int((out[:, ids.shape[1] :] != pad).sum())


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--rollouts", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=96, help="of a response at most")
    parser.add_argument("--mean", type=int, default=32, help="tokens of a response without a limit")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def main():
    import torch

    from bench.common import random_qwen3
    from engines.torch_engine import TorchEngine

    args = parse_arguments()
    torch.set_num_threads(args.threads)
    rollouts = args.prompts * args.rollouts
    with tempfile.TemporaryDirectory() as folder:
        path = random_qwen3(folder, args.layers, args.width, args.vocabulary)
        engine = TorchEngine(path, args.device, max_num_seqs=rollouts)
    # The policy is nearly uniform: a stop token comes at one of `mean` tokens if as many stop.
    stops = args.vocabulary // args.mean
    engine.stop_ids = torch.arange(args.vocabulary - stops, args.vocabulary, device=args.device)

    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, 13, 24).tolist() for _ in range(args.prompts)]
    even = np.full(args.prompts, args.rollouts)
    # One for every prompt, the others unevenly: as many rollouts as above.
    popularity = rng.dirichlet(np.full(args.prompts, 0.5))
    ragged = 1 + rng.multinomial(rollouts - args.prompts, popularity)

    contestants = {
        "transformers generate": (generate_there, even),
        "plain engine": (generate_here, even),
        f"plain engine, {ragged.min()} to {ragged.max()} rollouts": (generate_here, ragged),
    }
    measured = {name: [] for name in contestants}  # (tokens a second, tokens) of each repeat
    for _ in range(args.repeats + 1):
        for name, (generate, counts) in contestants.items():
            begun = time.perf_counter()
            tokens = generate(engine, prompts, counts, args.tokens)
            if args.device == "cuda":
                torch.cuda.synchronize()
            measured[name].append((tokens / (time.perf_counter() - begun), tokens))
    # The first repeat warms up and does not count.
    measured = {name: np.array(repeats[1:]) for name, repeats in measured.items()}

    print(
        f"{args.prompts} prompts, {rollouts} rollouts of at most {args.tokens} tokens, "
        f"{args.layers} layers of width {args.width}, vocabulary {args.vocabulary}, "
        f"{args.device}; medians of {args.repeats} (lowest - highest)"
    )
    print("| | tokens a second | tokens | against transformers |\n|---|---|---|---|")
    base = measured["transformers generate"][:, 0]
    for name, repeats in measured.items():
        speed, tokens = repeats.T
        shown = f"{np.median(speed):,.0f} ({speed.min():,.0f} - {speed.max():,.0f})"
        against = np.median(speed / base)
        print(f"| {name} | {shown} | {np.median(tokens):,.0f} | {against:.2f} |")


if __name__ == "__main__":
    main()
