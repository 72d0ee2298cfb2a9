"""Claims about how runs start, stop and go on, and about what they write beside their numbers."""
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from make_files import write_jsonl
from test_train import TINY, metrics_of, run

import checkpoint
import runlog
from checkpoint import LAYOUT, Found, RunFolder, decide
from configurator import UsageError
from ranks import Group
from train import Config, main
from worlds.problems import arith


def lines_of(out):
    """The run's JSONL files, times and memory blanked."""
    found = {}
    for name in ("metrics.jsonl", "samples.jsonl", "eval.jsonl"):
        with open(os.path.join(out, name)) as file:
            found[name] = re.sub(r'"(time|mem)/\w+": [^,}]+', "", file.read())
    return found


def steps_of(records):
    return [record["step"] for record in records]


def refused(capsys, out, *arguments, **named):
    """The one line with which train.py refuses to start."""
    with pytest.raises(SystemExit) as stop:
        run(out, *arguments, **named)
    error = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and error.startswith("error: ")
    return error


# ---------- how a run starts: every case ----------

# What out_dir holds: nothing, a run, a run that was forked from PARENT, or something else.
# `resume`: nothing, auto, or the path of a checkpoint: one of out_dir, PARENT, or a third run's.
OWN = "out/ckpt/step_000002"
PARENT = "parent/ckpt/step_000003"
THIRD = "third/ckpt/step_000005"
FOLDERS = ["empty", "run", "fork", "other"]
RESUMES = ["", "auto", OWN, PARENT, THIRD]
# Of out_dir's own checkpoints, step_000002 and step_000004: there are none, both are intact, the
# newest is damaged, both are.
OWN_STATES = ["none", "intact", "older intact", "damaged"]
# Of the checkpoint that does not come from there: the one given, or under auto the fork's parent.
GIVEN_STATES = ["missing", "damaged", "intact"]

ANY = "any"
A_RUN = ("run", "fork")
A_PATH = (OWN, PARENT, THIRD)
NO_CHECKPOINT = ("missing", "damaged")
RUN_OR_NOT = ("empty", *A_RUN)

# out_dir, resume, its checkpoints, the given one -> what is done; from where, or words of why not
TABLE = [
    ("other", ANY, ANY, ANY, "refuse", "out is not empty and holds no run"),
    ("empty", "", ANY, ANY, "fresh", ""),
    (A_RUN, "", ANY, ANY, "refuse", "out already holds a run: --resume=auto continues it"),
    ("empty", "auto", ANY, ANY, "fresh", ""),
    ("run", "auto", "none", ANY, "fresh", ""),
    ("fork", "auto", "none", "intact", "fork", PARENT),
    ("fork", "auto", "none", NO_CHECKPOINT, "refuse", PARENT + ": there is no intact checkpoint"),
    (A_RUN, "auto", "intact", ANY, "continue", "out/ckpt/step_000004"),
    (A_RUN, "auto", "older intact", ANY, "continue", "out/ckpt/step_000002"),
    (A_RUN, "auto", "damaged", ANY, "refuse", "no checkpoint in out/ckpt is intact"),
    (RUN_OR_NOT, A_PATH, ANY, NO_CHECKPOINT, "refuse", "there is no intact checkpoint"),
    (A_RUN, OWN, ANY, "intact", "continue", OWN),
    ("empty", (PARENT, THIRD), ANY, "intact", "fork", None),
    ("run", (PARENT, THIRD), ANY, "intact", "refuse", "belongs to another one"),
    ("fork", PARENT, ANY, "intact", "fork", PARENT),
    ("fork", THIRD, ANY, "intact", "refuse", "belongs to another one"),
]


def possible(folder, resume, own, given):
    """Whether there can be such a case: only a run has checkpoints, and one of its own is in the
    state that they are in."""
    if folder not in A_RUN:
        return own == "none" and (resume != OWN or given == "missing")
    states = {"none": "missing", "damaged": "damaged"}
    return resume != OWN or given == states.get(own, "intact")


CASES = [case for case in itertools.product(FOLDERS, RESUMES, OWN_STATES, GIVEN_STATES)
         if possible(*case)]


def row_of(case):
    """The one row of the table that a case belongs to."""
    def fits(value, pattern):
        return pattern in (ANY, value) or (isinstance(pattern, tuple) and value in pattern)

    rows = [row for row in TABLE if all(map(fits, case, row[:4]))]
    assert len(rows) == 1, f"{case} is in {len(rows)} rows of the table"
    return rows[0]


