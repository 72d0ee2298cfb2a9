"""Claims about bench/identity.py, which compares what two checkouts write."""
import json
import os
import shutil
import subprocess
import sys

import pytest
from processes import python

from bench import identity
from bench.identity import FILES
from bench.identity import compare as compare_runs

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "out", "problems", "tests", "results")
STEP = {"step": 0, "loss": 0.5, "bins/score": [None, 1.0], "time/step": 1.5, "mem/peak_mib": 300}


def run_folder(path, metrics):
    """A run that wrote these metrics, and nothing else."""
    os.makedirs(path)
    for name in FILES:
        records = metrics if name == "metrics.jsonl" else []
        (path / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "identical, lines: 1 of metrics.jsonl, 0 of eval.jsonl, 0 of samples.jsonl"),
        ({"time/step": 2.5, "mem/peak_mib": 400}, "identical"),
        ({"loss": 0.5000000000000001}, "line 1, loss: old 0.5, new 0.5000000000000001"),
        ({"step": 0.0}, "line 1, step: old 0, new 0.0"),
        ({"bins/score": [None, 2.0]}, "line 1, bins/score: old [null, 1.0], new [null, 2.0]"),
        ({"kl": 0.0}, "line 1, kl: old missing, new 0.0"),
    ],
)
def test_every_number_counts_but_times_and_memory(changes, said, tmp_path):
    old, new = run_folder(tmp_path / "old", [STEP]), run_folder(tmp_path / "new", [STEP | changes])
    equal, text = compare_runs(old, new, 1, {})
    assert said in text and equal == text.startswith("identical")


def test_keys_may_be_renamed_and_lines_may_not_be_missing(tmp_path):
    renamed = {key: value for key, value in STEP.items() if key != "loss"} | {"loss/mean": 0.5}
    old, new = run_folder(tmp_path / "old", [STEP]), run_folder(tmp_path / "new", [renamed])
    assert compare_runs(old, new, 1, {"loss": "loss/mean"})[0]
    missing = "metrics.jsonl, line 1, loss: old 0.5, new missing"
    assert compare_runs(old, new, 1, {}) == (False, missing)
    longer = run_folder(tmp_path / "longer", [STEP, STEP])
    assert compare_runs(old, longer, 2, {}) == (False, "metrics.jsonl, old has 1 lines, new has 2")


COMMAND = ["bench/identity.py", "--steps=2", "--configs=arith_gdro"]


def forked(command, cwd, **options):
    """As subprocess.run, without the seconds that imports take."""
    ranks = [int(word.split("=")[1]) for word in command if word.startswith("--nproc_per_node=")]
    script = command[command.index("train.py") :]
    return python(*script, ranks=ranks[0] if ranks else None, folder=cwd)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return shutil.copytree(ROOT, tmp_path_factory.mktemp("old") / "copy", ignore=LEFT_OUT)


@pytest.mark.slow
def test_two_copies_are_identical_on_one_process_and_on_two_ranks(copy, monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "run", forked)
    monkeypatch.setattr(sys, "argv", [*COMMAND, str(copy)])
    with pytest.raises(SystemExit) as end:
        identity.main()
    assert end.value.code == 0
    said = "identical, lines: 2 of metrics.jsonl, 2 of eval.jsonl, 4 of samples.jsonl"
    lines = [f"arith_gdro, {ranks}, torch: {said}" for ranks in ("1 rank", "2 ranks")]
    assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.slow
def test_a_copy_with_another_constant_is_not(copy, tmp_path):
    altered = shutil.copytree(copy, tmp_path / "altered")
    with open(altered / "config" / "arith_gdro.py", "a") as file:
        file.write("lr = 6e-5\n")
    command = [sys.executable, *COMMAND, str(altered), "--ranks=1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("arith_gdro, 1 rank, torch: metrics.jsonl, line 1, ")
