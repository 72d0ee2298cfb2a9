"""Rivals of the two adversaries behind the same interfaces, and advantages of other papers.

train.py knows none of them. bench/arms.py puts them in the place of `PromptGDRO`, `RolloutGDRO` and
`group_advantages`. Each is the idea of its source in the setting of this repository: a fixed budget
of rollouts, and success rates from the difficulty classifier.

Shapes as in gdro.py, and N rollouts of a step.
"""

import numpy as np

from gdro import PromptGDRO, RolloutGDRO


class OneMinusP(PromptGDRO):
    """Weight 1 - p, mean 1: Kimi k1.5's prioritised sampling (arXiv 2501.12599) as a weight.

    A weight in the place of a chance to be drawn: no prompt comes twice in a step."""

    def weights(self, bins, success_rate):
        w = 1 - np.where(np.asarray(bins) >= 0, success_rate, np.nan)
        # `nanmean` warns when there is no number at all, as in a step without a visited prompt.
        if np.isfinite(w).any():
            w = w / np.nanmean(w)
        return np.minimum(np.where(np.isfinite(w), w, 1.0), self.weight_max)


class Pools(PromptGDRO):
    """Three pools of fixed weight, as prime-rl's difficulty pools (arXiv 2505.07291).

    By success rate: easy above 0.9, hard below 0.1, normal between, where the weight is 1."""

    easy = 0.25
    hard = 1.0

    def weights(self, bins, success_rate):
        p = np.where(np.asarray(bins) >= 0, success_rate, 0.5)
        w = np.select([p > 0.9, p < 0.1], [self.easy, self.hard], 1.0)
        return w / w.mean()


class Neyman(RolloutGDRO):
    """Rollouts by the standard deviation of each prompt's own reward: VIP (arXiv 2602.01601).

    The classifier's success rates take the place of VIP's Gaussian process. Use it with
    rollout_utility=variance, whose water filling is the best allocation in whole rollouts."""

    def rates(self, bins, success_rate):
        return np.asarray(success_rate)


class Knapsack(Neyman):
    """Rollouts where the chance of a mixed group, times p (1-p)^2, gains most: Knapsack RL.

    The source (arXiv 2509.25849) solves a knapsack by each prompt's own success rate. Its value is
    concave in the number of rollouts, so that giving them one by one solves it."""

    def gain(self, p, n):
        return p * (1 - p) ** 2 * (p**n * (1 - p) + (1 - p) ** n * p)


def maxrl_advantages(prompt_ids, rewards, clip):
    """(r - mean) / mean with r in {0, 1} -> [N]: MaxRL (arXiv 2602.02710).

    A group without a right rollout gets 0. `clip` is not used; it is there because train.py passes
    it to `group_advantages`."""
    right = (np.asarray(rewards) > 0).astype(float)
    _, group, count = np.unique(prompt_ids, return_inverse=True, return_counts=True)
    mean = (np.bincount(group, right) / count)[group]
    # `where` skips the groups whose mean is 0, which then keep the 0 of `out`.
    return np.divide(right - mean, mean, out=np.zeros_like(right), where=mean > 0)


def dapo_advantages(advantages):
    """DAPO's dynamic sampling (arXiv 2503.14476) as a wrapper of `group_advantages`.

    The step draws twice the prompts that it trains on. The first groups with both outcomes count,
    up to half of the prompts; the others do not, neither in the sum nor in the mean. All rollouts
    are in the budget."""

    def filtered(prompt_ids, rewards, clip):
        values = advantages(prompt_ids, rewards, clip)
        prompts = max(prompt_ids) + 1
        # A group of equal rewards has only zeros: it is not mixed.
        mixed = np.bincount(prompt_ids, np.abs(values), minlength=prompts) > 0
        for part in np.array_split(np.arange(prompts), 2):  # the two updates of a step
            mixed[part] &= np.cumsum(mixed[part]) <= len(part) // 2
        kept = mixed[prompt_ids]
        part_of = (np.asarray(prompt_ids) >= (prompts + 1) // 2).astype(int)
        # train.py's loss is a mean over all rollouts of an update. Divided by the share that is
        # kept, it becomes the mean over the kept ones.
        share = np.bincount(part_of, kept, 2) / np.bincount(part_of, minlength=2)
        return np.where(kept, values / np.maximum(share, 1e-9)[part_of], 0.0)

    return filtered
