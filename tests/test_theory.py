"""Claims of the paper about its two games, and what is wrong with them, measured on the code.

A player of the theory remembers everything. With ema = 1/t the score is a running mean; times a
strength that grows with t, it is the sum of all losses, which is what exponential weights need.
The players of training remember the last few visits (a fixed ema). What that costs is measured too.
"""

import itertools

import numpy as np
import pytest
import torch

from gdro import DifficultyClassifier, PromptGDRO, RolloutGDRO, prompt_signals
from train import Config, group_advantages, grpo_loss

B = 6


# ---------- Prompt-GDRO: regret ----------

def sequences(kind, T, seed=0):
    """Losses [T, B] in [0, 1] that a prompt adversary may meet. It wants the highest loss."""
    rng = np.random.default_rng(seed)
    t = np.arange(T)[:, None]
    if kind == "stochastic":
        return np.clip(np.linspace(0.2, 0.6, B) + 0.3 * rng.standard_normal((T, B)), 0, 1)
    if kind == "drifting":
        return np.clip(0.5 + 0.5 * np.sin(2 * np.pi * (t / T + np.arange(B) / B)), 0, 1)
    return None  # adversarial: the loss depends on the player, see `regret`


def regret(kind, T, eta=None):
    """Best fixed bin's total minus the player's, for exponential weights of strength eta.

    The default strength is the one for which the bound is lowest."""
    eta = eta or np.sqrt(8 * np.log(B) / T)
    player = PromptGDRO(B, gamma=0.0)
    losses = sequences(kind, T)
    gained = 0.0
    total = np.zeros(B)
    for t in range(1, T + 1):
        player.eta = eta * (t - 1)
        q = player.q()
        # Adversarial: the loss is on the bins that the player trusts least.
        adversarial = (q < np.median(q) + 1e-12).astype(float)
        loss = adversarial if losses is None else losses[t - 1]
        gained += q @ loss
        total += loss
        player.ema = 1 / t
        player.update(np.arange(B), loss)
    return total.max() - gained


@pytest.mark.parametrize("kind", ["stochastic", "drifting", "adversarial"])
def test_the_prompt_player_has_no_regret(kind):
    """At most sqrt(T log(B) / 2), the bound of exponential weights for losses in [0, 1]."""
    horizons = np.array([100, 400, 1600])
    regrets = np.array([regret(kind, T) for T in horizons])
    assert (regrets <= np.sqrt(horizons * np.log(B) / 2)).all()
    assert regrets[-1] / horizons[-1] < 0.05  # a round


def test_regret_grows_like_the_square_root_where_the_sequence_is_hard():
    """Fair coins: nobody can do better than sqrt(T), and exponential weights do no worse."""
    horizons = [64, 256, 1024, 4096]

    def coins(T, seed):
        player = PromptGDRO(B, gamma=0.0)
        losses = np.random.default_rng(seed).integers(0, 2, (T, B)).astype(float)
        gained = 0.0
        for t in range(1, T + 1):
            player.eta = np.sqrt(8 * np.log(B) / T) * (t - 1)
            gained += player.q() @ losses[t - 1]
            player.ema = 1 / t
            player.update(np.arange(B), losses[t - 1])
        return losses.sum(0).max() - gained

    regrets = [np.mean([coins(T, seed) for seed in range(8)]) for T in horizons]
    slope = np.polyfit(np.log(horizons), np.log(regrets), 1)[0]
    assert 0.3 < slope < 0.7


def test_the_player_of_training_forgets_and_so_has_regret_but_follows_a_change():
    """Against losses that alternate, the regret of a player with a fixed ema grows with T.

    In exchange it follows a change of the losses within a few steps."""

    def ema_player(losses, **settings):
        player = PromptGDRO(2, gamma=0.01, **settings)
        gained = []
        for loss in losses:
            gained.append(player.q() @ loss)
            player.update(np.arange(2), loss)
        return np.array(gained)

    def regret_of_alternating(T):
        losses = np.array([[t % 2, 1 - t % 2] for t in range(T)], float)
        return losses.sum(0).max() - ema_player(losses, eta=8, ema=0.3).sum()

    short = regret_of_alternating(400)
    long = regret_of_alternating(1600)
    assert long == pytest.approx(4 * short, rel=0.1) and long > 3 * np.sqrt(1600 * np.log(2) / 2)
    change = np.array([[1.0, 0.0]] * 300 + [[0.0, 1.0]] * 60)
    assert ema_player(change, eta=8, ema=0.12)[-40:].mean() > 0.9


