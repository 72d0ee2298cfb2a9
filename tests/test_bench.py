"""Every measurement runs: small sizes, no times asserted."""

import argparse
import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys

import pytest
from processes import python

from bench import gpu

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def bench(command, vllm=False):
    done = python(*command.split(), vllm=vllm)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def needs(module):
    return pytest.mark.skipif(
        importlib.util.find_spec(module) is None, reason=f"{module} is not installed"
    )


def test_controllers():
    out = bench("bench/controllers.py --prompts=64,128 --known=300 --repeats=2")
    assert (
        len(re.findall(r"^\| (?:64|128) \| [\d.]+ \([\d.]+ - [\d.]+\) \| [\d.]+ \(", out, re.M))
        == 2
    )


def test_padding():
    out = bench("bench/padding.py --steps=1")
    shares = re.findall(r"^\| (\d) \| ([\d.]+) .*? \| ([\d.]+) .*? \| ([\d.]+)", out, re.M)
    assert [row[0] for row in shares] == ["1", "8"] and all(
        float(row[1]) >= 95 and float(row[1]) >= float(row[2]) > float(row[3]) for row in shares
    )


@pytest.mark.slow
def test_logprob_memory():
    out = bench(
        "bench/logprob_memory.py --tokens=512 --vocabulary=20000 --width=64 --repeats=1 --threads=1"
    )
    assert len(re.findall(r"^\| (?:alone|one layer) \| (?:full|ours) \| [\d,]+ ", out, re.M)) == 4
    differences = re.findall(r"largest difference of a gradient (\S+) of", out)
    assert len(differences) == 2 and all(float(difference) < 1e-5 for difference in differences)


@pytest.mark.slow
def test_generation():
    out = bench("bench/generation.py --prompts=4 --tokens=8 --repeats=1 --layers=2 --width=64")
    assert (
        len(re.findall(r"^\| (?:transformers generate|plain engine.*?) \| [\d,]+ \(", out, re.M))
        == 3
    )


@pytest.mark.slow
def test_vs_trl_this_side():
    out = bench("bench/vs_trl.py --only=ours --prompts=4 --tokens=8 --steps=5 --repeats=1")
    assert re.search(r"^\| ours \| \d", out, re.M) and re.search(r"rest [\d.]+ %$", out, re.M)


@pytest.mark.slow
@needs("trl")
def test_vs_trl_that_side():
    assert re.search(
        r"^\| trl \| \d",
        bench("bench/vs_trl.py --only=trl --prompts=4 --tokens=8 --steps=5 --repeats=1"),
        re.M,
    )


@pytest.mark.slow
@needs("vllm")
def test_weight_sync():
    assert re.search(
        r"^\| [\d.]+ \| [\d.]+ \(",
        bench("bench/weight_sync.py --layers=2 --width=64 --vocabulary=512 --repeats=1", vllm=True),
        re.M,
    )


# ---------- bench/gpu.py, as far as a CPU goes ----------

MACHINE = {"gpus": [], "cpus": 2, "versions": {"vllm": None}}


def verdicts(tmp_path, *arguments):
    """A run of bench/gpu.py --trial -> its exit status, (status, what, figure) of its lines, and
    its report."""
    command = [sys.executable, "bench/gpu.py", "--trial", f"--json={tmp_path}/gpu.json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert re.search(r"^\d+ pass, \d+ fail, \d+ skip in ", done.stdout, re.M), (
        done.stdout + done.stderr
    )
    return done.returncode, *reported(tmp_path)


def reported(tmp_path):
    with open(tmp_path / "gpu.json") as file:
        report = json.load(file)
    lines = [(line["status"], line["what"], line["figure"]) for line in report["lines"]]
    return lines, report


def forked(bench, name, command, limit, **environment):
    """As `Bench.process`, without the seconds that imports take."""
    environment |= {"CUDA_VISIBLE_DEVICES": ""}
    script = itertools.dropwhile(lambda word: not word.endswith(".py"), command)
    ranks = bench.args.ranks if "torch.distributed.run" in command else None
    done = python(*script, ranks=ranks, vllm=bench.args.engine == "vllm", timeout=int(limit),
                  **environment)
    with open(os.path.join(gpu.logs_of(bench.args.json), f"{name}.log"), "w") as log:
        log.write(done.stdout + done.stderr)
    if done.returncode:
        raise gpu.PartFailed(done.stderr[-3000:])
    return done.stdout + done.stderr


