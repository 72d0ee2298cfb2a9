"""Claims about the classifier and the adversaries, one property a test."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdro import (
    DIFFICULTIES,
    SIGNALS,
    UTILITIES,
    DifficultyClassifier,
    PromptGDRO,
    RolloutGDRO,
    ScoreMemory,
    bin_means,
    prompt_signals,
)

rates = st.lists(st.floats(0, 1), min_size=1, max_size=40)
visit = st.tuples(st.integers(0, 12), st.integers(0, 12))  # right and wrong rollouts
difficulties = st.sampled_from(DIFFICULTIES)


def step_bins(rates, n_bins=10, unseen=()):
    """The bin that each rate belongs to; -1 for the prompts in `unseen`."""
    bins = np.minimum((np.array(rates) * n_bins).astype(int), n_bins - 1)
    bins[list(unseen)] = -1
    return bins


def observe_all(classifier, visits, uid="x"):
    """One step for each visit (right, wrong) of a prompt -> the classifier."""
    for right, wrong in visits:
        classifier.observe([uid], [right], [right + wrong])
    return classifier


# ---------- difficulty classifier ----------

@given(st.lists(visit, min_size=1, max_size=12))
def test_posterior_estimate_is_the_beta_expectation(visits):
    classifier = observe_all(DifficultyClassifier(passk=8, history=100), visits)
    a = 0.5 + sum(right for right, _ in visits)
    b = 0.5 + sum(wrong for _, wrong in visits)
    p = np.random.default_rng(0).beta(a, b, 200_000)
    assert classifier.estimate(["x"])[0] == pytest.approx(1 - np.mean((1 - p) ** 8), abs=6e-3)
    if a + b > 1:  # some rollout was seen
        assert classifier.success_rate(["x"])[0] == pytest.approx(a / (a + b))


def test_any_of_n_estimate_is_the_mean_over_the_last_visits():
    classifier = DifficultyClassifier(difficulty="any", history=4)
    for right in (0, 0, 4, 1, 0, 2):
        classifier.observe(["x"], [right], [4])
    assert classifier.estimate(["x"])[0] == 0.75  # of 4, 1, 0, 2


def test_unseen_prompts_have_no_bin():
    classifier = DifficultyClassifier()
    classifier.observe(["seen"], [4], [4])
    assert classifier.bins(["seen", "new"]).tolist() == [9, -1]
    assert np.isnan(classifier.success_rate(["seen", "new"])).tolist() == [False, True]
    assert DifficultyClassifier(unseen="hardest").bins(["new"]).tolist() == [0]


@given(st.lists(visit, min_size=1, max_size=12), st.integers(1, 5), difficulties)
def test_only_the_last_visits_count(visits, history, difficulty):
    everything = observe_all(DifficultyClassifier(history=history, difficulty=difficulty), visits)
    last = observe_all(DifficultyClassifier(history=50, difficulty=difficulty), visits[-history:])
    assert everything.estimate(["x"])[0] == last.estimate(["x"])[0]
    np.testing.assert_equal(everything.success_rate(["x"]), last.success_rate(["x"]))


@given(visit, visit, st.lists(visit, max_size=3), difficulties)
def test_the_order_of_two_visits_in_one_step_does_not_matter(first, second, before, difficulty):
    bins = []
    for pair in ((first, second), (second, first)):
        classifier = observe_all(DifficultyClassifier(difficulty=difficulty), before)
        right = [right for right, _ in pair]
        classifier.observe(["x", "x"], right, [right + wrong for right, wrong in pair])
        bins.append(classifier.bins(["x"])[0])
    assert bins[0] == bins[1]


@given(st.lists(st.integers(0, 1), min_size=1, max_size=60), st.floats(0, 0.2))
def test_hysteresis_holds_the_bin_until_the_edge_is_passed_by_more(outcomes, delta):
    classifier = DifficultyClassifier(difficulty="any", hysteresis=delta, history=10)
    for right in outcomes:
        before = classifier.bins(["x"])[0]
        classifier.observe(["x"], [right], [1])
        after = classifier.bins(["x"])[0]
        estimate = classifier.estimate(["x"])[0]
        low, high = after / 10, (after + 1) / 10  # the edges of the bin it is in
        assert low - delta - 1e-9 <= estimate <= high + delta + 1e-9
        if before >= 0 and after != before:
            crossed = low if after > before else high
            assert abs(estimate - crossed) >= delta - 1e-9


def test_a_small_excursion_does_not_change_the_bin_and_a_large_one_does():
    classifier = DifficultyClassifier(difficulty="any", hysteresis=0.03, history=100)
    for right in [1] * 49 + [0] * 51:
        classifier.observe(["x"], [right], [1])
    classifier.prompts["x"].bin = 5  # estimate 0.49, edge 0.5
    classifier.observe(["x"], [1], [1])
    assert classifier.bins(["x"])[0] == 5
    for _ in range(3):
        classifier.observe(["x"], [0], [1])
    assert classifier.estimate(["x"])[0] < 0.47 and classifier.bins(["x"])[0] == 4


def test_the_examples_of_docstrings_hold():
    classifier = DifficultyClassifier(n_bins=10, hysteresis=0.03)
    assert [classifier.moved(5, estimate) for estimate in (0.48, 0.46)] == [5, 4]
    counts, price = RolloutGDRO(n_min=1, n_mean=2).water_filling(np.array([0.1, 0.5]))
    assert counts.tolist() == [2, 2] and price == pytest.approx(0.9 * 0.1**0.5)


# ---------- signals ----------

@pytest.mark.parametrize("right, rollouts", [(2.6, 4), (1, 3.5), (float("nan"), 4)])
def test_fractions_of_right_rollouts_are_refused_and_not_cut(right, rollouts):
    classifier = DifficultyClassifier()
    with pytest.raises(ValueError, match="must be whole|NaN"):
        classifier.observe(["x"], [right], [rollouts])
    classifier.observe(["x"], np.array([2.0]), np.array([4.0]))
    assert classifier.prompts["x"].visits[-1] == (2, 4)


def test_signals_point_at_the_hard_prompts():
    signals = prompt_signals(
        [0, 2, 4], [4, 4, 4], np.array([0.1, 0.5, 0.9]), [0.0, 0.0, 0.0], [0.25, 0.5, 1.0]
    )
    assert signals["score"].tolist() == [0.75, 0.5, 0.0]
    assert set(signals) == set(SIGNALS)
    assert signals["error"].tolist() == [1, 0.5, 0]
    assert signals["variance"].tolist() == pytest.approx([0, 1 / 3, 0])  # unbiased
    assert signals["nll"] == pytest.approx(-np.log([0.1, 0.5, 0.9]))
    single = prompt_signals([1, 0], [1, 1], np.array([0.0, 0.5]), [0.0, 0.0], [1.0, 0.0])
    assert np.isnan(single["variance"]).all() and single["nll"][0] == pytest.approx(-np.log(0.01))


def test_the_variance_signal_is_unbiased_whatever_the_allocation():
    rng = np.random.default_rng(0)
    for n in (2, 4, 12):
        correct = rng.binomial(n, 0.3, 100_000)
        rate = np.full(100_000, 0.3)
        signals = prompt_signals(
            correct, np.full(100_000, n), rate, np.zeros(100_000), correct / n
        )
        assert signals["variance"].mean() == pytest.approx(0.21, abs=2e-3)


def test_bin_means_leave_out_unseen_prompts_and_undefined_values():
    mean = bin_means([1.0, 3.0, 100.0, np.nan], [2, 2, -1, 3], 4)
    assert mean[2] == 2 and np.isnan(mean[[0, 1, 3]]).all()


# ---------- Prompt-GDRO ----------

@given(
    st.lists(rates, min_size=1, max_size=5),
    st.floats(0, 5),
    st.floats(0, 1),
    st.floats(1, 20),
    st.booleans(),
    st.booleans(),
)
def test_weights_are_positive_and_capped(signals, eta, gamma, cap, normalize, per_share):
    settings = {"normalize": normalize, "per_share": per_share}
    player = PromptGDRO(eta=eta, gamma=gamma, weight_max=cap, **settings)
    for signal in signals:
        player.update(step_bins(signal), signal)
    w = player.weights(np.arange(-1, 10))
    assert np.all(w > 0) and np.all(w <= cap) and w[0] == 1  # -1 is neutral
    assert player.q().sum() == pytest.approx(1) and player.q().min() >= gamma / 10 - 1e-12


@given(st.lists(st.floats(-2, 2), min_size=10, max_size=10), st.floats(0.01, 3), st.booleans())
def test_weights_rise_with_the_score(signal, eta, normalize):
    player = PromptGDRO(eta=eta, normalize=normalize, weight_max=1e9)
    player.update(np.arange(10), signal)
    order = np.argsort(signal)
    assert np.all(np.diff(player.weights(np.arange(10))[order]) >= 0)


def test_normalized_weights_have_mean_one_and_zero_eta_gives_exactly_one():
    bins = np.array([0, 0, 1, 5, 5, 5, -1])
    player = PromptGDRO(eta=2.0)
    player.update(bins, np.linspace(0, 1, 7))
    assert player.weights(bins)[:-1].mean() == pytest.approx(1)
    flat = PromptGDRO(eta=0.0, gamma=0.0)
    flat.update(bins, np.linspace(0, 1, 7))
    assert flat.weights(bins).tolist() == [1.0] * 7


def test_first_visit_sets_the_score_and_later_ones_move_it():
    player = PromptGDRO(n_bins=3, ema=0.1)
    player.update([0, 0], [0.2, 0.4])
    assert player.score[0] == pytest.approx(0.3) and np.isnan(player.score[1])
    player.update([0, 1], [1.0, 0.5])
    assert player.score[:2] == pytest.approx([0.9 * 0.3 + 0.1, 0.5])


def test_extreme_strength_stays_finite():
    for score in (10.0, -10.0, 1e6):
        player = PromptGDRO(eta=100.0)
        player.update([0, 1], [score, 0.0])
        w = player.weights([0, 1, 5])
        assert np.isfinite(w).all() and np.all(w > 0)


def test_a_bin_without_a_score_counts_like_the_mean_of_the_others():
    player = PromptGDRO(n_bins=3, eta=1.0, gamma=0.0)
    player.update([0, 1], [0.0, 1.0])
    assert player.q()[2] == pytest.approx(np.exp(0.5) / (1 + np.exp(1) + np.exp(0.5)))


def test_per_share_divides_by_the_share_of_the_step():
    player = PromptGDRO(n_bins=3, per_share=True)
    player.update([0] * 8 + [1, -1], [0.4] * 8 + [0.4, 9.0])
    assert player.score[:2] == pytest.approx([0.4 / 0.8, 0.4 / 0.1])
    player.update([0] * 99 + [2], [0.4] * 100)
    assert player.score[2] == pytest.approx(0.4 / 0.02)  # the floor


def test_arms_pay_the_price_of_their_rollouts():
    player = RolloutGDRO(2, n_mean=4, n_min=2, n_max=6, rule="exp3p", ema=0.5)
    player.price = 0.1
    player.update([0], [6], [1.0])
    assert player.loss[0, 4] == pytest.approx(0.5 * (1.0 + 0.1 * 6))
    player.price = 0.0
    player.update([0, 0], [2, 2], [0.0, 0.0])
    assert player.price == 0.0  # never negative


def test_omega_as_printed_is_exp_of_eta_times_the_clipped_score():
    player = PromptGDRO(n_bins=2, eta=0.65, gamma=0.0, normalize=False)
    player.update([0, 1], [1.0, 1000.0])
    assert player.weights([0])[0] == pytest.approx(np.exp(0.65))
    assert player.omega()[1] == pytest.approx(np.exp(6.5)) and player.weights([1])[0] == 15.0


# ---------- Rollout-GDRO ----------

@settings(max_examples=200)
@given(rates, st.sampled_from(["exp3p", "price"]), st.sampled_from(list(UTILITIES)), st.data())
def test_allocation_is_exact_and_within_limits(p, rule, utility, data):
    n_min = data.draw(st.integers(1, 6))
    n_mean = data.draw(st.integers(n_min, 8))
    n_max = data.draw(st.integers(n_mean, 14))
    unseen = data.draw(st.sets(st.integers(0, len(p) - 1)))
    bins = step_bins(p, unseen=unseen)
    player = RolloutGDRO(10, n_mean, n_min, n_max, rule, utility)
    player.loss = np.random.default_rng(len(p)).normal(size=player.loss.shape)
    n = player.allocate(bins, np.where(bins < 0, np.nan, p))
    assert n.sum() == len(p) * n_mean and n.min() >= n_min and n.max() <= n_max
    assert np.all(n[bins < 0] == n_mean)


def test_n_mean_outside_the_limits_is_refused():
    with pytest.raises(ValueError, match="n_min=1 and n_max=24"):
        RolloutGDRO(n_mean=25)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=7), st.integers(0, 2**32 - 1))
def test_dynamic_programme_equals_brute_force(bins, seed):
    player = RolloutGDRO(4, n_mean=3, n_min=1, n_max=5, rule="exp3p")
    player.loss = np.random.default_rng(seed).normal(size=player.loss.shape)
    logp = np.log(player.arm_probabilities())
    present, size = np.unique(bins, return_counts=True)
    choices = itertools.product(range(1, 6), repeat=len(present))
    feasible = [arms for arms in choices if size @ arms == 3 * len(bins)]
    best = max(
        sum(logp[b, n - 1] for b, n in zip(present, arms, strict=True)) for arms in feasible
    )
    counts = player.allocate(bins, np.full(len(bins), 0.5))
    by_bin = {b: counts[np.array(bins) == b] for b in present}
    assert all(len(set(n)) == 1 for n in by_bin.values())  # one arm a bin
    assert sum(logp[b, n[0] - 1] for b, n in by_bin.items()) == pytest.approx(best, abs=1e-6)


# What n rollouts are worth to a prompt of success rate p; a gain is the difference of two.
VALUES = {
    "pass": lambda p, n: 1 - (1 - p) ** n,
    "even": lambda p, n: (1 - (1 - p) ** n) / np.sqrt(p),
}


@given(st.floats(1e-3, 1), st.integers(1, 30), st.sampled_from(list(UTILITIES)))
def test_the_gain_of_every_utility_is_the_difference_of_two_values(p, n, utility):
    gain = VALUES[utility](p, n + 1) - VALUES[utility](p, n)
    assert UTILITIES[utility](p, n) == pytest.approx(gain, abs=1e-12)


@settings(max_examples=60)
@given(st.lists(st.floats(1e-3, 1), min_size=1, max_size=4), st.sampled_from(list(UTILITIES)))
def test_water_filling_equals_brute_force(p, utility):
    value = VALUES[utility]
    p = np.array(p)
    player = RolloutGDRO(n_mean=3, n_min=1, n_max=6, rule="price", utility=utility)
    counts, price = player.water_filling(p)
    choices = itertools.product(range(1, 7), repeat=len(p))
    best = max(sum(value(p, np.array(n))) for n in choices if sum(n) == 3 * len(p))
    assert sum(value(p, counts)) == pytest.approx(best, abs=1e-9)
    last_gains = [player.gain(x, n - 1) for x, n in zip(p, counts, strict=True) if n > 1]
    assert price == pytest.approx(min(last_gains), abs=1e-12)


@pytest.mark.parametrize("utility", UTILITIES)
def test_the_gain_of_every_utility_falls_with_n(utility):
    p = np.linspace(0, 1, 101)[:, None]
    n = np.arange(1, 40)[None]
    gain = UTILITIES[utility](p, n)
    assert np.all(np.diff(gain, axis=1) <= 1e-15) and gain.min() >= 0


def test_unknown_names_are_refused():
    for player, wrong in (
        (RolloutGDRO, {"rule": "x"}),
        (RolloutGDRO, {"utility": "x"}),
        (DifficultyClassifier, {"difficulty": "x"}),
        (DifficultyClassifier, {"unseen": "x"}),
    ):
        with pytest.raises(ValueError, match="='x': choose one of"):
            player(**wrong)


@pytest.mark.parametrize("utility", UTILITIES)
def test_the_hard_bin_gets_more(utility):
    bins = np.array([1] * 8 + [9] * 56)
    n = RolloutGDRO(utility=utility).allocate(bins, np.where(bins == 1, 0.1, 0.95))
    assert n[:8].min() >= 10 and n[8:].mean() < 4


def test_the_even_utility_gives_hopeless_bins_more_than_the_pass_utility():
    bins = np.repeat([0, 4, 9], 8)
    p = np.array([0.01, 0.3, 0.9])[np.repeat([0, 1, 2], 8)]
    even, plain = (RolloutGDRO(utility=u).allocate(bins, p) for u in ("even", "pass"))
    assert even[:8].min() > plain[:8].max() and even.sum() == plain.sum()


# ---------- the memory of scores ----------

def test_earlier_scores_join_the_group_and_the_newest_stay():
    memory = ScoreMemory(3)
    ids, scores = memory.join(["a", "b"], np.array([0, 0, 1]), np.array([1.0, 0.0, 0.5]))
    assert ids.tolist() == [0, 0, 1] and scores.tolist() == [1.0, 0.0, 0.5]  # nothing earlier
    ids, scores = memory.join(["b", "a"], np.array([0, 1, 1]), np.array([0.25, 0.0, 1.0]))
    assert ids.tolist() == [0, 1, 1, 0, 1, 1]
    assert scores.tolist() == [0.25, 0.0, 1.0, 0.5, 1.0, 0.0]
    kept = json.loads(json.dumps(memory.state_dict()))
    assert kept == {"scores": {"a": [0.0, 0.0, 1.0], "b": [0.5, 0.25]}}
    shorter = ScoreMemory(2)
    shorter.load_state_dict(kept)
    _, scores = shorter.join(["a"], np.array([0]), np.array([1.0]))
    assert scores.tolist() == [1.0, 0.0, 1.0]


def test_a_memory_of_nothing_changes_nothing():
    memory = ScoreMemory()
    for _ in range(2):
        ids, scores = memory.join(["a"], np.array([0, 0]), np.array([1.0, 0.0]))
        assert ids.tolist() == [0, 0] and scores.tolist() == [1.0, 0.0]
    assert memory.state_dict() == {"scores": {}}


def test_arm_losses_follow_the_pulled_arm_only_and_lower_its_probability():
    player = RolloutGDRO(3, n_mean=4, n_min=2, n_max=6, rule="exp3p", ema=0.4)
    player.update([0, 0, 2], [4, 4, 4], [1.0, 0.0, 2.0])
    assert player.loss[0].tolist() == [0, 0, 0.2, 0, 0]
    assert player.loss[2, 2] == 0.8 and not player.loss[1].any()
    assert player.arm_probabilities()[0].argmin() == 2
    assert player.price == 0.0  # the budget was met


def test_untried_arms_start_at_the_mean_budget():
    assert RolloutGDRO(rule="exp3p").allocate([0, 3, 9, 9], [0.5] * 4).tolist() == [4] * 4


def test_the_price_follows_a_broken_budget():
    player = RolloutGDRO(rule="exp3p", dual_lr=0.05)
    player.update([0, 0], [6, 6], [0.0, 0.0])
    assert player.price == pytest.approx(0.1)


def through_json(state):
    return json.loads(json.dumps(state, allow_nan=False))


def test_state_survives_json():
    rng = np.random.default_rng(0)
    uids = [f"p{i}" for i in range(30)]
    used = [DifficultyClassifier(), PromptGDRO(), RolloutGDRO(rule="exp3p")]
    fresh = [DifficultyClassifier(), PromptGDRO(), RolloutGDRO(rule="exp3p")]
    for _ in range(5):
        used[0].observe(uids, rng.integers(0, 5, 30), np.full(30, 4))
        bins = used[0].bins(uids)
        used[1].update(bins, rng.random(30))
        used[2].update(bins, np.full(30, 4), rng.random(30))
    for a, b in zip(used, fresh, strict=True):
        b.load_state_dict(through_json(a.state_dict()))
    assert np.array_equal(fresh[0].bins(uids), used[0].bins(uids))
    assert np.array_equal(fresh[1].weights(np.arange(10)), used[1].weights(np.arange(10)))
    assert np.array_equal(fresh[2].arm_probabilities(), used[2].arm_probabilities())
    for classifier in (used[0], fresh[0]):
        classifier.observe(uids, np.zeros(30), np.full(30, 4))
    assert np.array_equal(fresh[0].estimate(uids), used[0].estimate(uids))
    assert fresh[0].state_dict() == used[0].state_dict()


def test_a_fork_with_another_rule_starts_without_a_price():
    filled = RolloutGDRO()
    bandits = RolloutGDRO(rule="exp3p")
    again = RolloutGDRO()
    filled.allocate(np.array([2, 5]), np.array([0.2, 0.5]))
    bandits.load_state_dict(filled.state_dict())
    again.load_state_dict(filled.state_dict())
    assert filled.price > 0 and bandits.price == 0 and again.price == filled.price


def test_a_state_of_other_bins_or_arms_is_refused():
    for player in (DifficultyClassifier, PromptGDRO):
        with pytest.raises(ValueError, match="5 bins does not fit n_bins=10"):
            player(n_bins=10).load_state_dict(player(n_bins=5).state_dict())
    with pytest.raises(ValueError, match="10 x 11 bins and arms does not fit 10 x 24"):
        RolloutGDRO().load_state_dict(RolloutGDRO(n_min=2, n_max=12).state_dict())


def test_prompt_ids_that_are_no_strings_are_refused():
    with pytest.raises(TypeError, match="must be strings.*7 is int"):
        DifficultyClassifier().observe([7], [1], [4])


@given(st.lists(visit, min_size=1, max_size=12), st.integers(1, 5))
def test_a_state_of_a_longer_history_is_cut_to_the_newest_visits(visits, history):
    long = observe_all(DifficultyClassifier(history=12), visits)
    cut = DifficultyClassifier(history=history)
    cut.load_state_dict(through_json(long.state_dict()))
    newest = observe_all(DifficultyClassifier(), visits[-history:])
    assert cut.estimate(["x"])[0] == newest.estimate(["x"])[0]
    assert cut.bins(["x"])[0] == long.bins(["x"])[0]


def test_a_prompt_twice_in_a_step_makes_two_visits():
    twice = DifficultyClassifier(history=3)
    apart = DifficultyClassifier(history=3)
    twice.observe(["x", "y", "x"], [1, 2, 3], [4, 4, 4])
    apart.observe(["x", "y"], [1, 2], [4, 4])
    apart.observe(["x"], [3], [4])
    for classifier in (twice, apart):
        saved = classifier.state_dict()["prompts"]
        assert saved["x"]["visits"] == [[1, 4], [3, 4]] and saved["y"]["visits"] == [[2, 4]]
