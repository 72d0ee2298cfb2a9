"""Rivals of the two adversaries behind the same interfaces, and DAPO's filter.

train.py knows none of them. bench/arms.py puts them in the place of `PromptGDRO`, `RolloutGDRO` and
`group_advantages`. Rivals that change a few lines of the core are in ablations/. Each is the idea
of its source in the setting of this repository: a fixed budget of rollouts, and success rates from
the difficulty classifier.

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


def dapo_advantages(advantages):
    """DAPO's dynamic sampling (arXiv 2503.14476) as a wrapper of `group_advantages`.

    The step draws twice the prompts that it trains on. The first groups with both outcomes count,
    up to half of the prompts; the others do not, neither in the sum nor in the mean. All rollouts
    are in the budget."""

    def filtered(prompt_ids, scores, clip):
        values = advantages(prompt_ids, scores, clip)
        prompts = max(prompt_ids) + 1
        # A group of equal scores has only zeros: it is not mixed.
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
