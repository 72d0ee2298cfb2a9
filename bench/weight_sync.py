"""
One weight sync from the trainer into vLLM: bytes moved, seconds, and the memory that it needs on top.
$ python bench/weight_sync.py                                     # 1.7B parameters; on a CPU 12 GB of memory
$ python bench/weight_sync.py --layers=4 --width=256              # a trial
On a GPU the engine holds bfloat16 and the trainer float32, as in training; on a CPU both hold bfloat16, for want of memory.
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

    from bench.common import peak_mib, random_qwen3
    from model import Policy, load_hf
    from rollout import VLLMEngine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"layers": 28, "width": 2048, "vocabulary": 151_936, "repeats": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        random_qwen3(folder, args.layers, args.width, args.vocabulary, "bfloat16")
        engine = VLLMEngine(folder, device, torch.bfloat16, max_num_seqs=4, max_model_len=64, kv_cache_gib=0.125 if device == "cpu" else 4.0, eager=True)
        policy = Policy(load_hf(folder, torch.float32 if device == "cuda" else torch.bfloat16, device)[0])
    model = sum(tensor.numel() * 2 for tensor in policy.parameters())  # bytes that the engine holds
    seconds, extra = [], []
    for _ in range(args.repeats + 1):
        before = peak_mib(device, reset=True)
        begun = time.perf_counter()
        engine.sync(policy.named_tensors())
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
        extra.append(peak_mib(device) - before)
    moved = sum(tensor.numel() * tensor.element_size() for _, tensor in policy.named_tensors())
    seconds, extra = np.array(seconds[1:]), np.array(extra[1:])
    print(f"{sum(p.numel() for p in policy.parameters()):,} parameters, {device}; medians of {args.repeats} (lowest - highest)")
    print("| GiB sent | seconds | MiB on top | of the model |\n|---|---|---|---|")
    print(f"| {moved / 2**30:.2f} | {np.median(seconds):.2f} ({seconds.min():.2f} - {seconds.max():.2f}) | {np.median(extra):,.0f} ({extra.min():,.0f} - {extra.max():,.0f}) | "
          f"{100 * np.median(extra) * 2**20 / model:.1f} % |")


if __name__ == "__main__":
    main()
