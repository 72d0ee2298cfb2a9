"""
Steps of a random-weight Qwen3-1.7B through train.py itself, all gates on: the seconds and memory of each phase, the update's share of the GPU's peak,
tokens a second generated, and what is neither generation nor update.
$ python bench/gpu.py                                             # one GPU: vLLM, FSDP2, bfloat16, 64 prompts x 4 rollouts x 1,024 tokens
$ python bench/gpu.py --engine=torch                              # the plain engine instead
$ python bench/gpu.py --ranks=8 --prompts=256                     # eight GPUs
$ python bench/gpu.py --layers=2 --width=64 --tokens=16 --prompts=8 --kv_cache_gib=0.0625 --peak=0.05      # a trial on a CPU
Needs no downloads. Rewards are the toss of a coin, so that there are gradients.
"""
import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)


def coin(response, answer):
    """The reward: right for the answer itself, and for half of the longer responses."""
    return response == answer or len(response) > len(answer) + 1 and hashlib.sha256(response.encode("utf-8", "replace")).digest()[0] % 2 == 0


def report(steps, parameters, args):
    """What a table of seconds does not show, from the lines of metrics.jsonl -> lines of text."""
    median = lambda key: float(np.median([s[key] for s in steps]))
    response = float(np.median([s["response_len"] * s["rollouts/total"] for s in steps]))
    tokens = response + 6 * median("rollouts/total")  # prompts of the embedded world have six
    passes = 6 + 2 + 1  # forward and backward; the reference; old log-probabilities of the second update. What checkpointing recomputes is not counted
    mfu = passes * parameters * tokens / (median("time/logprobs") + median("time/update")) / (args.ranks * args.peak * 1e12)
    other = median("time/step") - median("time/generate") - median("time/logprobs") - median("time/update")
    return [f"update (log-probabilities included): {mfu:.0%} of {args.ranks} x {args.peak:g} TFLOP/s", f"generation: {response / median('time/generate'):,.0f} tokens a second",
            f"sync: {median('time/sync'):.2f} s", f"neither generation nor update: {other / median('time/step'):.0%} of the step"]


def main():
    from bench.common import random_qwen3

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"layers": 28, "width": 2048, "prompts": 64, "rollouts": 4, "tokens": 1024, "steps": 5, "ranks": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--engine", choices=("vllm", "torch"), default="vllm")
    parser.add_argument("--kv_cache_gib", type=float, default=16.0)
    parser.add_argument("--peak", type=float, default=989.0, help="TFLOP/s of the GPU in bfloat16, dense; 989 for an H100 or H200")
    args, extra = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        model, out = random_qwen3(os.path.join(folder, "model"), args.layers, args.width, 151_936, "bfloat16"), os.path.join(folder, "run")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={args.ranks}", "train.py",
                   "--prompt_gdro=true", "--rollout_gdro=true", "--reward=bench/gpu.py:coin", f"--model={model}", f"--out_dir={out}", f"--engine={args.engine}", f"--steps={args.steps}",
                   f"--prompts_per_step={args.prompts}", f"--n_rollouts={args.rollouts}", f"--max_response_len={args.tokens}", "--eval_sets=",
                   f"--kv_cache_gib={args.kv_cache_gib}", "--lr=1e-6", "--tokens_per_micro_batch=16384", "--activation_checkpointing=true", *extra]
        subprocess.run(command, check=True, cwd=ROOT)
        with open(os.path.join(out, "metrics.jsonl")) as file:
            steps = [json.loads(line) for line in file]
        from safetensors import safe_open

        with safe_open(os.path.join(model, "model.safetensors"), "np") as weights:
            parameters = sum(int(np.prod(weights.get_slice(name).get_shape())) for name in weights.keys())
    print(f"\n{'':<32}{'first step':>14}{'median of rest':>16}")
    rest = steps[1:] or steps
    for key in [k for k in steps[0] if k.startswith(("time/", "mem/"))] + ["mismatch", "grad_norm", "response_len", "rollouts/total"]:
        print(f"{key:<32}{steps[0][key]:>14.4g}{np.median([s[key] for s in rest]):>16.4g}")
    print("\n".join(report(rest, parameters, args)))


if __name__ == "__main__":
    main()
