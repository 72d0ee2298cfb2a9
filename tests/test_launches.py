"""Claim: a config's memory is known before a GPU is rented: what each phase needs, where it fits,
and that a start materialises no more than a shard. Models of the real sizes are of fake tensors."""

import dataclasses
import glob
import itertools
import json
import os
import re
import sys
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from transformers import Qwen3ForCausalLM

from bench import budget as bench
from budget import BESIDES, CARD_24, GIB, H100, H200, adapter_parameters, fits, phases
from configurator import parse
from model import add_adapters
from pretrained import load_policy
from ranks import Group
from train import Config

RECIPES = sorted(glob.glob(os.path.join(bench.ROOT, "config", "qwen3_*.py")))
SIZES = {model: bench.parameters_of(model) for model in bench.SHAPES}
with open(os.path.join(bench.ROOT, "docs", "paper.md"), encoding="utf-8") as file:
    PAPER = file.read()
with open(os.path.join(bench.ROOT, "docs", "scaling.md"), encoding="utf-8") as file:
    SCALING = file.read()


def update_gib(model, gpus):
    """GiB of a config's update by the arithmetic."""
    return phases(*SIZES[model], bench.config_of(model), gpus)["update"]


def whole(cfg, gpus):
    """GiB of the largest phase on each of so many GPUs, with what no phase counts."""
    return max(phases(*SIZES[cfg.model], cfg, gpus).values()) + BESIDES


@pytest.mark.parametrize("card, usable", [(80, H100), (141, H200)])
@pytest.mark.parametrize("gpus", [1, 8])
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: os.path.basename(path)[:-3])
def test_a_config_fits_where_the_readme_says_so_and_nowhere_else(path, gpus, card, usable):
    cfg = parse(Config, [path])
    group = re.sub(r"(qwen3_[^_]+)_.*", r"\1", os.path.basename(path))
    [row] = re.findall(rf"^\| `{group}_\*\.py` \| (.*) \|$", PAPER, re.M)
    column = {80: 0, 141: 1}[card]
    as_it_is, with_small_cache = (int(cell.split(" / ")[column]) for cell in row.split(" | ")[-2:])
    small = dataclasses.replace(cfg, kv_cache_gib=8.0)
    assert (gpus >= as_it_is) == (whole(cfg, gpus) <= usable)
    assert (gpus >= with_small_cache) == (whole(small, gpus) <= usable)


@pytest.mark.parametrize("card, usable", [(80, H100), (141, H200)])
def test_a_size_fits_where_the_table_of_scaling_says_so_and_nowhere_else(card, usable):
    cfg = parse(Config, [os.path.join(bench.ROOT, "config", "qwen3_8b_grpo.py")])
    rows = re.findall(r"^\| (Qwen3-\S+) \| (\d+) \| .* \| (yes|no) \| (yes|no) \|$", SCALING, re.M)
    assert len(rows) == 4 * 3
    for model, gpus, *says in rows:
        sized = dataclasses.replace(cfg, model=f"Qwen/{model}")
        fits = whole(sized, min(int(gpus), 8)) <= usable  # eight GPUs a host
        assert fits == (says[card == 141] == "yes"), (model, gpus)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: os.path.basename(path)[:-3])
def test_a_configs_cache_is_what_eight_gpus_of_80_gb_have_left(path):
    cfg = parse(Config, [path])
    assert cfg.kv_cache_gib == bench.largest_cache(*SIZES[cfg.model], cfg)
    assert whole(cfg, 8) <= H100 - bench.SPARE < whole(cfg, 8) + 4  # in steps of 4 GiB
    assert "8 GPUs of 80 GB" in open(path).readline()


