"""
Tokens a second of the plain engine beside transformers' generate, on the same model, prompts, lengths and device; and with ragged rollout counts.
$ python bench/generation.py
$ python bench/generation.py --device=cuda --width=1024 --layers=28 --tokens=512
Responses end at any of several stop tokens, so that their lengths differ as those of a policy do.
"""
import argparse
import os
import sys
import tempfile
import time

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)


def main():
    import torch

    from bench.common import random_qwen3
    from rollout import Sampling, seed_of
    from torch_engine import TorchEngine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"prompts": 64, "rollouts": 4, "tokens": 96, "width": 128, "layers": 4, "vocabulary": 2048, "repeats": 5, "threads": 1, "mean": 32}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        engine = TorchEngine(random_qwen3(folder, args.layers, args.width, args.vocabulary), args.device, max_num_seqs=args.prompts * args.rollouts)
    engine.stop_ids = torch.arange(args.vocabulary - args.vocabulary // args.mean, args.vocabulary, device=args.device)
    prompts = [rng.integers(3, 13, 24).tolist() for _ in range(args.prompts)]
    even = np.full(args.prompts, args.rollouts)
    ragged = rng.multinomial(args.prompts * (args.rollouts - 1), rng.dirichlet(np.full(args.prompts, 0.5))) + 1  # the same number of rollouts

    def plain(counts):
        rollouts = engine.generate(prompts, [[seed_of(i, j) for j in range(n)] for i, n in enumerate(counts)], Sampling(args.tokens), None)
        return sum(len(r.response_ids) for r in rollouts)

    def reference():
        ids = torch.tensor(prompts, device=args.device).repeat_interleave(args.rollouts, 0)
        pad = engine.tokenizer.pad_token_id
        out = engine.hf.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=args.tokens,
                                 eos_token_id=engine.stop_ids.tolist(), pad_token_id=pad)
        return int((out[:, ids.shape[1] :] != pad).sum())

    speeds = {"transformers generate": [], "plain engine": [], f"plain engine, {ragged.min()} to {ragged.max()} rollouts": []}
    for _ in range(args.repeats + 1):
        for name, run in zip(speeds, (reference, lambda: plain(even), lambda: plain(ragged))):
            begun = time.perf_counter()
            tokens = run()
            if args.device == "cuda":
                torch.cuda.synchronize()
            speeds[name].append((tokens / (time.perf_counter() - begun), tokens))
    print(f"{args.prompts} prompts, {args.prompts * args.rollouts} rollouts of at most {args.tokens} tokens, {args.layers} layers of width {args.width}, vocabulary {args.vocabulary}, {args.device}; "
          f"medians of {args.repeats} (lowest - highest)")
    print("| | tokens a second | tokens | against transformers |\n|---|---|---|---|")
    base = np.array([speed for speed, _ in speeds["transformers generate"][1:]])
    for name, runs in speeds.items():
        speed, tokens = np.array(runs[1:]).T
        print(f"| {name} | {np.median(speed):,.0f} ({speed.min():,.0f} - {speed.max():,.0f}) | {np.median(tokens):,.0f} | {np.median(speed / base):.2f} |")


if __name__ == "__main__":
    main()
