"""Claims about configuration: typed, documented, nothing unclear gets through."""

import dataclasses
import glob
import re

import pytest

from configurator import configure, documented, parse
from eval import EvalConfig
from train import Config


def write(path, text):
    path.write_text(text)
    return str(path)


def test_later_wins_and_types_are_those_of_the_dataclass(tmp_path):
    a = write(tmp_path / "a.py", "lr = 1\nsteps = 4 * 5\nprompt_gdro = True\n")
    b = write(tmp_path / "b.py", "steps = 30\n")
    cfg = parse(Config, [a, b, "--prompt_gdro=false", "--out_dir=x=y", "--seed=7"])
    assert (cfg.lr, cfg.steps, cfg.prompt_gdro, cfg.out_dir, cfg.seed) == (1.0, 30, False, "x=y", 7)
    assert type(cfg.lr) is float


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--lrr=1"], "there is no knob 'lrr'; did you mean 'lr'?"),
        (["--zzz=1"], "--help lists them all"),
        (["--steps=1.5"], "steps='1.5' is no int"),
        (["--prompt_gdro=yes"], "write true or false"),
        (["--prompt_gdro"], "write it as --prompt_gdro=value"),
        (["config/none.py"], "config file config/none.py: FileNotFoundError"),
        (["--difficulty=hard"], "choose one of posterior, any"),
        (["--steps=0"], "must be at least 1"),
        (["--lr=nan"], "between 1e-12 and 1e+06"),
        (["--seed=-1"], "must be at least 0"),
        (["--eval_top_p=0"], "between 1e-06 and 1"),
        (["--device=gpu"], "choose one of auto, cpu, cuda"),
        (["--prompt_weight_max=0.5"], "must be at least 1"),
        (
            ["--rollout_gdro=true", "--rollout_rule=exp3p", "--arm_signal=variance", "--n_min=1"],
            "needs n_min of at least 2",
        ),
        (["--gamma=1.5"], "between 0 and 1"),
        (["--updates_per_step=3"], "multiple of updates_per_step=3"),
        (["--n_rollouts=25", "--rollout_gdro=true"], "between n_min=1 and n_max=24"),
        (["--n_rollouts=2", "--rollout_gdro=true", "--n_min=3"], "between n_min=3 and n_max=24"),
        (["--n_rollouts=1"], "must be at least 2"),
        (["--tokens_per_micro_batch=20"], "must hold one sequence: at least max_prompt_len"),
        (["--logger=wand"], "choose one of none, wandb, trackio, tensorboard"),
        (["--rollout_gdro=true", "--unseen=hardest"], "has no success rate to give rollouts by"),
        (["--grade_timeout=0"], "between 0.1 and 3600"),
        (["--samples=0"], "samples='0': write a number of at least 1, or all"),
        (["--samples=two"], "write a number of at least 1, or all"),
        (["--eval_passk=9"], "cannot be estimated from eval_samples=8"),
    ],
)
def test_mistakes_stop_with_one_line_and_status_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        configure(Config, arguments, "")
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "text, message",
    [
        ("lrr = 1", "did you mean 'lr'"),
        ("lr = '1e-4'", "is no float"),
        ("steps = True", "is no int"),
        ("samples = 8", "is no str; write it in quotes"),
        ("steps = ", "SyntaxError"),
        ("import os", "no knob 'os'"),
    ],
)
def test_mistakes_in_files_name_the_file(text, message, tmp_path):
    path = write(tmp_path / "bad.py", text)
    with pytest.raises(ValueError, match=message) as error:
        parse(Config, [path])
    assert path in str(error.value)


@pytest.mark.parametrize("config_class", [Config, EvalConfig])
def test_every_knob_has_a_comment_and_help_prints_it(config_class, capsys):
    comments = {field.name: comment for _, field, comment in documented(config_class)}
    assert list(comments) == [f.name for f in dataclasses.fields(config_class)]
    with pytest.raises(SystemExit) as stop:
        configure(config_class, ["--help"], "usage")
    printed = capsys.readouterr().out
    assert stop.value.code == 0 and all(comment in printed for comment in comments.values())


def test_later_files_and_knobs_win(tmp_path):
    path = write(tmp_path / "a.py", "history = 9\n")
    cfg = parse(Config, ["--history=3", "config/paper.py", path, "--prompt_eta=1.5"])
    assert (cfg.history, cfg.prompt_eta, cfg.prompt_signal) == (9, 1.5, "surrogate")


@pytest.mark.parametrize(
    "config_class, files",
    [
        (
            Config,
            [
                "train.py",
                "eval.py",
                "progress.py",
                "ranks.py",
                "checkpoint.py",
                "runlog.py",
                "data.py",
            ],
        ),
        (EvalConfig, ["eval.py", "ranks.py", "data.py"]),
    ],
)
def test_every_knob_is_read_somewhere(config_class, files):
    source = "".join(open(file).read() for file in files)
    unread = [
        f.name
        for f in dataclasses.fields(config_class)
        if not re.search(rf"cfg\.{f.name}\b", source)
    ]
    assert unread == []


def test_limits_of_rollout_gdro_do_not_bind_plain_grpo():
    assert parse(Config, ["--n_rollouts=16"]).n_rollouts == 16


def test_shipped_configs_parse_and_are_short():
    files = glob.glob("config/*.py")
    assert len(files) == 24
    for file in files:
        parse(EvalConfig if file.startswith("config/eval_") else Config, [file])
        lines = open(file).read().splitlines()
        assert len(lines) <= 25 and lines[0].startswith("#")
    # those that set no folder of their own are given beside another
    runs = set(files) - {"config/eval_paper.py", "config/paper.py", "config/reference.py"}
    assert len({parse(Config, [file]).out_dir for file in runs}) == len(runs)


def test_knobs_of_training_and_evaluation_agree():
    training = {f.name: f.default for f in dataclasses.fields(Config)}
    assert all(
        training[f.name] == f.default for f in dataclasses.fields(EvalConfig) if f.name in training
    )
