"""Claims about whole runs, made by running train.py on the embedded world."""

import json
import os
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
import torch

import runlog
import train
from gates import check_mismatch, check_untruncated
from gdro import SIGNALS
from pretrained import load_policy
from ranks import Group
from rollout import Sampling
from train import Config, main

TINY = ["--prompts_per_step=16", "--eval_every=100", "--save_every=100", "--eval_sets="]
PLAIN = ["--template=bare", "--reward=exact"]  # a local file like the embedded world


def run(out, *arguments, steps=4, tiny=TINY):
    """Run train.py in this process -> the run's metrics without what the machine decides."""
    main([*tiny, *arguments, f"--out_dir={out}", f"--steps={steps}"])
    return metrics_of(out)


def metrics_of(out):
    with open(os.path.join(out, "metrics.jsonl")) as file:
        return [
            {k: v for k, v in json.loads(line).items() if not k.startswith(("time/", "mem/"))}
            for line in file
            if line.endswith("\n")
        ]


# ---------- budgets and logs ----------


@pytest.mark.parametrize("rule", ["price", "exp3p"])
def test_twenty_steps_spend_exactly_the_budget_at_every_step(tmp_path, rule):
    main(
        [
            "config/arith_rollout_gdro.py",
            "--steps=20",
            "--eval_sets=",
            f"--rollout_rule={rule}",
            "--arm_signal=error",
            f"--out_dir={tmp_path}/run",
        ]
    )
    metrics = metrics_of(tmp_path / "run")
    assert [m["rollouts/total"] for m in metrics] == [64 * 4] * 20
    assert any(m["rollouts/max"] > 4 for m in metrics)  # and they did move
    for m in metrics:
        assert 1 <= m["rollouts/min"] <= m["rollouts/max"] <= 24
        share, rollouts = np.array(m["bins/share"]), np.array([x or 0 for x in m["bins/rollouts"]])
        assert share @ rollouts + 4 * m["unseen"] == pytest.approx(
            4
        )  # the log tells the same story


def test_every_step_logs_the_documented_metrics(tmp_path):
    run(
        tmp_path / "run",
        "--prompt_gdro=true",
        "--rollout_gdro=true",
        "--samples_every=2",
        tiny=TINY[:-1],
    )
    scalars = ["step", "score/mean", "solved/prompt_mean", "rollouts/total", "rollouts/min"]
    scalars += ["rollouts/max", "loss"]
    scalars += ["kl", "clipfrac", "entropy", "grad_norm", "mismatch", "dead_groups"]
    scalars += ["shadow_price"]
    vectors = ["bins/share", "bins/weight", "bins/rollouts", "bins/score", "bins/solved"]
    vectors += [f"bins/signal_{name}" for name in SIGNALS]
    with open(tmp_path / "run" / "metrics.jsonl") as file:
        records = [json.loads(line) for line in file]
    assert records[0]["approx_kl"] != 0  # two updates: the second is off policy
    [single] = run(tmp_path / "single", "--updates_per_step=1", steps=1)
    assert single["approx_kl"] == single["clipfrac"] == 0.0  # one update: on policy to the bit
    for m in records:
        assert all(isinstance(m[k], (int, float)) for k in scalars)
        assert all(len(m[k]) == 10 for k in vectors)
        assert m["time/step"] > 0 and m["mem/peak_mib"] > 0 and m["mismatch"] < 1e-4
    with open(tmp_path / "run" / "eval.jsonl") as file:
        assert [json.loads(line)["step"] for line in file] == [0, 4]
    with open(tmp_path / "run" / "samples.jsonl") as file:
        samples = [json.loads(line) for line in file]
    assert [s["step"] for s in samples] == [0, 0, 2, 2] and {
        "prompt",
        "response",
        "answer",
        "score",
        "advantage",
    } <= samples[0].keys()
    config = json.load(open(tmp_path / "run" / "config.json"))
    assert config["config"]["prompt_gdro"] is True and config["versions"]["torch"]


# ---------- off means off ----------