def test_the_phases_differ_by_what_comes_and_goes():
    """Moments come with the first step, vLLM sleeps during the update, gradients go after it."""
    cfg = parse(Config, [RECIPES[0]])
    parameters, shape = SIZES[cfg.model]
    needed = phases(parameters, shape, cfg, 8)
    assert needed["generate"] - needed["engine start"] == pytest.approx(8 * parameters / 8 / GIB)
    assert needed["evaluate"] == needed["generate"]
    asleep = phases(parameters, shape, dataclasses.replace(cfg, kv_cache_gib=1.0), 8)
    assert asleep["update"] == needed["update"]
    assert needed["generate"] - asleep["generate"] == pytest.approx(cfg.kv_cache_gib - 1)
    without = phases(parameters, shape, dataclasses.replace(cfg, kl_coef=0.0), 8)
    for phase in needed:  # the reference is there all the time, in bfloat16
        assert needed[phase] - without[phase] == pytest.approx(2 * parameters / 8 / GIB)


def test_the_kept_result_of_the_tracker_is_within_5_percent_of_the_arithmetic():
    with open(os.path.join(bench.ROOT, "bench", "results", "memory.json")) as file:
        rows = json.load(file)["rows"]
    sizes = [f"Qwen/Qwen3-{size}-Base" for size in ("1.7B", "4B", "8B")]  # of the paper's configs
    assert [(row["model"], row["gpus"]) for row in rows] == list(itertools.product(sizes, (1, 8)))
    for row in rows:
        assert row["gib"] == pytest.approx(update_gib(row["model"], row["gpus"]), rel=0.05)
        assert sum(row["parts"].values()) == pytest.approx(row["gib"], abs=0.01)


@pytest.mark.parametrize("name", ["one_gpu_grpo", "one_gpu_1p7b_lora"])
def test_the_tracked_update_of_the_configs_for_one_gpu_fits_24_gb(name):
    """Whole models as kept; six layers of them anew."""
    cfg = parse(Config, [os.path.join(bench.ROOT, "config", f"{name}.py")])
    with open(os.path.join(bench.ROOT, "bench", "results", "one_gpu_memory.json")) as file:
        [kept] = [row["gib"] for row in json.load(file)["rows"] if row["config"] == name]
    assert kept == pytest.approx(phases(*SIZES[cfg.model], cfg, 1)["update"], rel=0.05)
    assert kept + BESIDES < CARD_24 and fits(*SIZES[cfg.model], cfg, 1, CARD_24)
    estimate = phases(*bench.parameters_of(cfg.model, 6), cfg, 1)["update"]
    assert bench.tracked(cfg.model, 1, 6, cfg)[0] == pytest.approx(estimate, rel=0.05)


def test_adapters_are_counted_as_they_are_made():
    hf = Qwen3ForCausalLM(bench.shape_of("Qwen/Qwen3-0.6B-Base", layers=1))
    add_adapters(hf, 8, 16.0, 0)
    learn = sum(p.numel() for p in hf.parameters() if p.requires_grad)
    assert learn == adapter_parameters(hf.config, 8)


OTHER_SETTINGS = [
    {},
    {"activation_checkpointing": False},
    {"tokens_per_micro_batch": 8192, "kl_coef": 0.0},
]


@pytest.mark.slow
@pytest.mark.parametrize("changes", OTHER_SETTINGS, ids=str)
@pytest.mark.parametrize("gpus", [1, 8])
@pytest.mark.parametrize("model", ["Qwen/Qwen3-1.7B-Base", "Qwen/Qwen3-8B-Base"])
def test_the_tracked_update_is_within_5_percent_at_other_settings(model, gpus, changes):
    cfg = dataclasses.replace(bench.config_of(model), **changes)
    estimate = phases(*bench.parameters_of(model, 4), cfg, gpus)["update"]
    assert bench.tracked(model, gpus, layers=4, cfg=cfg)[0] == pytest.approx(estimate, rel=0.05)


