"""The two adversaries of arXiv 2601.19280 and the difficulty classifier they share. numpy only, no torch, no communication:
every rank holds the same copy and feeds it the same numbers.

A *rollout group* is the rollouts of one prompt; a *bin* is a difficulty level, 0 the hardest. -1 marks a prompt never visited:
it gets the neutral weight and the mean number of rollouts, and teaches the adversaries nothing until it has a bin (`unseen="hardest"`
puts it into bin 0 instead).

Legend for shapes: P prompts of a step, B bins, K arms (one for each rollout count n_min..n_max).
"""
import itertools

import numpy as np

DIFFICULTIES = ("posterior", "any")
SIGNALS = ("error", "variance", "nll", "surrogate")
RULES = ("price", "exp3p")
UNSEEN = ("neutral", "hardest")
UTILITIES = {  # what rollout n + 1 adds for a prompt of success rate p; each falls with n, so that greedy is optimal
    "pass": lambda p, n: p * (1 - p) ** n,  # to 1 - (1-p)^n, the chance of a right rollout
    "mixed": lambda p, n: p**n * (1 - p) + (1 - p) ** n * p,  # to 1 - p^n - (1-p)^n, the chance that the group has both outcomes
    "variance": lambda p, n: p * (1 - p) * (1 / n - 1 / (n + 1)),  # to -p(1-p)/n: gives the square-root law (Eqs 28-31)
}


def known(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(choices)}")
    return value


def check_bins(saved, n_bins):
    if saved != n_bins:
        raise ValueError(f"a saved state of {saved} bins does not fit n_bins={n_bins}: use the n_bins it was saved with")


def bin_means(values, bins, n_bins):
    """Mean of `values` [P] in each bin -> [B]; NaN for a bin without a (finite) value. Prompts in bin -1 count nowhere."""
    values, bins = np.asarray(values, float), np.asarray(bins)
    use = (bins >= 0) & np.isfinite(values)
    total = np.bincount(bins[use], weights=values[use], minlength=n_bins)
    count = np.bincount(bins[use], minlength=n_bins)
    return np.divide(total, count, out=np.full(n_bins, np.nan), where=count > 0)


def prompt_signals(n_correct, n_rollouts, success_rate, surrogate):
    """Per-prompt signals an adversary may react to -> dict of [P] arrays, one for each of `SIGNALS`. All are high where it hurts.

    `surrogate` is the paper's prompt loss (Eqs 6-7). On the policy that sampled it, it is 0 for every complete rollout group,
    because advantages sum to 0; the other three stay informative. `success_rate` is the classifier's, which remembers."""
    n = np.asarray(n_rollouts, float)
    p = np.asarray(n_correct) / n
    unbiased = np.divide(n, n - 1, out=np.full_like(n, np.nan), where=n > 1)  # one rollout says nothing about variance
    return {"error": 1 - p, "variance": p * (1 - p) * unbiased, "nll": -np.log(np.maximum(success_rate, 0.01)),
            "surrogate": np.asarray(surrogate, float)}


