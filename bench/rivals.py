"""Rivals of the two adversaries behind the same interfaces.

train.py knows none of them. bench/arms.py puts them in the place of `PromptGDRO`, `RolloutGDRO`,
`sample_step` and `group_advantages`. Rivals that change a few lines of the core are in ablations/.
Each is the idea of its source in the setting of this repository: a fixed budget of rollouts, and
success rates from the difficulty classifier.

Shapes as in gdro.py, and N rollouts of a step.
"""

from collections import deque
from dataclasses import replace

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


class OwnRates(RolloutGDRO):
    """Every prompt's own success rate in the place of its bin's."""

    def rates(self, bins, success_rate):
        return np.asarray(success_rate)


class InverseRate(OwnRates):
    """Rollouts in proportion to 1 / p, so that every prompt has as many right ones: the 1/p law of
    DARS-HW (arXiv 2508.13755) and Reinforce-Ada (arXiv 2510.04996).

    c / p rollouts, with c such that the budget is met, are what comes out when one rollout at a
    time goes to the prompt with the fewest right ones expected, n p."""

    def gain(self, p, n):
        return 1 / (p * n)


class Knapsack(OwnRates):
    """Rollouts where the chance of a mixed group, times p (1-p)^2, gains most: Knapsack RL.

    The source (arXiv 2509.25849) solves a knapsack by each prompt's own success rate. Its value is
    concave in the number of rollouts, so that giving them one by one solves it."""

    def gain(self, p, n):
        return p * (1 - p) ** 2 * (p**n * (1 - p) + (1 - p) ** n * p)


def mopps_step(sample_step):
    """MoPPS (arXiv 2507.04632) as a wrapper of `sample_step`: of twice as many candidates it keeps
    those for which a draw from the posterior of the success rate is nearest 1/2."""

    def sample(number, training, classifier, cfg):
        step = sample_step(number, training, classifier, doubled(cfg))
        rng = np.random.default_rng([cfg.seed, number, 1])
        drawn = rng.beta(*classifier.posterior(step.uids))
        nearest = np.argsort(np.abs(drawn - 0.5), kind="stable")[: cfg.prompts_per_step]
        return kept(step, np.sort(nearest))

    return sample


def greso_step(sample_step):
    """GRESO (arXiv 2506.02177) as a wrapper of `sample_step`: the more visits in a row a prompt's
    rollouts were all right or all wrong, the likelier it is skipped, and the next ones take its
    place. Of twice as many candidates, skipped ones fill up what is missing."""

    def sample(number, training, classifier, cfg):
        step = sample_step(number, training, classifier, doubled(cfg))
        rng = np.random.default_rng([cfg.seed, number, 2])
        dull = np.array([visits_without_signal(classifier, uid) for uid in step.uids])
        skipped = rng.random(len(dull)) > np.maximum(GRESO_BASE**dull, GRESO_LEAST)
        first = np.argsort(skipped, kind="stable")[: cfg.prompts_per_step]
        return kept(step, np.sort(first))

    return sample


GRESO_BASE = 0.5  # chance that a prompt is visited after one visit without signal
GRESO_LEAST = 0.01  # and the least after many


def doubled(cfg):
    return replace(cfg, prompts_per_step=2 * cfg.prompts_per_step)


def kept(step, index):
    """The prompts `index` of a step that has not generated yet."""
    lists = {name: [getattr(step, name)[i] for i in index]
             for name in ("problems", "prompts", "uids")}
    arrays = {name: getattr(step, name)[index]
              for name in ("bins", "success_rate", "counts", "weights")}
    return replace(step, **lists, **arrays)


def visits_without_signal(classifier, uid):
    """How many of a prompt's last visits in a row had only right or only wrong rollouts."""
    visits = classifier.prompts[uid].visits if uid in classifier.prompts else ()
    dull = 0
    for right, rollouts in reversed(visits):
        if 0 < right < rollouts:
            break
        dull += 1
    return dull


def curve_advantages(advantages):
    """CurveRL (arXiv 2605.24331) in the place of `group_advantages`.

    (score - mean) of a rollout group times a weight that is high where success rates are rare from
    below: the share of groups of its success rate among those of the last ten steps, divided by the
    share of groups of at most its success rate. Groups without a right or a wrong rollout count
    nowhere."""
    window = deque(maxlen=10)  # success rates of the mixed groups of each step

    def weighted(prompt_ids, scores, clip):
        prompt_ids = np.asarray(prompt_ids)
        rate = np.bincount(prompt_ids, scores) / np.bincount(prompt_ids)  # [P]
        mixed = rate[(rate > 0) & (rate < 1)]
        # the paper weighs by the steps before this one; the first has only itself
        known = np.sort(np.concatenate(window) if window else mixed)
        window.append(mixed)
        below = np.searchsorted(known, rate - 1e-9)
        up_to = np.searchsorted(known, rate + 1e-9)
        weight = (up_to - below) / np.maximum(up_to, 1)
        return np.clip((weight[prompt_ids] * (scores - rate[prompt_ids])), -clip, clip)

    return weighted


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
        mixed &= np.cumsum(mixed) <= prompts // 2
        counts = mixed[prompt_ids]
        # train.py's loss is a mean over all rollouts. Divided by the share that counts, it becomes
        # the mean over those.
        return np.where(counts, values / max(counts.mean(), 1e-9), 0.0)

    return filtered