def test_both_adversaries_off_is_plain_grpo_to_the_last_digit(tmp_path):
    run(tmp_path / "plain", "config/arith_grpo.py", steps=8)
    run(
        tmp_path / "off",
        "config/arith_gdro.py",
        "--prompt_gdro=false",
        "--rollout_gdro=false",
        "--loss_agg=token",
        steps=8,
    )
    assert metrics_of(tmp_path / "plain") == metrics_of(tmp_path / "off")


def test_adversaries_without_strength_are_plain_grpo_to_the_last_digit(tmp_path):
    """Switched on, but with weights all 1 and n constant: what remains of the code path changes
    nothing."""
    plain = run(tmp_path / "plain", "config/arith_grpo.py", "--n_min=4", "--n_max=4", steps=8)
    weak = run(
        tmp_path / "weak",
        "config/arith_gdro.py",
        "--prompt_eta=0",
        "--gamma=0",
        "--group_memory=0",
        "--loss_agg=token",
        "--n_min=4",
        "--n_max=4",
        steps=8,
    )
    assert (
        plain == weak and max(1 - m["unseen"] for m in plain) == 0
    )  # every prompt is new in the first epoch ...
    same = ["--n_rollouts=2", "--n_min=2", "--n_max=2", "--prompts_per_step=256"]
    plain = run(tmp_path / "plain2", "config/arith_grpo.py", *same, steps=5)
    off = ["--prompt_eta=0", "--gamma=0", "--group_memory=0", "--loss_agg=token"]
    weak = run(tmp_path / "weak2", "config/arith_gdro.py", *off, *same, steps=5)
    assert plain == weak and plain[-1]["unseen"] == 0  # ... and none in the second


def test_less_than_an_epoch_says_that_the_adversaries_do_nothing(tmp_path, capsys):
    run(tmp_path / "run", "--prompt_gdro=true", steps=1)
    assert "this is less than an epoch" in capsys.readouterr().out


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: r.response_ids.append(10**6),
        lambda r: r.response_ids.clear(),
        lambda r: r.response_ids.insert(0, -1),
        lambda r: r.engine_logprobs.pop(),
        lambda r: r.engine_logprobs.__setitem__(0, float("nan")),
        lambda r: r.engine_logprobs.__setitem__(0, 0.5),
    ],
)
def test_garbage_from_an_engine_is_caught(tmp_path, monkeypatch, spoil):
    generate = train.generate_share

    def garbage(*arguments, **keywords):
        rollouts = generate(*arguments, **keywords)
        spoil(rollouts[7])
        return rollouts

    monkeypatch.setattr(train, "generate_share", garbage)
    with pytest.raises(RuntimeError, match="cannot have been sampled"):
        run(tmp_path / "run", steps=1)