def test_the_tracked_update_that_is_kept_is_within_5_percent_of_the_arithmetic(
        tmp_path, monkeypatch):
    """Of four layers on eight ranks. Of whole models the kept table says it (docs/paper.md)."""
    tracked, kept = bench.tracked, tmp_path / "memory.json"
    monkeypatch.setattr(bench, "tracked", lambda *sizes: tracked(*sizes, layers=4))
    command = ["budget.py", "--tracked", "--models=1.7b", "--gpus=8", f"--json={kept}"]
    monkeypatch.setattr(sys, "argv", command)
    bench.main()
    [row] = json.loads(kept.read_text())["rows"]
    cfg = bench.config_of(row["model"])
    update = phases(*bench.parameters_of(row["model"], 4), cfg, 8)["update"]
    assert row["gib"] == pytest.approx(update, rel=0.05)


def test_the_tracked_update_of_two_layers_is_within_5_percent_of_the_arithmetic():
    """The same as for whole models, in seconds."""
    model = "Qwen/Qwen3-1.7B-Base"
    estimate = phases(*bench.parameters_of(model, 2), bench.config_of(model), 8)["update"]
    assert bench.tracked(model, 8, layers=2)[0] == pytest.approx(estimate, rel=0.05)


def start(layers, rank, gpus):
    """load_policy on a rank of `gpus` that reads no weights, of an 8B model cut to so many layers
    -> (the policy, bytes by device at the peak, bytes by device at the end)."""
    from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
    from torch.distributed import _state_dict_utils
    from torch.distributed._tools.mem_tracker import MemTracker
    from torch.testing._internal.distributed.fake_pg import FakeStore
    from transformers import AutoModelForCausalLM

    shape = bench.shape_of("Qwen/Qwen3-8B-Base", layers)
    with torch.device("meta"):
        weights = AutoModelForCausalLM.from_config(shape, dtype=torch.float32).state_dict()

    def announced(objects, *arguments, **options):
        """What the master says of the weights before it sends them."""
        info = _state_dict_utils._TensorInfo
        objects[0] = {f"hf.{name}": info(x.shape, x.dtype) for name, x in weights.items()}

    offsets = _state_dict_utils.compute_local_shape_and_global_offset

    def outside(*arguments):
        """DTensor looks into small tensors for where a shard begins: these must be real."""
        with unset_fake_temporarily():
            return offsets(*arguments)

    torchrun = dict.fromkeys(("RANK", "LOCAL_RANK"), f"{rank}")
    torchrun |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), f"{gpus}")
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=gpus)
    try:
        with patch.dict(os.environ, torchrun):
            group = Group(Config(device="cpu", dtype="bfloat16"))
        group.on_master = lambda read: (None, shape)
        told = patch.object(dist, "broadcast_object_list", announced)
        real = patch.object(_state_dict_utils, "compute_local_shape_and_global_offset", outside)
        fake = FakeTensorMode(allow_non_fake_inputs=True)  # the mesh has real ones
        with told, real, fake, MemTracker() as tracker:
            policy, _ = load_policy("Qwen/Qwen3-8B-Base", group, checkpointing=True)
        peak, end = (tracker.get_tracker_snapshot(kind) for kind in ("peak", "current"))
        return policy, *({on.type: held["Total"] for on, held in x.items()} for x in (peak, end))
    finally:
        dist.destroy_process_group()


def test_a_start_of_8b_materialises_the_ranks_shard_and_one_tensor_on_its_way_only():
    """On rank 3 of 8. It starts one layer before: DTensor works out the shapes of operations with
    fake tensors of the whole shape, once for each shape, and the tracker would count them."""
    start(1, 3, 8)
    policy, peak, held = start(36, 3, 8)
    parameters = sum(p.numel() for p in policy.parameters())
    assert parameters == 8_190_735_360
    shard = 4 * parameters / 8
    assert "meta" not in held
    assert held["cpu"] == pytest.approx(shard, rel=1e-4)  # and rotary frequencies
    assert all(p.to_local().device.type == "cpu" for p in policy.parameters())
    largest = 4 * 151_936 * 4096
    assert peak["cpu"] == pytest.approx(shard + largest, rel=1e-3)
    assert peak["meta"] >= 4 * parameters  # the whole model was made, where it takes no memory
