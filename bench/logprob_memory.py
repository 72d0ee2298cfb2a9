"""
Memory and time of the policy's token log-probabilities, forward and backward, against log_softmax over full logits: alone, from given
hidden states, and in a model of one layer.
$ python bench/logprob_memory.py                                  # Qwen3's vocabulary, 4,096 tokens
$ python bench/logprob_memory.py --tokens=512 --width=64 --repeats=1
Each variant runs in processes of its own, in turns. Peak memory is the process's, beyond what it holds with the weights, their gradients and the hidden states given.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def measure(scope, variant, args):
    """One forward and backward pass in this process -> peak MiB beyond what was there, seconds, and some of the gradients."""
    import torch

    from bench.common import peak_mib, random_qwen3
    from model import Policy, TokenLogprobs, load_hf

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        policy = Policy(load_hf(random_qwen3(folder, 1, args.width, args.vocabulary), torch.float32, args.device)[0])
    ids = torch.randint(0, args.vocabulary, (args.tokens // 512, 513), device=args.device)
    weight = torch.linspace(-1, 1, args.tokens, device=args.device)
    hidden, head = torch.randn(args.tokens, args.width, device=args.device, requires_grad=True), policy.hf.get_output_embeddings()

    def run(ids, weight):
        targets = ids[:, 1:].flatten()
        if (scope, variant) == ("alone", "ours"):
            logp, _ = TokenLogprobs.apply(hidden[: len(targets)], head.weight, None, targets, 1.0, policy.block)
        elif scope == "alone":
            logp = head(hidden[: len(targets)]).log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
        elif variant == "ours":
            logp, _ = policy(ids, torch.ones_like(ids, dtype=torch.bool))
        else:
            logits = policy.hf(input_ids=ids[:, :-1], use_cache=False).logits.float()
            logp = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).flatten()
        (logp * weight).sum().backward()

    trained = [p for p in (hidden, *policy.parameters())]
    run(ids[:1, :9], weight[:8])  # gradients exist, libraries are warm
    for p in trained:
        p.grad = None if p.grad is None else p.grad.zero_()
    before, begun = peak_mib(args.device, reset=True), time.perf_counter()
    run(ids, weight)
    if args.device == "cuda":
        torch.cuda.synchronize()
    seconds, peak = time.perf_counter() - begun, peak_mib(args.device) - before
    gradients = torch.cat([p.grad.flatten()[:: max(p.numel() // 10_000, 1)] for p in trained if p.grad is not None])
    return {"mib": peak, "seconds": seconds, "gradients": gradients.cpu().tolist()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"tokens": 4096, "vocabulary": 151_936, "width": 1024, "repeats": 5, "threads": os.cpu_count()}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--variant", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        return print(json.dumps(measure(*args.variant, args)))
    results = {(scope, variant): [] for scope in ("alone", "one layer") for variant in ("full", "ours")}
    for _ in range(args.repeats):
        for what in results:
            done = subprocess.run([sys.executable, os.path.abspath(__file__), *sys.argv[1:], "--variant", *what], check=True, capture_output=True, text=True)
            results[what].append(json.loads(done.stdout))
    print(f"{args.tokens:,} tokens, vocabulary {args.vocabulary:,}, width {args.width:,}, float32, {args.device}; medians of {args.repeats} (lowest - highest)")
    print("| | logits | MiB on top | seconds |\n|---|---|---|---|")
    for (scope, variant), runs in results.items():
        cells = [[run[key] for run in runs] for key in ("mib", "seconds")]
        print(f"| {scope} | {variant} | " + " | ".join(f"{np.median(c):,.{d}f} ({min(c):,.{d}f} - {max(c):,.{d}f})" for c, d in zip(cells, (0, 2))) + " |")
    for scope in ("alone", "one layer"):
        full, ours = (results[scope, variant] for variant in ("full", "ours"))
        memory, seconds = (np.array([[run[key] for run in runs] for runs in (full, ours)]) for key in ("mib", "seconds"))
        a, b = (np.array(runs[0]["gradients"]) for runs in (full, ours))
        print(f"{scope}: memory {np.median(memory[0]) / np.median(memory[1]):.1f} times less, time {np.median(seconds[1] / seconds[0]):.2f} times; "
              f"largest difference of a gradient {np.abs(a - b).max() / np.abs(a).max():.1e} of the largest")


if __name__ == "__main__":
    main()
