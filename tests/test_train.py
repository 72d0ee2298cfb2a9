"""Claims about whole runs, made by running train.py on the embedded world."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import torch
from conftest import ROOT
from make_files import write_jsonl

import checkpoint
import runlog
import train
from checkpoint import RunFolder
from gates import check_mismatch, check_untruncated
from model import load_policy
from ranks import Group
from rollout import Sampling
from train import Config, main
from worlds.problems import arith

TINY = ["--prompts_per_step=16", "--eval_every=100", "--save_every=100", "--eval_sets="]
PLAIN = ["--template=bare", "--reward=exact"]  # a local file like the embedded world


def run(out, *arguments, steps=4, tiny=TINY):
    """Run train.py in this process -> the run's metrics without what the machine decides."""
    main([*tiny, *arguments, f"--out_dir={out}", f"--steps={steps}"])
    return metrics_of(out)


def metrics_of(out):
    with open(os.path.join(out, "metrics.jsonl")) as file:
        return [{k: v for k, v in json.loads(line).items() if not k.startswith(("time/", "mem/"))} for line in file if line.endswith("\n")]


def lines_of(out):
    """The run's JSONL files, times and memory blanked."""
    found = {}
    for name in ("metrics.jsonl", "samples.jsonl", "eval.jsonl"):
        with open(os.path.join(out, name)) as file:
            found[name] = re.sub(r'"(time|mem)/\w+": [^,}]+', "", file.read())
    return found


# ---------- budgets and logs ----------

@pytest.mark.parametrize("rule", ["price", "exp3p"])
def test_twenty_steps_spend_exactly_the_budget_at_every_step(tmp_path, rule):
    main(["config/arith_rollout_gdro.py", "--steps=20", "--eval_sets=", f"--rollout_rule={rule}", "--arm_signal=error", f"--out_dir={tmp_path}/run"])
    metrics = metrics_of(tmp_path / "run")
    assert [m["rollouts/total"] for m in metrics] == [64 * 4] * 20
    assert any(m["rollouts/max"] > 4 for m in metrics)  # and they did move
    for m in metrics:
        assert 1 <= m["rollouts/min"] <= m["rollouts/max"] <= 24
        share, rollouts = np.array(m["bins/share"]), np.array([x or 0 for x in m["bins/rollouts"]])
        assert share @ rollouts + 4 * m["unseen"] == pytest.approx(4)  # the log tells the same story


def test_every_step_logs_the_documented_metrics(tmp_path):
    run(tmp_path / "run", "--prompt_gdro=true", "--rollout_gdro=true", "--samples_every=2", tiny=TINY[:-1])
    scalars = "step reward/mean rollouts/total rollouts/min rollouts/max loss kl clipfrac entropy grad_norm mismatch dead_groups shadow_price".split()
    vectors = [f"bins/{x}" for x in "share weight rollouts reward signal_error signal_variance signal_nll signal_surrogate".split()]
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
    assert [s["step"] for s in samples] == [0, 0, 2, 2] and {"prompt", "response", "answer", "reward", "advantage"} <= samples[0].keys()
    config = json.load(open(tmp_path / "run" / "config.json"))
    assert config["config"]["prompt_gdro"] is True and config["versions"]["torch"]


def test_wandb_gets_the_scalars_when_asked_for(tmp_path, monkeypatch):
    wandb = types.ModuleType("wandb")
    wandb.logged, wandb.init = [], lambda **settings: wandb.logged.append(settings["name"])
    wandb.log = lambda metrics, step: wandb.logged.append((step, metrics["reward/mean"]))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    metrics = run(tmp_path / "named", "--logger=wandb", steps=2)
    assert wandb.logged == ["named"] + [(m["step"], m["reward/mean"]) for m in metrics]


# ---------- off means off ----------

def test_both_adversaries_off_is_plain_grpo_to_the_last_digit(tmp_path):
    run(tmp_path / "plain", "config/arith_grpo.py", steps=8)
    run(tmp_path / "off", "config/arith_gdro.py", "--prompt_gdro=false", "--rollout_gdro=false", steps=8)
    assert metrics_of(tmp_path / "plain") == metrics_of(tmp_path / "off")


