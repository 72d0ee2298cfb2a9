"""
Memory and hours of the Qwen3 configs, by arithmetic: what to rent, before anything is run.
$ python bench/budget.py
$ python bench/budget.py --response=2000 --gpus=16      # other assumptions
$ python bench/budget.py --one_gpu      # the configs for one GPU of 24 GB: docs/one_gpu.md's table
$ python bench/budget.py --scaling      # 1.7B to 32B on 1, 8 and 64 GPUs: docs/scaling.md's table
$ python bench/budget.py --tracked --json=memory.json   # the update itself, on fake tensors
$ python bench/budget.py --tracked --one_gpu --json=one_gpu_memory.json
$ python bench/budget.py --read=bench/results/memory.json
Memory is what train.py prints at its start. Hours are an estimate, not a measurement: decoding is
bound by reading the weights, and the longest response sets the pace; the update by arithmetic at a
share of the peak. Expect to be wrong by a factor of up to two.
"""

import argparse
import dataclasses
import glob
import json
import os
import sys
import time
from types import SimpleNamespace
from unittest.mock import patch

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
import numpy as np
import torch
import torch.distributed as dist

from budget import (
    BESIDES,
    CARD_16,
    CARD_24,
    GIB,
    H100,
    H200,
    cache_bytes_a_token,
    fits,
    phases,
)
from configurator import parse
from model import Policy, add_adapters
from pretrained import shard
from ranks import Group
from train import Config, grpo_loss, make_optimizer

# layers, width, inner width, heads, tied head; 8 key-value heads of 128 and 151,936 tokens each
SHAPES = {
    "Qwen/Qwen3-0.6B-Base": (28, 1024, 3072, 16, True),
    "Qwen/Qwen3-1.7B-Base": (28, 2048, 6144, 16, True),
    "Qwen/Qwen3-4B-Base": (36, 2560, 9728, 32, True),
    "Qwen/Qwen3-8B-Base": (36, 4096, 12288, 32, False),
    "Qwen/Qwen3-32B": (64, 5120, 25600, 64, False),
}
EVAL_QUESTIONS = {"math500": 500, "aime24": 30, "aime25": 30, "amc23": 40, "minerva": 272,
                  "olympiad": 674, "gpqa": 198, "gsm8k": 1319}
# of a card of 24 GB: half of the bandwidth and a third of the speed of an RTX 4090
ONE_GPU = {"bandwidth": 0.5, "flops": 55.0}
SPARE = 4.0  # GiB that the configs leave free on 8 cards of 80 GB, for fragments between tensors
SMALL_CACHE = 8.0  # GiB: enough for some ten sequences at full length, so generation becomes slow


def shape_of(model, layers=None):
    """The transformers config of a model of SHAPES, cut to so many `layers` if given."""
    from transformers import Qwen3Config

    its_layers, width, inner, heads, tied = SHAPES[model]
    return Qwen3Config(
        vocab_size=151_936,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers or its_layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=tied,
    )


def parameters_of(model, layers=None):
    """(number of parameters, config) of a model of SHAPES, without its weights."""
    from transformers import Qwen3ForCausalLM

    shape = shape_of(model, layers)
    with torch.device("meta"):
        return sum(p.numel() for p in Qwen3ForCausalLM(shape).parameters()), shape


