"""The two adversaries of arXiv 2601.19280 and the difficulty classifier that they share.
numpy only, no torch, no communication: every rank holds the same copy and feeds it the same data.

A *rollout* is one sampled response to a prompt; a *rollout group* is the rollouts of one prompt in
a step. A *bin* is a difficulty level, and bin 0 is the hardest. A prompt that was never visited has
bin -1: it gets the neutral weight and the mean number of rollouts, and the adversaries learn
nothing from it until it has a bin. (`unseen="hardest"` puts it into bin 0 instead.)

Legend for shapes: P prompts of a step, B bins, K arms (one for each rollout count n_min..n_max).
"""
import math
from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass

import numpy as np


# A utility is the value of n rollouts for a prompt of success rate p. These are its gains: what
# rollout n + 1 adds. Each falls as n grows, and only because of that is `water_filling` optimal.
def pass_gain(p, n):
    """Adds up to 1 - (1-p)^n, the chance of at least one right rollout.
    Prior art: HORA (arXiv 2605.07114) gives rollouts by the posterior probability that one more
    finds a right answer. This is the same idea with point estimates of p, pooled by bin."""
    return p * (1 - p) ** n


def even_gain(p, n):
    """`pass_gain` times p^(-1/2), the weight that evens out how hard prompts of all bins pull
    (docs/method.md): what hard prompts find first is worth more."""
    return np.sqrt(p) * (1 - p) ** n


DIFFICULTIES = ("posterior", "any")
SIGNALS = ("error", "score", "variance", "nll", "surrogate")
RULES = ("price", "exp3p")
UNSEEN = ("neutral", "hardest")
UTILITIES = {"even": even_gain, "pass": pass_gain}


def one_of(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(choices)}")


def check_bins(saved, n_bins):
    if saved != n_bins:
        raise ValueError(f"a saved state of {saved} bins does not fit n_bins={n_bins}: "
                         "use the n_bins it was saved with")


def bin_means(values, bins, n_bins):
    """Mean of the finite `values` [P] in each bin -> [B]; NaN where none is. Bin -1 is left out."""
    values = np.asarray(values, float)
    bins = np.asarray(bins)
    use = (bins >= 0) & np.isfinite(values)
    total = np.bincount(bins[use], weights=values[use], minlength=n_bins)
    count = np.bincount(bins[use], minlength=n_bins)
    # `where` skips the division for empty bins, which then keep the NaN of `out`.
    return np.divide(total, count, out=np.full(n_bins, np.nan), where=count > 0)


def prompt_signals(n_correct, n_rollouts, success_rate, surrogate, score):
    """What an adversary may react to, per prompt -> dict of [P] arrays, one for each of `SIGNALS`.
    All are high for prompts that the policy fails. `score` is the mean score of the rollouts, which
    may be partly right; `success_rate` the classifier's, over several visits. `surrogate` is the
    paper's loss (Eqs 6-7): on the policy that sampled it, it is 0 for every complete rollout group,
    because advantages sum to 0; the others stay informative."""
    n = np.asarray(n_rollouts, float)
    p = np.asarray(n_correct) / n
    # p * (1 - p) is too small by a factor (n - 1) / n on average. One rollout says nothing about
    # variance: its NaN is left out by `bin_means`.
    unbiased = np.divide(n, n - 1, out=np.full_like(n, np.nan), where=n > 1)
    # The floor keeps one hopeless prompt from outweighing all others of its bin.
    nll = -np.log(np.maximum(success_rate, 0.01))
    return {"error": 1 - p, "score": 1 - np.asarray(score, float),
            "variance": p * (1 - p) * unbiased, "nll": nll,
            "surrogate": np.asarray(surrogate, float)}


@dataclass
class Prompt:
    """What is remembered of one prompt: its last visits and its bin."""
    visits: deque  # (right rollouts, rollouts) of each visit, the newest last
    bin: int = -1

    def totals(self):
        """(right rollouts, rollouts) of all visits that count."""
        right = 0
        rollouts = 0
        for of_visit, n in self.visits:
            right += of_visit
            rollouts += n
        return right, rollouts


