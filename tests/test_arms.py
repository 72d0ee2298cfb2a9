"""Claims about the comparison of arms and about the rivals."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import train
from bench import arms, figures, rivals
from configurator import UsageError, parse
from gdro import DifficultyClassifier, RolloutGDRO
from worlds.problems import Problem

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
    os.remove(tmp_path / "r.json")
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.stdout == done.stdout and "1/1" in again.stderr
    shutil.rmtree(tmp_path / "runs")  # the file is enough
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.stdout == done.stdout and "run/s" not in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS_WITH_A_RIVAL)
def test_every_rival_takes_its_place_in_a_run_and_keeps_the_budget(arm, tmp_path, monkeypatch):
    for name in ("PromptGDRO", "RolloutGDRO", "group_advantages", "sample_step"):
        monkeypatch.setattr(train, name, getattr(train, name))  # put back afterwards
    monkeypatch.setattr("worlds.problems.SEED", 0)
    plain = train.group_advantages, train.sample_step
    arguments = ["--prompts_per_step=256", "--n_rollouts=2", "--n_max=4", "--n_min=1", "--steps=4"]
    arms.run_here(arm, "arith", 0, [*arguments, "--eval_sets=", f"--out_dir={tmp_path}/run"])
    players = (train.PromptGDRO, train.RolloutGDRO)
    replaced = any(player.__module__ == "bench.rivals" for player in players)
    assert replaced or (train.group_advantages, train.sample_step) != plain
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    metrics = [json.loads(line) for line in lines]
    assert [m["rollouts/total"] for m in metrics] == [512] * 4
    selects = "sample_step" in arms.ARMS[arm][1]  # then some prompts may never come
    assert metrics[-1]["unseen"] == 0.0 or selects


def test_the_arguments_of_every_arm_are_knobs():
    for arguments, _ in arms.ARMS.values():
        parse(train.Config, arguments)


BINS = np.array([0, 0, 5, 9, -1])
RATES = np.array([0.05, 0.1, 0.5, 0.95, np.nan])


def test_one_minus_p_weighs_by_the_failure_rate():
    w = rivals.OneMinusP().weights(BINS, RATES)
    assert w[0] / w[2] == pytest.approx(0.95 / 0.5)
    assert w[4] == 1 and w[:4].mean() == pytest.approx(1)


def test_own_rates_tell_prompts_of_a_bin_apart():
    p = np.array([0.05, 0.5])  # of one bin
    assert rivals.OwnRates(n_mean=6, n_max=16).allocate(BINS[:2], p).tolist() != [6, 6]
    assert RolloutGDRO(n_mean=6, n_max=16).allocate(BINS[:2], p).tolist() == [6, 6]


def test_the_inverse_rate_gives_each_prompt_as_many_right_rollouts():
    p = np.array([0.02, 0.1, 0.3, 0.9])
    n = rivals.InverseRate(n_mean=6, n_min=1, n_max=16).allocate(BINS[:4], p)
    assert n.sum() == 24 and n[0] == 16  # the hardest would have more
    # c / p rollouts each, with what is left of the budget: c = 8 / (1 / .1 + 1 / .3 + 1 / .9)
    law = 8 / (1 / p[1:]).sum() / p[1:]
    assert np.abs(n[1:] - np.maximum(law, 1)).max() <= 1


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
    # Of the four, prompt 1 is not mixed, and prompt 3 is one too many: 6 of 10 rollouts count.
    np.testing.assert_allclose(dapo, plain * [1, 1, 1, 1, 0, 0, 1, 1, 0, 0] * 10 / 6)


def test_curverl_weighs_by_the_reverse_hazard_of_the_last_steps():
    ids = np.repeat([0, 1, 2, 3], 4)
    right = {0.25: [1, 0, 0, 0], 0.5: [1, 1, 0, 0], 0.75: [1, 1, 1, 0], 0.0: [0] * 4}
    advantages = rivals.curve_advantages(train.group_advantages)
    # the first step is its own reference: a third of the mixed groups at each of 1/4, 1/2 and 3/4
    first = advantages(ids, sum((right[p] for p in (0.25, 0.5, 0.75, 0.0)), []), 5.0)
    np.testing.assert_allclose(first[[0, 4, 8, 12]], [0.75, 0.5 / 2, 0.25 / 3, 0])
    np.testing.assert_allclose(np.add.reduceat(first, [0, 4, 8, 12]), 0, atol=1e-12)
    # the second has the first: a rate that is lower than all of its has no weight
    second = advantages(ids[:8], right[0.75] + right[0.75], 5.0)
    np.testing.assert_allclose(second[[0, 3]], [0.25 / 3, -0.75 / 3])


class Drawn:
    """A training set of `total` problems that are named by their numbers."""

    def __init__(self, total):
        self.problems = [Problem(str(i), str(i), "") for i in range(total)]
        self.prompt_ids = [[i] for i in range(total)]


def visited(outcomes):
    """A classifier that saw these outcomes of four rollouts, a list for each uid."""
    classifier = DifficultyClassifier()
    for uid, visits in outcomes.items():
        for right in visits:
            classifier.observe([uid], [right], [4])
    return classifier


def selected(rival, outcomes, steps=200):
    """How often each of eight problems is in a step of four, of eight candidates."""
    cfg = train.Config(prompts_per_step=4, updates_per_step=1)
    sample = rival(train.sample_step)
    found = [sample(i, Drawn(8), visited(outcomes), cfg) for i in range(steps)]
    assert all(len(set(step.uids)) == 4 == len(step.counts) == len(step.bins) for step in found)
    assert all(step.prompts == [[int(uid)] for uid in step.uids] for step in found)
    return [sum(str(i) in step.uids for step in found) / steps for i in range(8)]


def test_mopps_keeps_the_prompts_whose_drawn_rate_is_nearest_a_half():
    mixed, hopeless = {str(i): [2] * 8 for i in range(4)}, {str(i): [0] * 8 for i in range(4, 8)}
    assert selected(rivals.mopps_step, mixed | hopeless) == [1.0] * 4 + [0.0] * 4
    assert 0.3 < selected(rivals.mopps_step, {})[0] < 0.7  # nothing is known: chance


def test_greso_skips_prompts_without_signal_more_and_more_often():
    mixed, often = {str(i): [4, 2] for i in range(4)}, {str(i): [4] * 8 for i in range(4, 8)}
    share = selected(rivals.greso_step, mixed | often)
    assert min(share[:4]) > 0.95 and max(share[4:]) < 0.05
    classifier = visited({"a": [0, 4], "b": [0, 3], "c": [1, 0, 0, 4]})
    assert [rivals.visits_without_signal(classifier, uid) for uid in "abcd"] == [2, 0, 3, 0]
    assert all(0.3 < share < 0.7 for share in selected(rivals.greso_step, {}))  # none is skipped


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
            "pass@8": final or mean[-1], "worst": 0.1, "tail": 0.1, "area": 0.5}


def test_every_arm_has_the_same_settings_to_choose_from_and_grpo_more():
    """With as many rollouts and, at the same place of the grid, as many updates."""
    assert len(arms.variants("both")) == 10 and len(arms.variants("grpo")) == 30
    for arm in ("grpo", "both", "dapo"):
        updates = []
        for variant in arms.variants(arm):
            name, knobs = arms.split_name(variant)
            cfg = parse(train.Config, arms.ARMS[name][0] + knobs)
            assert name == arm and cfg.steps * cfg.prompts_per_step * cfg.n_rollouts == 25_600
            updates.append(cfg.steps * cfg.updates_per_step)
        assert updates[:10] == [100, 200] * 5


def test_settings_are_chosen_by_the_second_half_of_the_curve():
    results = {
        "grpo:lr=1e-4": {"0": curve(0.1, 0.9, 0.9, 0.2, 0.2), "1": curve(0, 0, 0, 0.2, 0.2)},
        "grpo:lr=2e-4": {"0": curve(0.1, 0.1, 0.1, 0.4, 0.1), "1": curve(0, 0, 0, 0.3, 0.2)},
        "both:lr=4e-4": {"0": curve(0, 0, 0, 0, 0), "1": curve(0, 0, 0, 0, 0)},
    }
    assert arms.late_score(results["grpo:lr=2e-4"]["0"]) == pytest.approx(0.25)
    assert arms.chosen(results) == {"grpo": "grpo:lr=2e-4", "both": "both:lr=4e-4"}
    # one lucky seed does not win over two
    results["grpo:lr=4e-4"] = {"0": curve(0.1, 0.9, 0.9, 0.9, 0.9)}
    assert arms.ranked(results)["grpo"] == ["grpo:lr=2e-4", "grpo:lr=1e-4", "grpo:lr=4e-4"]
    # an arm with another knob is another arm, which --tune does not vary
    results["both:group_memory=0:lr=1e-4"] = {"0": curve(0, 0, 0, 0, 0)}
    assert arms.chosen(results)["both"] == "both:lr=4e-4"
    assert arms.chosen(results)["both:group_memory=0"] == "both:group_memory=0:lr=1e-4"


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


def test_a_later_call_continues_from_the_file_of_an_earlier_one(tmp_path):
    """Without the folders of its runs; other arms of the file stay in it."""
    path = str(tmp_path / "kept.json")
    result = curve(0, 0.1, 0.2) | {"extra": [], "diff": ""}
    about = {"world": "arith", "prompts": 0, "extra": [], "versions": {"torch": "2"}}
    arms.write_results(path, about, {"grpo": {"100": result}, "both": {"100": result}})
    args = SimpleNamespace(world="arith", out=str(tmp_path / "runs"), json=path, jobs=1)
    results, versions = arms.run_all(args, ["grpo"], [100], 0, [])
    assert results == {"grpo": {100: result}, "both": {100: result}} and versions == {"torch": "2"}
    with pytest.raises(SystemExit, match=r"with another extra, \[\] and not"):
        arms.run_all(args, ["grpo"], [100], 0, ["--lr=1e-4"])
    args.world = "orders"
    with pytest.raises(SystemExit, match="is of arith, prompts 0"):
        arms.run_all(args, ["grpo"], [100], 0, [])


def test_the_sweep_is_drawn_with_a_line_for_each_setting_and_a_ring_around_the_best(tmp_path):
    results = {variant: {"100": curve(0, 0.1, 0.2, 0.3, 0.3)}
               for arm in ("grpo", "dapo") for variant in arms.variants(arm)}
    best = "grpo:lr=2e-4:updates_per_step=1:kl_coef=0"
    results[best] = {"100": curve(0, 0.1, 0.2, 0.6, 0.6), "101": curve(0, 0.1, 0.2, 0.6, 0.6)}
    figure = figures.arm_sweep(figures.pyplot(), {"results": results})
    grpo, dapo = figure.axes[:2]
    assert [axis.get_title() for axis in (grpo, dapo)] == ["GRPO", "DAPO"]
    assert len(grpo.lines) == 6 + 1 and len(dapo.lines) == 2 + 1
    [ring] = [line for line in grpo.lines if len(line.get_xdata()) == 1]
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (2e-4, pytest.approx(0.6))
    arms.write_results(f"{tmp_path}/sweep.json", {"world": "arith"}, results)
    figures.draw_sweep(f"{tmp_path}/sweep.json", f"{tmp_path}/sweep.png")
    assert os.path.getsize(tmp_path / "sweep.png") > 10_000


def test_each_arm_is_reported_at_its_best_settings_on_fresh_problems(
        tmp_path, monkeypatch, capsys):
    asked = []

    def pretend(args, names, seeds, prompts, extra):
        asked.append((names, list(seeds), prompts))
        level = {name: 0.5 + 0.1 * ("2e-4" in name) + 0.1 * name.startswith("both")
                 for name in names}
        return {name: {seed: curve(0, 0.1, 0.2, 0.3, level[name] + 0.01 * (seed % 3))
                       for seed in seeds} for name in names}, {}

    monkeypatch.setattr(arms, "run_all", pretend)
    path = str(tmp_path / "tuning.json")
    monkeypatch.setattr(sys, "argv", ["", "--tune", "--arms=grpo,both", f"--json={path}"])
    arms.main()
    # one seed of everything, all seeds of the best
    assert len(asked[0][0]) == 30 + 10 and asked[0][1:] == ([100], 0)
    assert len(asked[1][0]) == 9 + 3 and asked[1][1:] == ([100, 101, 102], 0)
    monkeypatch.setattr(sys, "argv", ["", f"--tuned={path}", "--seeds=10"])
    arms.main()
    assert asked[2] == (["grpo:lr=2e-4:updates_per_step=1", "both:lr=2e-4:updates_per_step=1"],
                        list(range(10)), 1)
    printed = capsys.readouterr().out
    assert "best: grpo:lr=2e-4:updates_per_step=1, both:lr=2e-4:updates_per_step=1" in printed
    assert re.search(r"both:lr=2e-4:updates_per_step=1 +\| 0\.9\d \[0\.9\d, 0\.9\d\] +\| 0\.000 ",
                     printed)
