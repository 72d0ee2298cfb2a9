"""Claims about evaluation: metrics, resume, tables."""

import itertools
import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from make_files import tiny_qwen3, write_benchmarks, write_jsonl
from processes import python

import eval as evaluation
from bench.paper_table import main as print_paper_table
from bench.paper_table import paper_table
from eval import interval, pass_at_k, summarize, table
from pretrained import load_tokenizer
from ranks import Group
from rollout import Rollout
from train import main as train_main


def test_pass_at_k_equals_enumeration():
    for n in range(1, 13):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            draws = list(itertools.combinations([1] * c + [0] * (n - c), k))
            assert pass_at_k([c], n, k)[0] == pytest.approx(sum(map(any, draws)) / len(draws))


def test_pass_at_k_beyond_n_is_refused():
    with pytest.raises(ValueError, match="pass@9 cannot be estimated from 8"):
        pass_at_k([1], 8, 9)


def test_the_interval_covers_the_true_mean_about_95_times_in_100():
    rng = np.random.default_rng(0)
    hits = [
        low <= 0.3 <= high
        for low, high in (interval(rng.binomial(8, 0.3, 100) / 8, seed) for seed in range(400))
    ]
    assert 0.91 < np.mean(hits) < 0.98


def test_summary_names_the_worst_group():
    result = summarize([8, 4, 0, 2], ["x", "x", "y", "y"], n=8, k=2)
    assert (
        result["mean@8"] == 14 / 32
        and result["worst_group"] == "y"
        and result["worst_group/mean@8"] == 0.125
    )
    assert result["groups"]["x"] == {
        "mean@8": 0.75,
        "pass@2": pytest.approx((1 + 1 - 6 / 28) / 2),
        "questions": 2,
    }
    assert result["mean@8/interval"][0] <= result["mean@8"] <= result["mean@8/interval"][1]


def test_of_many_groups_the_worst_are_shown_and_the_rest_is_counted():
    right = [i % 9 for i in range(24)]
    result = summarize(right, [f"group {i:02}" for i in range(24)], n=8, k=8) | {
        "right": right, "scores": right, "truncated": 0.0, "no_answer": 0.0}
    lines = table({"before": result, "after": result})
    shown = [line.split()[1] for line in lines if "mean / pass" in line]
    assert shown == ["00", "09", "18", "01", "10"]  # 0, 0, 0, 1 and 1 of 8
    assert lines[-1] == "  and 19 groups that began better"


def test_the_command_line_reports_the_base_policy(tmp_path, capsys):
    results = evaluation.main(
        ["--eval_samples=16", "--eval_passk=8", f"--output={tmp_path}/result.json"]
    )
    printed = capsys.readouterr().out
    result = results["arith"]
    assert f"{result['mean@16']:.3f}" in printed and "worst group" in printed
    saved = json.loads((tmp_path / "result.json").read_text())
    assert saved["results"]["arith"] == result and saved["config"]["eval_samples"] == 16
    assert result["sampling"] == {
        "n": 16,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "max_tokens": 12,
    }
    assert (
        evaluation.main(["--eval_samples=16", "--eval_passk=8"]) == results
    )  # the same seeds, the same samples


# ---------- stopped and gone on ----------


