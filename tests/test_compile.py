"""Claims about the knob `compile`: the decoder layers through torch.compile."""
import functools
import json

import pytest
import torch
from processes import torchrun
from test_ranks import assert_close
from test_train import TINY, metrics_of, run
from torch._dynamo.utils import counters

from pretrained import load_policy
from ranks import Group
from train import Config

pytestmark = pytest.mark.slow
KNOBS = ["--prompt_gdro=true", "--rollout_gdro=true", "--compile=true", "--updates_per_step=2"]


def test_it_computes_what_eager_does_for_any_shape_of_batch(monkeypatch):
    """With adapters and checkpointing, which make the most graphs; all weights are below, and there
    the graphs become programs too, which takes a minute for all of these."""
    compiler = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", compiler)
    torch._dynamo.reset()
    counters.clear()
    values, gradients = [], []
    for compiled in (False, True):
        policy, _ = load_policy("worlds/arith", Group(Config()), checkpointing=True,
                                lora=(4, 8.0, 0), compiled=compiled)
        with torch.no_grad():
            for adapter in policy.adapters.values():
                adapter.lora_B.fill_(0.01)
        found = []
        for batch, length in ((3, 17), (2, 31), (1, 24), (7, 12), (1, 9)):
            generator = torch.Generator().manual_seed(batch)
            ids = torch.randint(3, 13, (batch, length), generator=generator)
            mask = torch.ones_like(ids, dtype=torch.bool)
            with torch.no_grad():
                found += policy(ids, mask)
                found += policy.base(ids, mask)
            logp, entropy = policy(ids, mask)
            logp.mean().backward()
            found += [logp.detach(), entropy]
        values.append(torch.cat(found))
        gradients.append(torch.cat([p.grad.flatten() for p in policy.parameters()
                                    if p.grad is not None]))
    torch.testing.assert_close(values[1], values[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-5)
    # compiled for every layer and every shape at once: neither for each anew nor not at all
    assert 2 <= counters["stats"]["unique_graphs"] <= 16
    assert not counters["graph_break"]


def test_a_run_is_the_eager_one_within_rounding_and_may_change_over(tmp_path):
    compiled = run(tmp_path / "compiled", *KNOBS, steps=4)
    eager = run(tmp_path / "eager", *KNOBS, "--compile=false", steps=4)
    assert_close(compiled, eager, 1e-4)
    # the knob may change on a resume
    run(tmp_path / "compiled", *KNOBS, "--compile=false", "--resume=auto", steps=5)
    assert len(metrics_of(tmp_path / "compiled")) == 5


def test_two_ranks_with_fsdp_and_checkpointing_compute_what_one_eager_rank_does(tmp_path):
    more = ["--lora_rank=4", "--lr=1e-3"]
    torchrun(2, "train.py", *TINY, *KNOBS, *more, "--activation_checkpointing=true", "--steps=3",
             f"--out_dir={tmp_path}/two")
    one = run(tmp_path / "one", *KNOBS, *more, "--compile=false", steps=3)
    assert_close(metrics_of(tmp_path / "two"), one, 1e-4)
    config = json.loads((tmp_path / "two" / "config.json").read_text())["config"]
    assert config["compile"] and config["activation_checkpointing"]
