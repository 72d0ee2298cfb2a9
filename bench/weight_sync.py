"""
One weight sync from the trainer into vLLM: bytes moved, seconds, and the memory it needs on top.
$ python bench/weight_sync.py                           # 1.7B parameters; on a CPU 12 GB of memory
$ python bench/weight_sync.py --layers=4 --width=256    # a trial
On a GPU the engine holds bfloat16 and the trainer float32, as in training; on a CPU both hold
bfloat16, for want of memory.
"""
import argparse
import os
import sys
import tempfile
import time

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)


def make_both(args, device):
    """vLLM and a policy with the same random weights."""
    import torch

    from bench.common import random_qwen3
    from engines.vllm_engine import VLLMEngine
    from model import Policy
    from pretrained import load_hf

    with tempfile.TemporaryDirectory() as folder:
        random_qwen3(folder, args.layers, args.width, args.vocabulary, "bfloat16")
        engine = VLLMEngine(
            folder,
            device,
            torch.bfloat16,
            max_num_seqs=4,
            max_model_len=64,
            kv_cache_gib=0.125 if device == "cpu" else 4.0,
            eager=True,
        )
        trained = torch.float32 if device == "cuda" else torch.bfloat16
        return engine, Policy(load_hf(folder, trained, device)[0])


def main():
    import torch

    from bench.common import peak_mib

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    engine, policy = make_both(args, device)
    seconds, extra = [], []
    for _ in range(args.repeats + 1):
        before = peak_mib(device, reset=True)
        begun = time.perf_counter()
        engine.sync(policy.named_tensors())
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
        extra.append(peak_mib(device) - before)
    # The first sync warms up and does not count.
    seconds, extra = np.array(seconds[1:]), np.array(extra[1:])

    size = sum(parameter.numel() for parameter in policy.parameters())
    moved = sum(tensor.numel() * tensor.element_size() for _, tensor in policy.named_tensors())
    share = np.median(extra) * 2**20 / (2 * size)  # the engine holds two bytes a parameter
    print(f"{size:,} parameters, {device}; medians of {args.repeats} (lowest - highest)")
    print("| GiB sent | seconds | MiB on top | of the model |\n|---|---|---|---|")
    print(
        f"| {moved / 2**30:.2f} "
        f"| {np.median(seconds):.2f} ({seconds.min():.2f} - {seconds.max():.2f}) "
        f"| {np.median(extra):,.0f} ({extra.min():,.0f} - {extra.max():,.0f}) "
        f"| {100 * share:.1f} % |"
    )


if __name__ == "__main__":
    main()