@dataclass
class DifficultyClassifier:
    """Online difficulty bins from the outcomes of a prompt's last visits (Eqs 10-11).
    The bin follows one of two estimates. `any` is the paper's: the share of visits in which some
    rollout was right. It rises with the rollouts of a visit, which Rollout-GDRO changes.
    `posterior` does not: it is the expected pass@k, 1 - E[(1-p)^k], where p is the success rate
    under its Beta posterior from a Jeffreys prior."""
    n_bins: int = 10
    passk: int = 8  # k of pass@k
    history: int = 8  # visits of a prompt that count
    hysteresis: float = 0.03  # a prompt leaves its bin only beyond the edge by more than this
    difficulty: str = "posterior"
    unseen: str = "neutral"
    # Without a type it is a constant of the class, and no argument of the constructor.
    prior = 0.5  # pseudo-counts of right and of wrong rollouts: Jeffreys

    def __post_init__(self):
        one_of("difficulty", self.difficulty, DIFFICULTIES)
        one_of("unseen", self.unseen, UNSEEN)
        self.edges = [i / self.n_bins for i in range(1, self.n_bins)]
        self.prompts = {}  # uid -> Prompt, for every prompt visited at least once
        # It answers for all prompts never visited, so that no question below needs a special case.
        self.stranger = Prompt(deque(), bin=-1 if self.unseen == "neutral" else 0)

    def bins(self, uids):
        """Current bin of each prompt -> int array [P]; `unseen` decides for those never visited."""
        return np.array([self.prompts.get(uid, self.stranger).bin for uid in uids], int)

    def success_rate(self, uids):
        """Posterior mean of each prompt's success rate -> [P]; NaN for a prompt never visited."""
        a, b = self.posterior(uids)
        # Without a rollout, the mean is the prior's: 0.5, which nobody has measured.
        return np.where(a + b > 2 * self.prior, a / (a + b), math.nan)

    def estimate(self, uids):
        """Estimated pass@k of visited prompts (Eq 10, or the posterior's) -> [P] in [0, 1]."""
        return np.array([self.pass_at_k(self.prompts.get(uid, self.stranger)) for uid in uids])

    def posterior(self, uids):
        """(a, b) of each prompt's Beta posterior: right and wrong rollouts of the visits that
        count, and the prior's -> [P], [P]."""
        totals = [self.prompts.get(uid, self.stranger).totals() for uid in uids]
        right, rollouts = np.array(totals).reshape(-1, 2).T
        return right + self.prior, rollouts - right + self.prior

    def pass_at_k(self, prompt):
        if self.difficulty == "any":
            solved = sum(right > 0 for right, _ in prompt.visits)
            return solved / len(prompt.visits) if prompt.visits else math.nan
        right, rollouts = prompt.totals()
        a = right + self.prior
        b = rollouts - right + self.prior
        # E[(1-p)^k] of Beta(a, b) is the chance that k more rollouts are all wrong. Rollout i + 1
        # is wrong with chance (b + i) / (a + b + i), because the i wrong ones before it count in b.
        total = a + b
        all_wrong = 1.0
        for i in range(self.passk):
            all_wrong *= (b + i) / (total + i)
        return 1 - all_wrong

    def observe(self, uids, n_correct, n_rollouts):
        """Record one visit of each prompt and move its bin (Eq 11). The arrays are [P]."""
        for uid, right, n in zip(uids, n_correct, n_rollouts, strict=True):
            if not isinstance(uid, str):
                raise TypeError("prompt ids must be strings, so that a state survives JSON; "
                                f"{uid!r} is {type(uid).__name__}")
            if uid not in self.prompts:
                self.prompts[uid] = Prompt(deque(maxlen=self.history))
            if right != int(right) or n != int(n):
                raise ValueError(f"{uid!r}: {right} right of {n}: counts must be whole numbers")
            self.prompts[uid].visits.append((int(right), int(n)))
        # A step that runs on into the next epoch may hold a prompt twice. Its bin must follow the
        # estimate from both visits, so bins move only after all visits are recorded.
        for uid in uids:
            prompt = self.prompts[uid]
            prompt.bin = self.moved(prompt.bin, self.pass_at_k(prompt))

    def moved(self, current, estimate):
        """The bin after a new estimate, for a prompt in bin `current` (-1: in none yet).
        Example with 10 bins and a hysteresis of 0.03: bin 5 goes from 0.5 to 0.6. A prompt in it
        stays at an estimate of 0.48 and moves to bin 4 at 0.46."""
        if current < 0:
            return bisect_right(self.edges, estimate)  # an edge belongs to the easier of its bins
        # A prompt stays in any bin that the range estimate +- hysteresis touches. Without it, a
        # prompt whose estimate is near an edge would change its bin at almost every visit.
        lowest = bisect_left(self.edges, estimate - self.hysteresis)
        highest = bisect_right(self.edges, estimate + self.hysteresis)
        return min(max(current, lowest), highest)

    def state_dict(self):
        prompts = {uid: {"bin": prompt.bin, "visits": [list(visit) for visit in prompt.visits]}
                   for uid, prompt in self.prompts.items()}
        return {"n_bins": self.n_bins, "prompts": prompts}

    def load_state_dict(self, state):
        check_bins(state["n_bins"], self.n_bins)
        # `deque` keeps the newest visits where the history is shorter than the saved one
        self.prompts = {uid: Prompt(deque(map(tuple, saved["visits"]), self.history), saved["bin"])
                        for uid, saved in state["prompts"].items()}