@pytest.mark.slow
def test_an_evaluation_killed_in_the_middle_and_restarted_gives_the_same_json(tmp_path):
    command = ["eval.py", "--eval_samples=64"]
    assert python(*command, f"--output={tmp_path}/whole.json").returncode == 0
    process = subprocess.Popen([sys.executable, *command, f"--output={tmp_path}/cut.json"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    part = tmp_path / "cut.json.part"
    while not part.exists() or part.read_text().count("\n") < 2:  # what it is, and one piece
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    with open(part, "a") as file:
        file.write('{"set": "arith", "sta')  # a torn line
    pieces = part.read_text().count("\n")
    assert not (tmp_path / "cut.json").exists()
    assert python(*command, f"--output={tmp_path}/cut.json").returncode == 0
    assert (
        (tmp_path / "cut.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
        and not part.exists()
        and pieces < 4
    )


def test_an_output_of_another_evaluation_is_never_overwritten(tmp_path, capsys, monkeypatch):
    first = evaluation.main([f"--output={tmp_path}/a.json", "--eval_samples=2", "--eval_passk=1"])
    before = (tmp_path / "a.json").read_bytes()
    monkeypatch.setattr(evaluation, "measure", None)  # nothing is sampled again
    assert (
        evaluation.main([f"--output={tmp_path}/a.json", "--eval_samples=2", "--eval_passk=1"])
        == first
    )
    assert "holds this evaluation already" in capsys.readouterr().out
    (tmp_path / "b.json").write_text("[1]")
    (tmp_path / "c.json.part").write_text('{"config": {"seed": 5}}\n')
    for name, arguments, message in (
        ("a", ["--eval_samples=3"], "another evaluation (eval_samples differ)"),
        ("b", [], "is no result of eval.py"),
        ("c", [], "c.json.part belongs to another evaluation"),
    ):
        with pytest.raises(SystemExit) as stop:
            evaluation.main(
                [
                    f"--output={tmp_path}/{name}.json",
                    "--eval_samples=2",
                    "--eval_passk=1",
                    *arguments,
                ]
            )
        assert stop.value.code == 2 and message in capsys.readouterr().err
    assert (tmp_path / "a.json").read_bytes() == before


def test_a_checkpoint_is_evaluated_like_the_exported_model(tmp_path):
    train_main(["--steps=3", "--eval_sets=", "--lr=1e-3", f"--out_dir={tmp_path}/run"])
    results = [
        evaluation.main([f"--model={tmp_path}/run/{path}"])["arith"]
        for path in ("hf", "ckpt/step_000003")
    ]
    assert (
        results[0] == results[1] and results[0]["mean@8"] != evaluation.main([])["arith"]["mean@8"]
    )


# ---------- the paper's benchmarks ----------


def result(right, n=8, k=8):
    """What evaluate returns for a math set in which `right` of n samples were right, and half of
    them as strings."""
    halves = [c // 2 for c in right]
    as_string = summarize(halves, [""] * len(right), n, k)
    return summarize(right, [""] * len(right), n, k) | {
        "right": right,
        "scores": right,
        "string_right": halves,
        "string/mean@8": as_string["mean@8"],
        "string/pass@8": as_string["pass@8"],
        "sampling": {"n": n, "temperature": 0.6, "top_p": 0.8, "top_k": 20},
        "truncated": 0.0,
        "no_answer": 0.25,
        "left_out": {},
        "reward": "math",
    }


BASE = {
    "math500": result([8, 4, 0, 0]),
    "aime24": result([8, 0]),
    "aime25": result([0, 0]),
    "amc23": result([2, 2]),
    "minerva": result([1]),
    "olympiad": result([0, 0, 0, 0, 0, 4]),
    "gpqa": result([6, 3]),
}


def test_table_1_has_the_papers_columns_and_the_right_gains(tmp_path, capsys):
    better = BASE | {"aime25": result([4, 4]), "olympiad": result([0, 0, 0, 8, 8, 8])}
    lines = [line.split() for line in paper_table({"grpo": BASE, "gdro": better})]
    assert lines[0] == ["MATH500", "AIME", "AMC", "Minerva", "Olympiad", "GPQA", "pass@8"]
    # of 19 questions, 9 and then 13 were solved at least once
    assert lines[1] == ["grpo", "37.50", "25.00", "25.00", "12.50", "8.33", "56.25", "47.37"]
    assert lines[2] == [
        "gdro",
        "37.50",
        "50.00",
        "25.00",
        "12.50",
        "50.00",
        "56.25",
        "68.42",
        "(+44.44%)",
    ]
    assert [line.split()[1] for line in paper_table({"grpo": BASE}, "string")[1:]] == ["18.75"]
    without = {name: r for name, r in BASE.items() if name != "gpqa"}
    lines = [line.split() for line in paper_table({"grpo": BASE, "no token": without})]
    assert (
        lines[1][-1] == lines[2][-2] == "41.18" and lines[2][-3] == "-"
    )  # 7 of the 17 questions that both answered
    plain = {
        "arith": {
            key: value for key, value in result([8, 0]).items() if not key.startswith("string")
        }
        | {"reward": "exact"}
    }  # beside them
    for name, results in (("grpo", BASE | plain), ("gdro", better | plain)):
        saved = {
            "config": {"model": f"out/{name}/hf", "eval_passk": 8, "solved_at": 1.0},
            "problems": dict.fromkeys(results, "same"),
            "results": results,
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(saved))
        saved["problems"]["aime24"] = "other"
        (tmp_path / f"other_{name}.json").write_text(json.dumps(saved))
    print_paper_table([f"{tmp_path}/grpo.json", f"{tmp_path}/gdro.json"])
    printed = capsys.readouterr().out
    assert "normalised string match" in printed and "68.42 (+44.44%)" in printed
    evaluation.main([f"--compare={tmp_path}/grpo.json,{tmp_path}/gdro.json"])
    printed = capsys.readouterr().out
    assert "pass@8 relative" in printed
    (tmp_path / "arith.json").write_text(
        json.dumps(
            {
                "config": {"model": "out/a/hf", "eval_passk": 8, "solved_at": 1.0},
                "problems": {"arith": "same"},
                "results": plain,
            }
        )
    )
    with pytest.raises(SystemExit):
        print_paper_table([f"{tmp_path}/grpo.json", f"{tmp_path}/arith.json"])
    assert "share none of the paper's benchmarks" in capsys.readouterr().err
    assert re.search(
        r"olympiad: 6 questions.*?mean@8 relative +\+500\.00 %\n +mean@8 difference +\+0\.417 \[",
        printed,
        re.S,
    )
    with pytest.raises(SystemExit):
        evaluation.main([f"--compare={tmp_path}/none.json"])
    assert "not a result of eval.py" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluation.main([f"--compare={tmp_path}/grpo.json,{tmp_path}/other_gdro.json"])
    assert "aime24 was evaluated differently" in capsys.readouterr().err


def test_all_eight_benchmarks_from_local_files_print_the_papers_table(
    tmp_path, capsys, monkeypatch
):
    model = tiny_qwen3(tmp_path / "model")
    problems = write_benchmarks(tmp_path / "problems")
    arguments = [
        "config/eval_paper.py",
        "--eval_sets=gsm8k,math500,aime24,aime25,amc23,minerva,olympiad,gpqa",
        f"--model={model}",
        f"--data_dir={problems}",
        "--max_response_len=8",
        f"--output={tmp_path}/r.json",
    ]
    results = evaluation.main(arguments)
    print_paper_table([f"{tmp_path}/r.json"])
    printed = capsys.readouterr().out
    assert (
        len(results) == 8
        and re.search(r"\nmodel +0\.00( +0\.00){6}\n", printed)
        and "Graded by the reward" in printed
        and "Graded by normalised string match" in printed
    )
    saved = json.loads((tmp_path / "r.json").read_text())
    assert (
        saved["results"]["math500"]["sampling"]
        == {"n": 8, "temperature": 0.6, "top_p": 0.8, "top_k": 20, "max_tokens": 8}
        and saved["results"]["gpqa"]["reward"] == "math"
    )
    assert set(saved["results"]["math500"]["groups"]) == {
        f"{s}, level {i}" for s in ("Algebra", "Geometry") for i in (1, 2, 3)
    }
    os.remove(f"{problems}/gpqa.jsonl")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert len(evaluation.main(arguments[:-1])) == 7
    assert "skipped gpqa: Idavidrein/gpqa is gated" in capsys.readouterr().out
    (tmp_path / "own.py").write_text("def score(response, answer): return response == answer\n")
    assert (
        evaluation.main(
            [*arguments[:-1], "--eval_sets=aime25", f"--reward={tmp_path}/own.py:score"]
        )["aime25"]["mean@8"]
        == 0.0
    )
    assert "string" not in capsys.readouterr().out


def test_all_sets_are_sampled_in_one_call_of_the_engine_and_score_as_alone(
    tmp_path, monkeypatch, engine
):
    calls, generate = [], engine.generate
    monkeypatch.setattr(
        engine,
        "generate",
        lambda prompts, *more: calls.append(len(prompts)) or generate(prompts, *more),
    )
    cfg = evaluation.EvalConfig(
        eval_sets="arith,orders", max_prompt_len=40, eval_samples=2, eval_passk=1
    )
    group = Group(cfg)
    sets = evaluation.load_eval_sets(cfg, engine.tokenizer, group)
    graders = evaluation.make_graders(cfg, ["exact"])
    together = evaluation.evaluate(cfg, engine, graders, sets, group)
    assert calls == [sum(len(data.problems) for data in sets.values())]
    assert together == {
        name: evaluation.evaluate(cfg, engine, graders, {name: data}, group)[name]
        for name, data in sets.items()
    }


def test_right_answers_of_a_policy_count_by_both_scorers(tmp_path, monkeypatch):
    """An engine that says the same to every question."""

    class Parrot:
        def generate(self, prompts, seeds, sampling, progress):
            said = [
                "It is \\boxed{0.5}",
                "It is \\boxed{\\frac{1}{2}}",
                "It is 1/2",
                "\\boxed{9^{9^9}}",
            ]
            return [
                Rollout(i, j, ids, [0], [0.0], j != 2, said[j])
                for i, ids in enumerate(prompts)
                for j in range(len(seeds[i]))
            ]

    path = write_jsonl(
        tmp_path / "a.jsonl",
        [{"prompt": "a half", "answer": "1/2"}, {"prompt": "two", "answer": "2"}],
    )
    cfg = evaluation.EvalConfig(eval_sets=path, eval_samples=4, eval_passk=2, max_prompt_len=200)
    group = Group(cfg)
    sets = evaluation.load_eval_sets(cfg, load_tokenizer(tiny_qwen3(tmp_path / "model")), group)
    graders = evaluation.make_graders(cfg, ["math"])
    r = evaluation.evaluate(cfg, Parrot(), graders, sets, group)[path]
    graders["math"].close()
    assert (
        r["right"] == [2, 0]
        and r["string_right"] == [1, 0]
        and r["mean@4"] == 0.25
        and r["string/mean@4"] == 0.125
    )
    assert (
        r["no_answer"] == 0.25
        and r["truncated"] == 0.25
        and r["timeout"] == 0.0
        and r["pass@2"] == pytest.approx((1 - 1 / 6) / 2)
    )


@pytest.mark.parametrize(
    "argument, message",
    [
        ("--eval_passk=9", "cannot be estimated from eval_samples=8"),
        ("--eval_temperature=-1", "between 0 and 100"),
        ("--eval_sets=", "nothing to evaluate"),
        ("--output=none/result.json", "no such folder"),
        ("--max_response_len=0", "at least 1"),
        ("--model=config", "no model in this folder"),
        ("--eval_sets=none.jsonl", "no such file"),
        ("--modle=x", "did you mean 'model'"),
    ],
)
def test_the_command_line_refuses_with_one_line(argument, message, capsys):
    with pytest.raises(SystemExit) as stop:
        evaluation.main([argument])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and error.count("\n") == 1