def test_adversaries_without_strength_are_plain_grpo_to_the_last_digit(tmp_path):
    """Switched on, but with weights all 1 and n constant: what remains of the code path changes nothing."""
    plain = run(tmp_path / "plain", "config/arith_grpo.py", "--n_min=4", "--n_max=4", steps=8)
    weak = run(tmp_path / "weak", "config/arith_gdro.py", "--prompt_eta=0", "--gamma=0", "--n_min=4", "--n_max=4", steps=8)
    assert plain == weak and max(1 - m["unseen"] for m in plain) == 0  # every prompt is new in the first epoch ...
    same = ["--n_rollouts=2", "--n_min=2", "--n_max=2", "--prompts_per_step=256"]
    plain = run(tmp_path / "plain2", "config/arith_grpo.py", *same, steps=5)
    weak = run(tmp_path / "weak2", "config/arith_gdro.py", "--prompt_eta=0", "--gamma=0", *same, steps=5)
    assert plain == weak and plain[-1]["unseen"] == 0  # ... and none in the second


# ---------- resume ----------

def test_six_steps_equal_three_and_resume_and_three(tmp_path):
    both = ["config/arith_gdro.py", "--prompts_per_step=256", "--eval_every=2", "--save_every=3", "--samples_every=1", "--eval_samples=2", "--eval_passk=2", "--n_rollouts=2", "--n_max=4", "--activation_checkpointing=true"]
    run(tmp_path / "whole", *both, steps=6, tiny=[])
    run(tmp_path / "parts", *both, steps=3, tiny=[])
    run(tmp_path / "parts", *both, "--resume=auto", steps=6, tiny=[])
    assert lines_of(tmp_path / "parts") == lines_of(tmp_path / "whole")
    assert metrics_of(tmp_path / "whole")[-1]["unseen"] == 0  # the adversaries had something to resume


def test_a_run_killed_between_checkpoints_resumes_to_the_same_lines(tmp_path, monkeypatch):
    arguments = ["config/arith_gdro.py", "--prompts_per_step=16", "--eval_every=2", "--save_every=2", "--eval_samples=2", "--eval_passk=2"]
    run(tmp_path / "whole", *arguments, steps=5, tiny=[])
    kill = RunFolder.append

    def die_in_step_three(self, name, record):
        kill(self, name, record)
        if name == "metrics.jsonl" and record["step"] == 3:
            with open(self.path(name), "a") as file:
                file.write('{"step": 4, "rew')  # a torn line
            raise OSError("power cut")

    monkeypatch.setattr(RunFolder, "append", die_in_step_three)
    with pytest.raises(OSError):
        run(tmp_path / "cut", *arguments, steps=5, tiny=[])
    monkeypatch.setattr(RunFolder, "append", kill)
    run(tmp_path / "cut", *arguments, "--resume=auto", steps=5, tiny=[])
    assert lines_of(tmp_path / "cut") == lines_of(tmp_path / "whole")


def test_a_checkpoint_that_was_never_finished_is_ignored(tmp_path, monkeypatch):
    out = tmp_path / "run"
    run(out, "--save_every=2", steps=2)

    def die(*args):
        raise RuntimeError("killed")

    monkeypatch.setattr(checkpoint, "save_weights", die)
    with pytest.raises(RuntimeError):
        run(out, "--save_every=2", "--resume=auto", steps=4)
    monkeypatch.undo()
    assert open(out / "ckpt" / "latest").read() == "step_000002"
    assert [m["step"] for m in run(out, "--save_every=2", "--resume=auto", steps=4)] == [0, 1, 2, 3]