@dataclass
class ScoreMemory:
    """The last scores of every prompt, which join its next rollout group where advantages are made.
    A group of one, or of equals, has no advantage by itself; beside earlier scores it has. So a
    solved prompt needs one rollout, and a failure there is not lost. SPO (arXiv 2509.13232) has
    such a memory in the place of rollout groups."""
    keep: int = 0  # scores of a prompt; 0: none, as in GRPO

    def __post_init__(self):
        self.scores = {}  # uid -> its last scores, the newest last

    def join(self, uids, prompt_ids, scores):
        """Prompt ids and scores of a step [N], followed by the earlier scores of its prompts
        -> [N + M], [N + M]. Those of the step are then remembered too. `uids` is [P]."""
        earlier = [list(self.scores.get(uid, ())) for uid in uids]
        for i, score in zip(prompt_ids, scores, strict=True):
            self.scores.setdefault(uids[i], deque(maxlen=self.keep)).append(float(score))
        earlier_ids = np.repeat(np.arange(len(uids)), [len(of_prompt) for of_prompt in earlier])
        return np.append(prompt_ids, earlier_ids), np.append(scores, np.concatenate(earlier))

    def state_dict(self):
        return {"scores": {uid: list(scores) for uid, scores in self.scores.items() if scores}}

    def load_state_dict(self, state):
        self.scores = {uid: deque(scores, self.keep) for uid, scores in state["scores"].items()}


@dataclass
class PromptGDRO:
    """Reweights prompts by the difficulty of their bin (Eqs 12-16), by exponential weights."""
    n_bins: int = 10
    eta: float = 0.5  # how sharply weights follow scores
    gamma: float = 0.01  # share of the uniform distribution in q
    ema: float = 0.4  # how fast a bin's score follows its signal
    weight_max: float = 15.0  # cap of a weight, at least 1
    normalize: bool = True  # weights have mean 1 before the cap; False: omega, Eq 16 as printed
    per_share: bool = False  # divide a bin's signal by its share of the step: rare bins can compete
    # These two are constants. Both keep a single bin from taking all the weight.
    clip = 10.0  # C of Eq 14
    share_floor = 0.02  # the smallest share that divides

    def __post_init__(self):
        self.score = np.full(self.n_bins, np.nan)  # S(b); NaN until the bin is first visited

    # q is an adversary's mixed strategy: the more it gains in a bin, the likelier it plays it.
    def exponent(self):
        """eta * clip(S, -C, C) -> [B]; a bin without a score counts like the mean of the others."""
        scored = np.isfinite(self.score)
        neutral = self.score[scored].mean() if scored.any() else 0.0
        return self.eta * np.clip(np.where(scored, self.score, neutral), -self.clip, self.clip)

    def omega(self):
        """Unnormalised weights exp(eta * S) of the bins (Eq 14) -> [B]."""
        return np.exp(self.exponent())

    def q(self):
        """The adversary's distribution over bins (Eq 15) -> [B]; nowhere below gamma / B."""
        exponent = self.exponent()
        # Without its maximum the exponent is at most 0: ratios stay, and exp cannot overflow.
        omega = np.exp(exponent - exponent.max())
        return (1 - self.gamma) * omega / omega.sum() + self.gamma / self.n_bins

    def weights(self, bins, success_rate=None):
        """What multiplies each prompt's advantages (Eq 16) -> [P], positive, at most `weight_max`.
        It looks at the bins alone, and a prompt without a bin gets 1. `success_rate` [P] is for
        other players behind the same interface (bench/rivals.py)."""
        bins = np.asarray(bins)
        weights = np.ones(len(bins))
        seen = bins >= 0
        if not seen.any():
            return weights
        w = (self.q() if self.normalize else self.omega())[bins[seen]]
        if self.normalize:
            # Dividing by the maximum first turns equal weights into exactly 1. Their mean is then
            # free of rounding: with eta = 0 training is plain GRPO to the last bit.
            w = w / w.max()
            w = w / w.mean()
        weights[seen] = np.minimum(w, self.weight_max)
        return weights

    def update(self, bins, signal):
        """Score every visited bin by the mean of its prompts' `signal` [P] (Eqs 12-13)."""
        bins = np.asarray(bins)
        mean = bin_means(signal, bins, self.n_bins)
        if self.per_share:
            # as in importance sampling: a bin that is drawn half as often counts double when it is
            share = np.bincount(bins[bins >= 0], minlength=self.n_bins) / len(bins)
            mean = mean / np.maximum(share, self.share_floor)
        # A bin's first mean becomes its score: an average with an invented start would take a rare
        # bin many visits to forget. A bin without a mean in this step keeps its score.
        averaged = (1 - self.ema) * self.score + self.ema * mean
        moved = np.where(np.isnan(self.score), mean, averaged)
        self.score = np.where(np.isfinite(mean), moved, self.score)

    def state_dict(self):
        # None, because JSON has no NaN.
        return {"score": [s if np.isfinite(s) else None for s in self.score.tolist()]}

    def load_state_dict(self, state):
        check_bins(len(state["score"]), self.n_bins)
        self.score = np.array(state["score"], float)


