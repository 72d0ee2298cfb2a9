"""Claims about the comparison of arms and about the rivals."""
import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import train
from bench import figures, rivals
from configurator import UsageError, parse
from gdro import RolloutGDRO

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bench"))
import arms


@pytest.mark.slow
def test_quick_runs_every_kind_of_arm_and_continues_where_it_was(tmp_path, monkeypatch):
    command = [sys.executable, "bench/arms.py", "--quick", f"--out={tmp_path}/runs", f"--json={tmp_path}/r.json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.load(open(tmp_path / "r.json"))["results"]
    assert {arm: sorted(by_seed) for arm, by_seed in results.items()} == {"grpo": ["100", "101"], "both": ["100", "101"]}
    assert all(r["rollouts"] == [0, 3 * 16 * 4] and 0 < r["mean@8"] < r["pass@8"] < 1 for by_seed in results.values() for r in by_seed.values())
    assert figures.draw_arms(f"{tmp_path}/r.json", [], f"{tmp_path}/r.png") and os.path.getsize(tmp_path / "r.png") > 10_000
    with pytest.raises(UsageError, match="has no arm maxrl; it has grpo, both"):
        figures.draw_arms(f"{tmp_path}/r.json", ["maxrl"], "")
    os.remove(tmp_path / "runs" / "arith" / "prompts0" / "both" / "seed101" / "result.json")
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.stdout == done.stdout and "1/1" in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("arm", [arm for arm, (_, replaced) in arms.ARMS.items() if replaced])
def test_every_rival_takes_its_place_in_a_run_and_keeps_the_budget(arm, tmp_path, monkeypatch):
    for name in ("PromptGDRO", "RolloutGDRO", "group_advantages"):
        monkeypatch.setattr(train, name, getattr(train, name))  # put back afterwards
    monkeypatch.setattr("problems.SEED", 0)
    plain = train.group_advantages
    arms.run_here(arm, "arith", 0, ["--prompts_per_step=256", "--n_rollouts=2", "--n_max=4", "--n_min=1", "--steps=4", "--eval_sets=", f"--out_dir={tmp_path}/run"])
    assert train.group_advantages is not plain or train.PromptGDRO.__module__ == "bench.rivals" or train.RolloutGDRO.__module__ == "bench.rivals"
    metrics = [json.loads(line) for line in open(tmp_path / "run" / "metrics.jsonl")]
    assert [m["rollouts/total"] for m in metrics] == [512] * 4 and metrics[-1]["unseen"] == 0.0


def test_the_arguments_of_every_arm_are_knobs():
    for arguments, _ in arms.ARMS.values():
        parse(train.Config, arguments)


def test_rivals_do_what_their_papers_say():
    bins, p = np.array([0, 0, 5, 9, -1]), np.array([0.05, 0.1, 0.5, 0.95, np.nan])
    w = rivals.OneMinusP().weights(bins, p)
    assert w[0] / w[2] == pytest.approx(0.95 / 0.5) and w[4] == 1 and w[:4].mean() == pytest.approx(1)
    w = rivals.Pools().weights(bins, p)
    assert w[3] / w[2] == pytest.approx(rivals.Pools.easy) and w.mean() == pytest.approx(1)
    n = rivals.Neyman(n_mean=6, n_min=1, n_max=16, utility="variance").allocate(bins[:4], p[:4])
    law = 6 * np.sqrt(p[:4] * (1 - p[:4])) / np.sqrt(p[:4] * (1 - p[:4])).mean()
    assert np.abs(n - law).max() <= 1 and n.sum() == 24
    n = rivals.Knapsack(n_mean=6, n_min=1, n_max=16).allocate(bins[:4], p[:4])
    value = lambda n: sum((1 - q**k - (1 - q) ** k) * q * (1 - q) ** 2 for q, k in zip(p, n))
    assert value(n) == pytest.approx(max(map(value, (m for m in itertools.product(range(1, 17), repeat=4) if sum(m) == 24))))
    assert RolloutGDRO(n_mean=6, n_min=1, n_max=16).allocate(bins[:2], p[:2]).tolist() == [6, 6]  # by bins: the same for both


def test_advantages_of_rivals():
    ids, rewards = [0, 0, 0, 0, 1, 1, 2, 2, 3, 3], [1, -1, -1, -1, -1, -1, 1, -1, 1, -1]
    np.testing.assert_allclose(rivals.maxrl_advantages(ids, rewards, 5)[:6], [3, -1, -1, -1, 0, 0])
    plain = train.group_advantages(ids, rewards, 5.0)
    dapo = rivals.dapo_advantages(train.group_advantages)(ids, rewards, 5.0)
    np.testing.assert_allclose(dapo[:6], plain[:6] * 6 / 4)  # of prompts 0 and 1, the first mixed one, in a mean over its rollouts alone
    np.testing.assert_allclose(dapo[6:], [plain[6] * 2, plain[7] * 2, 0, 0])  # prompt 3 is one too many


def test_paired_intervals_cover_the_truth_95_times_in_100():
    rng, hits = np.random.default_rng(0), []
    for _ in range(1000):
        base = rng.normal(0, 1, 8)
        difference, low, high, n = arms.paired(dict(enumerate(base + rng.normal(0.3, 0.2, 8))), dict(enumerate(base)))
        hits.append(low <= 0.3 <= high)
        assert n == 8
    assert 0.93 < np.mean(hits) < 0.97
