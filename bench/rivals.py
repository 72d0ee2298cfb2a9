"""Rivals of the two adversaries behind the same interfaces, and advantages of other papers. train.py knows none of them: bench/arms.py puts them in
the place of `PromptGDRO`, `RolloutGDRO` and `group_advantages`.

Each is the idea of its source in the setting of this repository: a fixed budget of rollouts, success rates from the difficulty classifier.
"""
import numpy as np

from gdro import PromptGDRO, RolloutGDRO


class OneMinusP(PromptGDRO):
    """Weight 1 - p, mean 1: Kimi k1.5's prioritised sampling (arXiv 2501.12599) as a weight, so that no prompt is drawn twice."""

    def weights(self, bins, success_rate):
        w = 1 - np.where(np.asarray(bins) >= 0, success_rate, np.nan)
        w = w / np.nanmean(w) if np.isfinite(w).any() else w
        return np.minimum(np.where(np.isfinite(w), w, 1.0), self.weight_max)


class Pools(PromptGDRO):
    """Three pools of fixed weight, by success rate: easy above 0.9, hard below 0.1, normal between, as prime-rl's difficulty pools (arXiv 2505.07291)."""

    easy, hard = 0.25, 1.0

    def weights(self, bins, success_rate):
        p = np.where(np.asarray(bins) >= 0, success_rate, 0.5)
        w = np.select([p > 0.9, p < 0.1], [self.easy, self.hard], 1.0)
        return w / w.mean()


class Neyman(RolloutGDRO):
    """Rollouts by the standard deviation of each prompt's own reward: the allocation of VIP (arXiv 2602.01601), with the classifier's success rates
    in the place of its Gaussian process. Use with rollout_utility=variance, whose water filling is the best allocation in whole rollouts."""

    def rates(self, bins, success_rate):
        return np.asarray(success_rate)


class Knapsack(Neyman):
    """Rollouts to the prompts where the chance of a mixed group times p (1-p)^2 gains most, by each prompt's own success rate: Knapsack RL
    (arXiv 2509.25849), whose value is concave in the number of rollouts, so that greedy solves it."""

    def gain(self, p, n):
        return p * (1 - p) ** 2 * (p**n * (1 - p) + (1 - p) ** n * p)


def maxrl_advantages(prompt_ids, rewards, clip):
    """(r - mean) / mean with r in {0, 1}; 0 for a group without a right rollout: MaxRL (arXiv 2602.02710). -> [N]"""
    right = (np.asarray(rewards) > 0).astype(float)
    _, group, count = np.unique(prompt_ids, return_inverse=True, return_counts=True)
    mean = (np.bincount(group, right) / count)[group]
    return np.divide(right - mean, mean, out=np.zeros_like(right), where=mean > 0)


def dapo_advantages(advantages):
    """DAPO's dynamic sampling (arXiv 2503.14476) as a wrapper of `group_advantages`: the step draws twice the prompts that it trains on; the first half as
    many groups with both outcomes count, the others do not, neither in the sum nor in the mean. All rollouts are in the budget."""
    def filtered(prompt_ids, rewards, clip):
        values, prompts = advantages(prompt_ids, rewards, clip), max(prompt_ids) + 1
        mixed = np.bincount(prompt_ids, np.abs(values), minlength=prompts) > 0
        for part in np.array_split(np.arange(prompts), 2):  # the two updates of a step
            mixed[part] &= np.cumsum(mixed[part]) <= len(part) // 2
        kept, part_of = mixed[prompt_ids], (np.asarray(prompt_ids) >= (prompts + 1) // 2).astype(int)
        share = np.bincount(part_of, kept, 2) / np.bincount(part_of, minlength=2)
        return np.where(kept, values / np.maximum(share, 1e-9)[part_of], 0.0)
    return filtered
