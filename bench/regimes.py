"""
When are adaptive rollouts worth having? A simulation in numpy, without text or network, in which
every arm runs at its own best learning rate.
$ python bench/regimes.py --quick                             # few steps and cells: does it run
$ python bench/regimes.py --setting=world --json=bench/results/regimes.json   # the report
$ python bench/regimes.py --check --json=bench/results/regimes_check.json   # beside measured gains
$ python bench/regimes.py --read=bench/results/regimes.json --figure=bench/results/regimes.png
"""
# A prompt needs one skill, and its success rate is the logistic function of
#     ease + sqrt(1 - shared) own[skill] + sqrt(shared) common.
# With shared = 0 a skill is learned from its own prompts alone, with 1 from all prompts alike.
# A rollout pulls that sum by its advantage times (right - rate), and by `noise` times its advantage
# times a random number: what a gradient does that has nothing to do with the answer. Plain SGD.
#
# Shapes: R runs that are simulated side by side, P prompts of a step, S skills, B bins,
# K numbers of rollouts.
import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
from bench.arms import aligned, gain, half_width, untuned
from bench.figures import read_report
from bench.rivals import Knapsack
from gdro import DifficultyClassifier, PromptGDRO, even_gain
from plot import WIDTH, pyplot


@dataclass(frozen=True)
class Setting:
    """A world and a budget."""
    rates: tuple  # of success of the base policy, one for each skill
    prompts: int = 768  # to train on
    steps: int = 100
    per_step: int = 64  # prompts of a step
    n_min: int = 1
    n_max: int = 24
    shares: tuple = ()  # of the prompts; empty: as the root of the rate, so that hard is rare
    spread: float = 0.5  # standard deviation of the ease of prompts of a skill, in logits
    decoys: int = 0  # so many of the last skills lose by what all skills share


@dataclass(frozen=True)
class Arm:
    rule: str = ""  # what decides the rollouts: empty (all alike), bins, own or posterior
    gain: object = None  # (success rate, n) -> what rollout n + 1 adds, for bins and own
    weighted: bool = False  # Prompt-GDRO
    memory: bool = False  # earlier scores of a prompt join its rollout group
    maxrl: bool = False  # advantages divided by the mean, arXiv 2602.02710, and not the deviation
    prompt_mean: bool = False  # every prompt counts alike, whatever its number of rollouts


LEVELS = tuple(np.geomspace(0.9, 0.003, 24))
SETTINGS = {
    "world": Setting(LEVELS),
    "decoys": Setting(LEVELS, decoys=12),
    # the sizes of the paper and its bounds; how many skills there are nobody knows
    "paper": Setting(tuple(np.geomspace(0.9, 0.001, 400)), 14_116, 1000, 256, 2, 12, spread=1.0),
}
ARMS = {  # names as in bench/arms.py; hora: arXiv 2605.07114
    "grpo": Arm(),
    "grpo_memory": Arm(memory=True),
    "rollout_gdro": Arm("bins", even_gain, memory=True),
    "prompt_gdro": Arm(weighted=True, memory=True),
    "both": Arm("bins", even_gain, weighted=True, memory=True, prompt_mean=True),
    "both_token": Arm("bins", even_gain, weighted=True, memory=True),
    "hora": Arm("posterior"),
    "knapsack": Arm("own", Knapsack().gain),
    "maxrl": Arm(maxrl=True),
    "maxrl:group_memory=32": Arm(maxrl=True, memory=True),
}
ROLLOUT_RULES = ("rollout_gdro", "hora", "knapsack")
MEAN = 4  # rollouts a prompt
REMEMBERED = 32  # scores of a prompt, as group_memory of the arms
LARGEST = 1.0  # a step moves no parameter further: in the place of clipped ratios and gradients
SHARED, NOISE = (0.0, 0.03, 0.1, 0.3), (1.0, 3.0, 9.0)
RATES = 2.0 ** np.arange(1, 11)  # the learning rates that every arm is tuned over
METRICS = ("mean@8", "pass@8")  # expected values, over prompts of all skills in equal parts
CHECKED = ("chains", "orders", "steps")  # reports of tuned arms


