"""Claims about the comparison of arms and about the rivals."""

import itertools
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import train
from bench import arms, figures, rivals
from configurator import UsageError, parse
from gdro import RolloutGDRO

ARMS_WITH_A_RIVAL = [arm for arm, (_, replaced) in arms.ARMS.items() if replaced]


@pytest.mark.slow
def test_quick_runs_every_kind_of_arm_and_continues_where_it_was(tmp_path):
    command = [sys.executable, "bench/arms.py", "--quick"]
    command += [f"--out={tmp_path}/runs", f"--json={tmp_path}/r.json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "r.json").read_text())["results"]
    assert set(results) == {"grpo", "both"}
    for by_seed in results.values():
        assert sorted(by_seed) == ["100", "101"]
        for result in by_seed.values():
            assert result["rollouts"] == [0, 3 * 16 * 4]
            assert 0 < result["mean@8"] < result["pass@8"] < 1
    assert figures.draw_arms(f"{tmp_path}/r.json", [], f"{tmp_path}/r.png")
    assert os.path.getsize(tmp_path / "r.png") > 10_000
    with pytest.raises(UsageError, match="has no arm maxrl; it has grpo, both"):
        figures.draw_arms(f"{tmp_path}/r.json", ["maxrl"], "")
    os.remove(tmp_path / "runs" / "arith" / "prompts0" / "both" / "seed101" / "result.json")
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.stdout == done.stdout and "1/1" in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS_WITH_A_RIVAL)
def test_every_rival_takes_its_place_in_a_run_and_keeps_the_budget(arm, tmp_path, monkeypatch):
    for name in ("PromptGDRO", "RolloutGDRO", "group_advantages"):
        monkeypatch.setattr(train, name, getattr(train, name))  # put back afterwards
    monkeypatch.setattr("worlds.problems.SEED", 0)
    plain = train.group_advantages
    arguments = ["--prompts_per_step=256", "--n_rollouts=2", "--n_max=4", "--n_min=1", "--steps=4"]
    arms.run_here(arm, "arith", 0, [*arguments, "--eval_sets=", f"--out_dir={tmp_path}/run"])
    players = (train.PromptGDRO, train.RolloutGDRO)
    replaced = any(player.__module__ == "bench.rivals" for player in players)
    assert replaced or train.group_advantages is not plain
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    metrics = [json.loads(line) for line in lines]
    assert [m["rollouts/total"] for m in metrics] == [512] * 4 and metrics[-1]["unseen"] == 0.0


def test_the_arguments_of_every_arm_are_knobs():
    for arguments, _ in arms.ARMS.values():
        parse(train.Config, arguments)


BINS = np.array([0, 0, 5, 9, -1])
RATES = np.array([0.05, 0.1, 0.5, 0.95, np.nan])


def test_one_minus_p_weighs_by_the_failure_rate():
    w = rivals.OneMinusP().weights(BINS, RATES)
    assert w[0] / w[2] == pytest.approx(0.95 / 0.5)
    assert w[4] == 1 and w[:4].mean() == pytest.approx(1)


def test_pools_weigh_easy_prompts_less():
    w = rivals.Pools().weights(BINS, RATES)
    assert w[3] / w[2] == pytest.approx(rivals.Pools.easy) and w.mean() == pytest.approx(1)


def test_neyman_gives_rollouts_by_the_standard_deviation_of_each_prompt():
    p = RATES[:4]
    player = rivals.Neyman(n_mean=6, n_min=1, n_max=16, utility="variance")
    n = player.allocate(BINS[:4], p)
    law = 6 * np.sqrt(p * (1 - p)) / np.sqrt(p * (1 - p)).mean()
    assert np.abs(n - law).max() <= 1 and n.sum() == 24
    plain = RolloutGDRO(n_mean=6, n_min=1, n_max=16)
    assert plain.allocate(BINS[:2], p[:2]).tolist() == [6, 6]  # by bins: the same for both


def test_knapsack_equals_brute_force():
    p = RATES[:4]

    def value(counts):
        n = np.array(counts)
        return ((1 - p**n - (1 - p) ** n) * p * (1 - p) ** 2).sum()

    n = rivals.Knapsack(n_mean=6, n_min=1, n_max=16).allocate(BINS[:4], p)
    choices = itertools.product(range(1, 17), repeat=4)
    best = max(value(counts) for counts in choices if sum(counts) == 24)
    assert value(n) == pytest.approx(best)


def test_dapo_takes_the_first_mixed_groups():
    ids = [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]
    scores = [1, 0, 0, 0, 0, 0, 1, 0, 1, 0]
    plain = train.group_advantages(ids, scores, 5.0)
    dapo = rivals.dapo_advantages(train.group_advantages)(ids, scores, 5.0)
    # Of prompts 0 and 1, only 0 is mixed: its 4 of the 6 rollouts have the mean for themselves.
    np.testing.assert_allclose(dapo[:6], plain[:6] * 6 / 4)
    # Of prompts 2 and 3, both are mixed: 3 is one too many.
    np.testing.assert_allclose(dapo[6:], [plain[6] * 2, plain[7] * 2, 0, 0])


def test_paired_intervals_cover_the_truth_95_times_in_100():
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(1000):
        base = rng.normal(0, 1, 8)
        better = base + rng.normal(0.3, 0.2, 8)
        _, low, high, n = arms.paired(dict(enumerate(better)), dict(enumerate(base)))
        hits.append(low <= 0.3 <= high)
        assert n == 8
    assert 0.93 < np.mean(hits) < 0.97