def expected(case):
    """What the table says about a case -> (what is done, from where or why not)."""
    *_, action, detail = row_of(case)
    return action, case[1] if detail is None else detail


def facts(folder, resume, own, given):
    found = Found("out", resume, "run" if folder in A_RUN else folder)
    found.forked_from = PARENT if folder == "fork" else ""
    found.has_saved = own != "none"
    newest = {"intact": "out/ckpt/step_000004", "older intact": "out/ckpt/step_000002"}
    found.newest_intact = newest.get(own, "")
    found.given = found.forked_from if resume == "auto" else resume
    found.given_damage = "" if given == "intact" else given
    found.given_is_own = resume == OWN
    return found


@pytest.mark.parametrize("case", CASES, ids=" | ".join)
def test_every_case_of_a_start_is_decided_as_the_table_says(case):
    action, detail = decide(facts(*case))
    wanted, wanted_detail = expected(case)
    assert action == wanted
    assert wanted_detail in detail if action == "refuse" else wanted_detail == detail


def test_every_row_of_the_table_is_a_case():
    assert {row_of(case) for case in CASES} == set(TABLE)


def write_checkpoint(path, state, config):
    """A checkpoint without weights."""
    if state == "missing":
        return
    os.makedirs(path)
    Path(path, "config.json").write_text(config)
    Path(path, "state.json").write_text('{"step": 2}')
    sums = {name: checkpoint.checksum(Path(path, name)) for name in ("config.json", "state.json")}
    Path(path, "checksums.json").write_text(json.dumps(sums))
    if state == "damaged":
        spoil(Path(path, "state.json"), "altered")


def build(folder, resume, own, given):
    """The case on the disk."""
    config = {"layout": LAYOUT, "config": runlog.without_secrets(Config(out_dir="out")), "data": {},
              "forked_from": PARENT if folder == "fork" else "", "versions": {}}
    text = json.dumps(config)
    if folder != "empty":
        os.makedirs("out/ckpt")
        Path("out", "config.json" if folder in A_RUN else "notes.txt").write_text(text)
    if own != "none":
        older = "damaged" if own == "damaged" else "intact"
        newest = "intact" if own == "intact" else "damaged"
        write_checkpoint("out/ckpt/step_000002", older, text)
        write_checkpoint("out/ckpt/step_000004", newest, text)
        Path("out/ckpt/latest").write_text("step_000004")
    if resume in (PARENT, THIRD):
        write_checkpoint(resume, given, text)
    elif folder == "fork":
        write_checkpoint(PARENT, given, text)


@pytest.mark.parametrize("case", CASES, ids=" | ".join)
def test_every_case_of_a_start_is_found_on_the_disk(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoint, "versions", dict)
    build(*case)
    before = sorted(tmp_path.rglob("*"))
    cfg = Config(out_dir="out", resume=case[1])
    action, detail = expected(case)
    if action == "refuse":
        with pytest.raises(UsageError, match=re.escape(detail)):
            RunFolder(cfg, Group(cfg), {})
    else:
        folder = RunFolder(cfg, Group(cfg), {})
        assert (folder.checkpoint or "", folder.continues) == (detail, action == "continue")
    assert sorted(tmp_path.rglob("*")) == before  # looking changes nothing


def test_a_run_of_an_earlier_version_is_refused_in_one_line(tmp_path, capsys):
    run(tmp_path / "run", "--save_every=1", steps=1)
    path = tmp_path / "run" / "config.json"
    written = json.loads(path.read_text())
    without_layout = {key: value for key, value in written.items() if key != "layout"}
    other_knobs = written | {"config": written["config"] | {"cpu_threads": 1}}
    for earlier in (without_layout, other_knobs):
        path.write_text(json.dumps(earlier))
        for resume in ("", "auto"):
            error = refused(capsys, tmp_path / "run", f"--resume={resume}")
            assert f"{path} was written by another version of this program" in error