# ---------- the players, for many runs at once ----------


class Memory:
    """`DifficultyClassifier` of gdro.py with its defaults, for prompts numbered from 0."""
    known = DifficultyClassifier()

    def __init__(self, runs, prompts):
        self.visits = np.zeros((runs, prompts), int)
        self.kept = np.zeros((runs, prompts, self.known.history, 2), np.uint8)  # right, wrong
        self.bin = np.full((runs, prompts), -1)
        self.rows = np.arange(runs)[:, None]

    def posterior(self, index):
        """(a, b) of the Beta posteriors of the prompts `index` [R, P] -> [R, P], [R, P]."""
        counts = self.kept[self.rows, index].sum(2, dtype=int) + self.known.prior
        return counts[..., 0], counts[..., 1]

    def observe(self, index, right, counts):
        at = (self.rows, index)
        slot = self.visits[at] % self.known.history
        self.kept[(*at, slot)] = np.stack([right, counts - right], 2)
        self.visits[at] += 1
        a, b = self.posterior(index)
        estimate = 1 - np.prod([(b + i) / (a + b + i) for i in range(self.known.passk)], axis=0)
        edges, margin = self.known.edges, self.known.hysteresis
        lowest = np.searchsorted(edges, estimate - margin, "left")
        highest = np.searchsorted(edges, estimate + margin, "right")
        first = np.searchsorted(edges, estimate, "right")
        kept = np.clip(self.bin[at], lowest, highest)
        self.bin[at] = np.where(self.bin[at] < 0, first, kept)


def bin_means(values, bins):
    """Means of `values` [R, P] over the prompts of each bin -> [R, B]; NaN for an empty bin."""
    n = Memory.known.n_bins + 1  # a column more, for the prompts of bin -1
    flat = (bins + 1 + n * np.arange(len(bins))[:, None]).ravel()
    total = np.bincount(flat, values.ravel(), n * len(bins)).reshape(-1, n)[:, 1:]
    count = np.bincount(flat, minlength=n * len(bins)).reshape(-1, n)[:, 1:]
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def of_bin(values, bins):
    """The value [R, B] of each prompt's bin -> [R, P]; any, where there is no bin."""
    return np.take_along_axis(values, np.maximum(bins, 0), 1)


def allocate(setting, arm, a, b, bins):
    """Rollouts of every prompt by water filling, from Beta posteriors and bins [R, P] -> [R, P]."""
    runs, prompts = bins.shape
    if not arm.rule or (bins < 0).all():
        return np.full(bins.shape, MEAN)
    n = np.arange(setting.n_min, setting.n_max)[:, None]  # [K, 1]
    if arm.rule == "posterior":
        # E[p (1-p)^n] of p ~ Beta(a, b): n wrong ones in a row, and then a right one
        factors = [a / (a + b), *[(b + i) / (a + b + i + 1) for i in range(setting.n_max - 1)]]
        gains = np.cumprod(factors, axis=0)[setting.n_min:].swapaxes(0, 1)  # [R, K, P]
    else:
        rate = a / (a + b)
        rate = of_bin(bin_means(rate, bins), bins) if arm.rule == "bins" else rate
        gains = arm.gain(rate[:, None], n)
    # A prompt without a bin gets the mean: each rollout below it comes first, none above it ever.
    unseen = np.where(n < MEAN, np.inf, -np.inf)
    gains = np.where((bins < 0)[:, None], unseen, gains).reshape(runs, -1)
    left = prompts * (MEAN - setting.n_min)
    best = np.argpartition(-gains, left - 1, axis=1)[:, :left]
    taken = (best % prompts + prompts * np.arange(runs)[:, None]).ravel()
    return setting.n_min + np.bincount(taken, minlength=runs * prompts).reshape(bins.shape)