@pytest.mark.slow
def test_gpu_on_a_cpu(tmp_path, monkeypatch):
    """Every part runs; those that need a GPU say so."""
    monkeypatch.setattr(gpu.Bench, "process", forked)
    status = gpu.main(["--trial", f"--json={tmp_path}/gpu.json", "--minutes=60"])
    lines, report = reported(tmp_path)
    assert status == 0 and not [line for line in lines if line[0] == "fail"], lines
    passed = {what for status, what, _ in lines if status == "pass"}
    assert {
        "steps: all done",
        "steps: gradients",
        "update: share of the peak",
        "adversaries",
        "sync: weights into the engine",
        "sleep: greedy samples after waking",
        "4B: mismatch",
        "float32_head: mismatch",
        "checkpoint, and a resume from it",
        "plain engine",
    } <= passed
    assert (
        "skip",
        "sleep: memory given back",
        "the engine sleeps on GPUs only, and only vLLM does",
    ) in lines
    steps = report["figures"]["steps"]["steps"]
    assert (
        len(steps) == 3
        and all(step["mismatch"] <= 0.05 for step in steps)
        and steps[-1]["unseen"] == 0
    )
    assert steps[-1]["rollouts/min"] < steps[-1]["rollouts/max"]  # the adversary is at work
    assert report["machine"]["versions"]["torch"] and report["counts"]["fail"] == 0
    assert "vLLM's model runner V1" in passed or report["arguments"]["engine"] == "torch"
    assert "beside TRL" in passed or importlib.util.find_spec("trl") is None


@pytest.mark.slow
def test_gpu_on_two_ranks(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu.Bench, "process", forked)
    command = ["--trial", f"--json={tmp_path}/gpu.json", "--minutes=60", "--quick"]
    status = gpu.main([*command, "--ranks=2", "--engine=torch"])
    lines, report = reported(tmp_path)
    assert status == 0 and ("pass", "steps: all done", "3 of 3") in lines, lines
    assert ("pass", "sleep: greedy samples after waking", "64 of 64 as before") in lines
    assert [what for status, what, figure in lines if figure == "not with --quick"] == [
        part.name for part in gpu.PARTS[2:]
    ]


@pytest.mark.slow
def test_gpu_run_that_fails(tmp_path):
    """On two ranks of torchrun: its last error is the line, and the parts after it run."""
    status, lines, _ = verdicts(
        tmp_path, "--minutes=60", "--quick", "--ranks=2", "--engine=torch", "--updates_per_step=32"
    )
    assert (
        status == 1
        and ("fail", "steps", "error: prompts_per_step=8 must be a multiple of updates_per_step=32")
        in lines
    )
    assert lines[-1][0] == "skip"


def test_gpu_no_time_left(tmp_path):
    status, lines, _ = verdicts(tmp_path, "--minutes=0.01")
    assert status == 0 and [what for _, what, _ in lines] == [part.name for part in gpu.PARTS]
    assert all(
        status == "skip" and figure.startswith("no time left") for status, _, figure in lines
    )


def test_gpu_a_part_that_raises(tmp_path, monkeypatch, capsys):
    def broken(bench):
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(gpu, "look", lambda trial: MACHINE)
    monkeypatch.setattr(
        gpu,
        "PARTS",
        [
            gpu.Part("first", broken, 1),
            gpu.Part("second", lambda bench: bench.verdict("fine", "yes"), 1),
        ],
    )
    assert gpu.main(["--trial", f"--json={tmp_path}/gpu.json"]) == 1
    out = capsys.readouterr().out
    assert (
        re.search(r"^fail  first +ZeroDivisionError: by nothing$", out, re.M)
        and re.search(r"^pass  fine +yes$", out, re.M)
        and "\n1 pass, 1 fail, 0 skip" in out
    )


def test_gpu_a_process_that_takes_too_long(tmp_path):
    """A part's own limit is a failure; the end of the whole run's time is not."""
    os.makedirs(tmp_path / "gpu_logs")
    args = argparse.Namespace(minutes=10, json=f"{tmp_path}/gpu.json", trial=True)
    bench = gpu.Bench(args, MACHINE, gpu.TRIAL, str(tmp_path), [])
    sleeps = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(gpu.PartFailed, match="not done after 1 s"):
        bench.process("slow", sleeps, 1)
    args.minutes = 0
    with pytest.raises(gpu.Skip, match="no time left: stopped after 1 s"):
        bench.process("slow", sleeps, 60)