class DifficultyClassifier:
    """Online difficulty bins from the outcomes of a prompt's last `history` visits (Eqs 10-11).

    `any`: mean over visits of "some rollout was right", the paper's estimate; it depends on how many rollouts a visit had.
    `posterior`: expected pass@k, 1 - E[(1-p)^k], under the Beta posterior of the success rate p, from a Jeffreys prior; it does not.
    A prompt changes bin only when its estimate is beyond an edge by more than `hysteresis`."""

    prior = 0.5  # pseudo-counts of right and of wrong rollouts: Jeffreys

    def __init__(self, n_bins=10, passk=8, history=8, hysteresis=0.03, difficulty="posterior", unseen="neutral"):
        self.edges = np.arange(1, n_bins) / n_bins
        self.passk, self.history, self.hysteresis, self.difficulty = passk, history, hysteresis, known("difficulty", difficulty, DIFFICULTIES)
        self.unseen = {"neutral": -1, "hardest": 0}[known("unseen", unseen, UNSEEN)]
        self.row = {}  # uid -> its row in the three arrays; row 0 stands for every prompt never visited
        self.bin, self.seen = np.array([self.unseen]), np.zeros(1, int)  # current bin, visits so far
        self.visits = np.zeros((1, history, 2), np.int32)  # (right rollouts, rollouts) of the last visits, visit v in column v % history

    def rows(self, uids):
        return np.fromiter(map(self.row.get, uids, itertools.repeat(0)), int, len(uids))

    def add(self, uids):
        """Rows for prompts not known yet, without a visit and without a bin."""
        new = [uid for uid in dict.fromkeys(uids) if uid not in self.row]
        if odd := [uid for uid in new if not isinstance(uid, str)]:
            raise TypeError(f"prompt ids must be strings, so that a state survives JSON; {odd[0]!r} is {type(odd[0]).__name__}")
        self.row.update(zip(new, itertools.count(len(self.row) + 1)))
        self.bin, self.seen = np.append(self.bin, np.full(len(new), -1)), np.append(self.seen, np.zeros(len(new), int))
        self.visits = np.append(self.visits, np.zeros((len(new), *self.visits.shape[1:]), np.int32), axis=0)

    def bins(self, uids):
        """Current bin of each prompt -> int array [P]; -1 for a prompt never visited (0 if they count as the hardest)."""
        return self.bin[self.rows(uids)]

    def counts(self, uids):
        """Remembered right and wrong rollouts of each prompt -> two float arrays [P]."""
        right, n = np.einsum("pvc->cp", self.visits[self.rows(uids)]).astype(float)
        return right, n - right

    def success_rate(self, uids):
        """Posterior mean of each prompt's success rate -> float array [P]; NaN for a prompt never visited."""
        right, wrong = self.counts(uids)
        mean = (right + self.prior) / (right + wrong + 2 * self.prior)
        return np.where(right + wrong > 0, mean, np.nan)

    def estimate(self, uids):
        """Estimated pass@k of visited prompts (Eq 10, or the posterior's) -> float array [P] in [0, 1]."""
        if self.difficulty == "any":
            rows = self.rows(uids)
            return (self.visits[rows, :, 0] > 0).sum(axis=1) / np.minimum(self.seen[rows], self.history)
        right, wrong = self.counts(uids)
        i = np.arange(self.passk)
        a, b = right[:, None] + self.prior, wrong[:, None] + self.prior
        return 1 - np.prod((b + i) / (a + b + i), axis=1)  # E[(1-p)^k] of Beta(a, b)

    def observe(self, uids, n_correct, n_rollouts):
        """Record one visit of each prompt and move its bin (Eq 11). The arrays are [P]."""
        self.add(uids)
        rows, outcome, left = self.rows(uids), np.stack([n_correct, n_rollouts], axis=1), np.arange(len(uids))
        while len(left):  # once, and again for a prompt that is in the step twice, across the end of an epoch
            row, first = np.unique(rows[left], return_index=True)
            self.visits[row, self.seen[row] % self.history] = outcome[left[first]]
            self.seen[row] += 1
            left = np.delete(left, first)
        estimate, current = self.estimate(uids), self.bin[rows]
        first = np.searchsorted(self.edges, estimate, side="right")  # an estimate on an edge belongs to the easier bin
        lowest = np.searchsorted(self.edges, estimate - self.hysteresis, side="left")
        highest = np.searchsorted(self.edges, estimate + self.hysteresis, side="right")
        self.bin[rows] = np.where(current < 0, first, np.clip(current, lowest, highest))  # stays while estimate +- hysteresis touches its bin

    def state_dict(self):
        remembered = {uid: range(max(self.seen[row] - self.history, 0), self.seen[row]) for uid, row in self.row.items()}
        return {"visits": {uid: [self.visits[self.row[uid], v % self.history].tolist() for v in visits] for uid, visits in remembered.items()},
                "bin": {uid: int(self.bin[row]) for uid, row in self.row.items()}, "n_bins": len(self.edges) + 1}

    def load_state_dict(self, state):
        check_bins(state["n_bins"], len(self.edges) + 1)
        self.row, self.bin, self.seen, self.visits = {}, self.bin[:1], self.seen[:1], self.visits[:1]
        self.add(state["visits"])
        for uid, visits in state["visits"].items():
            row = self.row[uid]
            visits = visits[-self.history :]
            self.visits[row, : len(visits)], self.seen[row], self.bin[row] = visits, len(visits), state["bin"][uid]