def weights_of(score, bins):
    """Prompt-GDRO's weights by the scores [R, B] of the bins [R, P] -> [R, P]."""
    player, seen = PromptGDRO, bins >= 0
    if not seen.any() or np.isnan(score).all():
        return np.ones(bins.shape)
    score = np.where(np.isnan(score), np.nanmean(score, axis=1, keepdims=True), score)
    omega = np.exp(player.eta * score)
    q = (1 - player.gamma) * omega / omega.sum(1, keepdims=True) + player.gamma / score.shape[1]
    weights = np.where(seen, of_bin(q, bins), np.nan)
    weights /= np.nanmean(weights, axis=1, keepdims=True)
    return np.where(seen, np.minimum(weights, player.weight_max), 1.0)


def rescored(score, rate, bins):
    """The scores [R, B] after a step that left the posterior means `rate` [R, P] -> [R, B]."""
    mean = bin_means(-np.log(np.maximum(rate, 0.01)), bins)
    moved = (1 - PromptGDRO.ema) * score + PromptGDRO.ema * mean
    moved = np.where(np.isnan(score), mean, moved)
    return np.where(np.isnan(mean), score, moved)


# ---------- the simulation ----------


def draw(setting, seed):
    """A world -> skill and ease of each training prompt, those of each test prompt, and the prompts
    of each step [steps, P]: a permutation every epoch, whose last part of a step is left out."""
    rng = np.random.default_rng(seed)
    rates = np.array(setting.rates)
    logit = np.log(rates / (1 - rates))
    shares = np.array(setting.shares or np.sqrt(rates))
    skill = rng.choice(len(rates), setting.prompts, p=shares / shares.sum())
    test = np.repeat(np.arange(len(rates)), max(4, 320 // len(rates)))
    ease, test_ease = (logit[s] + setting.spread * rng.standard_normal(len(s))
                       for s in (skill, test))
    epoch = setting.prompts // setting.per_step
    orders = [rng.permutation(setting.prompts)[: epoch * setting.per_step]
              for _ in range(-(-setting.steps // epoch))]
    order = np.concatenate(orders).reshape(-1, setting.per_step)[: setting.steps]
    return skill, ease, test, test_ease, order


def draw_all(setting, seeds):
    """Every seed's world once -> which is that of each run [R], and the arrays of all, stacked."""
    different, world = np.unique(seeds, return_inverse=True)
    drawn = [draw(setting, seed) for seed in different]
    return world, [np.array(arrays) for arrays in zip(*drawn, strict=True)]


def pulls(arm, right, counts, rate, a, b):
    """What the rollouts of each prompt add up to [R, P] -> sum of advantage x (right - rate), and
    sum of squared advantages, which scales their noise. Of the visits behind the posterior (a, b)
    as many rollouts are remembered as an arm with a memory keeps, in their shares."""
    wrong = counts - right
    earlier = a + b - 2 * Memory.known.prior
    kept = arm.memory * np.minimum(1, REMEMBERED / np.maximum(earlier, 1))
    n = counts + kept * earlier
    mean = (right + kept * (a - Memory.known.prior)) / n
    over = mean if arm.maxrl else np.sqrt(mean * (1 - mean))
    one = np.divide(1 - mean, over, out=np.zeros_like(mean), where=over > 0)  # a right rollout's
    other = np.divide(-mean, over, out=np.zeros_like(mean), where=over > 0)
    signal = right * one * (1 - rate) - wrong * other * rate
    return signal, right * one**2 + wrong * other**2


def simulate(setting, arm, runs, evaluations=1):
    """Train every run: rows of shared, noise, learning rate, seed [R, 4].
    -> mean@8 and pass@8 before the first step and after each part [R, evaluations + 1, 2]."""
    shared, noise, lr, _ = runs.T[:, :, None]
    world, (skill, ease, test, test_ease, order) = draw_all(setting, runs[:, 3].astype(int))
    size, rows = len(setting.rates), np.arange(len(runs))[:, None]
    own, common = np.zeros((len(runs), size)), np.zeros((len(runs), 1))
    sign = np.where(np.arange(size) < size - setting.decoys, 1.0, -1.0)
    memory = Memory(len(runs), setting.prompts)
    score = np.full((len(runs), memory.known.n_bins), np.nan)
    rng = np.random.default_rng(0)
    curve = []

    def rate(ease, s):
        learned = np.sqrt(1 - shared) * own[rows, s] + np.sqrt(shared) * sign[s] * common
        return 1 / (1 + np.exp(-(ease + learned)))

    for step in range(setting.steps + 1):
        if step % (setting.steps // evaluations) == 0:
            p = rate(test_ease[world], test[world])
            curve.append(np.stack([p.mean(1), (1 - (1 - p) ** 8).mean(1)], 1))
        if step == setting.steps:
            return np.stack(curve, 1)
        index = order[world, step]
        s = skill[world[:, None], index]
        p, bins = rate(ease[world[:, None], index], s), memory.bin[rows, index]
        posterior = memory.posterior(index)
        counts = allocate(setting, arm, *posterior, bins)
        assert (counts.sum(1) == setting.per_step * MEAN).all()
        right = rng.binomial(counts, p)
        signal, squares = pulls(arm, right, counts, p, *posterior)
        pull = signal + noise * np.sqrt(squares) * rng.standard_normal(p.shape)
        if arm.weighted:
            pull *= weights_of(score, bins)
        if arm.prompt_mean:
            pull *= MEAN / counts
        pull *= lr / (setting.per_step * MEAN)
        of_skill = np.bincount((s + size * rows).ravel(), pull.ravel(), own.size)
        own += np.clip(np.sqrt(1 - shared) * of_skill.reshape(own.shape), -LARGEST, LARGEST)
        of_all = (pull * sign[s]).sum(1, keepdims=True)
        common += np.clip(np.sqrt(shared) * of_all, -LARGEST, LARGEST)
        memory.observe(index, right, counts)
        a, b = memory.posterior(index)
        score = rescored(score, a / (a + b), bins)


def tuned(setting, name, cells, seeds):
    """An arm in each cell (shared, noise) at its best rate: that of the highest mean@8, averaged
    over the second half of the run and half as many other seeds -> a row each."""
    arm, others = ARMS[name], range(1000, 1000 + seeds // 2)
    grid = np.array([(*cell, lr, seed) for cell in cells for lr in RATES for seed in others])
    late = simulate(setting, arm, grid, evaluations=4)[:, 3:, 0].mean(1)
    best = RATES[late.reshape(len(cells), len(RATES), -1).mean(2).argmax(1)]
    runs = np.array([(*cell, lr, seed) for cell, lr in zip(cells, best, strict=True)
                     for seed in range(seeds)])
    ends = simulate(setting, arm, runs)[:, -1].reshape(len(cells), seeds, 2).round(4)
    return [{"arm": name, "shared": shared, "noise": noise, "lr": lr}
            | dict(zip(METRICS, end.T.tolist(), strict=True))
            for (shared, noise), lr, end in zip(cells, best.tolist(), ends, strict=True)]


def gain_over(row, base, metric):
    """Gain in percent of the other's mean, paired by seed -> it, and half of its 95 % interval."""
    percent = 100 / np.mean(base[metric])
    difference = np.array(row[metric]) - np.array(base[metric])
    return float(percent * difference.mean()), float(percent * half_width(difference))


# ---------- beside what was measured ----------


def setting_of(world):
    """An embedded world: its skills with the success rates of their levels, and its shares. On
    `steps` a prompt counts as one of its hardest skill."""
    from worlds import skills, steps

    with open(os.path.join(ROOT, "worlds", world, "success_rates.json")) as file:
        rates = list(json.load(file)["success_rates"].values())
    if world == "steps":
        kinds, prompts, shares = len(steps.VOWELS), steps.TRAIN, steps.SHARES
    else:
        kinds, prompts, shares = len(skills.KINDS), skills.TRAIN, np.ones(len(rates))
    return Setting(tuple(rates) * kinds, prompts, shares=tuple(shares) * kinds, spread=0.0)


def check(path, seeds, cells):
    """Predicted beside measured gains of the arms in a report of bench/arms.py -> rows.
    `shared` and `noise` are those at which tuned GRPO ends nearest to the report's GRPO in mean@8
    and pass@8. Nothing of another arm is looked at; two runners-up show how much hangs on it."""
    report = read_report(path)
    results = {untuned(arm): of for arm, of in report["results"].items()}
    setting = setting_of(report["world"])
    goal = {m: np.mean([run[m] for run in results["grpo"].values()]) for m in METRICS}

    def nearest(pairs):
        """GRPO's rows there, the one that ends nearest to the goal first."""
        return sorted(tuned(setting, "grpo", pairs, seeds),
                      key=lambda row: sum((np.mean(row[m]) - goal[m]) ** 2 for m in METRICS))

    fits = [(row["shared"], row["noise"]) for row in nearest(cells)[:3]]
    # Run again: of many noisy ends the nearest are so in part by luck.
    bases = nearest(fits)
    fits = [(row["shared"], row["noise"]) for row in bases]
    checked = []
    for name in [arm for arm in ARMS if arm in results]:
        rows = bases if name == "grpo" else tuned(setting, name, fits, seeds)
        for row, base in zip(rows, bases, strict=True):
            gains = {m: gain_over(row, base, m) for m in METRICS}
            measured = {m: gain(results, name, "grpo", m) for m in METRICS}
            checked.append(row | {"setting": report["world"], "gain": gains, "goal": goal,
                                  "measured": measured})
    return checked


def check_table(rows):
    """Markdown lines: gains over GRPO as measured, and as predicted at the three pairs (shared,
    noise) that fit GRPO best; of GRPO the pairs, and the two metrics themselves."""
    lines = [["world", "arm", "measured", "predicted", "at the second fit", "at the third fit"]]
    for i in range(0, len(rows), 3):
        row, of_fits = rows[i], rows[i : i + 3]
        if row["arm"] == "grpo":
            pairs = [f"at {r['shared']:g}, {r['noise']:g}: {levels(r)}" for r in of_fits]
            cells = [levels(row["goal"]), *pairs]
        else:
            middle_and_half = {m: (g[0], g[2] - g[0]) for m, g in row["measured"].items()}
            cells = [percents(middle_and_half), *[percents(r["gain"]) for r in of_fits]]
        lines.append([row["setting"], row["arm"], *cells])
    return aligned(lines)


# ---------- tables and figures ----------


def levels(row):
    return " / ".join(f"{np.mean(row[m]):.3f}" for m in METRICS)


def percents(gains):
    """mean@8 / pass@8: gain and half of its interval."""
    return " / ".join(f"{middle:+.1f} ±{half:.1f}" for middle, half in map(gains.get, METRICS))


def table(rows):
    """Markdown lines of one setting: gains over GRPO in mean@8 / pass@8, in percent, +- half of
    the 95 % interval. GRPO's column has the two themselves."""
    names = list(dict.fromkeys(row["arm"] for row in rows))
    lines = [["shared", "noise", *names]]
    for base in [row for row in rows if row["arm"] == "grpo"]:
        cells = [f"{base['shared']:g}", f"{base['noise']:g}"]
        others = in_cell(rows, base, names[1:])
        gains = [{m: gain_over(row, base, m) for m in METRICS} for row in others]
        lines.append([*cells, levels(base), *map(percents, gains)])
    return aligned(lines)


def in_cell(rows, base, names):
    """The rows of these arms at the `shared` and `noise` of GRPO's row `base`."""
    place = (base["shared"], base["noise"])
    return [row for name in names for row in rows
            if row["arm"] == name and (row["shared"], row["noise"]) == place]


def heat_map(plt, settings):
    """Gain in mean@8 of the best rollout rule over shared x noise, a panel a setting."""
    figure, axes = plt.subplots(1, len(settings), squeeze=False,
                                figsize=(WIDTH * max(len(settings), 2) / 3, 2.7))
    for axis, (name, rows) in zip(axes[0], settings.items(), strict=True):
        grpo = [row for row in rows if row["arm"] == "grpo"]
        shared, noise = (sorted({row[key] for row in grpo}) for key in ("shared", "noise"))
        best = np.zeros((len(noise), len(shared)))
        for base in grpo:
            y, x = noise.index(base["noise"]), shared.index(base["shared"])
            rules = in_cell(rows, base, ROLLOUT_RULES)
            best[y, x] = max(gain_over(row, base, "mean@8")[0] for row in rules)
            axis.text(x, y, f"{best[y, x]:+.0f}", ha="center", va="center",
                      color="white" if abs(best[y, x]) > 20 else "black")
        axis.imshow(best, cmap="RdBu", vmin=-30, vmax=30, origin="lower", aspect="auto")
        axis.set(title=name, xlabel="shared", ylabel="noise")
        axis.set_xticks(range(len(shared)), [f"{value:g}" for value in shared])
        axis.set_yticks(range(len(noise)), [f"{value:g}" for value in noise])
    figure.suptitle("mean@8 of the best rollout rule over tuned GRPO, %", fontsize=8.5)
    return figure


def print_report(kept, setting, figure):
    """Print the tables of what --json kept, and draw its figure -> None."""
    if "checks" in kept:
        print("\n".join(check_table(kept["checks"])))
        return
    settings = {name: rows for name, rows in kept["settings"].items() if setting in ("", name)}
    for name, rows in settings.items():
        print(f"{name}, {len(rows[0]['mean@8'])} seeds:\n")
        print("\n".join(table(rows)), end="\n\n" if name != list(settings)[-1] else "\n")
    if figure:
        heat_map(pyplot(), settings).savefig(figure)


def write(path, kept):
    """JSON with a line a row."""
    text = json.dumps(kept).replace('{"arm"', '\n{"arm"')
    with open(path, "w") as file:
        file.write(text + "\n")


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--setting", choices=SETTINGS, default="", help="one of them; all")
    add("--arms", default=",".join(ARMS), help="comma-separated; all")
    add("--seeds", type=int, default=0, help="32, and 8 at the paper's scale")
    add("--quick", action="store_true", help="two cells, two seeds, a tenth of the steps")
    add("--check", action="store_true", help="beside the gains measured with bench/arms.py")
    add("--read", default="", help="a file of --json: its tables, and simulate nothing")
    add("--json", default="", help="file for the results; empty for none")
    add("--figure", default="", help="image of the gains; empty for none")
    add("--jobs", type=int, default=1, help="arms at once, a core each")
    return parser.parse_args()


def main():
    args = parse_arguments()
    if args.read:
        return print_report(read_report(args.read), args.setting, args.figure)
    names = ["grpo", *[arm for arm in args.arms.split(",") if arm != "grpo"]]
    cells = [(shared, noise) for shared in SHARED for noise in NOISE]
    kept = {}
    if args.check:
        cells = [(shared, noise) for shared in (0.01, *SHARED, 1.0) for noise in (*NOISE, 27.0)]
        paths = [os.path.join(ROOT, "bench", "results", f"{name}.json") for name in CHECKED]
        kept["checks"] = [row for p in paths for row in check(p, args.seeds or 32, cells)]
    else:
        kept["settings"] = {}
        for name in [args.setting] if args.setting else SETTINGS:
            setting, seeds = SETTINGS[name], args.seeds or (8 if name == "paper" else 32)
            if args.quick:
                setting, seeds = replace(setting, steps=setting.steps // 10), 2
                cells = [(0.0, 1.0), (0.3, 4.0)]
            one = partial(tuned, setting, cells=cells, seeds=seeds)
            with ProcessPoolExecutor(args.jobs) as pool:
                rows = (pool.map if args.jobs > 1 else map)(one, names)
                kept["settings"][name] = [row for of_arm in rows for row in of_arm]
    if args.json:
        write(args.json, kept)
    print_report(kept, args.setting, args.figure)


if __name__ == "__main__":
    main()
