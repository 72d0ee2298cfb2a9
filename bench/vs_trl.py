"""
Samples a second and peak memory of this trainer, with and without --compile=true, beside TRL's
GRPOTrainer: the same random Qwen3, prompts, rollouts, lengths and updates.
$ pip install trl==1.16.0                     # beside this project; it brings accelerate
$ python bench/vs_trl.py                      # plain generation on both sides
$ python bench/vs_trl.py --engine=vllm        # vLLM colocated on both sides
$ python bench/vs_trl.py --device=cuda --engine=vllm --width=1024 --layers=28 --tokens=512
Each side runs in processes of its own, in turns. A step's seconds are wall time from the end of
one step to the end of the next.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
from bench.common import coin, peak_mib, random_qwen3

WARM = 3  # steps left out at the start
PHASES = ("generate", "sync", "grade", "logprobs", "update", "feedback")


def make_files(folder, args):
    """A random Qwen3 and its prompts, of 24 digits each."""
    random_qwen3(os.path.join(folder, "model"), args.layers, args.width, args.vocabulary)
    rng = np.random.default_rng(0)
    with open(os.path.join(folder, "prompts.jsonl"), "w") as file:
        for i in range(256):
            file.write(
                json.dumps({"prompt": "".join(map(str, rng.integers(0, 10, 24))), "answer": str(i)})
                + "\n"
            )


def ours(folder, args):
    import checkpoint
    import train

    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    ends, append = [], checkpoint.RunFolder.append

    def timed(self, name, record):
        append(self, name, record)
        if name == "metrics.jsonl":
            ends.append(time.perf_counter())

    checkpoint.RunFolder.append = timed
    train.main(
        [
            f"--model={folder}/model",
            f"--dataset={folder}/prompts.jsonl",
            "--template=bare",
            "--reward=bench/common.py:coin",
            "--grade_workers=1",
            "--eval_sets=",
            f"--engine={args.engine}",
            f"--device={args.device}",
            "--kv_cache_gib=1",
            f"--prompt_gdro={args.gdro}",
            f"--rollout_gdro={args.gdro}",
            f"--steps={args.steps}",
            f"--prompts_per_step={args.prompts}",
            f"--n_rollouts={args.rollouts}",
            "--updates_per_step=1",
            "--max_prompt_len=32",
            f"--max_response_len={args.tokens}",
            "--kl_coef=0",
            f"--compile={args.side == 'compiled'}",
            "--lr=1e-6",
            "--save_every=100000",
            f"--out_dir={folder}/run",
        ]
    )
    with open(os.path.join(folder, "run", "metrics.jsonl")) as file:
        metrics = [json.loads(line) for line in file]
    return (
        ends,
        {phase: float(np.mean([m["time/" + phase] for m in metrics[WARM:]])) for phase in PHASES},
        float(np.mean([m["response_len"] for m in metrics])),
    )


def trl(folder, args):
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback

    torch.set_num_threads(args.threads)
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from trl import GRPOConfig, GRPOTrainer

    ends, lengths = [], []

    class Ends(TrainerCallback):
        def on_step_end(self, *arguments, **kwargs):
            ends.append(time.perf_counter())

    def reward(completions, completion_ids, answer, **kwargs):
        lengths.extend(map(len, completion_ids))
        return [1.0 if coin(*pair) else -1.0 for pair in zip(completions, answer, strict=True)]

    with open(os.path.join(folder, "prompts.jsonl")) as file:
        data = Dataset.from_list([json.loads(line) for line in file])
    config = GRPOConfig(
        output_dir=f"{folder}/trl",
        per_device_train_batch_size=args.prompts * args.rollouts,
        num_generations=args.rollouts,
        max_completion_length=args.tokens,
        max_steps=args.steps,
        beta=0.0,
        learning_rate=1e-6,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        epsilon_high=0.28,
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        use_cpu=args.device == "cpu",
        bf16=args.device == "cuda",
        gradient_checkpointing=False,
        use_vllm=args.engine == "vllm",
        vllm_mode="colocate",
        vllm_max_model_length=32 + args.tokens,
        dataloader_num_workers=0,
        seed=0,
    )
    GRPOTrainer(
        model=f"{folder}/model",
        args=config,
        train_dataset=data,
        reward_funcs=reward,
        callbacks=[Ends()],
    ).train()
    return ends, {}, float(np.mean(lengths))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in {
        "prompts": 32,
        "rollouts": 4,
        "tokens": 32,
        "steps": 15,
        "width": 128,
        "layers": 4,
        "vocabulary": 2048,
        "repeats": 5,
        "threads": 1,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--engine", choices=("torch", "vllm"), default="torch", help="generation, on both sides"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--gdro", choices=("true", "false"), default="true", help="both adversaries on this side"
    )
    parser.add_argument("--plain", action="store_true", help="without the side that compiles")
    parser.add_argument("--only", choices=("ours", "compiled", "trl"), help="one side")
    parser.add_argument("--side", choices=("ours", "compiled", "trl"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        with tempfile.TemporaryDirectory() as folder:
            make_files(folder, args)
            ends, phases, length = (trl if args.side == "trl" else ours)(folder, args)
            seconds = np.diff(ends)[WARM - 1 :]
            peak = peak_mib(args.device)
            if args.device == "cpu":  # our grading worker too
                peak += resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            print(
                json.dumps(
                    {
                        "samples_per_s": args.prompts * args.rollouts / float(np.median(seconds)),
                        "step": float(np.mean(seconds)),
                        "mib": peak,
                        "phases": phases,
                        "length": length,
                    }
                )
            )
        return
    sides = ["trl", "ours"] if args.plain else ["trl", "ours", "compiled"]
    results = {side: [] for side in ([args.only] if args.only else sides)}
    for _ in range(args.repeats):
        for side in results:
            done = subprocess.run(
                [sys.executable, os.path.abspath(__file__), *sys.argv[1:], f"--side={side}"],
                capture_output=True,
                text=True,
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"},
            )
            if done.returncode:
                sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
            results[side].append(json.loads(done.stdout.splitlines()[-1]))
    print(
        f"{args.prompts} prompts x {args.rollouts} rollouts x {args.tokens} tokens, one update a "
        f"step, {args.layers} layers of width {args.width}, vocabulary {args.vocabulary}, "
        f"{args.engine} engine, {args.device}; medians of {args.repeats} (lowest - highest)"
    )
    print("| | samples a second | peak MiB | mean response |\n|---|---|---|---|")
    for side, runs in results.items():
        cells = [[run[key] for run in runs] for key in ("samples_per_s", "mib", "length")]
        print(
            f"| {side} | "
            + " | ".join(
                f"{np.median(c):,.{d}f} ({min(c):,.{d}f} - {max(c):,.{d}f})"
                for c, d in zip(cells, (0, 0, 1), strict=True)
            )
            + " |"
        )
    for side in [side for side in results if side != "trl" and "trl" in results]:
        pairs = list(zip(results[side], results["trl"], strict=True))
        speed = [a["samples_per_s"] / b["samples_per_s"] for a, b in pairs]
        memory = [a["mib"] / b["mib"] for a, b in pairs]
        print(
            f"{side}: {np.median(speed):.2f} times the samples a second ({min(speed):.2f} - "
            f"{max(speed):.2f}), {np.median(memory):.2f} times the memory"
        )
    if "ours" in results:
        for run in results["ours"]:
            run["phases"]["rest"] = run["step"] - sum(run["phases"].values())
        shares = []
        for phase in (*PHASES, "rest"):
            of_runs = [100 * run["phases"][phase] / run["step"] for run in results["ours"]]
            shares.append(f"{phase} {np.median(of_runs):.1f} %")
        print("a step of ours: " + ", ".join(shares))


if __name__ == "__main__":
    main()
