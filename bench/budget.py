"""
Memory and hours of the Qwen3 configs, by arithmetic: what to rent, before anything is run.
$ python bench/budget.py
$ python bench/budget.py --response=2000 --gpus=16      # other assumptions
$ python bench/budget.py --scaling                      # 1.7B to 32B parameters on 1, 8 and 64 GPUs: the table of docs/scaling.md
Memory is what train.py prints at its start. Hours are an estimate, not a measurement: decoding is bound by reading the weights, and the longest
response sets the pace; the update by arithmetic at a share of the peak. Expect to be wrong by a factor of up to two.
"""
import argparse
import glob
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
import torch

from configurator import parse
from model import memory_gib
from train import Config

SHAPES = {  # layers, width, inner width, heads, tied head; 8 key-value heads of 128 and 151,936 tokens each
    "Qwen/Qwen3-1.7B-Base": (28, 2048, 6144, 16, True),
    "Qwen/Qwen3-4B-Base": (36, 2560, 9728, 32, True),
    "Qwen/Qwen3-8B-Base": (36, 4096, 12288, 32, False),
    "Qwen/Qwen3-32B": (64, 5120, 25600, 64, False),
}
EVAL_QUESTIONS = 500 + 30 + 30 + 40 + 272 + 674 + 198


def parameters_of(model):
    """(number of parameters, config) of a model of SHAPES, without its weights."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    layers, width, inner, heads, tied = SHAPES[model]
    config = Qwen3Config(vocab_size=151_936, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
                         num_key_value_heads=8, head_dim=128, tie_word_embeddings=tied)
    with torch.device("meta"):
        return sum(p.numel() for p in Qwen3ForCausalLM(config).parameters()), config


def hours(cfg, parameters, args, gpus):
    """Estimated hours of a whole run."""
    decode = cfg.max_response_len * (2 * parameters / (args.bandwidth * 1e12) + args.overhead / 1000)  # seconds: the longest response, a token at a time
    sequences = cfg.prompts_per_step * cfg.n_rollouts
    waves = -(-sequences // (gpus * cfg.max_num_seqs))
    # old log-probabilities of all but the first update, reference, forward and backward, recomputation
    passes = 2 * (1 - 1 / cfg.updates_per_step) + 2 * (cfg.kl_coef > 0) + 6 + 2 * cfg.activation_checkpointing
    update = passes * parameters * sequences * (args.prompt + args.response) / (gpus * args.flops * 1e12)
    evaluation = (cfg.steps // cfg.eval_every + 1) * -(-EVAL_QUESTIONS * cfg.eval_samples // (gpus * cfg.max_num_seqs)) * decode
    return (cfg.steps * (waves * decode + update) + evaluation) / 3600


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, says in (("gpus", 8, "GPUs"), ("prompt", 150, "tokens of a prompt, on average"), ("response", 1000, "tokens of a response, on average"),
                                ("bandwidth", 1.7, "TB/s of memory that decoding reaches (half of an H100's)"), ("overhead", 6.0, "milliseconds a decoded token besides"),
                                ("flops", 350.0, "TFLOP/s that the update reaches (a third of an H100's)")):
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{says}; {default}")
    parser.add_argument("--scaling", action="store_true", help="other sizes and numbers of GPUs, eight a host, with the settings of qwen3_8b_grpo.py")
    args = parser.parse_args()
    sizes = {model: parameters_of(model) for model in SHAPES}
    if args.scaling:
        cfg = parse(Config, [os.path.join(ROOT, "config", "qwen3_8b_grpo.py")])
        print("| model | GPUs | GiB a GPU: generate / update | hours for 1,000 steps | fits 80 GB |\n|---|---|---|---|---|")
        for model, (parameters, shape) in sizes.items():
            for gpus in (1, 8, 64):
                memory = memory_gib(parameters, shape, cfg, min(gpus, 8))
                fits = max(memory) <= 74
                print(f"| {model.removeprefix('Qwen/')} | {gpus} | {memory[0]:.0f} / {memory[1]:.0f} | {hours(cfg, parameters, args, gpus):.0f} | {'yes' if fits else 'no'} |")
        return
    print(f"{'config':<30}{'parameters':>16}{'1 GPU, GiB':>14}{f'{args.gpus} GPUs, GiB':>14}{'hours':>8}{'fits from':>12}      (GiB a GPU: generate / update)")
    for path in sorted(glob.glob(os.path.join(ROOT, "config", "qwen3_*.py"))):
        cfg = parse(Config, [path])
        parameters, shape = sizes[cfg.model]
        memory = ["{:.0f} / {:.0f}".format(*memory_gib(parameters, shape, cfg, world)) for world in (1, min(args.gpus, 8))]
        fewest = next((f"{gpus} x 80 GB" for gpus in (1, 2, 4, 8) if max(memory_gib(parameters, shape, cfg, gpus)) <= 74), "no host of 8")
        print(f"{os.path.basename(path):<30}{parameters:>16,}{memory[0]:>14}{memory[1]:>14}{hours(cfg, parameters, args, args.gpus):>8.0f}{fewest:>12}")


if __name__ == "__main__":
    main()
