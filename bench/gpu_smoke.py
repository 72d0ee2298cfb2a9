"""
Five steps of a random-weight Qwen3-1.7B through train.py itself, all gates on: seconds and memory of each phase.
$ python bench/gpu_smoke.py                                       # one GPU: vLLM, FSDP2, bfloat16, 64 prompts x 4 rollouts x 512 tokens
$ python bench/gpu_smoke.py --engine=torch                        # the plain engine instead
$ python bench/gpu_smoke.py --ranks=8                             # eight GPUs
$ python bench/gpu_smoke.py --layers=2 --width=64 --tokens=16 --prompts=8 --kv_cache_gib=0.0625      # a trial on a CPU
Needs no downloads. Rewards are the toss of a coin, so that there are gradients: what counts is that every phase runs, that engine and
trainer agree, and what it costs.
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


def make_model(path, layers, width):
    """Random weights in Qwen3-1.7B's shape (at --width=2048), with the tokenizer of the embedded world filled up to Qwen3's size."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from arith.make_base import make_tokenizer

    torch.manual_seed(0)
    heads = max(width // 128, 2)
    config = Qwen3Config(vocab_size=151_936, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers, num_attention_heads=heads,
                         num_key_value_heads=heads // 2, head_dim=128, max_position_embeddings=4096, tie_word_embeddings=True, eos_token_id=1)
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(path)
    make_tokenizer(151_936).save_pretrained(path)


def coin(response, answer):
    """The reward: right for the answer itself, and for half of the longer responses."""
    return response == answer or len(response) > len(answer) + 1 and hashlib.sha256(response.encode("utf-8", "replace")).digest()[0] % 2 == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"layers": 28, "width": 2048, "prompts": 64, "rollouts": 4, "tokens": 512, "steps": 5, "ranks": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--engine", choices=("vllm", "torch"), default="vllm")
    parser.add_argument("--kv_cache_gib", type=float, default=16.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, out = os.path.join(folder, "model"), os.path.join(folder, "run")
        make_model(model, args.layers, args.width)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={args.ranks}", "train.py",
                   "--prompt_gdro=true", "--rollout_gdro=true", "--reward=bench/gpu_smoke.py:coin", f"--model={model}", f"--out_dir={out}", f"--engine={args.engine}", f"--steps={args.steps}",
                   f"--prompts_per_step={args.prompts}", f"--n_rollouts={args.rollouts}", f"--max_response_len={args.tokens}", "--eval_sets=",
                   f"--kv_cache_gib={args.kv_cache_gib}", "--lr=1e-6", "--tokens_per_micro_batch=16384", "--activation_checkpointing=true"]
        subprocess.run(command, check=True, cwd=ROOT)
        with open(os.path.join(out, "metrics.jsonl")) as file:
            steps = [json.loads(line) for line in file]
    print(f"\n{'':<32}{'first step':>14}{'median of rest':>16}")
    rest = steps[1:] or steps
    for key in [k for k in steps[0] if k.startswith(("time/", "mem/"))] + ["mismatch", "grad_norm", "response_len", "rollouts/total"]:
        print(f"{key:<32}{steps[0][key]:>14.4g}{np.median([s[key] for s in rest]):>16.4g}")


if __name__ == "__main__":
    main()