def spoil(path, how):
    if how == "gone":
        os.remove(path)
    elif how == "short":
        os.truncate(path, os.path.getsize(path) - 1)
    else:
        with open(path, "r+b") as file:
            file.seek(os.path.getsize(path) // 2)
            byte = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("name, how", [("weights", "altered"), ("weights", "short"), ("weights", "gone"), ("state.json", "altered"), ("config.json", "altered"), ("checksums.json", "short"), ("checksums.json", "gone")])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_used(tmp_path, capsys, name, how):
    whole = run(tmp_path / "whole", "--save_every=2", "--eval_sets=", steps=4)
    shutil.copytree(tmp_path / "whole", tmp_path / "spoilt")
    newest = tmp_path / "spoilt" / "ckpt" / "step_000004"
    spoil(next((newest / name).iterdir()) if name == "weights" else newest / name, how)
    again = run(tmp_path / "spoilt", "--save_every=2", "--eval_sets=", "--resume=auto", steps=4)
    printed = capsys.readouterr().out
    assert "step_000004 is damaged" in printed and "step_000002: 2 steps done" in printed and again == whole
    spoil(newest / "state.json", "altered")
    with pytest.raises(SystemExit):
        run(tmp_path / "fork", "--save_every=2", "--eval_sets=", f"--resume={newest}", steps=4)
    assert "step_000004: the checkpoint is damaged (not as it was written: state.json)" in capsys.readouterr().err
    spoil(tmp_path / "spoilt" / "ckpt" / "step_000002" / "state.json", "altered")
    with pytest.raises(SystemExit):
        run(tmp_path / "spoilt", "--save_every=2", "--eval_sets=", "--resume=auto", steps=4)
    assert "no checkpoint in" in capsys.readouterr().err


def test_a_run_is_not_continued_on_other_data(tmp_path, capsys):
    rows = [{"id": str(i), "prompt": p.prompt, "answer": p.answer} for i, p in enumerate(arith("train")[:64])]
    arguments = [f"--dataset={write_jsonl(tmp_path / 'rows.jsonl', rows)}", "--template=bare", "--reward=exact", "--prompts_per_step=8", "--eval_sets=", f"--out_dir={tmp_path}/run"]
    main([*arguments, "--steps=1"])
    rows[5]["answer"] = "0"
    write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(SystemExit):
        main([*arguments, "--steps=2", "--resume=auto"])
    assert "begun with another training set than there is now" in capsys.readouterr().err


def test_resume_from_a_path_and_refusals(tmp_path, capsys):
    out = tmp_path / "run"
    whole = run(out, "--save_every=2", steps=4)

    def refused(*arguments):
        with pytest.raises(SystemExit) as stop:
            run(*arguments)
        error = capsys.readouterr().err.splitlines()[-1]
        assert stop.value.code == 2 and error.startswith("error: ")
        return error

    assert "already holds a run: --resume=auto" in refused(out)
    error = refused(out, "--resume=auto", "--lr=1.0", "--n_bins=5")
    assert f"lr: {Config.lr} -> 1.0" in error and "n_bins: 10 -> 5" in error
    assert "there is no checkpoint" in refused(out, "--resume=" + str(tmp_path))
    assert metrics_of(out) == whole  # nothing was lost
    assert run(out, f"--resume={out}/ckpt/step_000002") == whole
    fork = [tmp_path / "fork", f"--resume={out}/ckpt/step_000002"]
    assert [m["step"] for m in run(*fork)] == [2, 3]
    shutil.rmtree(tmp_path / "fork" / "ckpt")  # as if killed before its first checkpoint
    assert [m["step"] for m in run(*fork)] == [2, 3]
    shutil.rmtree(tmp_path / "fork" / "ckpt")
    assert [m["step"] for m in run(tmp_path / "fork", "--resume=auto")] == [2, 3]
    (out / "ckpt" / "latest").write_text("step_000009")
    assert run(out, "--resume=auto") == whole and "step_000009 is damaged (no readable checksums.json): trying the one before" in capsys.readouterr().out
    run(tmp_path / "other", steps=1)
    assert "belongs to another one" in refused(tmp_path / "other", f"--resume={out}/ckpt/step_000002")


def test_a_fork_may_change_knobs_and_says_so_and_its_own_resume_may_not(tmp_path, capsys):
    run(tmp_path / "run", "--save_every=2", steps=2)
    fork = [tmp_path / "fork", "--lr=1e-5", "--rollout_gdro=true", "--save_every=1"]
    assert [m["step"] for m in run(*fork, f"--resume={tmp_path}/run/ckpt/step_000002", steps=3)] == [2]
    assert f"lr: {Config.lr} -> 1e-05; rollout_gdro: False -> True" in capsys.readouterr().out
    run(*fork, "--resume=auto", "--tokens_per_micro_batch=64", "--kv_cache_gib=1", steps=4)
    assert "tokens_per_micro_batch: 8192 -> 64" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(*fork, "--resume=auto", "--lr=1e-4", steps=5)
    assert "lr: 1e-05 -> 0.0001" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(tmp_path / "bins", "--n_bins=5", f"--resume={tmp_path}/run/ckpt/step_000002", steps=3)
    assert "10 bins does not fit n_bins=5" in capsys.readouterr().err


def test_a_knob_newer_than_a_run_has_its_default(tmp_path):
    run(tmp_path / "run", steps=1)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    del config["config"]["hysteresis"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    run(tmp_path / "run", "--resume=auto", steps=2)


def test_a_run_is_not_continued_with_another_reward_function(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("def same(response, answer):\n    return response == answer\n")
    run(tmp_path / "run", f"--reward={tmp_path}/mine.py:same", steps=1)
    (tmp_path / "mine.py").write_text("def same(response, answer):\n    return answer == response\n")
    with pytest.raises(SystemExit):
        run(tmp_path / "run", f"--reward={tmp_path}/mine.py:same", "--resume=auto", steps=2)
    assert "begun with another reward function than there is now" in capsys.readouterr().err


def test_less_than_an_epoch_says_that_the_adversaries_do_nothing(tmp_path, capsys):
    run(tmp_path / "run", "--prompt_gdro=true", steps=1)
    assert "this is less than an epoch" in capsys.readouterr().out


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    arguments = ["--prompts_per_step=16", "--eval_every=2", "--eval_samples=2", "--eval_passk=1"]
    run(tmp_path / "run", *arguments, steps=3, tiny=[])
    before = lines_of(tmp_path / "run")
    run(tmp_path / "run", *arguments, "--resume=auto", steps=3, tiny=[])
    assert lines_of(tmp_path / "run") == before and before["eval.jsonl"].count("\n") == 3  # after 0, 2 and 3 steps


def test_auto_without_a_checkpoint_starts_afresh_and_never_over_another_run(tmp_path, capsys):
    out = tmp_path / "run"
    assert len(run(out, "--resume=auto", steps=2)) == 2
    shutil.rmtree(out / "ckpt")  # killed before its first checkpoint
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "metrics.jsonl").write_text("{}")
    for arguments, message in (([out, "--resume=auto", "--lr=1.0"], "lr: "), ([tmp_path / "full", "--resume=auto"], "holds no run"), ([tmp_path / "full"], "holds no run")):
        with pytest.raises(SystemExit):
            run(*arguments)
        assert message in capsys.readouterr().err
    assert len(metrics_of(out)) == 2 and (tmp_path / "full" / "metrics.jsonl").read_text() == "{}"
    assert len(run(out, "--resume=auto", steps=3)) == 3


def test_evaluations_survive_a_resume_with_another_interval(tmp_path):
    arguments = ["--prompts_per_step=16", "--eval_samples=2", "--eval_passk=1"]
    steps = lambda: [json.loads(line)["step"] for line in open(tmp_path / "run" / "eval.jsonl")]
    run(tmp_path / "run", *arguments, "--eval_every=2", steps=4, tiny=[])
    run(tmp_path / "run", *arguments, "--eval_every=3", "--resume=auto", steps=6, tiny=[])
    assert steps() == [0, 2, 4, 6]
    before = (tmp_path / "run" / "config.json").read_text()
    with pytest.raises(SystemExit):
        run(tmp_path / "run", *arguments, "--resume=auto", steps=3, tiny=[])  # fewer than done
    assert steps() == [0, 2, 4, 6] and (tmp_path / "run" / "config.json").read_text() == before


def start(out, *arguments):
    """train.py as its own process, returned when it has logged a step."""
    process = subprocess.Popen([sys.executable, "train.py", *TINY, f"--out_dir={out}", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
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
    assert open(tmp_path / "run" / "ckpt" / "latest").read() == f"step_{done:06d}"
    resumed = run(tmp_path / "run", "--resume=auto", steps=done + 1)
    assert resumed == run(tmp_path / "whole", steps=done + 1)


def test_a_checkpoint_that_cannot_be_written_loses_nothing(tmp_path):
    """The operating system refuses files of more than a megabyte, from the second checkpoint on."""
    run(tmp_path / "run", "--save_every=2", steps=2)
    limited = "import resource, train; resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20)); train.main()"
    arguments = [*TINY, "--save_every=2", "--steps=4", "--resume=auto", f"--out_dir={tmp_path}/run"]
    done = subprocess.run([sys.executable, "-c", limited, *arguments], capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and last.startswith("error: the checkpoint after 4 steps could not be written") and "File too large" in last and "Traceback" not in done.stderr
    assert sorted(os.listdir(tmp_path / "run" / "ckpt")) == ["latest", "step_000002"]
    assert run(tmp_path / "run", "--save_every=2", "--resume=auto", steps=4) == run(tmp_path / "whole", "--save_every=2", steps=4)


@pytest.mark.parametrize("spoil", [lambda r: r.response_ids.append(10**6), lambda r: r.response_ids.clear(), lambda r: r.response_ids.insert(0, -1), lambda r: r.engine_logprobs.pop(),
                                   lambda r: r.engine_logprobs.__setitem__(0, float("nan")), lambda r: r.engine_logprobs.__setitem__(0, 0.5)])
def test_garbage_from_an_engine_is_caught(tmp_path, monkeypatch, spoil):
    generate = train.generate_share

    def garbage(*arguments, **keywords):
        rollouts = generate(*arguments, **keywords)
        spoil(rollouts[7])
        return rollouts

    monkeypatch.setattr(train, "generate_share", garbage)
    with pytest.raises(RuntimeError, match="cannot have been sampled"):
        run(tmp_path / "run", steps=1)


def test_secrets_in_knobs_are_written_nowhere_and_do_not_hinder_a_resume(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    token = "hf_" + "aB3" * 11
    os.symlink(os.path.join(ROOT, "worlds"), token)
    arguments = [f"--model={token}/arith", f"--data_dir=https://me:{token[3:]}@host/x", "--save_every=1"]
    run("out", *arguments, steps=1)
    run("out", *arguments, "--resume=auto", steps=2)
    written = capsys.readouterr().out + "".join(path.read_text() for path in (tmp_path / "out").rglob("*.json*"))
    assert token not in written and token[3:] not in written and "***/arith" in written and "https://***@host/x" in written


def test_a_path_that_merely_looks_like_a_secret_is_kept():
    assert runlog.without_secrets(Config(model="models/hf_qwen3_4b_instruct_v2"))["model"] == "models/hf_qwen3_4b_instruct_v2"


def test_pickled_weights_are_not_loaded(tmp_path, capsys):
    shutil.copytree("worlds/arith", tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(SystemExit):
        run(tmp_path / "run", f"--model={tmp_path}/model")
    assert "safetensors" in capsys.readouterr().err


def test_only_the_newest_checkpoints_stay_and_the_best_model_does(tmp_path):
    import eval as evaluation

    arguments = ["--prompts_per_step=64", "--eval_every=1", "--save_every=1", "--lr=2e-3", "--eval_samples=2", "--eval_passk=2"]
    out = tmp_path / "run"
    run(out, *arguments, steps=5, tiny=[])
    assert sorted(os.listdir(out / "ckpt")) == ["latest", "step_000004", "step_000005"]
    run(out, *arguments, "--resume=auto", "--keep_checkpoints=5", steps=8, tiny=[])
    assert sorted(os.listdir(out / "ckpt")) == ["latest"] + [f"step_00000{i}" for i in (4, 5, 6, 7, 8)]
    with open(out / "eval.jsonl") as file:
        scores = [json.loads(line)["mean@2"] for line in file]
    assert len(scores) == 9 and scores[-1] < max(scores[1:])  # such a rate spoils the policy
    assert json.load(open(out / "best" / "evaluation.json")) == {"step": scores.index(max(scores[1:])), "score": max(scores[1:])}
    assert evaluation.main([f"--model={out}/best", "--eval_samples=2", "--eval_passk=2"])["arith"]["mean@2"] == max(scores[1:])
    run(out, *arguments, "--resume=" + str(out / "ckpt" / "step_000004"), "--keep_checkpoints=0", steps=6, tiny=[])
    assert sorted(os.listdir(out / "ckpt")) == ["latest"] + [f"step_00000{i}" for i in (4, 5, 6, 7, 8)]  # those of later steps are not older


# ---------- bad input ----------

def local_set(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_truncated_responses_and_left_out_rows_are_counted(tmp_path, capsys):
    rows = [{"prompt": f"B{i:04d}=", "answer": "123"} for i in range(20)] + [{"prompt": "B1=", "answer": None}, {"prompt": "B" * 20 + "=", "answer": "1"}]
    data = local_set(tmp_path / "set.jsonl", rows)
    metrics = run(tmp_path / "run", f"--dataset={data}", *PLAIN, "--max_response_len=2", steps=1)
    assert metrics[0]["truncated"] == 1.0 and metrics[0]["response_len"] == 2.0
    assert metrics[0]["reward/mean"] == -1.0 and metrics[0]["dead_groups"] == 1.0
    assert "20 problems of " + data + ", graded by exact (left out: 1 incomplete, 1 too long)" in capsys.readouterr().out


@pytest.mark.parametrize("arguments, message", [
    (["--dataset=EMPTY"], "no usable row"),
    (["--dataset=SMALL", "--template=bare"], "2 usable problems, fewer than prompts_per_step=16"),
    (["--max_prompt_len=3"], "every prompt is longer than max_prompt_len=3"),
    (["--model=config"], "no model in this folder"),
    (["--model=no/such-model"], "neither a model folder nor a hub model"),
    (["--reward=exakt"], "there are auto, exact, math, or a function of yours"),
    (["--out_dir=LICENSE/run"], "cannot be made"),
    (["--logger=wandb"], "pip install wandb"),
])
def test_bad_input_stops_with_one_line_and_leaves_no_run_behind(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.setitem(sys.modules, "wandb", None)  # whether or not it is installed
    names = {"EMPTY": local_set(tmp_path / "empty.jsonl", []), "SMALL": local_set(tmp_path / "small.jsonl", [{"prompt": f"B{i}=", "answer": "1"} for i in "12"])}
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
    monkeypatch.setattr(train, "load_policy", lambda *arguments, **named: policies.append(load(*arguments, **named)) or policies[-1])

    def watched(*arguments):
        seen.append([p.grad is None for p in policies[0][0].parameters()])
        return generate(*arguments)

    monkeypatch.setattr(train, "generate_share", watched)
    run(tmp_path / "run", steps=3)
    assert len(seen) == 3 and all(map(all, seen)) and len(seen[0]) > 10


def test_peak_memory_on_a_gpu_is_the_drivers_figure_and_not_pytorchs(monkeypatch):
    """PyTorch counts what a sleeping vLLM has given back; the driver does not. Here 80 GiB, of which 20 and then 50 are free."""
    free = iter([20 * 2**30, 50 * 2**30])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (next(free), 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", None)
    group = types.SimpleNamespace(device="cuda")
    memory = runlog.used_mib(group, "generate") | runlog.used_mib(group, "update")
    assert memory == {"mem/generate_mib": 60 * 1024, "mem/update_mib": 30 * 1024} and runlog.peak_mib(memory) == 60 * 1024
    assert runlog.used_mib(types.SimpleNamespace(device="cpu"), "update") == {} and runlog.peak_mib({}) > 10


def test_a_fused_optimizer_resumes_alike(tmp_path, monkeypatch):
    """GPUs use PyTorch's fused AdamW, whose state is laid out differently."""
    made, AdamW = [], torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda *items, **named: made.append(AdamW(*items, **named | {"fused": True})) or made[-1])
    whole = run(tmp_path / "whole", steps=4)
    run(tmp_path / "parts", steps=2)
    assert run(tmp_path / "parts", "--resume=auto", steps=4) == whole and all(one.defaults["fused"] for one in made)


def test_the_parity_gate_warns_and_stops(capsys):
    check_mismatch(0.01)
    check_mismatch(0.1)
    assert "disagree by 0.100 nats" in capsys.readouterr().out
    for mismatch in (0.3, float("nan")):
        with pytest.raises(RuntimeError, match="stale"):
            check_mismatch(mismatch)


@pytest.mark.parametrize("times", [1, 3])
def test_an_update_with_a_broken_gradient_is_skipped_and_the_third_in_a_row_stops(tmp_path, monkeypatch, capsys, times):
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
        assert len(rows) == 8 * 4 and all({"step", "uid", "response", "reward", "advantage", "weight"} == row.keys() and row["step"] == 2 for row in rows)
    else:
        main(arguments)
        metrics = metrics_of(tmp_path / "run")
        assert [m["skipped_updates"] for m in metrics] == [0, 1, 0, 0] and metrics[1]["grad_norm"] is None and metrics[2]["grad_norm"] > 0
        assert "this update is skipped (1 in a row, stops at 3)" in capsys.readouterr().out
        policy, _ = load_policy(f"{tmp_path}/run/hf", Group(Config()))
        assert all(torch.isfinite(p).all() for p in policy.parameters())


def test_a_run_whose_updates_were_all_skipped_can_be_resumed(tmp_path, monkeypatch):
    clip = torch.nn.utils.clip_grad_norm_
    with monkeypatch.context() as broken:
        broken.setattr(torch.nn.utils, "clip_grad_norm_", lambda parameters, most: clip(parameters, most) * float("nan"))
        run(tmp_path / "run", "--save_every=1", steps=1)
    assert [m["skipped_updates"] for m in run(tmp_path / "run", "--save_every=1", "--resume=auto", steps=2)] == [2, 0]


def test_weights_in_several_files_resume_alike(tmp_path, monkeypatch):
    monkeypatch.setattr("checkpoint.FILE_BYTES", 300_000)
    run(tmp_path / "run", "--save_every=2", steps=2)
    assert len(os.listdir(tmp_path / "run" / "ckpt" / "step_000002" / "weights")) > 3
    assert run(tmp_path / "run", "--resume=auto", steps=4) == run(tmp_path / "whole", steps=4)


def test_truncated_training_samples_are_refused():
    for sampling in (Sampling(9, top_p=0.9), Sampling(9, top_k=20)):
        with pytest.raises(RuntimeError, match="must not be truncated"):
            check_untruncated(sampling)
    assert check_untruncated(Sampling(9, temperature=0.7)).temperature == 0.7


def test_an_engine_with_other_weights_is_caught(tmp_path, monkeypatch):
    """A policy that was never synced: the gate sees it in the first step."""
    import torch

    import torch_engine

    monkeypatch.setattr(torch_engine.TorchEngine, "sync", lambda self, tensors: self.hf.model.norm.weight.data.mul_(torch.tensor(3.0)))
    with pytest.raises(RuntimeError, match="engine and trainer disagree"):
        run(tmp_path / "run")


# ---------- learning ----------

def test_the_policy_improves_and_the_exported_model_is_the_trained_one(tmp_path):
    metrics = run(tmp_path / "run", "config/arith_gdro.py", "--lr=2e-4", steps=15, tiny=["--eval_every=100"])
    with open(tmp_path / "run" / "eval.jsonl") as file:
        before, after = [json.loads(line) for line in file]
    assert after["mean@8"] > before["mean@8/interval"][1]
    assert len(metrics) == 15
    import eval as evaluation

    assert evaluation.main([f"--model={tmp_path}/run/hf"])["arith"]["mean@8"] == after["mean@8"]


def test_the_script_runs_from_the_shell(tmp_path):
    """One real process, as a user starts it; its last lines are the table and where things are."""
    command = [sys.executable, "train.py", "config/arith_gdro.py", "--steps=4", "--prompts_per_step=256", f"--out_dir={tmp_path}/run"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "256 prompts x 4 rollouts (1 to 24 each, mean exact) = 1024 sequences" in done.stdout
    assert "worst group mean@8" in done.stdout and f"{tmp_path}/run/hf" in done.stdout
    figures = subprocess.run([sys.executable, "plot.py", f"{tmp_path}/run"], capture_output=True, text=True)
    assert figures.returncode == 0, figures.stderr
    paths = figures.stdout.split()
    assert len(paths) == 6 and all(os.path.getsize(path) > 10_000 for path in paths)


def test_plot_says_what_it_cannot_draw(tmp_path, capsys):
    import plot

    run(tmp_path / "short", steps=1)
    assert plot.draw([str(tmp_path / "short")]) == []
    printed = capsys.readouterr().out
    assert "never evaluated" in printed and "train for more than an epoch" in printed


def test_a_run_that_gets_nothing_right_says_so(tmp_path, capsys):
    data = local_set(tmp_path / "set.jsonl", [{"prompt": f"B{i:04d}=", "answer": "none"} for i in range(16)])
    run(tmp_path / "run", f"--dataset={data}", *PLAIN, steps=5)
    assert "no rollout was right in five steps" in capsys.readouterr().out


def test_plot_refuses_what_is_no_run(tmp_path, capsys):
    import plot

    with pytest.raises(SystemExit) as stop:
        plot.main([str(tmp_path)])
    assert stop.value.code == 2 and "folder of a run" in capsys.readouterr().err
