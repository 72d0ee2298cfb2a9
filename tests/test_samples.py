"""Claims about samples.jsonl and about samples.py, which prints it."""
import json
import re
import subprocess
import sys

import pytest
from processes import python
from test_train import run

import samples
from progress import chosen
from reward import VERDICTS

ROLLOUT = {"step": 0, "uid": "q1", "prompt": "2+2=", "response": "4", "answer": "4", "score": 1.0,
           "verdict": "right", "advantage": 1.0, "finished": True, "bin": 3, "weight": 1.0,
           "rollouts": 4}


def records_of(out):
    return [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]


def shown(folder, *options):
    """What `python samples.py` prints into a file or a pipe."""
    done = python("samples.py", folder, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        samples.main([str(argument) for argument in arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    return error


@pytest.fixture
def folder(tmp_path):
    """A run with these rollouts; it is writing another one."""
    rollouts = [
        ROLLOUT,
        ROLLOUT | {"step": 10, "bin": -1, "advantage": -0.5, "score": 0.0, "verdict": "wrong",
                   "prompt": "[red]two[/red] :smile: " + 40 * "long ",
                   "response": "a\n\n  b\t[/] \\[bold]\x1b[31m\r"},
        ROLLOUT | {"step": 10, "advantage": -1.25, "weight": 2.5, "rollouts": 24}]
    (tmp_path / "run").mkdir()
    text = "".join(json.dumps(rollout) + "\n" for rollout in rollouts)
    (tmp_path / "run" / "samples.jsonl").write_text(text + '{"step": 20, "uid": "torn')
    return tmp_path / "run"


# ---------- what a run writes ----------


@pytest.mark.parametrize("total, samples, indices", [
    (256, "2", [0, 255]), (9, "3", [0, 4, 8]), (9, "1", [0]), (3, "9", [0, 1, 2]),
    (3, "all", [0, 1, 2])])
def test_written_rollouts_are_spread_over_the_step(total, samples, indices):
    assert chosen(total, samples).tolist() == indices


def test_all_rollouts_of_a_step_can_be_written_with_what_their_prompts_were_given(tmp_path):
    """In the fifth step all prompts have a bin, because three steps of 256 visited all 768, and the
    step before it gave bins different weights."""
    metrics = run(tmp_path / "run", "--prompts_per_step=256", "--n_max=6", "--samples_every=4",
                  "--samples=all", "--prompt_gdro=true", "--rollout_gdro=true", steps=5)
    records = records_of(tmp_path / "run")
    assert [record["step"] for record in records] == [0] * 1024 + [4] * 1024
    of_prompt = {}
    for record in records[1024:]:
        of_prompt.setdefault(record["uid"], []).append(record)
    assert all(r["rollouts"] == len(rs) for rs in of_prompt.values() for r in rs)
    assert len({len(rs) for rs in of_prompt.values()}) > 2
    of_bin = {record["bin"]: record["weight"] for record in records[1024:]}
    assert all(r["weight"] == of_bin[r["bin"]] for r in records[1024:])
    means = metrics[4]["bins/weight"]
    assert of_bin == pytest.approx({level: means[level] for level in of_bin})
    assert len(set(of_bin.values())) > 1


def test_a_resumed_run_may_write_more_of_them(tmp_path):
    knobs = ["--samples_every=1", "--save_every=1"]
    run(tmp_path / "run", *knobs, steps=1)
    run(tmp_path / "run", *knobs, "--samples=all", "--resume=auto", steps=2)
    assert [record["step"] for record in records_of(tmp_path / "run")] == [0] * 2 + [1] * 64


# ---------- what samples.py prints ----------


def test_texts_are_printed_as_they_are_and_nothing_moves_the_cursor(folder):
    printed = shown(folder)
    assert "prompt:\n[red]two[/red] :smile: " + 40 * "long " + "\n" in printed
    assert "response:\na\n\n  b\t[/] \\[bold]\\x1b[31m\\r\nanswer:\n4\n" in printed
    assert "\x1b" not in printed  # and no colours, as this is no terminal


def test_numbers_are_aligned_and_a_line_that_is_being_written_is_left_out(folder):
    *lines, last = [line for line in shown(folder).splitlines()
                    if re.match("step |. of ", line)]
    assert [line.removesuffix("  q1") for line in lines] == [
        "step     0  bin  3  right      score 1.000  advantage +1.000  weight  1.000  rollouts   4",
        "step    10  unseen  wrong      score 0.000  advantage -0.500  weight  1.000  rollouts   4",
        "step    10  bin  3  right      score 1.000  advantage -1.250  weight  2.500  rollouts  24"]
    assert last == f"3 of 3 samples of {folder}"


def test_verdicts_have_colours_in_a_terminal(folder, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    samples.main([str(folder)])
    printed = capsys.readouterr().out
    assert "\x1b[31mwrong " in printed and "\x1b[32mright " in printed
    assert set(samples.COLORS) == set(VERDICTS)


@pytest.mark.parametrize("options, advantages", [
    (["--step=10"], ["-0.500", "-1.250"]),
    (["--step=10", "--bin=3"], ["-1.250"]),
    (["--bin=-1"], ["-0.500"]),
    (["--verdict=right"], ["+1.000", "-1.250"]),
    (["--sort=advantage"], ["+1.000", "-0.500", "-1.250"]),
    (["--sort=rollouts"], ["-1.250", "+1.000", "-0.500"]),
    (["--sort=score", "--step=10"], ["-1.250", "-0.500"])])
def test_filters_and_order(folder, capsys, options, advantages):
    samples.main([str(folder), *options])
    assert re.findall(r"advantage (\S+)", capsys.readouterr().out) == advantages


@pytest.mark.parametrize("options, message", [
    (["--step=7"], "no sample has step=7; there are: 0, 10"),
    (["--step=10", "--bin=4"], "no sample with step=10 has bin=4; there are: -1, 3"),
    (["--verdict=bad"], "no sample has verdict=bad; there are: right, wrong"),
    (["--sort=adv"], "sort=adv: choose one of step, score, advantage, bin, weight, rollouts"),
    (["--steps=7"], "there is no knob 'steps'; did you mean 'step'?")])
def test_what_is_not_there_is_answered_with_what_is(folder, capsys, options, message):
    assert message in refused(capsys, folder, *options)


def test_a_folder_without_samples_is_answered_with_those_beside_it(folder, capsys):
    for name in ("typo", "other"):
        (folder.parent / "other").mkdir(exist_ok=True)
        said = refused(capsys, folder.parent / name)
        assert f"{name} has no samples.jsonl; beside it these folders have one: {folder}\n" in said
    (folder / "samples.jsonl").write_text('{"step": 0, "torn')
    assert "its first step is not done" in refused(capsys, folder)
    assert "these folders have one: none" in refused(capsys, folder / "deeper")


def test_a_pager_may_be_left(folder):
    long = json.dumps(ROLLOUT | {"response": 100_000 * "long "})
    (folder / "samples.jsonl").write_text(f"{long}\n" * 5)
    with subprocess.Popen([sys.executable, "samples.py", folder], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        assert "long long" in process.stdout.read(9000)  # amid a response
        process.stdout.close()
        assert process.stderr.read() == ""


def test_samples_of_a_run_before_weights_were_written_are_printed(folder):
    old = {name: value for name, value in ROLLOUT.items() if name not in ("weight", "rollouts")}
    (folder / "samples.jsonl").write_text(json.dumps(old) + "\n")
    assert "advantage +1.000  q1\n" in shown(folder)