def test_gpu_goals_hold_on_a_gpu(tmp_path):
    """On a stated machine with two GPUs: the peak by its name, slow speeds and a shallow sleep
    fail, an unknown peak is skipped."""
    two = {
        "gpus": [{"name": "NVIDIA H100 80GB HBM3", "gib": 79.2, "free_gib": 78.7}] * 2,
        "versions": {"vllm": "0.30.0"},
    }
    args = gpu.arguments_of([f"--json={tmp_path}/gpu.json"])[0]
    bench = gpu.Bench(args, two, gpu.settle(args, two), str(tmp_path), [])
    assert (args.engine, args.ranks, args.peak, bench.size["prompts"], bench.size["shape"]) == (
        "vllm",
        2,
        989,
        128,
        gpu.SMALL,
    )
    seconds = {
        "generate": 4.0,
        "sync": 2.0,
        "grade": 1.0,
        "logprobs": 1.0,
        "update": 2.0,
        "feedback": 0.0,
        "step": 10.0,
    }
    step = {f"time/{phase}": value for phase, value in seconds.items()} | {
        "response_len": 500,
        "rollouts/total": 512,
    }
    gpu.speeds(bench, [step] * 3)
    sleep = {"can_sleep": True, "given_gib": [9.0, 18.5], "wake_seconds": [1.0, 1.0]}
    gpu.memory_given_back(bench, sleep, bench.size)
    gpu.memory_given_back(bench, sleep | {"given_gib": [18.5, 18.5]}, bench.size)
    gpu.memory_given_back(bench, sleep | {"can_sleep": False}, bench.size)
    args.peak = None
    gpu.speeds(bench, [step] * 3)
    wanted = ["pass", "fail", "pass", "pass", "pass", "fail", "pass", "fail", "skip", "fail"]
    assert [line["status"] for line in bench.lines] == wanted + ["pass"] * 3, bench.lines
    mfu = 9 * 1_720_574_976 * 507.5 * 512 / 3 / (2 * 989e12)
    assert bench.figures["mfu"] == pytest.approx(mfu) and bench.lines[0]["figure"].startswith(
        f"{mfu:.1%} of 2 x 989"
    )
    with pytest.raises(gpu.Skip, match="needs a GPU of 120 GB, this one has 85"):
        gpu.large_part(bench)


def test_gpu_knobs_are_checked_first(capsys):
    for knob, message in {
        "--lrr=1": "there is no knob 'lrr'; did you mean 'lr'",
        "--steps=9": "--steps=9: this bench chooses it",
    }.items():
        with pytest.raises(SystemExit, match="2"):
            gpu.main([knob])
        assert message in capsys.readouterr().err


def test_gpu_without_one():
    done = subprocess.run(
        [sys.executable, "bench/gpu.py"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2 and re.fullmatch(
        r"PyTorch sees no GPU here; .*--trial.*\n", done.stderr
    ), done.stderr


def test_gpu_sizes():
    """The shapes are Qwen3's; with less memory a run gets smaller and says so."""
    assert (
        gpu.count_parameters(gpu.SMALL) == 1_720_574_976
        and gpu.count_parameters(gpu.LARGE) == 4_022_468_096
    )
    large, middle, small = (gpu.choose_size(gpu.SMALL, gib, 1) for gib in (139, 79, 23.5))
    assert (
        not large["checkpointing"]
        and middle["checkpointing"]
        and not large["smaller"]
        and not middle["smaller"]
    )
    assert (
        small["shape"]["layers"] < 28
        and f"{small['shape']['layers']} of 28 layers" in small["smaller"]
    )
    assert gpu.memory_needed(small["shape"], small, 1) <= 23.5
    assert not gpu.choose_size(gpu.LARGE, 138, 1)["smaller"]
    with pytest.raises(gpu.Skip, match="needs more memory than 4 GiB"):
        gpu.choose_size(gpu.SMALL, 4, 1)


@pytest.mark.parametrize(
    "text, error",
    [
        ("Traceback\n  File\nRuntimeError: it broke\n", "RuntimeError: it broke"),
        (
            "[rank0]: a.ValidationError: 1 error\n[rank0]:   needs Triton\n[rank0]:W shutdown\n",
            "a.ValidationError: 1 error needs Triton",
        ),
        (
            "[rank1]: torch.OutOfMemoryError: no room\ntorch...ChildFailedError:\n=====\n",
            "torch.OutOfMemoryError: no room",
        ),
        ("error: steps=0 must be at least 1\n", "error: steps=0 must be at least 1"),
        ("Killed\n\n", "Killed"),
        ("", ""),
    ],
)
def test_gpu_last_error(text, error):
    assert gpu.last_error(text) == error


@pytest.mark.slow
def test_chaos():
    out = bench("bench/chaos.py --kills=2 --steps=8")
    assert re.search(r"^2 kills \(.*\); (\d) of \1 runs wrote", out, re.M)


@pytest.mark.slow
def test_long_run():
    assert re.search(
        r"^\| resident MiB, mean \| [\d.]+", bench("bench/long_run.py --steps=80"), re.M
    )