def test_what_a_run_was_forked_from_stays_known(tmp_path):
    """Also when it was resumed from a checkpoint of its own; and the knob is written as given."""
    run(tmp_path / "run", "--save_every=1", steps=1)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["forked_from"] == ""
    parent = f"{tmp_path}/run/ckpt/step_000001"
    fork = tmp_path / "fork"
    for resume, steps in ((parent, 2), ("auto", 3)):
        run(fork, f"--resume={resume}", steps=steps)
        written = json.loads((fork / "config.json").read_text())
        assert written["forked_from"] == parent and written["config"]["resume"] == resume
    shutil.rmtree(fork / "ckpt")
    assert steps_of(run(fork, "--resume=auto", steps=3)) == [1, 2]
    assert json.loads((fork / "config.json").read_text())["config"]["resume"] == "auto"


# ---------- a run goes on as if it had not stopped ----------


def test_six_steps_equal_three_and_resume_and_three(tmp_path):
    both = ["config/arith_gdro.py", "--prompts_per_step=256", "--eval_every=2", "--save_every=3",
            "--samples_every=1", "--eval_samples=2", "--eval_passk=2", "--n_rollouts=2",
            "--n_max=4", "--activation_checkpointing=true"]
    run(tmp_path / "whole", *both, steps=6, tiny=[])
    run(tmp_path / "parts", *both, steps=3, tiny=[])
    run(tmp_path / "parts", *both, "--resume=auto", steps=6, tiny=[])
    assert lines_of(tmp_path / "parts") == lines_of(tmp_path / "whole")
    # the adversaries had something to resume
    assert metrics_of(tmp_path / "whole")[-1]["unseen"] == 0


def test_a_run_killed_between_checkpoints_resumes_to_the_same_lines(tmp_path, monkeypatch):
    arguments = ["config/arith_gdro.py", "--prompts_per_step=16", "--eval_every=2",
                 "--save_every=2", "--eval_samples=2", "--eval_passk=2"]
    run(tmp_path / "whole", *arguments, steps=5, tiny=[])
    append = RunFolder.append

    def die_in_step_three(self, name, record):
        append(self, name, record)
        if name == "metrics.jsonl" and record["step"] == 3:
            with open(self.path(name), "a") as file:
                file.write('{"step": 4, "rew')  # a torn line
            raise OSError("power cut")

    with monkeypatch.context() as dying:
        dying.setattr(RunFolder, "append", die_in_step_three)
        with pytest.raises(OSError):
            run(tmp_path / "cut", *arguments, steps=5, tiny=[])
    run(tmp_path / "cut", *arguments, "--resume=auto", steps=5, tiny=[])
    assert lines_of(tmp_path / "cut") == lines_of(tmp_path / "whole")


