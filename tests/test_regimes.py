"""Claims about the simulation of when adaptive rollouts are worth having."""
import itertools
import json
import os
from dataclasses import replace

import numpy as np
import pytest
from processes import python

from bench import arms, regimes
from bench.regimes import ARMS, SETTINGS, Arm, Memory, Setting, allocate, simulate
from gdro import DifficultyClassifier, PromptGDRO, RolloutGDRO

TINY = Setting((0.8, 0.4, 0.1, 0.02), prompts=40, steps=25, per_step=16, n_max=8)


def results(*command):
    done = python("bench/regimes.py", *command)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("shared", [0.0, 0.4, 1.0])
def test_one_skill_without_noise_follows_the_closed_form(shared, monkeypatch):
    """With many rollouts the logit z obeys dz/dt = lr sqrt(p (1-p)) = lr / (2 cosh(z/2)), so that
    4 sinh(z/2) grows by lr a step, whatever is shared."""
    monkeypatch.setattr(regimes, "MEAN", 10_000)
    one = Setting((0.02,), prompts=8, steps=200, per_step=4, spread=0.0)
    curve = simulate(one, ARMS["grpo"], np.array([(shared, 0.0, 0.1, 0)]), evaluations=4)[0, :, 0]
    start = np.log(0.02 / 0.98)
    z = 2 * np.arcsinh(np.sinh(start / 2) + 0.1 * np.arange(0, 201, 50) / 4)
    assert curve == pytest.approx(1 / (1 + np.exp(-z)), abs=0.01)


def test_what_rollouts_pull_is_the_sum_over_rollouts():
    rng = np.random.default_rng(0)
    for n, right in itertools.product((1, 2, 5), range(6)):
        if right > n:
            continue
        score, rate = np.arange(n) < right, rng.random()
        earlier = np.array([1, 0, 0, 0])
        pool = np.append(score, earlier)
        for arm, mean, over in ((Arm(), score.mean(), score.std()),
                                (Arm(maxrl=True), score.mean(), score.mean()),
                                (Arm(memory=True), pool.mean(), pool.std())):
            advantage = (score - mean) / over if over else np.zeros(n)
            pull, squares = regimes.pulls(arm, np.array([right]), np.array([n]), rate, 1.5, 3.5)
            assert pull[0] == pytest.approx((advantage * (score - rate)).sum())
            assert squares[0] == pytest.approx((advantage**2).sum())


def test_the_prompt_mean_is_the_token_mean_where_rollouts_are_even_and_not_elsewhere():
    runs = np.array([(0.1, 1.0, 8.0, seed) for seed in range(3)])
    for n_min, n_max in ((4, 4), (1, 8)):
        setting = replace(TINY, n_min=n_min, n_max=n_max)
        prompt, token = (simulate(setting, ARMS[name], runs) for name in ("both", "both_token"))
        assert np.array_equal(prompt, token) == (n_min == n_max)


@pytest.mark.parametrize("world, kinds", [("chains", 6), ("steps", 10)])
def test_a_world_has_its_skills_at_the_rates_of_their_levels(world, kinds):
    setting = regimes.setting_of(world)
    assert len(setting.rates) == len(setting.shares) == 24 * kinds
    assert setting.rates[:24] == setting.rates[24:48] and 0.8 < setting.rates[0] < 0.95
    even = setting.shares[0] == setting.shares[23]
    assert even == (world == "chains")  # on steps easy problems are twice as many
    assert setting.shares[0] / setting.shares[23] == pytest.approx(1 if even else 2)


def test_a_decoy_is_hurt_by_what_the_others_learn():
    runs = np.array([(0.5, 0.0, 4.0, seed) for seed in range(4)])
    plain, decoys = (simulate(replace(TINY, decoys=n), ARMS["grpo"], runs)[:, -1, 0]
                     for n in (0, 2))
    assert (decoys < plain).all()


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_spends_the_same_and_gives_the_unseen_the_mean(name, monkeypatch):
    spent = []

    def counting(setting, arm, a, b, bins):
        counts = allocate(setting, arm, a, b, bins)
        assert counts.min() >= setting.n_min and counts.max() <= setting.n_max
        assert (counts[bins < 0] == regimes.MEAN).all()
        spent.append(counts.sum(1))
        return counts

    monkeypatch.setattr(regimes, "allocate", counting)
    runs = np.array([(0.1, 2.0, lr, seed) for lr in (1.0, 8.0) for seed in range(2)])
    curve = simulate(TINY, ARMS[name], runs)
    assert (np.array(spent) == 16 * regimes.MEAN).all() and len(spent) == TINY.steps
    assert curve.shape == (4, 2, 2) and (curve[..., 0] <= curve[..., 1]).all()
    assert (curve[:2, 0] == curve[2:, 0]).all(), "a seed is the same world at every rate"