def test_pickled_weights_are_not_loaded(tmp_path, capsys):
    shutil.copytree("worlds/arith", tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(SystemExit):
        run(tmp_path / "run", f"--model={tmp_path}/model")
    assert "safetensors" in capsys.readouterr().err


# ---------- bad input ----------


def local_set(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_truncated_responses_and_left_out_rows_are_counted(tmp_path, capsys):
    rows = [{"prompt": f"B{i:04d}=", "answer": "123"} for i in range(20)] + [
        {"prompt": "B1=", "answer": None},
        {"prompt": "B" * 20 + "=", "answer": "1"},
    ]
    data = local_set(tmp_path / "set.jsonl", rows)
    metrics = run(tmp_path / "run", f"--dataset={data}", *PLAIN, "--max_response_len=2", steps=1)
    assert metrics[0]["truncated"] == 1.0 and metrics[0]["response_len"] == 2.0
    assert metrics[0]["score/mean"] == 0.0 and metrics[0]["dead_groups"] == 1.0
    assert (
        "20 problems of " + data + ", graded by exact (left out: 1 incomplete, 1 too long)"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--dataset=EMPTY"], "no usable row"),
        (
            ["--dataset=SMALL", "--template=bare"],
            "2 usable problems, fewer than prompts_per_step=16",
        ),
        (["--max_prompt_len=3"], "every prompt is longer than max_prompt_len=3"),
        (["--model=config"], "no model in this folder"),
        (["--model=no/such-model"], "neither a model folder nor a hub model"),
        (["--reward=exakt"], "there are auto, exact, math, or a function of yours"),
        (["--out_dir=LICENSE/run"], "cannot be made"),
    ],
)
def test_bad_input_stops_with_one_line_and_leaves_no_run_behind(
    tmp_path, capsys, arguments, message
):
    names = {
        "EMPTY": local_set(tmp_path / "empty.jsonl", []),
        "SMALL": local_set(
            tmp_path / "small.jsonl", [{"prompt": f"B{i}=", "answer": "1"} for i in "12"]
        ),
    }
    for key, value in names.items():
        arguments = [a.replace(key, value) for a in arguments]
    with pytest.raises(SystemExit) as stop:
        main([*TINY, f"--out_dir={tmp_path}/run", "--steps=1", *arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_no_gradient_is_kept_while_the_engine_generates(tmp_path, monkeypatch):
    policies, seen = [], []
    load, generate = train.load_policy, train.generate_share
    monkeypatch.setattr(
        train,
        "load_policy",
        lambda *arguments, **named: policies.append(load(*arguments, **named)) or policies[-1],
    )

    def watched(*arguments):
        seen.append([p.grad is None for p in policies[0][0].parameters()])
        return generate(*arguments)

    monkeypatch.setattr(train, "generate_share", watched)
    run(tmp_path / "run", steps=3)
    assert len(seen) == 3 and all(map(all, seen)) and len(seen[0]) > 10


def test_peak_memory_on_a_gpu_is_the_drivers_figure_and_not_pytorchs(monkeypatch):
    """PyTorch counts what a sleeping vLLM has given back; the driver does not. Here 80 GiB, of
    which 20 and then 50 are free."""
    free = iter([20 * 2**30, 50 * 2**30])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (next(free), 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", None)
    group = types.SimpleNamespace(device="cuda")
    memory = runlog.used_mib(group, "generate") | runlog.used_mib(group, "update")
    assert (
        memory == {"mem/generate_mib": 60 * 1024, "mem/update_mib": 30 * 1024}
        and runlog.peak_mib(memory) == 60 * 1024
    )
    assert (
        runlog.used_mib(types.SimpleNamespace(device="cpu"), "update") == {}
        and runlog.peak_mib({}) > 10
    )


def test_the_parity_gate_warns_and_stops(capsys):
    check_mismatch(0.01)
    check_mismatch(0.1)
    assert "disagree by 0.100 nats" in capsys.readouterr().out
    for mismatch in (0.3, float("nan")):
        with pytest.raises(RuntimeError, match="stale"):
            check_mismatch(mismatch)


@pytest.mark.parametrize("times", [1, 3])
def test_an_update_with_a_broken_gradient_is_skipped_and_the_third_in_a_row_stops(
    tmp_path, monkeypatch, capsys, times
):
    clip, calls = torch.nn.utils.clip_grad_norm_, []

    def poisoned(parameters, most):
        parameters = list(parameters)
        calls.append(0)
        if 3 <= len(calls) < 3 + times:  # from the first update of the second step on
            parameters[0].grad[0, 0] = float("nan")
        return clip(parameters, most)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", poisoned)
    arguments = ["--steps=4", "--eval_sets=", "--prompts_per_step=8", f"--out_dir={tmp_path}/run"]
    if times == 3:
        with pytest.raises(RuntimeError, match="3 updates in a row was not finite"):
            main(arguments)
        rows = [json.loads(line) for line in open(tmp_path / "run" / "broken_batch.jsonl")]
        assert len(rows) == 8 * 4 and all(
            {"step", "uid", "response", "score", "advantage", "weight"} == row.keys()
            and row["step"] == 2
            for row in rows
        )
    else:
        main(arguments)
        metrics = metrics_of(tmp_path / "run")
        assert (
            [m["skipped_updates"] for m in metrics] == [0, 1, 0, 0]
            and metrics[1]["grad_norm"] is None
            and metrics[2]["grad_norm"] > 0
        )
        assert "this update is skipped (1 in a row, stops at 3)" in capsys.readouterr().out
        policy, _ = load_policy(f"{tmp_path}/run/hf", Group(Config()))
        assert all(torch.isfinite(p).all() for p in policy.parameters())


def test_truncated_training_samples_are_refused():
    for sampling in (Sampling(9, top_p=0.9), Sampling(9, top_k=20)):
        with pytest.raises(RuntimeError, match="must not be truncated"):
            check_untruncated(sampling)
    assert check_untruncated(Sampling(9, temperature=0.7)).temperature == 0.7


def test_an_engine_with_other_weights_is_caught(tmp_path, monkeypatch):
    """A policy that was never synced: the gate sees it in the first step."""
    import torch

    from engines import torch_engine

    monkeypatch.setattr(
        torch_engine.TorchEngine,
        "sync",
        lambda self, tensors: self.hf.model.norm.weight.data.mul_(torch.tensor(3.0)),
    )
    with pytest.raises(RuntimeError, match="engine and trainer disagree"):
        run(tmp_path / "run")


# ---------- learning ----------


def test_the_policy_improves_and_the_exported_model_is_the_trained_one(tmp_path):
    metrics = run(
        tmp_path / "run", "config/arith_gdro.py", "--lr=2e-4", steps=15, tiny=["--eval_every=100"]
    )
    with open(tmp_path / "run" / "eval.jsonl") as file:
        before, after = [json.loads(line) for line in file]
    assert after["mean@8"] > before["mean@8/interval"][1]
    assert len(metrics) == 15
    import eval as evaluation

    assert evaluation.main([f"--model={tmp_path}/run/hf"])["arith"]["mean@8"] == after["mean@8"]


def test_the_script_runs_from_the_shell(tmp_path):
    """One real process, as a user starts it; its last lines are the table and where things are."""
    command = [
        sys.executable,
        "train.py",
        "config/arith_gdro.py",
        "--steps=4",
        "--prompts_per_step=256",
        f"--out_dir={tmp_path}/run",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "256 prompts x 4 rollouts (1 to 24 each, mean exact) = 1024 sequences" in done.stdout
    assert "worst group mean@8" in done.stdout and f"{tmp_path}/run/hf" in done.stdout
    paths = []
    for script in ("plot.py", "bench/paper_figures.py"):
        figures = subprocess.run(
            [sys.executable, script, f"{tmp_path}/run"], capture_output=True, text=True
        )
        assert figures.returncode == 0, figures.stderr
        paths += figures.stdout.split()
    assert len(paths) == 6 and all(os.path.getsize(path) > 10_000 for path in paths)


def test_plot_says_what_it_cannot_draw(tmp_path, capsys):
    import plot
    from bench import paper_figures

    run(tmp_path / "short", steps=1)
    assert plot.draw([str(tmp_path / "short")]) == []
    printed = capsys.readouterr().out
    assert "never evaluated" in printed and "train for more than an epoch" in printed
    with pytest.raises(SystemExit):
        paper_figures.main([str(tmp_path / "short")])
    assert "train for more than an epoch" in capsys.readouterr().err


def test_a_run_that_gets_nothing_right_says_so(tmp_path, capsys):
    data = local_set(
        tmp_path / "set.jsonl", [{"prompt": f"B{i:04d}=", "answer": "none"} for i in range(16)]
    )
    run(tmp_path / "run", f"--dataset={data}", *PLAIN, steps=5)
    assert "no rollout scored above 0 in five steps" in capsys.readouterr().out


def test_plot_refuses_what_is_no_run(tmp_path, capsys):
    import plot

    with pytest.raises(SystemExit) as stop:
        plot.main([str(tmp_path)])
    assert stop.value.code == 2 and "folder of a run" in capsys.readouterr().err