def hours(cfg, parameters, shape, args, gpus):
    """Estimated hours of a whole run."""
    # so many sequences of mean length fit into the cache
    cached = cfg.kv_cache_gib * GIB / cache_bytes_a_token(shape)
    at_once = gpus * min(cfg.max_num_seqs, cached // (args.prompt + args.response))
    decode = cfg.max_response_len * (
        2 * parameters / (args.bandwidth * 1e12) + args.overhead / 1000
    )  # seconds: the longest response, a token at a time
    sequences = cfg.prompts_per_step * cfg.n_rollouts
    waves = -(-sequences // at_once)
    # old log-probabilities of all but the first update, reference, forward and backward,
    # recomputation
    passes = (
        2 * (1 - 1 / cfg.updates_per_step)
        + 2 * (cfg.kl_coef > 0)
        + (4 if cfg.lora_rank else 6)  # what is frozen has no gradient of its own
        + 2 * cfg.activation_checkpointing
    )
    update = (
        passes * parameters * sequences * (args.prompt + args.response) / (gpus * args.flops * 1e12)
    )
    questions = sum(EVAL_QUESTIONS[name] for name in cfg.eval_sets.split(","))
    evaluation = (
        (cfg.steps // cfg.eval_every + 1)
        * -(-questions * cfg.eval_samples // at_once)
        * decode
    )
    return (cfg.steps * (waves * decode + update) + evaluation) / 3600


def size_of(model):
    """1.7b, say."""
    return model.removeprefix("Qwen/Qwen3-").removesuffix("-Base").lower()


def config_of(model):
    """The GRPO config of a model of SHAPES; its memory is that of the other three arms."""
    name = f"qwen3_{size_of(model).replace('.', 'p')}_grpo.py"
    if size_of(model) == "0.6b":
        name = "one_gpu_grpo.py"
    return parse(Config, [os.path.join(ROOT, "config", name)])


def largest_cache(parameters, shape, cfg):
    """The `kv_cache_gib` of the configs: what 8 cards of 80 GB have left with SPARE kept free, in
    steps of 4 GiB, but no more than all sequences of a rank take at full length."""
    beside_it = phases(parameters, shape, cfg, 8)["generate"] - cfg.kv_cache_gib
    free = H100 - BESIDES - SPARE - beside_it
    sequences = cfg.prompts_per_step * cfg.n_rollouts / 8
    length = cfg.max_prompt_len + cfg.max_response_len
    return min(4.0 * (free // 4), sequences * length * cache_bytes_a_token(shape) / GIB)


def fewest(parameters, shape, cfg, card):
    """The smallest number of cards of a host on which a run fits, as the tables say it."""
    return next((f"{n}" for n in (1, 2, 4, 8) if fits(parameters, shape, cfg, n, card)), "none")


class Everywhere:
    """Stands for a response mask [B, S] that is True on all tokens but the first of each sequence.
    How many places of a mask are True decides shapes, which fake tensors cannot know: it gives the
    places themselves."""

    def __init__(self, batch, length):
        self.places = tuple(torch.zeros(batch * (length - 1), dtype=torch.long) for _ in range(2))

    def __getitem__(self, columns):
        return self.places


def tracked(model, gpus, layers=None, cfg=None):
    """Peak of a step's update on the first of `gpus` ranks -> (GiB, what it consists of: GiB, the
    reference among the inputs).

    Policy, reference, loss and optimizer are those of train.py with the settings of the config (or
    of `cfg`), and compute in bfloat16. The tensors are fake: they have shapes and no values. So is
    the process group. There are two micro-batches, full and as long as responses may get."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.testing._internal.distributed.fake_pg import FakeStore
    from transformers import AutoModelForCausalLM

    cfg = dataclasses.replace(cfg or config_of(model), device="cpu", dtype="bfloat16")
    torchrun = dict.fromkeys(("RANK", "LOCAL_RANK"), "0")
    torchrun |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), f"{gpus}")
    # it looks into values, to see whether several sequences are packed into a row: they are not
    look = "transformers.masking_utils.find_packed_sequence_indices"
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=gpus)
    try:
        with patch.dict(os.environ, torchrun):
            group = Group(cfg)
        fake = FakeTensorMode(allow_non_fake_inputs=True)  # the mesh has real ones
        with patch(look, lambda positions: None), fake:

            def sharded(dtype, trainable):
                hf = AutoModelForCausalLM.from_config(shape_of(model, layers), dtype=dtype).eval()
                hf.requires_grad_(trainable)
                if cfg.lora_rank:
                    add_adapters(hf, cfg.lora_rank, cfg.lora_alpha, cfg.seed)
                policy = Policy(hf, cfg.temperature, cfg.float32_head)
                shard(policy, group, trainable and cfg.activation_checkpointing)
                return policy

            policy = sharded(group.dtype if cfg.lora_rank else torch.float32, True)
            copy = sharded(group.dtype, False) if cfg.kl_coef and not cfg.lora_rank else None
            reference = policy.base if cfg.lora_rank else copy
            optimizer = make_optimizer(policy, cfg, SimpleNamespace(device="cuda"))

            def step():
                torch.nn.utils.clip_grad_norm_(policy.parameters(), cfg.grad_clip)
                optimizer.step()
                optimizer.zero_grad()

            # a step on little: the moments exist, and DTensor has worked out the shapes of its
            # operations, for which it makes fake tensors that the tracker would count
            policy(torch.zeros(1, 8, dtype=torch.long), Everywhere(1, 8))[0].sum().backward()
            step()
            length = min(cfg.max_response_len, cfg.tokens_per_micro_batch)
            batch = cfg.tokens_per_micro_batch // length
            ids, mask = torch.zeros(batch, length, dtype=torch.long), Everywhere(batch, length)
            tokens = torch.ones(batch * (length - 1))  # [T], for all that the loss takes as given
            tracker = FSDPMemTracker(policy, optimizer)
            held = [*copy.parameters(), *copy.buffers()] if copy else []
            tracker.track_inputs((ids, mask.places, tokens, held))
            with tracker, sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                with torch.no_grad():
                    ref = reference(ids, mask)[0] if reference else None
                    tracker.reset_mod_stats()
                    old, _ = policy(ids, mask)
                for _ in range(2):  # the second on top of the gradients of the first
                    tracker.reset_mod_stats()
                    logp, _ = policy(ids, mask)
                    weight = tokens * (old - tokens).exp().clamp(max=cfg.tis_cap)
                    given = logp.detach() if ref is None else ref
                    loss, _ = grpo_loss(logp, old, given, tokens, tokens, weight, cfg)
                    (loss * group.world).backward()
                    del logp, loss
                step()
            [peak] = tracker.get_tracker_snapshot("peak").values()
            total = peak.pop("Total") / GIB
            return total, {part.value: round(size / GIB, 3) for part, size in peak.items() if size}
    finally:
        dist.destroy_process_group()


def track(sizes, args):
    """Track the update of all models and numbers of GPUs asked for -> what --json keeps."""
    rows = []
    for model in sizes:
        if size_of(model) not in args.models.split(","):
            continue
        for gpus in map(int, args.on.split(",")):
            begun = time.perf_counter()
            peak, parts = tracked(model, gpus)
            rows.append({"model": model, "gpus": gpus, "gib": round(peak, 3), "parts": parts})
            print(f"{model} on {gpus}: {time.perf_counter() - begun:.0f} s", file=sys.stderr)
    return {"torch": torch.__version__, "rows": rows}


def track_one_gpu():
    """The same for the configs for one GPU; the four arms differ in nothing that takes memory."""
    rows = []
    for name in ("one_gpu_grpo", "one_gpu_1p7b_lora"):
        cfg = parse(Config, [os.path.join(ROOT, "config", f"{name}.py")])
        peak, parts = tracked(cfg.model, 1, cfg=cfg)
        row = {"config": name, "model": cfg.model, "gpus": 1, "gib": round(peak, 3)}
        rows.append(row | {"parts": parts})
    return {"torch": torch.__version__, "rows": rows}


def print_tracked(kept, sizes):
    print("| model | GPUs | update tracked, GiB a GPU | by the formula | ratio |")
    print("|---|---|---|---|---|")
    for row in kept["rows"]:
        model, gpus, gib = row["model"], row["gpus"], row["gib"]
        cfg = config_of(model)
        if "config" in row:
            cfg = parse(Config, [os.path.join(ROOT, "config", f"{row['config']}.py")])
        estimate = phases(*sizes[model], cfg, gpus)["update"]
        ratio = gib / estimate
        name = model.removeprefix("Qwen/")
        print(f"| {name} | {gpus} | {gib:.2f} | {estimate:.2f} | {ratio:.3f} |")


def print_scaling(sizes, args):
    cfg = config_of("Qwen/Qwen3-8B-Base")
    print(
        "| model | GPUs | GiB a GPU: engine start / generate / update "
        "| hours for 1,000 steps | fits 80 GB | fits 141 GB |\n|---|---|---|---|---|---|"
    )
    for model in list(SHAPES)[1:]:  # the smallest has its own configs
        parameters, shape = sizes[model]
        for gpus in (1, 8, 64):
            of_host = parameters, shape, cfg, min(gpus, 8)
            cells = [model.removeprefix("Qwen/"), f"{gpus}", memory(*of_host)]
            cells += [f"{hours(cfg, parameters, shape, args, gpus):.0f}"]
            cells += ["yes" if fits(*of_host, card) else "no" for card in (H100, H200)]
            print(f"| {' | '.join(cells)} |")


def memory(parameters, shape, cfg, gpus):
    """GiB at the engine's start, to generate and to update; an evaluation is like generation."""
    needed = phases(parameters, shape, cfg, gpus)
    return " / ".join(f"{needed[phase]:.0f}" for phase in ("engine start", "generate", "update"))


def print_configs(sizes, args):
    columns = ["parameters", "cache", "1 GPU", f"{args.gpus} GPUs", "hours"]
    columns += ["80 GB", "141 GB"] * 2
    widths = (14, 7, 17, 15, 7, 8, 8, 8, 8)

    def line(name, cells):
        padded = [f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)]
        return f"{name:<30}" + "".join(padded)

    print(
        line("config", columns) + "   (GiB a GPU: engine start / generate / update; the number "
        f"of GPUs from which it fits, and with a cache of {SMALL_CACHE:g} GiB)"
    )
    for path in sorted(glob.glob(os.path.join(ROOT, "config", "qwen3_*.py"))):
        cfg = parse(Config, [path])
        parameters, shape = sizes[cfg.model]
        cells = [f"{parameters:,}", f"{cfg.kv_cache_gib:g}"]
        cells += [memory(parameters, shape, cfg, gpus) for gpus in (1, min(args.gpus, 8))]
        cells += [f"{hours(cfg, parameters, shape, args, args.gpus):.0f}"]
        for with_cache in (cfg, dataclasses.replace(cfg, kv_cache_gib=SMALL_CACHE)):
            cells += [fewest(parameters, shape, with_cache, card) for card in (H100, H200)]
        print(line(os.path.basename(path), cells))


def print_one_gpu(sizes, args):
    """The configs for one GPU: what they need there, and the cache with which 16 GB do."""
    vars(args).update(ONE_GPU)
    print(
        "| config | GiB: engine start / generate / update | of 24 GB are left | on 16 GB with "
        "| hours, responses of 300 / 1,000 tokens |\n|---|---|---|---|---|"
    )
    for path in sorted(glob.glob(os.path.join(ROOT, "config", "one_gpu_*.py"))):
        cfg = parse(Config, [path])
        parameters, shape = sizes[cfg.model]
        needed = phases(parameters, shape, cfg, 1, CARD_24)
        listed = " / ".join(f"{needed[p]:.1f}" for p in ("engine start", "generate", "update"))
        left = CARD_24 - BESIDES - max(needed.values())
        smaller = 0.5 * np.arange(1, 2 * cfg.kv_cache_gib)
        fitting = [cache for cache in smaller if fits(
            parameters, shape, dataclasses.replace(cfg, kv_cache_gib=float(cache)), 1, CARD_16)]
        with_16 = f"`--kv_cache_gib={max(fitting):g}`" if fitting else "-"
        took = []
        for response in (300, 1000):
            args.response = response
            took.append(f"{hours(cfg, parameters, shape, args, 1):.0f}")
        name = os.path.relpath(path, ROOT)
        print(f"| `{name}` | {listed} | {left:.1f} GiB | {with_16} | {' / '.join(took)} |")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default, says in (
        ("prompt", 150, "tokens of a prompt, on average"),
        ("response", 1000, "tokens of a response, on average"),
        ("bandwidth", 1.7, "TB/s of memory that decoding reaches (half of an H100's)"),
        ("overhead", 6.0, "milliseconds a decoded token besides"),
        ("flops", 350.0, "TFLOP/s that the update reaches (a third of an H100's)"),
    ):
        parser.add_argument(
            f"--{name}", type=type(default), default=default, help=f"{says}; {default}"
        )
    parser.add_argument("--gpus", default="", help="GPUs, 8; with --tracked a list, 1,8")
    parser.add_argument(
        "--scaling",
        action="store_true",
        help="other sizes and numbers of GPUs, eight a host, with the settings of qwen3_8b_grpo.py",
    )
    parser.add_argument("--one_gpu", action="store_true", help="the configs for one GPU of 24 GB")
    parser.add_argument("--tracked", action="store_true", help="the update on fake tensors")
    parser.add_argument("--models", default="1.7b,4b,8b", help="with --tracked; 1.7b,4b,8b")
    parser.add_argument("--json", default="", help="with --tracked: keep the result in this file")
    parser.add_argument("--read", default="", help="print the table of a kept result")
    args = parser.parse_args()
    args.on, args.gpus = args.gpus or "1,8", 0 if args.tracked else int(args.gpus or 8)
    sizes = {model: parameters_of(model) for model in SHAPES}
    if args.tracked:
        kept = track_one_gpu() if args.one_gpu else track(sizes, args)
        if args.json:
            with open(args.json, "w") as file:
                json.dump(kept, file, indent=1)
        print_tracked(kept, sizes)
    elif args.read:
        with open(args.read) as file:
            print_tracked(json.load(file), sizes)
    elif args.one_gpu:
        print_one_gpu(sizes, args)
    elif args.scaling:
        print_scaling(sizes, args)
    else:
        print_configs(sizes, args)


if __name__ == "__main__":
    main()