class PromptGDRO:
    """Reweights prompts by the difficulty of their bin (Eqs 12-16), an exponential-weights player.

    With `normalize` the weights have mean 1 over the step before the cap; without, they are Eq 16 as printed, omega itself.
    With `per_share` a bin's mean signal is divided by the bin's share of the step, so that rare bins can compete."""

    def __init__(self, n_bins=10, eta=3.0, gamma=0.01, ema=0.4, weight_max=15.0, normalize=True, per_share=False):
        self.n_bins, self.eta, self.gamma, self.ema, self.weight_max = n_bins, eta, gamma, ema, weight_max
        self.normalize, self.per_share = normalize, per_share
        self.score = np.full(n_bins, np.nan)  # S(b); NaN until the bin is first visited

    clip, share_floor = 10.0, 0.02  # C of Eq 14; the smallest share that divides

    def omega(self):
        """Unnormalised weights exp(eta * S) of the bins (Eq 14) -> [B]."""
        return np.exp(self.exponent())

    def exponent(self):
        """eta * clip(S, -C, C) -> [B]; a bin without a score counts like the mean of the others."""
        scored = np.isfinite(self.score)
        neutral = self.score[scored].mean() if scored.any() else 0.0
        return self.eta * np.clip(np.where(scored, self.score, neutral), -self.clip, self.clip)

    def q(self):
        """The adversary's distribution over bins (Eq 15) -> [B], sums to 1, nowhere below gamma / B."""
        exponent = self.exponent()
        omega = np.exp(exponent - exponent.max())  # the same ratios, without overflow
        return (1 - self.gamma) * omega / omega.sum() + self.gamma / self.n_bins

    def weights(self, bins, success_rate=None):
        """What multiplies the advantages of each prompt (Eq 16) -> float array [P], positive, at most `weight_max` (at least 1). It looks at
        the bins alone; `success_rate` [P] is for other players behind the same interface (bench/rivals.py)."""
        bins, weights = np.asarray(bins), np.ones(len(bins))
        seen = bins >= 0
        if seen.any():
            w = (self.q() if self.normalize else self.omega())[bins[seen]]
            if self.normalize:
                w = w / w.max()  # so that equal weights are 1 to the bit
                w = w / w.mean()
            weights[seen] = np.minimum(w, self.weight_max)
        return weights

    def update(self, bins, signal):
        """Score every visited bin by the mean of its prompts' `signal` [P] (Eqs 12-13)."""
        bins = np.asarray(bins)
        mean = bin_means(signal, bins, self.n_bins)
        if self.per_share:
            share = np.bincount(bins[bins >= 0], minlength=self.n_bins) / len(bins)
            mean = mean / np.maximum(share, self.share_floor)
        moved = np.where(np.isnan(self.score), mean, (1 - self.ema) * self.score + self.ema * mean)
        self.score = np.where(np.isfinite(mean), moved, self.score)

    def state_dict(self):
        return {"score": [s if np.isfinite(s) else None for s in self.score.tolist()]}

    def load_state_dict(self, state):
        check_bins(len(state["score"]), self.n_bins)
        self.score = np.array(state["score"], float)


