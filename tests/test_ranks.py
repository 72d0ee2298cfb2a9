"""Claims about several ranks: FSDP2 over gloo."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from processes import torchrun
from rank_checks import gradient
from test_train import TINY, metrics_of, run

from bench.common import random_qwen3
from pretrained import load_hf, load_policy
from ranks import Group
from rollout import generate_share
from train import Config

# with the launcher itself
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


def check(ranks, name, path, **environment):
    torchrun(ranks, "tests/rank_checks.py", name, str(path), **environment)
    return torch.load(path, weights_only=False)


def assert_close(a, b, tolerance=2e-5):
    """Two runs' metrics: counts equal, floats within `tolerance` absolute or relative (summation
    order)."""
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for key in x:
            u, v = (np.array(m[key], dtype=float) for m in (x, y))
            np.testing.assert_allclose(
                u, v, rtol=tolerance, atol=tolerance, err_msg=f"step {x['step']} {key}"
            )
        assert (
            x["rollouts/total"] == y["rollouts/total"] and x["bins/rollouts"] == y["bins/rollouts"]
        )


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_every_rank_samples_its_share_and_no_rollout_twice(world):
    """Counts 0 to 6 a prompt; ranks differ by at most one rollout, and what they sample together is
    what one would."""
    seeds = [[(i, j) for j in range(n)] for i, n in enumerate([3, 0, 6, 1, 2, 5])]

    class Engine:
        def generate(self, prompts, seeds, sampling, progress):
            return [
                SimpleNamespace(prompt_id=i, sample=j, seed=seed)
                for i, of_prompt in enumerate(seeds)
                for j, seed in enumerate(of_prompt)
            ]

    shares = [
        generate_share(
            Engine(), [[0]] * 6, seeds, None, SimpleNamespace(rank=rank, world=world, master=True)
        )
        for rank in range(world)
    ]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    together = [r for share in shares for r in share]
    assert [r.seed for r in together] == [seed for of_prompt in seeds for seed in of_prompt]
    assert all((r.prompt_id, r.sample) == r.seed for r in together)


@pytest.mark.parametrize(
    "ranks, name, mesh",
    [
        (2, "gradient", (2,)),
        pytest.param(3, "uneven", (3,), marks=pytest.mark.slow),
        pytest.param(4, "gradient", (2, 2), marks=pytest.mark.slow),
    ],
)
def test_loss_and_gradient_do_not_depend_on_the_ranks(tmp_path, ranks, name, mesh):
    """`uneven`: four micro-batches on three ranks; those that idle in the second round go along and
    change nothing. Four ranks: two hosts of two."""
    one, many = (
        gradient(Group(Config())),
        check(ranks, name, tmp_path / "result.pt", PER_HOST=str(mesh[-1])),
    )
    assert many["mesh"] == mesh
    if name == "uneven":
        assert many["own"] == [6, 1, 1] and many["micros"] == 2
    assert many["loss"] == pytest.approx(one["loss"], abs=1e-6) and many["norm"] == pytest.approx(
        one["norm"], rel=1e-5
    )
    np.testing.assert_allclose(many["statistics"], one["statistics"], atol=1e-5)
    assert many["gradients"].keys() == one["gradients"].keys()
    for key, value in one["gradients"].items():
        assert torch.allclose(many["gradients"][key], value, atol=1e-5), key
    assert max(value.abs().max() for value in one["gradients"].values()) > 1e-2


def test_a_model_that_is_only_read_keeps_no_weight_gathered(tmp_path):
    """After its forward pass PyTorch leaves the root unit of a model (embedding and head) gathered
    for the backward pass; a reference has none."""
    found = check(2, "resident", tmp_path / "result.pt")
    assert found["reference"] and not found["policy"]  # the policy's is freed by its backward pass


def test_bfloat16_computation_keeps_float32_weights_and_a_bfloat16_reference(tmp_path):
    found = check(2, "resident", tmp_path / "result.pt", DTYPE="bfloat16")
    assert found["policy dtype"] == torch.float32 and found["reference dtype"] == torch.bfloat16


@pytest.mark.parametrize("ranks, random, apart", [(1, True, 0.02), (2, False, 0.04)])
def test_gradients_in_bfloat16_are_those_of_float32_but_for_rounding(
    tmp_path, ranks, random, apart
):
    """Of a random model within 2 percent; of the embedded world's base policy, on responses that it
    would never give, within 4."""
    model = random_qwen3(str(tmp_path / "model"), layers=2) if random else "worlds/arith"
    exact = gradient(Group(Config()), model)
    rounded = check(ranks, "gradient", tmp_path / "result.pt", DTYPE="bfloat16", MODELS=model)
    a, b = (
        torch.cat([result["gradients"][name].flatten() for name in exact["gradients"]])
        for result in (exact, rounded)
    )
    assert b.dtype == torch.float32 and 0.001 < (a - b).norm() / a.norm() < apart


def test_an_error_on_one_rank_ends_all_of_them_and_shows_its_traceback(tmp_path):
    command = [*TORCHRUN, "--nproc_per_node=2", "tests/rank_checks.py", "broken"]
    done = subprocess.run(
        [*command, f"{tmp_path}/result.pt"], capture_output=True, text=True, timeout=120
    )  # ranks would wait for each other for 1,800 s
    assert done.returncode != 0
    assert (
        "error on rank 1 of 2" in done.stderr
        and "RuntimeError: planted amid an update" in done.stderr
        and "in raises" in done.stderr
    )
    assert not subprocess.run(["pgrep", "-f", f"{tmp_path}/result.pt"], capture_output=True).stdout


def test_ranks_that_disagree_are_named(tmp_path):
    assert (
        "ranks [1] drew other prompts or another allocation than rank 0"
        in check(2, "disagree", tmp_path / "result.pt")["error"]
    )


@pytest.mark.slow
def test_ranks_of_one_host_listen_on_loopback_only(tmp_path, monkeypatch):
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)  # a Group of this process has set it
    command = [*TORCHRUN, "--nproc_per_node=2", "tests/rank_checks.py", "listening"]
    subprocess.run([*command, f"{tmp_path}/one.pt"], check=True, capture_output=True)
    found = torch.load(tmp_path / "one.pt", weights_only=False)
    assert found["interface"] == "lo" and set(found["addresses"]) == {"0100007F"}
    assert check(2, "listening", tmp_path / "two.pt", PER_HOST="1")["interface"] is None


@pytest.mark.slow
def test_two_ranks_give_the_metrics_of_one_and_either_resumes_the_other(tmp_path):
    """Fifteen steps: the second epoch, so that the adversaries act. Then one more step on the other
    number of ranks."""
    arguments = [
        "config/arith_gdro.py",
        "--lr=5e-5",  # a higher rate carries differences in rounding further
        "--eval_every=15",
        "--save_every=15",
        "--steps=15",
        "--eval_samples=2",
        "--eval_passk=2",
    ]
    torchrun(2, "train.py", *arguments, f"--out_dir={tmp_path}/two")
    one = run(tmp_path / "one", *arguments, tiny=[], steps=15)
    assert_close(one, metrics_of(tmp_path / "two"))
    assert one[-1]["unseen"] == 0 and one[-1]["rollouts/max"] > 4
    evals = [
        [json.loads(line)["mean@2"] for line in open(tmp_path / name / "eval.jsonl")]
        for name in ("one", "two")
    ]
    assert evals[0] == evals[1]
    whole = run(tmp_path / "whole", *arguments, tiny=[], steps=16)
    arguments[4] = "--steps=16"
    torchrun(
        2, "train.py", *arguments, f"--out_dir={tmp_path}/one", "--resume=auto"
    )  # one, then two
    run(tmp_path / "two", *arguments, "--resume=auto", tiny=[], steps=16)  # two, then one
    assert_close(whole, metrics_of(tmp_path / "one"))
    assert_close(whole, metrics_of(tmp_path / "two"))
    weights = [load_hf(f"{tmp_path}/{name}/hf")[0].state_dict() for name in ("whole", "one", "two")]
    for key, value in weights[0].items():
        assert torch.allclose(weights[1][key], value, atol=1e-4) and torch.allclose(
            weights[2][key], value, atol=1e-4
        )


def test_evaluation_over_ranks_is_that_of_one(tmp_path):
    import eval as evaluation

    arguments = ["--eval_samples=2", "--eval_passk=1"]
    done = torchrun(2, "eval.py", *arguments, f"--output={tmp_path}/two.json")
    assert done.stdout.count("worst group") == 1  # one rank prints
    assert json.loads((tmp_path / "two.json").read_text())["results"] == evaluation.main(arguments)


@pytest.mark.slow
def test_a_killed_rank_stops_the_run_and_torchrun_restarts_it_from_the_checkpoint(tmp_path):
    out = tmp_path / "run"
    command = [
        *TORCHRUN,
        "--nproc_per_node=2",
        "--max_restarts=1",
        "train.py",
        *TINY,
        f"--out_dir={out}",
        "--steps=20",
        "--save_every=5",
        "--collective_timeout=30",
        "--resume=auto",
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    while not (out / "ckpt" / "latest").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    # not by pgrep, which looks at every process of a machine and may take as long as the run
    children = open(f"/proc/{process.pid}/task/{process.pid}/children").read().split()
    [rank] = [pid for pid in children if "\0LOCAL_RANK=1\0" in open(f"/proc/{pid}/environ").read()]
    os.kill(int(rank), signal.SIGKILL)
    assert len(metrics_of(out)) < 20, "killed too late"
    output, error = process.communicate(timeout=200)
    assert process.returncode == 0, error
    # torchrun names the rank that it saw fail first: the killed one, or the one that missed it
    assert "resumed from" in output and re.search(r"exitcode: *(-9|1)\)", error)
    assert [m["step"] for m in metrics_of(out)] == list(range(20))
    assert_close(metrics_of(out), run(tmp_path / "whole", steps=20))


@pytest.mark.parametrize("width, vocabulary, tied", [
    (128, 151_936, True), pytest.param(128, 151_936, False, marks=pytest.mark.slow),
    pytest.param(2048, 4096, True, marks=pytest.mark.slow)])
def test_models_shaped_like_qwen3_start_sharded_and_export(tmp_path, tied, width, vocabulary):
    """One layer: the vocabulary of Qwen3, tied like 1.7B and 4B and untied like 8B; and the widths
    of 1.7B. Both at once, or the widths of 8B, take minutes here."""
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    path = str(tmp_path / "model")
    torch.manual_seed(0)
    hf = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=1,
            num_attention_heads=width // 64,
            num_key_value_heads=width // 128,
            head_dim=128,
            tie_word_embeddings=tied,
        )
    )
    hf.save_pretrained(path)
    AutoTokenizer.from_pretrained("worlds/arith").save_pretrained(path)
    found = check(2, "export", tmp_path / "result.pt", MODELS=path)[path]
    assert dict(found["names"]) == {
        name: tuple(tensor.shape) for name, tensor in hf.state_dict().items()
    }
    assert "lm_head.weight" in dict(found["names"]) and found["sharded"]
    logp, _ = load_policy(path, Group(Config()))[0](
        torch.arange(10)[None] % 100, torch.tensor([[False] * 4 + [True] * 6])
    )
    assert torch.allclose(found["logp"], logp, atol=1e-5)
    exported = load_hf(path + "_exported")[0]
    assert (
        exported.config.architectures == ["Qwen3ForCausalLM"]
        and exported.config.tie_word_embeddings == tied
    )
    for key, value in exported.state_dict().items():
        assert torch.equal(value, hf.state_dict()[key])