# ---------- Prompt-GDRO: the entropic surrogate ----------

def entropic_value(p, loss, eta):
    """Expected loss under p plus its entropy over eta: what an entropic adversary maximises."""
    entropy = -(p * np.log(np.maximum(p, 1e-300))).sum()
    return p @ loss + entropy / eta


def test_the_entropic_surrogate_is_within_log_b_over_eta_of_the_worst_loss_and_q_reaches_it():
    rng = np.random.default_rng(0)
    for eta in (0.1, 0.65, 2.0, 20.0):
        loss = rng.uniform(-1, 1, B)
        player = PromptGDRO(B, eta=eta, gamma=0.0)
        player.update(np.arange(B), loss)
        surrogate = np.log(np.exp(eta * loss).sum()) / eta
        assert entropic_value(player.q(), loss, eta) == pytest.approx(surrogate)
        assert loss.max() <= surrogate <= loss.max() + np.log(B) / eta
        others = rng.dirichlet(np.ones(B), 500)
        assert all(entropic_value(p, loss, eta) <= surrogate + 1e-12 for p in others)


def test_the_root_of_the_success_rate_evens_out_how_much_bins_pull():
    """Weight p^-1/2 on groups whose mean |A| is 2 sqrt(p (1-p)): 2 sqrt(1-p) is left."""
    right, n = np.array([1, 2, 8, 32]), 64
    scores = np.concatenate([np.arange(n) < k for k in right]).astype(float)
    pull = np.abs(group_advantages(np.repeat(np.arange(4), n), scores, 100.0))
    pull = pull.reshape(4, n).mean(axis=1)
    p = right / n
    np.testing.assert_allclose(pull, 2 * np.sqrt(p * (1 - p)), rtol=1e-4)
    player = PromptGDRO(4, eta=0.5, gamma=0.0)
    signals = prompt_signals(right, np.full(4, n), p, np.zeros(4), p)
    player.update(np.arange(4), signals["nll"])
    weights = player.weights(np.arange(4))
    np.testing.assert_allclose(weights * np.sqrt(p), weights[0] * np.sqrt(p[0]))
    np.testing.assert_allclose(weights * pull, weights[0] * pull[0] * np.sqrt((1 - p) / (1 - p[0])),
                               rtol=1e-4)


# ---------- Rollout-GDRO ----------

def best_fixed(v, n_mean, arms):
    """Lowest mean of v_b / n_b over all whole-number allocations that meet the budget.

    By brute force, for bins of equal size."""
    choices = itertools.product(arms, repeat=len(v))
    return min(np.mean(v / np.array(n)) for n in choices if np.mean(n) == n_mean)


class LessVariance(RolloutGDRO):
    """The utility -p(1-p)/n, minus the variance of a rollout group's mean: Eqs 28-31."""

    def gain(self, p, n):
        return p * (1 - p) * (1 / n - 1 / (n + 1))