@pytest.mark.parametrize("name", regimes.ROLLOUT_RULES)
def test_the_greedy_allocation_gains_as_much_as_the_best(name):
    rng = np.random.default_rng(1)
    arm, setting = ARMS[name], replace(TINY, n_max=7)
    a, b = rng.uniform(0.5, 8, (2, 1, 4))
    bins = np.array([[2, 2, 5, 0]])

    def utility(counts):
        if arm.rule == "posterior":  # E[1 - (1-p)^n], of n rollouts that are all wrong
            return sum(1 - np.prod([(y + i) / (x + y + i) for i in range(n)])
                       for x, y, n in zip(a[0], b[0], counts, strict=True))
        rate = a / (a + b)
        rate = rate if arm.rule == "own" else regimes.of_bin(regimes.bin_means(rate, bins), bins)
        return sum(arm.gain(p, n) for p, c in zip(rate[0], counts, strict=True)
                   for n in range(1, c))

    counts = allocate(setting, arm, a, b, bins)[0]
    every = [c for c in itertools.product(range(1, 8), repeat=4) if sum(c) == 16]
    assert utility(counts) == pytest.approx(max(map(utility, every)))


def test_the_players_are_those_of_gdro():
    """Bins, posteriors, weights, and rollouts of both rules by rate, over the visits of a run."""
    rng = np.random.default_rng(2)
    memory, known = Memory(2, 30), [DifficultyClassifier() for _ in range(2)]
    weigher, score = [PromptGDRO() for _ in range(2)], np.full((2, 10), np.nan)
    setting = replace(TINY, n_max=24)
    player = RolloutGDRO(n_max=24)
    for _ in range(30):
        index = np.array([rng.choice(30, 12, replace=False) for _ in range(2)])
        a, b = memory.posterior(index)
        bins = memory.bin[memory.rows, index]
        counts = allocate(setting, ARMS["rollout_gdro"], a, b, bins)
        weights = regimes.weights_of(score, bins)
        right = rng.binomial(counts, index / 30)
        for run, (classifier, adversary) in enumerate(zip(known, weigher, strict=True)):
            uids = [str(i) for i in index[run]]
            assert (classifier.bins(uids) == bins[run]).all()
            assert np.array_equal(classifier.posterior(uids), (a[run], b[run]))
            assert adversary.weights(bins[run]) == pytest.approx(weights[run])
            theirs = player.allocate(bins[run], classifier.success_rate(uids))
            for place in set(bins[run]):  # ties inside a bin are broken in another order
                of_bin = bins[run] == place
                assert sorted(theirs[of_bin]) == sorted(counts[run, of_bin])
            classifier.observe(uids, right[run], counts[run])
            nll = -np.log(np.maximum(classifier.success_rate(uids), 0.01))
            adversary.update(bins[run], nll)
        memory.observe(index, right, counts)
        a, b = memory.posterior(index)
        score = regimes.rescored(score, a / (a + b), bins)


def test_where_all_learn_alike_no_rule_gains_and_alone_rollouts_do():
    """The two ends of the map, small."""
    setting = replace(SETTINGS["world"], steps=60)
    cells = [(0.0, 1.0), (1.0, 1.0)]
    base, rows = (regimes.tuned(setting, name, cells, 4) for name in ("grpo", "hora"))
    alone, together = (regimes.gain_over(row, of, "mean@8") for row, of in zip(rows, base,
                                                                               strict=True))
    assert alone[0] - alone[1] > 2 and abs(together[0]) < 2


def test_quick_runs_every_arm_and_what_is_kept_prints_and_draws_again(tmp_path):
    kept, image = tmp_path / "r.json", tmp_path / "r.png"
    out = results("--quick", "--setting=world", f"--json={kept}")
    assert results(f"--read={kept}", f"--figure={image}") == out
    assert os.path.getsize(image) > 5_000
    rows = json.loads(kept.read_text())["settings"]["world"]
    assert [row["arm"] for row in rows[::2]] == list(ARMS)
    heads = out.split("\n\n")[1].splitlines()[0]
    assert [cell.strip() for cell in heads.split("|")[3:-1]] == list(ARMS)
    base = next(row for row in rows if row["arm"] == "grpo")
    assert f"{np.mean(base['mean@8']):.3f} / {np.mean(base['pass@8']):.3f}" in out


def test_a_check_fits_to_grpo_alone(tmp_path, monkeypatch):
    """With other results of the other arms, the pairs and the predictions stay the same."""
    with open("bench/results/chains.json") as file:
        report = json.load(file)
    report["results"] = {arms.split_name(arm)[0]: runs for arm, runs in report["results"].items()}
    report["results"] = {arm: report["results"][arm] for arm in ("grpo", "knapsack")}
    cells = [(0.0, 3.0), (0.1, 3.0), (1.0, 3.0)]
    monkeypatch.setattr(regimes, "RATES", np.array([4.0, 16.0]))
    predicted = []
    for factor in (1.0, 0.5):
        for run in report["results"]["knapsack"].values():
            run.update({m: factor * run[m] for m in regimes.METRICS})
        (tmp_path / "r.json").write_text(json.dumps(report))
        rows = regimes.check(str(tmp_path / "r.json"), 2, cells)
        predicted.append([(row["shared"], row["noise"], row["gain"]) for row in rows])
        assert len(regimes.check_table(rows)) == 2 + 2
    assert predicted[0] == predicted[1]
    assert rows[3]["measured"]["mean@8"][0] < -40
