"""
Memory and time of the policy's token log-probabilities, forward and backward, against log_softmax over full logits.
$ python bench/logprob_memory.py                                  # Qwen3's vocabulary, 4,096 tokens
$ python bench/logprob_memory.py --tokens=512 --width=64 --repeats=1
Each variant runs in processes of its own, in turns. Peak memory is the process's, beyond what it holds with the model and its gradients.
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


def measure(variant, args):
    """One forward and backward pass in this process -> peak MiB beyond the model, seconds, and a check sum of the gradients."""
    import torch

    from bench.common import peak_mib, random_qwen3
    from model import Policy, load_hf

    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        policy = Policy(load_hf(random_qwen3(folder, 1, args.width, args.vocabulary), torch.float32, args.device)[0])
    ids = torch.randint(0, args.vocabulary, (args.tokens // 512, 513), device=args.device)
    weight = torch.linspace(-1, 1, args.tokens, device=args.device)

    def run(ids, weight):
        if variant == "ours":
            logp, _ = policy(ids, torch.ones_like(ids, dtype=torch.bool))
        else:
            logits = policy.hf(input_ids=ids[:, :-1], use_cache=False).logits.float()
            logp = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).flatten()
        (logp * weight).sum().backward()

    run(ids[:1, :9], weight[:8])  # gradients exist, libraries are warm
    policy.zero_grad(set_to_none=False)
    before, begun = peak_mib(args.device, reset=True), time.perf_counter()
    run(ids, weight)
    if args.device == "cuda":
        torch.cuda.synchronize()
    seconds, peak = time.perf_counter() - begun, peak_mib(args.device) - before
    gradients = torch.cat([p.grad.flatten()[:: max(p.numel() // 10_000, 1)] for p in policy.parameters()])
    return {"mib": peak, "seconds": seconds, "gradients": gradients.cpu().tolist()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"tokens": 4096, "vocabulary": 151_936, "width": 1024, "repeats": 5, "threads": os.cpu_count()}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--variant", choices=("ours", "full"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        return print(json.dumps(measure(args.variant, args)))
    results = {"full": [], "ours": []}
    for _ in range(args.repeats):
        for variant in results:
            done = subprocess.run([sys.executable, os.path.abspath(__file__), *sys.argv[1:], f"--variant={variant}"], check=True, capture_output=True, text=True)
            results[variant].append(json.loads(done.stdout))
    print(f"{args.tokens:,} tokens, vocabulary {args.vocabulary:,}, width {args.width:,}, one layer, float32, {args.device}; medians of {args.repeats} (lowest - highest)")
    print("| | MiB beyond the model | seconds |\n|---|---|---|")
    for variant, runs in results.items():
        cells = [[run[key] for run in runs] for key in ("mib", "seconds")]
        print(f"| {variant} | " + " | ".join(f"{np.median(c):,.{d}f} ({min(c):,.{d}f} - {max(c):,.{d}f})" for c, d in zip(cells, (0, 2))) + " |")
    full, ours = ([np.median([run[key] for run in results[variant]]) for key in ("mib", "seconds")] for variant in ("full", "ours"))
    a, b = (np.array(results[variant][0]["gradients"]) for variant in ("full", "ours"))
    print(f"memory {full[0] / ours[0]:.1f} times less, time {ours[1] / full[1]:.2f} times; largest difference of a gradient {np.abs(a - b).max() / np.abs(a).max():.1e} of the largest")


if __name__ == "__main__":
    main()