def test_the_square_root_law_is_the_best_allocation():
    """Against brute force over fractions of a rollout; `price` meets it in whole numbers."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        p = rng.uniform(0.05, 0.5, 3)
        v = p * (1 - p)
        law = 6 * np.sqrt(v) / np.sqrt(v).mean()
        grid = np.arange(0.25, 18, 0.25)
        a, b = np.meshgrid(grid, grid)
        c = 18 - a - b
        noise = np.where(c >= 0.25, v[0] / a + v[1] / b + v[2] / np.maximum(c, 0.25), np.inf)
        assert (v / law).sum() <= noise.min() + 1e-9
        controller = LessVariance(3, n_mean=6, n_min=1, n_max=16)
        n = controller.allocate(np.arange(3), p)
        assert np.mean(v / n) == pytest.approx(best_fixed(v, 6, range(1, 17)))
        assert np.abs(n - law).max() < 1 + 1e-9


def test_the_primal_dual_rollout_player_approaches_the_best_fixed_allocation():
    """Neither the loss nor the budget is off by more than a constant over sqrt(T).

    Entropic mirror descent on the arms and gradient ascent on the price, both of strength
    1/sqrt(T): Eqs 18-21 with the losses of all arms seen."""
    v = np.array([0.02, 0.1, 0.25])
    n_mean = 4

    def play(T):
        player = RolloutGDRO(3, n_mean, 2, 12, rule="exp3p", gamma=0.0, dual_lr=2 / np.sqrt(T))
        player.price_max = 1.0
        player.eta = 10 / np.sqrt(T)
        loss = 0.0
        spent = 0.0
        for _ in range(T):
            chance = player.arm_probabilities()
            loss += (chance * (v[:, None] / player.arms)).sum(1).mean()
            counts = chance @ player.arms
            spent += counts.mean()
            charged = v[:, None] / player.arms + player.price * (player.arms - n_mean)
            player.loss = player.loss + charged
            price = player.price + player.dual_lr * (counts.mean() - n_mean)
            player.price = float(np.clip(price, 0, player.price_max))
        return loss / T - best_fixed(v, n_mean, range(2, 13)), spent / T - n_mean

    for T in (400, 1600, 6400):
        gap, overspent = play(T)
        assert gap <= 1.5 / np.sqrt(T) and overspent <= 12 / np.sqrt(T)


def test_the_arms_of_training_find_the_best_fixed_allocation_when_losses_do_not_move():
    v = np.array([0.02, 0.1, 0.25])
    bins = np.repeat(np.arange(3), 4)
    player = RolloutGDRO(3, 4, 2, 6, rule="exp3p", eta=50.0, gamma=0.0)
    for _ in range(400):
        counts = player.allocate(bins, np.zeros(12))
        player.update(bins, counts, v[bins] / counts)
    assert np.mean(v[bins] / counts) == pytest.approx(best_fixed(v, 4, range(2, 7)))


# ---------- what is wrong with the method ----------

@pytest.mark.parametrize("n", [2, 4, 8, 12])
def test_the_papers_signal_is_zero_on_policy_for_complete_groups_of_any_success_rate(n):
    cfg = Config(kl_coef=0.0)
    for c in range(n + 1):
        rewards = np.array([1.0] * c + [-1.0] * (n - c))
        advantages = torch.tensor(group_advantages(np.zeros(n, int), rewards, 5.0))
        # One token a response, at the policy that sampled it, so that the ratio is 1.
        logp = torch.randn(n, dtype=torch.float64)
        weight = torch.full((n,), 1 / n)
        _, stats = grpo_loss(logp, logp, logp, advantages, torch.ones(n), weight, cfg)
        assert abs(stats["token_loss"].mean().item()) < 1e-12
    hard, easy = prompt_signals([0, n], [n, n], [0.01, 0.99], [0.0, 0.0], [0.0, 1.0])["error"]
    assert hard == 1 and easy == 0  # the signal used instead tells them apart


def test_the_papers_shadow_price_never_moves_under_an_exact_budget():
    rng = np.random.default_rng(0)
    controller = RolloutGDRO(10, 4, rule="exp3p")
    for _ in range(50):
        bins = rng.integers(-1, 10, 64)
        counts = controller.allocate(bins, rng.uniform(0, 1, 64))
        controller.update(bins, counts, rng.uniform(0, 1, 64))
        assert controller.price == 0.0


def test_any_of_n_depends_on_the_allocation_and_the_posterior_does_not():
    """Prompts of success rate 0.1, visited until the same 96 rollouts were seen, n at a time."""
    rng = np.random.default_rng(0)
    uids = [f"{i}" for i in range(1000)]
    estimates = {}
    bins = {}
    for difficulty in ("any", "posterior"):
        for n in (2, 4, 12):
            classifier = DifficultyClassifier(passk=8, history=96 // n, difficulty=difficulty)
            for _ in range(96 // n):
                classifier.observe(uids, rng.binomial(n, 0.1, 1000), [n] * 1000)
            estimates[difficulty, n] = classifier.estimate(uids).mean()
            bins[difficulty, n] = classifier.bins(uids).mean()
    for n, chance in ((2, 0.19), (4, 0.3439), (12, 0.7176)):
        assert estimates["any", n] == pytest.approx(chance, abs=0.02)  # 4 standard errors at n = 12
    assert bins["any", 12] - bins["any", 2] > 4
    assert np.ptp([estimates["posterior", n] for n in (2, 4, 12)]) < 0.01
    assert np.ptp([bins["posterior", n] for n in (2, 4, 12)]) < 0.1