class RolloutGDRO:
    """Moves rollouts between bins under a fixed budget of P * `n_mean` a step (Eqs 17-21). Every allocation is exact.

    `exp3p`: a bandit a bin over the counts n_min..n_max, and a dynamic programme that picks the likeliest joint choice of arms
    that meets the budget; arm losses come from `update`. `price`: every bin has a concave utility of its rollouts, known from its
    success rate; rollouts go one at a time to the prompt that gains most, and the last gain is the shadow price."""

    def __init__(self, n_bins=10, n_mean=4, n_min=1, n_max=24, rule="price", utility="pass", eta=0.65, gamma=0.01, ema=0.4, dual_lr=0.05):
        if not n_min <= n_mean <= n_max:
            raise ValueError(f"n_rollouts={n_mean} must lie between n_min={n_min} and n_max={n_max}: change one of the three")
        self.n_bins, self.n_mean, self.n_min, self.n_max = n_bins, n_mean, n_min, n_max
        self.rule, self.utility = known("rule", rule, RULES), known("utility", utility, UTILITIES)
        self.eta, self.gamma, self.ema, self.dual_lr = eta, gamma, ema, dual_lr
        self.arms = np.arange(n_min, n_max + 1)
        self.loss = np.zeros((n_bins, len(self.arms)))  # EMA of each arm's loss; 0 until pulled
        self.price = 0.0  # mu

    price_max = 10.0

    def allocate(self, bins, success_rate):
        """Rollouts of each prompt -> int array [P] within n_min..n_max that sums to P * n_mean exactly.
        `bins` and `success_rate` are [P]; prompts never visited (-1) get n_mean, the others share what their number entitles them to."""
        bins = np.asarray(bins)
        counts, seen = np.full(len(bins), self.n_mean), bins >= 0
        if seen.any():
            if self.rule == "exp3p":
                counts[seen] = self.dynamic_programme(bins[seen])
            else:
                counts[seen], self.price = self.water_filling(self.rates(bins, success_rate)[seen])
        assert counts.sum() == len(bins) * self.n_mean
        return counts

    def rates(self, bins, success_rate):
        """The success rate that counts for each prompt: the mean of its bin -> float array [P]."""
        return bin_means(success_rate, bins, self.n_bins)[bins]

    def gain(self, p, n):
        """What rollout n + 1 adds at success rate p."""
        return UTILITIES[self.utility](p, n)

    def arm_probabilities(self):
        """EXP3P's arm probabilities of every bin (Eq 19) -> [B, K]; rows sum to 1, nowhere below gamma / K."""
        w = np.exp(-self.eta * (self.loss - self.loss.min(axis=1, keepdims=True)))
        return (1 - self.gamma) * w / w.sum(axis=1, keepdims=True) + self.gamma / len(self.arms)

    def dynamic_programme(self, bins):
        """Likeliest joint choice of one arm a bin whose rollouts sum to len(bins) * n_mean -> int array [P]. Exact: best[s] is the
        highest log-probability of any choice so far that spends s beyond n_min. Equals go to the arm nearer n_mean."""
        present, size = np.unique(bins, return_counts=True)
        score = np.log(self.arm_probabilities()[present]) - 1e-9 * (self.arms - self.n_mean) ** 2  # [b, K]
        budget = len(bins) * (self.n_mean - self.n_min)  # what is left when everybody has n_min
        best, choice = np.full(budget + 1, -np.inf), np.zeros((len(present), budget + 1), np.int16)
        best[0] = 0.0
        for b in range(len(present)):
            spent = np.full((len(self.arms), budget + 1), -np.inf)
            for k, arm in enumerate(self.arms):  # the best without this arm's cost, plus its score
                cost = int(size[b] * (arm - self.n_min))
                if cost <= budget:
                    spent[k, cost:] = best[: budget + 1 - cost] + score[b, k]
            choice[b], best = spent.argmax(axis=0), spent.max(axis=0)
        picked = np.zeros(self.n_bins, int)
        for b in reversed(range(len(present))):
            picked[present[b]] = self.arms[choice[b, budget]]
            budget -= size[b] * (picked[present[b]] - self.n_min)
        return picked[bins]

    def water_filling(self, p):
        """n_min for everybody, then one rollout at a time where it adds most, for success rates p [P] -> int array [P], shadow price.
        Gains fall along a column, so the budget's highest entries of the whole table are what the greedy loop would take."""
        n, left = np.full(len(p), self.n_min), len(p) * (self.n_mean - self.n_min)
        if not left:
            return n, 0.0
        steps = np.arange(self.n_min, self.n_max)
        gain = self.gain(p, steps[:, None])  # [n_max - n_min, P]
        order = np.argsort(-gain.ravel(), kind="stable")[:left]  # equal gains: round robin
        return n + np.bincount(order % len(p), minlength=len(p)), float(gain.ravel()[order[-1]])

    def update(self, bins, counts, loss):
        """Charge each pulled arm its bin's mean of `loss` [P] plus the price of its rollouts (Eq 20); move the price (Eq 21).
        Budgets are met exactly here, so Eq 21 never moves the price: it is kept because the paper has it. Only `exp3p` learns;
        what `price` knows, it knows from the success rates."""
        bins, counts = np.asarray(bins), np.asarray(counts)
        if self.rule != "exp3p":
            return
        mean = bin_means(loss, bins, self.n_bins)
        for b in np.flatnonzero(np.isfinite(mean)):
            arm = counts[bins == b][0] - self.n_min  # the same for all prompts of a bin
            self.loss[b, arm] += self.ema * (mean[b] + self.price * self.arms[arm] - self.loss[b, arm])
        self.price = float(np.clip(self.price + self.dual_lr * (counts.mean() - self.n_mean), 0, self.price_max))

    def state_dict(self):
        return {"loss": self.loss.tolist(), "price": self.price, "rule": self.rule}

    def load_state_dict(self, state):
        loss = np.array(state["loss"], float)
        if loss.shape != self.loss.shape:
            raise ValueError(f"a saved state of {' x '.join(map(str, loss.shape))} bins and arms does not fit {' x '.join(map(str, self.loss.shape))}: use the n_bins, n_min and n_max it was saved with")
        self.loss = loss
        self.price = float(state["price"]) if state.get("rule", self.rule) == self.rule else 0.0  # a gain is no mu, when a fork changes the rule; older states name none
