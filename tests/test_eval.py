"""Claims about grading and evaluation metrics."""
import itertools
import json

import numpy as np
import pytest

import eval as evaluation
import reward
from configurator import UsageError
from eval import interval, pass_at_k, summarize
from reward import Grader


def test_pass_at_k_equals_enumeration():
    for n in range(1, 9):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            draws = list(itertools.combinations([1] * c + [0] * (n - c), k))
            assert pass_at_k([c], n, k)[0] == pytest.approx(sum(map(any, draws)) / len(draws))


def test_pass_at_k_beyond_n_is_refused():
    with pytest.raises(ValueError, match="pass@9 cannot be estimated from 8"):
        pass_at_k([1], 8, 9)


def test_the_interval_covers_the_true_mean_about_95_times_in_100():
    rng = np.random.default_rng(0)
    hits = [low <= 0.3 <= high for low, high in (interval(rng.binomial(8, 0.3, 100) / 8, seed) for seed in range(400))]
    assert 0.91 < np.mean(hits) < 0.98


def test_summary_names_the_worst_group():
    result = summarize([8, 4, 0, 2], ["x", "x", "y", "y"], n=8, k=2)
    assert result["mean@8"] == 14 / 32 and result["worst_group"] == "y" and result["worst_group/mean@8"] == 0.125
    assert result["groups"]["x"] == {"mean@8": 0.75, "pass@2": pytest.approx((1 + 1 - 6 / 28) / 2), "questions": 2}
    assert result["mean@8/interval"][0] <= result["mean@8"] <= result["mean@8/interval"][1]


def test_exact_grading():
    assert Grader("exact").grade(["12", " 12\n", "120", "1", ""], ["12"] * 5) == [1, 1, -1, -1, -1]
    with pytest.raises(ValueError, match="there are exact"):
        Grader("exakt")


def test_the_canary_sings_for_a_broken_grader(monkeypatch):
    Grader("exact").canary("42")
    for broken in (lambda response, answer: True, lambda response, answer: False):
        monkeypatch.setitem(reward.GRADERS, "broken", broken)
        with pytest.raises(UsageError, match="reward canary"):
            Grader("broken").canary("42")


def test_a_grader_can_say_what_a_right_response_looks_like(monkeypatch):
    def boxed(response, answer):
        return response == f"[{answer}]"

    monkeypatch.setitem(reward.GRADERS, "boxed", boxed)
    with pytest.raises(UsageError, match="reward canary"):
        Grader("boxed").canary("42")
    boxed.example = lambda answer: f"[{answer}]"
    Grader("boxed").canary("42")


def test_a_grader_that_fails_names_the_response(monkeypatch):
    monkeypatch.setitem(reward.GRADERS, "fails", lambda response, answer: float(response) == float(answer))
    with pytest.raises(RuntimeError, match="reward='fails' failed on response '4%', answer '4'"):
        Grader("fails").grade(["4%"], ["4"])


def test_the_command_line_reports_the_base_policy(tmp_path, capsys):
    results = evaluation.main(["--eval_samples=16", "--passk=8", f"--output={tmp_path}/result.json"])
    printed = capsys.readouterr().out
    result = results["arith"]
    assert f"{result['mean@16']:.3f}" in printed and "worst group" in printed
    saved = json.loads((tmp_path / "result.json").read_text())
    assert saved["results"]["arith"] == result and saved["config"]["eval_samples"] == 16
    assert result["sampling"] == {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
    assert evaluation.main(["--eval_samples=16", "--passk=8"]) == results  # the same seeds, the same samples


@pytest.mark.parametrize("argument, message", [
    ("--passk=9", "cannot be estimated from eval_samples=8"), ("--eval_temperature=-1", "between 0 and 100"), ("--eval_sets=", "nothing to evaluate"),
    ("--output=none/result.json", "no such folder"), ("--max_response_len=0", "at least 1"), ("--model=config", "no model in this folder"), ("--eval_sets=none.jsonl", "no such file"), ("--modle=x", "did you mean 'model'"),
])
def test_the_command_line_refuses_with_one_line(argument, message, capsys):
    with pytest.raises(SystemExit) as stop:
        evaluation.main([argument])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and error.count("\n") == 1