# ---------- tuning ----------


def curve(*mean, final=None, rollouts=(0, 100, 200, 300, 400)):
    """A result of a run with this curve of mean@8."""
    return {"curve": {"mean@8": list(mean)}, "rollouts": list(rollouts), "mean@8": mean[-1],
            "pass@8": final or mean[-1], "worst": 0.1, "area": 0.5}


def test_every_arm_has_the_same_settings_to_choose_from_and_grpo_more():
    assert len(arms.variants("both")) == 8 and len(arms.variants("grpo")) == 24
    for variant in arms.variants("grpo"):
        name, knobs = arms.split_name(variant)
        cfg = parse(train.Config, knobs)
        assert name == "grpo" and cfg.prompts_per_step * cfg.n_rollouts == 256
        # as many rollouts as any other arm, whatever the setting
        assert cfg.steps == train.Config().steps


def test_settings_are_chosen_by_the_second_half_of_the_curve():
    results = {
        "grpo:lr=1e-4": {"0": curve(0.1, 0.9, 0.9, 0.2, 0.2), "1": curve(0, 0, 0, 0.2, 0.2)},
        "grpo:lr=2e-4": {"0": curve(0.1, 0.1, 0.1, 0.4, 0.1), "1": curve(0, 0, 0, 0.3, 0.2)},
        "both:lr=4e-4": {"0": curve(0, 0, 0, 0, 0), "1": curve(0, 0, 0, 0, 0)},
    }
    assert arms.late_score(results["grpo:lr=2e-4"]["0"]) == pytest.approx(0.25)
    assert arms.chosen(results) == {"grpo": "grpo:lr=2e-4", "both": "both:lr=4e-4"}


def test_rollouts_to_a_score_are_read_between_evaluations():
    assert arms.rollouts_to(curve(0.1, 0.3, 0.5, 0.4, 0.6), 0.4) == 150
    assert arms.rollouts_to(curve(0.1, 0.3, 0.5, 0.4, 0.6), 0.6) == 400
    assert arms.rollouts_to(curve(0.1, 0.3, 0.5, 0.4, 0.6), 0.7) == float("inf")
    assert arms.rollouts_to(curve(0.3, 0.3, 0.5, 0.4, 0.6), 0.2) == 0
    results = {"grpo": {"0": curve(0, 0.1, 0.2, 0.3, 0.4), "1": curve(0, 0.1, 0.2, 0.3, 0.4)},
               "fast": {"0": curve(0, 0.4, 0.5, 0.5, 0.5), "1": curve(0, 0.2, 0.6, 0.5, 0.5)},
               "half": {"0": curve(0, 0.4, 0.5, 0.5, 0.5), "1": curve(0, 0.1, 0.1, 0.1, 0.1)}}
    assert arms.share_needed(results, "grpo", "grpo") == "1.00 [1.00, 1.00]"
    assert arms.share_needed(results, "fast", "grpo").startswith("0.31 [")  # of 100 and 150
    assert arms.share_needed(results, "half", "grpo") == "1 of 2"


def test_p_values_are_students_and_holms():
    # 2.571 is the 97.5 % quantile for five degrees of freedom, 2.228 for ten
    for t, n in ((2.5706, 6), (2.2281, 11)):
        noise = np.linspace(-1, 1, n)
        differences = noise / np.std(noise, ddof=1) + t / np.sqrt(n)
        values = dict(enumerate(differences))
        assert arms.p_value(values, dict.fromkeys(values, 0.0)) == pytest.approx(0.05, abs=1e-4)
    same = {0: 1.0, 1: 2.0, 2: 3.0}
    assert arms.p_value(same, same) == 1.0
    adjusted = arms.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})


def test_each_arm_is_reported_at_its_best_settings_on_fresh_problems(
        tmp_path, monkeypatch, capsys):
    asked = []

    def pretend(args, names, seeds, prompts, extra):
        asked.append((names, list(seeds), prompts))
        level = {name: 0.5 + 0.1 * ("2e-4" in name) + 0.1 * name.startswith("both")
                 for name in names}
        return {name: {str(seed): curve(0, 0.1, 0.2, 0.3, level[name] + 0.01 * (seed % 3))
                       for seed in seeds} for name in names}, {}

    monkeypatch.setattr(arms, "run_all", pretend)
    path = str(tmp_path / "tuning.json")
    monkeypatch.setattr(sys, "argv", ["", "--tune", "--arms=grpo,both", f"--json={path}"])
    arms.main()
    assert len(asked[0][0]) == 24 + 8 and asked[0][1:] == ([100, 101, 102], 0)
    monkeypatch.setattr(sys, "argv", ["", f"--tuned={path}", "--seeds=10"])
    arms.main()
    assert asked[1] == (["grpo:lr=2e-4:updates_per_step=1", "both:lr=2e-4:updates_per_step=1"],
                        list(range(10)), 1)
    printed = capsys.readouterr().out
    assert "best: grpo:lr=2e-4:updates_per_step=1, both:lr=2e-4:updates_per_step=1" in printed
    assert re.search(r"both:lr=2e-4:updates_per_step=1 +\| 0\.9\d \[0\.9\d, 0\.9\d\] +\| 0\.000 ",
                     printed)