def start(out, *arguments):
    """train.py as its own process, returned when it has logged a step."""
    process = subprocess.Popen(
        [sys.executable, "train.py", *TINY, f"--out_dir={out}", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = out / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    return process


def test_killed_outright_and_resumed_equals_never_killed(tmp_path):
    changes = ["--save_every=3", "--prompt_gdro=true", "--rollout_gdro=true", "--samples_every=1"]
    process = start(tmp_path / "cut", *changes, "--steps=10000")
    time.sleep(1)
    process.kill()
    process.communicate()
    steps = len(metrics_of(tmp_path / "cut")) + 4
    run(tmp_path / "cut", *changes, "--resume=auto", steps=steps)
    assert metrics_of(tmp_path / "cut") == run(tmp_path / "whole", *changes, steps=steps)


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_save_after_the_step_and_resume_goes_on(tmp_path, number, status):
    process = start(tmp_path / "run", "--steps=10000")
    process.send_signal(number)
    error = process.communicate()[1]
    assert process.returncode == status and "--resume=auto continues" in error
    done = len(metrics_of(tmp_path / "run"))
    assert (tmp_path / "run" / "ckpt" / "latest").read_text() == f"step_{done:06d}"
    resumed = run(tmp_path / "run", "--resume=auto", steps=done + 1)
    assert resumed == run(tmp_path / "whole", steps=done + 1)


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    arguments = ["--prompts_per_step=16", "--eval_every=2", "--eval_samples=2", "--eval_passk=1"]
    run(tmp_path / "run", *arguments, steps=3, tiny=[])
    before = lines_of(tmp_path / "run")
    run(tmp_path / "run", *arguments, "--resume=auto", steps=3, tiny=[])
    assert lines_of(tmp_path / "run") == before
    assert before["eval.jsonl"].count("\n") == 3  # after 0, 2 and 3 steps


def test_evaluations_survive_a_resume_with_another_interval(tmp_path):
    out = tmp_path / "run"
    arguments = ["--prompts_per_step=16", "--eval_samples=2", "--eval_passk=1"]

    def evaluated():
        return steps_of(map(json.loads, (out / "eval.jsonl").read_text().splitlines()))

    run(out, *arguments, "--eval_every=2", steps=4, tiny=[])
    run(out, *arguments, "--eval_every=3", "--resume=auto", steps=6, tiny=[])
    assert evaluated() == [0, 2, 4, 6]
    before = (out / "config.json").read_text()
    with pytest.raises(SystemExit):
        run(out, *arguments, "--resume=auto", steps=3, tiny=[])  # fewer than done
    assert evaluated() == [0, 2, 4, 6]
    assert (out / "config.json").read_text() == before


def test_a_fused_optimizer_resumes_alike(tmp_path, monkeypatch):
    """GPUs use PyTorch's fused AdamW, whose state is laid out differently."""
    made = []
    AdamW = torch.optim.AdamW

    def fused(*items, **named):
        made.append(AdamW(*items, **named | {"fused": True}))
        return made[-1]

    monkeypatch.setattr(torch.optim, "AdamW", fused)
    whole = run(tmp_path / "whole", steps=4)
    run(tmp_path / "parts", steps=2)
    assert run(tmp_path / "parts", "--resume=auto", steps=4) == whole
    assert all(optimizer.defaults["fused"] for optimizer in made)


def test_a_run_whose_updates_were_all_skipped_can_be_resumed(tmp_path, monkeypatch):
    clip = torch.nn.utils.clip_grad_norm_

    def not_finite(parameters, most):
        return clip(parameters, most) * float("nan")

    with monkeypatch.context() as broken:
        broken.setattr(torch.nn.utils, "clip_grad_norm_", not_finite)
        run(tmp_path / "run", "--save_every=1", steps=1)
    resumed = run(tmp_path / "run", "--save_every=1", "--resume=auto", steps=2)
    assert [m["skipped_updates"] for m in resumed] == [2, 0]


def test_weights_in_several_files_resume_alike(tmp_path, monkeypatch):
    monkeypatch.setattr("checkpoint.FILE_BYTES", 300_000)
    run(tmp_path / "run", "--save_every=2", steps=2)
    assert len(os.listdir(tmp_path / "run" / "ckpt" / "step_000002" / "weights")) > 3
    assert run(tmp_path / "run", "--resume=auto", steps=4) == run(tmp_path / "whole", steps=4)


# ---------- checkpoints that are unfinished, damaged, or in the way ----------


def test_a_checkpoint_that_was_never_finished_is_ignored(tmp_path, monkeypatch):
    out = tmp_path / "run"
    run(out, "--save_every=2", steps=2)

    def die(*arguments):
        raise RuntimeError("killed")

    with monkeypatch.context() as dying:
        dying.setattr(checkpoint, "save_weights", die)
        with pytest.raises(RuntimeError):
            run(out, "--save_every=2", "--resume=auto", steps=4)
    assert (out / "ckpt" / "latest").read_text() == "step_000002"
    assert steps_of(run(out, "--save_every=2", "--resume=auto", steps=4)) == [0, 1, 2, 3]


def spoil(path, how):
    if how == "gone":
        os.remove(path)
    elif how == "short":
        os.truncate(path, os.path.getsize(path) - 1)
    else:
        content = bytearray(Path(path).read_bytes())
        content[len(content) // 2] ^= 1
        Path(path).write_bytes(content)


@pytest.mark.parametrize("name, how", [
    ("weights", "altered"),
    ("weights", "short"),
    ("weights", "gone"),
    ("state.json", "altered"),
    ("config.json", "altered"),
    ("checksums.json", "short"),
    ("checksums.json", "gone"),
])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_used(tmp_path, capsys, name, how):
    arguments = ["--save_every=2", "--eval_sets="]
    whole = run(tmp_path / "whole", *arguments, steps=4)
    spoilt = tmp_path / "spoilt"
    shutil.copytree(tmp_path / "whole", spoilt)
    newest = spoilt / "ckpt" / "step_000004"
    spoil(next((newest / name).iterdir()) if name == "weights" else newest / name, how)
    assert run(spoilt, *arguments, "--resume=auto", steps=4) == whole
    printed = capsys.readouterr().out
    assert "step_000004 is damaged" in printed and "step_000002: 2 steps done" in printed
    spoil(newest / "state.json", "altered")
    error = refused(capsys, tmp_path / "fork", *arguments, f"--resume={newest}", steps=4)
    assert ("step_000004: there is no intact checkpoint (not as it was written: state.json)"
            in error)
    spoil(spoilt / "ckpt" / "step_000002" / "state.json", "altered")
    error = refused(capsys, spoilt, *arguments, "--resume=auto", steps=4)
    assert "no checkpoint in" in error


def test_a_checkpoint_that_cannot_be_written_loses_nothing(tmp_path):
    """The operating system refuses files of more than a megabyte, from the second checkpoint on."""
    out = tmp_path / "run"
    run(out, "--save_every=2", steps=2)
    limited = ("import resource, train; "
               "resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20)); train.main()")
    arguments = [*TINY, "--save_every=2", "--steps=4", "--resume=auto", f"--out_dir={out}"]
    done = subprocess.run([sys.executable, "-c", limited, *arguments],
                          capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert last.startswith("error: the checkpoint after 4 steps could not be written")
    assert "File too large" in last
    assert sorted(os.listdir(out / "ckpt")) == ["latest", "step_000002"]
    resumed = run(out, "--save_every=2", "--resume=auto", steps=4)
    assert resumed == run(tmp_path / "whole", "--save_every=2", steps=4)


def test_only_the_newest_checkpoints_stay_and_the_best_model_does(tmp_path):
    import eval as evaluation

    out = tmp_path / "run"
    few_samples = ["--eval_samples=2", "--eval_passk=2"]
    arguments = ["--prompts_per_step=64", "--eval_every=1", "--save_every=1", "--lr=2e-3",
                 *few_samples]
    four_to_eight = ["latest", *(f"step_{step:06d}" for step in (4, 5, 6, 7, 8))]
    run(out, *arguments, steps=5, tiny=[])
    assert sorted(os.listdir(out / "ckpt")) == ["latest", "step_000004", "step_000005"]
    run(out, *arguments, "--resume=auto", "--keep_checkpoints=5", steps=8, tiny=[])
    assert sorted(os.listdir(out / "ckpt")) == four_to_eight
    with open(out / "eval.jsonl") as file:
        scores = [json.loads(line)["mean@2"] for line in file]
    best = max(scores[1:])
    assert len(scores) == 9 and scores[-1] < best  # such a rate spoils the policy
    noted = json.loads((out / "best" / "evaluation.json").read_text())
    assert noted == {"step": scores.index(best), "score": best}
    assert evaluation.main([f"--model={out}/best", *few_samples])["arith"]["mean@2"] == best
    # those of later steps are not older
    run(out, *arguments, f"--resume={out}/ckpt/step_000004", "--keep_checkpoints=0", steps=6,
        tiny=[])
    assert sorted(os.listdir(out / "ckpt")) == four_to_eight


# ---------- forks and refusals ----------


def test_resume_from_a_path_and_refusals(tmp_path, capsys):
    out = tmp_path / "run"
    whole = run(out, "--save_every=2", steps=4)
    assert "already holds a run: --resume=auto" in refused(capsys, out)
    error = refused(capsys, out, "--resume=auto", "--lr=1.0", "--n_bins=5")
    assert f"lr: {Config.lr} -> 1.0" in error and "n_bins: 10 -> 5" in error
    assert "there is no intact checkpoint" in refused(capsys, out, f"--resume={tmp_path}")
    assert metrics_of(out) == whole  # nothing was lost
    assert run(out, f"--resume={out}/ckpt/step_000002") == whole
    fork = [tmp_path / "fork", f"--resume={out}/ckpt/step_000002"]
    assert steps_of(run(*fork)) == [2, 3]
    shutil.rmtree(tmp_path / "fork" / "ckpt")  # as if killed before its first checkpoint
    assert steps_of(run(*fork)) == [2, 3]
    shutil.rmtree(tmp_path / "fork" / "ckpt")
    assert steps_of(run(tmp_path / "fork", "--resume=auto")) == [2, 3]
    (out / "ckpt" / "latest").write_text("step_000009")
    capsys.readouterr()
    assert run(out, "--resume=auto") == whole
    assert ("step_000009 is damaged (no readable checksums.json): trying the one before"
            in capsys.readouterr().out)
    run(tmp_path / "other", steps=1)
    error = refused(capsys, tmp_path / "other", f"--resume={out}/ckpt/step_000002")
    assert "belongs to another one" in error


def test_a_fork_may_change_knobs_and_says_so_and_its_own_resume_may_not(tmp_path, capsys):
    parent = f"--resume={tmp_path}/run/ckpt/step_000002"
    run(tmp_path / "run", "--save_every=2", steps=2)
    fork = [tmp_path / "fork", "--lr=1e-5", "--rollout_gdro=true", "--save_every=1"]
    assert steps_of(run(*fork, parent, steps=3)) == [2]
    assert f"lr: {Config.lr} -> 1e-05; rollout_gdro: False -> True" in capsys.readouterr().out
    run(*fork, "--resume=auto", "--tokens_per_micro_batch=64", "--kv_cache_gib=1", steps=4)
    assert "tokens_per_micro_batch: 8192 -> 64" in capsys.readouterr().out
    error = refused(capsys, *fork, "--resume=auto", "--lr=1e-4", steps=5)
    assert "lr: 1e-05 -> 0.0001" in error
    error = refused(capsys, tmp_path / "bins", "--n_bins=5", parent, steps=3)
    assert "10 bins does not fit n_bins=5" in error


def test_auto_without_a_checkpoint_starts_afresh_and_never_over_another_run(tmp_path, capsys):
    out = tmp_path / "run"
    full = tmp_path / "full"
    assert len(run(out, "--resume=auto", steps=2)) == 2
    shutil.rmtree(out / "ckpt")  # killed before its first checkpoint
    full.mkdir()
    (full / "metrics.jsonl").write_text("{}")
    assert "lr: " in refused(capsys, out, "--resume=auto", "--lr=1.0")
    assert "holds no run" in refused(capsys, full, "--resume=auto")
    assert "holds no run" in refused(capsys, full)
    assert len(metrics_of(out)) == 2 and (full / "metrics.jsonl").read_text() == "{}"
    assert len(run(out, "--resume=auto", steps=3)) == 3


def test_a_knob_newer_than_a_run_has_its_default(tmp_path):
    run(tmp_path / "run", steps=1)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    del config["config"]["hysteresis"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    run(tmp_path / "run", "--resume=auto", steps=2)


def test_a_run_is_not_continued_on_other_data(tmp_path, capsys):
    rows = [{"id": str(i), "prompt": problem.prompt, "answer": problem.answer}
            for i, problem in enumerate(arith("train")[:64])]
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    arguments = [f"--dataset={data}", "--template=bare", "--reward=exact", "--prompts_per_step=8",
                 "--eval_sets=", f"--out_dir={tmp_path}/run"]
    main([*arguments, "--steps=1"])
    rows[5]["answer"] = "0"
    write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(SystemExit):
        main([*arguments, "--steps=2", "--resume=auto"])
    assert "begun with another training set than there is now" in capsys.readouterr().err


def test_a_run_is_not_continued_with_another_reward_function(tmp_path, capsys):
    file = tmp_path / "mine.py"
    reward = f"--reward={file}:same"
    file.write_text("def same(response, answer):\n    return response == answer\n")
    run(tmp_path / "run", reward, steps=1)
    file.write_text("def same(response, answer):\n    return answer == response\n")
    error = refused(capsys, tmp_path / "run", reward, "--resume=auto", steps=2)
    assert "begun with another reward function than there is now" in error


# ---------- what is written beside the numbers ----------


def test_secrets_in_knobs_are_written_nowhere_and_do_not_hinder_a_resume(
        tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    token = "hf_" + "aB3" * 11
    os.symlink(os.path.join(ROOT, "worlds"), token)
    arguments = [f"--model={token}/arith", f"--data_dir=https://me:{token[3:]}@host/x",
                 "--save_every=1"]
    run("out", *arguments, steps=1)
    run("out", *arguments, "--resume=auto", steps=2)
    files = [path.read_text() for path in (tmp_path / "out").rglob("*.json*")]
    written = capsys.readouterr().out + "".join(files)
    assert token not in written and token[3:] not in written
    assert "***/arith" in written and "https://***@host/x" in written


def test_a_path_that_merely_looks_like_a_secret_is_kept():
    model = "models/hf_qwen3_4b_instruct_v2"
    assert runlog.without_secrets(Config(model=model))["model"] == model
