"""
Memory and time of the policy's token log-probabilities, forward and backward, beside log_softmax
over full logits: alone, from given hidden states, and in a model of one layer.
$ python bench/logprob_memory.py                                  # Qwen3's vocabulary, 4,096 tokens
$ python bench/logprob_memory.py --tokens=512 --width=64 --repeats=1
Each variant runs in processes of its own, in turns. Peak memory is the process's, beyond what it
holds with the weights, their gradients and the hidden states given.
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

SCOPES = ("alone", "one layer")
VARIANTS = ("full", "ours")


def logprobs_alone(variant, policy, hidden, targets):
    """hidden [T, width], targets [T] -> log-probabilities [T]."""
    from model import TokenLogprobs

    head = policy.hf.get_output_embeddings()
    hidden = hidden[: len(targets)]
    if variant == "ours":
        return TokenLogprobs.apply(hidden, head.weight, None, targets, 1.0, policy.block)[0]
    return head(hidden).log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)


def logprobs_in_model(variant, policy, ids):
    """ids [sequences, tokens + 1] -> log-probabilities of all but the first token, flat."""
    import torch

    if variant == "ours":
        return policy(ids, torch.ones_like(ids, dtype=torch.bool))[0]
    logits = policy.hf(input_ids=ids[:, :-1], use_cache=False).logits.float()
    return logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).flatten()


def measure(scope, variant, args):
    """One forward and backward pass in this process.

    -> peak MiB beyond what was there, seconds, and some of the gradients."""
    import torch

    from bench.common import peak_mib, random_qwen3
    from model import Policy
    from pretrained import load_hf

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = random_qwen3(folder, 1, args.width, args.vocabulary)
        policy = Policy(load_hf(path, torch.float32, args.device)[0])
    length = 512  # tokens of a sequence
    shape = (args.tokens // length, length + 1)
    ids = torch.randint(0, args.vocabulary, shape, device=args.device)
    weight = torch.linspace(-1, 1, args.tokens, device=args.device)
    hidden = torch.randn(args.tokens, args.width, device=args.device, requires_grad=True)

    def forward_and_backward(ids, weight):
        if scope == "alone":
            logp = logprobs_alone(variant, policy, hidden, ids[:, 1:].flatten())
        else:
            logp = logprobs_in_model(variant, policy, ids)
        (logp * weight).sum().backward()

    trained = [hidden, *policy.parameters()]
    forward_and_backward(ids[:1, :9], weight[:8])  # gradients then exist, libraries are warm
    for parameter in trained:
        if parameter.grad is not None:
            parameter.grad.zero_()
    before = peak_mib(args.device, reset=True)
    begun = time.perf_counter()
    forward_and_backward(ids, weight)
    if args.device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - begun
    peak = peak_mib(args.device) - before
    some = []  # some 10,000 numbers of every gradient
    for parameter in trained:
        if parameter.grad is not None:
            every = max(parameter.numel() // 10_000, 1)
            some.append(parameter.grad.flatten()[::every])
    return {"mib": peak, "seconds": seconds, "gradients": torch.cat(some).cpu().tolist()}


def measure_apart(scope, variant):
    """`measure` in a process of its own, with this command's arguments."""
    script = [sys.executable, os.path.abspath(__file__), *sys.argv[1:]]
    command = [*script, "--variant", scope, variant]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{scope}, {variant} failed with status {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def shown(values, digits):
    """Median, lowest and highest as a cell of the table."""
    median, low, high = np.median(values), min(values), max(values)
    return f"{median:,.{digits}f} ({low:,.{digits}f} - {high:,.{digits}f})"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=4096, help="a multiple of 512")
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--variant", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        print(json.dumps(measure(*args.variant, args)))
        return

    results = {(scope, variant): [] for scope in SCOPES for variant in VARIANTS}
    for _ in range(args.repeats):
        for (scope, variant), runs in results.items():
            runs.append(measure_apart(scope, variant))

    print(
        f"{args.tokens:,} tokens, vocabulary {args.vocabulary:,}, width {args.width:,}, float32, "
        f"{args.device}; medians of {args.repeats} (lowest - highest)"
    )
    print("| | logits | MiB on top | seconds |\n|---|---|---|---|")
    for (scope, variant), runs in results.items():
        memory = shown([run["mib"] for run in runs], 0)
        seconds = shown([run["seconds"] for run in runs], 2)
        print(f"| {scope} | {variant} | {memory} | {seconds} |")
    for scope in SCOPES:
        full, ours = results[scope, "full"], results[scope, "ours"]
        less = np.median([run["mib"] for run in full]) / np.median([run["mib"] for run in ours])
        pairs = zip(ours, full, strict=True)  # run one after the other
        slower = np.median([run["seconds"] / other["seconds"] for run, other in pairs])
        reference = np.array(full[0]["gradients"])
        difference = np.abs(reference - ours[0]["gradients"]).max() / np.abs(reference).max()
        print(
            f"{scope}: memory {less:.1f} times less, time {slower:.2f} times; "
            f"largest difference of a gradient {difference:.1e} of the largest"
        )


if __name__ == "__main__":
    main()