@dataclass
class RolloutGDRO:
    """Moves rollouts between bins; each step spends its P * `n_mean` exactly (Eqs 17-21).
    Rule `exp3p`: each bin has a bandit whose arms are the counts n_min..n_max. A dynamic programme
    picks the likeliest joint choice of arms that meets the budget; `update` charges each its loss.
    Rule `price`: each bin has a utility of its rollouts, known from its success rate. Rollouts go
    one at a time to the prompt that gains most, and the last gain is the shadow price."""
    n_bins: int = 10
    n_mean: int = 4
    n_min: int = 1
    n_max: int = 24
    rule: str = "price"
    utility: str = "even"  # of price
    eta: float = 0.65  # of exp3p: how sharply arm probabilities follow losses
    gamma: float = 0.01  # of exp3p: share of the uniform distribution in arm probabilities
    ema: float = 0.4  # of exp3p: how fast an arm's loss follows what it is charged
    dual_lr: float = 0.05  # of exp3p: step size of the shadow price
    price_max = 10.0  # a constant: cap of the shadow price

    def __post_init__(self):
        if not self.n_min <= self.n_mean <= self.n_max:
            raise ValueError(f"n_rollouts={self.n_mean} must lie between n_min={self.n_min} and "
                             f"n_max={self.n_max}: change one of the three")
        one_of("rule", self.rule, RULES)
        one_of("utility", self.utility, UTILITIES)
        # arm k of a bin's bandit: everybody in it gets n_min + k rollouts
        self.arms = np.arange(self.n_min, self.n_max + 1)
        self.loss = np.zeros((self.n_bins, len(self.arms)))  # average per arm; 0 until pulled
        self.price = 0.0  # mu

    def allocate(self, bins, success_rate):
        """Rollouts of each prompt -> int array [P] within n_min..n_max that sums to P * n_mean.
        `bins` and `success_rate` are [P]. Prompts without a bin get n_mean each; the others share
        what is left, n_mean times their number."""
        bins = np.asarray(bins)
        # those without a bin take exactly their share, so that what is left is the others' budget
        counts = np.full(len(bins), self.n_mean)
        seen = bins >= 0
        if seen.any() and self.rule == "exp3p":
            counts[seen] = self.dynamic_programme(bins[seen])
        elif seen.any():
            p = self.rates(bins, success_rate)[seen]
            counts[seen], self.price = self.water_filling(p)
        assert counts.sum() == len(bins) * self.n_mean
        return counts

    def rates(self, bins, success_rate):
        """The success rate that counts for each prompt: the mean of its bin -> [P]."""
        # A prompt's own rate rests on few rollouts. The bin's is steadier, and prompts of one bin
        # get the same number of rollouts, give or take one.
        return bin_means(success_rate, bins, self.n_bins)[bins]

    def gain(self, p, n):
        """What rollout n + 1 adds at success rate p."""
        return UTILITIES[self.utility](p, n)

    def arm_probabilities(self):
        """EXP3P's arm probabilities of every bin (Eq 19) -> [B, K]; nowhere below gamma / K."""
        # Without the lowest loss of its row, the exponent is at most 0: exp cannot overflow.
        w = np.exp(-self.eta * (self.loss - self.loss.min(axis=1, keepdims=True)))
        return (1 - self.gamma) * w / w.sum(axis=1, keepdims=True) + self.gamma / len(self.arms)

    def dynamic_programme(self, bins):
        """Likeliest choice of one arm a bin that spends len(bins) * n_mean in all -> int array [P].
        It is exact. Bins are taken in turn, and best[s] is the highest log-probability of any
        choice for the bins so far that spends s rollouts beyond n_min for everybody. Example: bins
        of 2 and 6 prompts with n_mean = 4 have 32 rollouts, spent by the arms (4, 4) or (7, 3)."""
        present, size = np.unique(bins, return_counts=True)
        score = np.log(self.arm_probabilities()[present])  # [bins present, K]
        # The penalty is too small to matter unless arms are equal, as untried arms are. Then the
        # arm nearest n_mean wins, and a player that knows nothing gives n_mean to everybody.
        score = score - 1e-9 * (self.arms - self.n_mean) ** 2
        budget = len(bins) * (self.n_mean - self.n_min)  # what is left when everybody has n_min
        best = np.full(budget + 1, -np.inf)  # -inf: no choice spends this
        best[0] = 0.0
        choice = np.zeros((len(present), budget + 1), int)  # index of bin b's arm, if s are spent
        for b in range(len(present)):
            spent = np.full((len(self.arms), budget + 1), -np.inf)
            for k, arm in enumerate(self.arms):
                # Whoever has spent s after this arm had spent s - cost before it. So `best`,
                # shifted by the cost, handles every s at once.
                cost = int(size[b] * (arm - self.n_min))
                if cost <= budget:
                    spent[k, cost:] = best[: budget + 1 - cost] + score[b, k]
            choice[b] = spent.argmax(axis=0)
            best = spent.max(axis=0)
        # Only the last bin's arm is known for the full budget. Its cost tells what the bins before
        # it had spent, and so which arm the next to last took there, and so on backwards.
        picked = np.zeros(self.n_bins, int)
        for b in reversed(range(len(present))):
            arm = self.arms[choice[b, budget]]
            picked[present[b]] = arm
            budget -= size[b] * (arm - self.n_min)
        return picked[bins]

    def water_filling(self, p):
        """n_min for everybody, then one at a time where it adds most -> int array [P], last gain.
        Example: p = [0.1, 0.5], n_min = 1, n_mean = 2. The second rollouts would gain 0.28 and
        0.35, the third ones 0.26 and 0.18. The two highest win: two rollouts each, price 0.28."""
        n = np.full(len(p), self.n_min)
        left = len(p) * (self.n_mean - self.n_min)
        if not left:
            return n, 0.0
        steps = np.arange(self.n_min, self.n_max)  # rollouts before the one that is added
        # A table with a row for each number of rollouts and a column for each prompt, laid flat.
        gain = self.gain(p, steps[:, None]).ravel()  # [(n_max - n_min) * P]
        # Gains fall down each column, so the `left` highest of the whole table are the ones that
        # giving rollouts one by one would take. A stable sort keeps equal gains in the order of
        # the rows: prompts with equal gains get theirs in turn.
        order = np.argsort(-gain, kind="stable")[:left]
        # The column of a flat position, and so the prompt, is its remainder modulo P.
        n = n + np.bincount(order % len(p), minlength=len(p))
        return n, float(gain[order[-1]])

    def update(self, bins, counts, loss):
        """Charge each pulled arm its bin's mean `loss` [P] plus the price of its rollouts (Eq 20).
        Then move the price (Eq 21). Budgets are met exactly here, so it never moves; the paper has
        it. Only `exp3p` learns: what `price` knows, it knows from the success rates."""
        if self.rule != "exp3p":
            return
        bins = np.asarray(bins)
        counts = np.asarray(counts)
        mean = bin_means(loss, bins, self.n_bins)
        for b in np.flatnonzero(np.isfinite(mean)):
            # All prompts of a bin have the same count: any of them tells which arm was pulled.
            arm = counts[bins == b][0] - self.n_min
            charge = mean[b] + self.price * self.arms[arm]
            self.loss[b, arm] += self.ema * (charge - self.loss[b, arm])
        price = self.price + self.dual_lr * (counts.mean() - self.n_mean)
        self.price = float(np.clip(price, 0, self.price_max))

    def state_dict(self):
        return {"loss": self.loss.tolist(), "price": self.price, "rule": self.rule}

    def load_state_dict(self, state):
        loss = np.array(state["loss"], float)
        if loss.shape != self.loss.shape:
            saved, here = (" x ".join(map(str, shape)) for shape in (loss.shape, self.loss.shape))
            raise ValueError(f"a saved state of {saved} bins and arms does not fit {here}: "
                             "use the n_bins, n_min and n_max it was saved with")
        self.loss = loss
        # Under `price` the price is a gain, under `exp3p` it is mu. A run that goes on under the
        # other rule must not take one for the other.
        self.price = float(state["price"]) if state["rule"] == self.rule else 0.0
