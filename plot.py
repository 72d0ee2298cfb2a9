"""
Draws the figures of one or more run folders (the learning curves show all of them, the other figures the first), or of arms over seeds.
$ python plot.py out/arith_gdro                                            # writes out/arith_gdro/figures/*.png
$ python plot.py out/arith_gdro out/arith_grpo out/arith_rollout_gdro      # curves side by side
$ python plot.py bench/results/arith.json grpo both                        # arms over seeds, from bench/arms.py --json=...; writes bench/results/arith.png
$ python plot.py gains bench/results/arith.json bench/results/letters.json bench/results/gains.png   # every arm against GRPO, world by world
"""
import itertools
import json
import os
import sys

import numpy as np

from configurator import UsageError, refuse

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito, told apart by the colour-blind

WIDTH = 8  # inches; with letters of 8 points it can be read where 700 pixels are left for it


def pyplot():
    """matplotlib without a display."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"font.size": 8, "axes.titlesize": 8.5, "legend.fontsize": 7, "lines.linewidth": 1.2, "lines.markersize": 4, "savefig.dpi": 175})
    import matplotlib.pyplot as plt

    return plt


def read_jsonl(path):
    if not os.path.exists(path):
        raise UsageError(f"{path}: no such file; give the folder of a run that has taken a step")
    with open(path) as file:
        records = [json.loads(line) for line in file if line.endswith("\n")]
    if not records:
        raise UsageError(f"{path} is empty; give the folder of a run that has taken a step")
    return records


def has_lines(folder, name):
    """False for an empty file of a run; UsageError where there is no run."""
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        raise UsageError(f"{folder}: no {name} there; give the folder of a run that has taken a step")
    return os.path.getsize(path) > 0


def column(records, key):
    """One metric of every step as floats: [S], or [S, B] for a list over bins; null becomes NaN."""
    return np.array([record[key] for record in records], dtype=float)


def window_means(values, most=75):
    """Mean of values [S, B] over equal windows of steps, NaN left out -> [at most `most`, B]. Narrow stripes cannot be read."""
    size = -(-len(values) // most)
    windows = [values[i : i + size] for i in range(0, len(values), size)]
    count = np.array([np.isfinite(w).sum(axis=0) for w in windows])
    return np.divide([np.nansum(w, axis=0) for w in windows], count, out=np.full(count.shape, np.nan), where=count > 0)


def heatmap(axis, values, steps, title, **limits):
    """values [S, B] as an image, steps to the right, bins upwards; empty bins stay grey."""
    axis.set_facecolor("#dddddd")
    image = axis.imshow(window_means(values).T, aspect="auto", origin="lower", interpolation="nearest", cmap="viridis",
                        extent=(steps[0], steps[-1] + 1, -0.5, values.shape[1] - 0.5), **limits)
    axis.set(title=title, xlabel="step", yticks=range(values.shape[1]))
    return axis.figure.colorbar(image, ax=axis)


def share_map(axis, metrics, steps):
    """Share of the step's prompts by bin, on a logarithmic scale: the tail is what this is about."""
    from matplotlib.colors import LogNorm

    share, ticks = column(metrics, "bins/share"), [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
    bar = heatmap(axis, share, steps, "share of prompts", norm=LogNorm(ticks[0], ticks[-1]))
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.minorticks_off()
    axis.set_ylabel("difficulty bin (0 = hardest)")


def learning_curves(plt, evals, name):
    """mean@n and pass@k of every run on the evaluation set `name`, with 95 % intervals over questions; groups of the first run.
    evals: run -> its evaluation records."""
    first = next(iter(evals.values()))
    keys = [k for k in first[0] if k.startswith(("mean@", "pass@")) and not k.endswith("/interval")]
    for run, records in evals.items():
        if keys[0] not in records[0] or keys[1] not in records[0]:
            raise UsageError(f"{run} was not evaluated by {' and '.join(keys)} as {next(iter(evals))} was: draw runs of equal eval_samples and passk together")
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.7), layout="constrained")
    for axis, key in zip(axes, keys):
        for color, (run, records) in zip(itertools.cycle(COLORS), evals.items()):
            records = [r for r in records if r["set"] == name]
            steps, interval = [r["step"] for r in records], np.array([r[key + "/interval"] for r in records])
            axis.plot(steps, [r[key] for r in records], color=color, marker=".", label=run)
            axis.fill_between(steps, interval[:, 0], interval[:, 1], color=color, alpha=0.15, linewidth=0)
        axis.set(title=f"{name}: {key}", xlabel="step", ylabel=key, ylim=(0, 1.02))
    axes[0].legend()
    of_set = [r for r in first if r["set"] == name]
    curves = {group: [r["groups"][group][keys[0]] for r in of_set] for group in of_set[0]["groups"]}
    named = list(curves) if len(curves) <= 10 else [*sorted(curves, key=lambda group: curves[group][-1])[:3], max(curves, key=lambda group: curves[group][-1])]
    for group in curves:
        if group not in named:
            axes[2].plot([r["step"] for r in of_set], curves[group], color="#cccccc", linewidth=0.7)
    for i, group in enumerate(named):
        axes[2].plot([r["step"] for r in of_set], curves[group], color=plt.cm.viridis(i / max(len(named) - 1, 1)), marker=".", label=group or "all")
    axes[2].set(title=f"{next(iter(evals))}: {keys[0]} by group", xlabel="step", ylabel=keys[0], ylim=(0, 1.02))
    if len(named) == len(curves):
        axes[2].legend(title="group", loc="center left", bbox_to_anchor=(1, 0.5))
    else:  # too many for a legend: the three worst and the best of the last evaluation
        axes[2].legend(loc="upper center", bbox_to_anchor=(0.5, -0.25))
        figure.set_figheight(3.5)
    return figure


def triptych(plt, metrics, steps):
    """Share of prompts, weight and mean reward by step and bin (Fig 3)."""
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.7), layout="constrained")
    share_map(axes[0], metrics, steps)
    weight = column(metrics, "bins/weight")
    heatmap(axes[1], weight, steps, "weight on the advantage (Prompt-GDRO)", vmin=0, vmax=max(2, np.nanmax(weight)))
    heatmap(axes[2], column(metrics, "bins/reward"), steps, "mean reward", vmin=-1, vmax=1)
    return figure


def budget_frontier(plt, metrics, steps):
    """Where the prompts are and where the rollouts go (Fig 7)."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3), layout="constrained")
    share_map(axes[0], metrics, steps)
    rollouts = column(metrics, "bins/rollouts")
    heatmap(axes[1], rollouts, steps, "rollouts per prompt (Rollout-GDRO)", vmin=0, vmax=np.nanmax(rollouts))
    return figure


def spread(metrics):
    """Where the prompts of a step are, where the weight goes and where the rollouts go -> name -> [S, B], rows of sum 1 (NaN without any)."""
    share = column(metrics, "bins/share")
    mass = {"prompts": share, "prompts x weight": share * np.nan_to_num(column(metrics, "bins/weight")), "rollouts": share * np.nan_to_num(column(metrics, "bins/rollouts"))}
    total = {name: m.sum(axis=1, keepdims=True) for name, m in mass.items()}
    return {name: np.divide(m, total[name], out=np.full(m.shape, np.nan), where=total[name] > 0) for name, m in mass.items()}


STYLES = list(zip(COLORS, ("-", "--", "-.", ":")))


def smooth_line(axis, steps, values, style, label):
    axis.plot(window_means(steps[:, None], 40), window_means(values[:, None], 40), style[1], color=style[0], label=label)


def dynamics(plt, metrics, steps):
    """Mean bin, lead-lag of weights and rollouts over the data (Eq 32), entropy, and mass in the easy bins (Figs 4, 8)."""
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH, 5.4), layout="constrained", sharex=True)
    by = spread(metrics)
    bins = by["prompts"].shape[1]
    index, data, easy = np.arange(bins), by["prompts"] @ np.arange(bins), np.arange(bins) >= 0.7 * bins
    for style, (label, p) in zip(STYLES, by.items()):
        smooth_line(axes[0, 0], steps, p @ index, style, label)
        if label != "prompts":
            smooth_line(axes[0, 1], steps, p @ index - data, style, label)
        smooth_line(axes[1, 0], steps, -(p * np.log(np.where(p > 0, p, 1))).sum(axis=1), style, label)
        smooth_line(axes[1, 1], steps, p[:, easy].sum(axis=1), style, label)
    axes[0, 1].axhline(0, color="#888888", linewidth=0.8)
    axes[0, 0].set(title="mean difficulty bin", ylabel="bin (0 = hardest)")
    axes[0, 1].set(title="lead over the prompts", ylabel="bins (below 0: harder)")
    axes[1, 0].set(title="entropy over bins", ylabel="nats", xlabel="step")
    axes[1, 1].set(title=f"share in the {easy.sum()} easiest bins", ylabel="share", ylim=(-0.02, 1.02), xlabel="step")
    axes[0, 0].legend()
    return figure


def standard_error(plt, metrics, steps):
    """Weighted standard error of the mean reward, sum_b q(b) sigma_b / sqrt(n_b), as allocated and under as many rollouts for every bin (Eq 33, Fig 6).
    q is the weighted share of prompts, sigma_b^2 the bin's mean p (1 - p), or e (1 - e) of its error e where every prompt had one rollout."""
    q, share = spread(metrics)["prompts x weight"], spread(metrics)["prompts"]
    variance, e = column(metrics, "bins/signal_variance"), column(metrics, "bins/signal_error")
    sigma, n = np.sqrt(np.where(np.isfinite(variance), variance, e * (1 - e))), column(metrics, "bins/rollouts")
    mean = np.nansum(share * n, axis=1, keepdims=True)
    error = {"as allocated": np.nansum(q * sigma / np.sqrt(n), axis=1), "uniform": np.nansum(q * sigma / np.sqrt(np.where(mean > 0, mean, np.nan)), axis=1)}
    seen = mean[:, 0] > 0
    figure, axis = plt.subplots(figsize=(WIDTH * 0.7, 3.2), layout="constrained")
    for style, (label, values) in zip(STYLES, error.items()):
        smooth_line(axis, steps[seen], values[seen], style, label)
    change = 100 * (error["as allocated"][seen].sum() / error["uniform"][seen].sum() - 1)
    axis.set(title=f"weighted standard error: {change:+.1f} % over the run", xlabel="step", ylabel="reward in {0, 1}", ylim=(0, None))
    axis.legend()
    return figure


def snapshots(plt, metrics, steps):
    """Share of rollouts beside share of prompts, by bin, early to late, each over a few steps (Figs 5, 9)."""
    share = column(metrics, "bins/share")
    spent = share * np.nan_to_num(column(metrics, "bins/rollouts"))
    seen, index = np.flatnonzero(share.sum(axis=1) > 0), np.arange(share.shape[1])
    figure, axes = plt.subplots(1, 4, figsize=(WIDTH, 2.4), layout="constrained", sharey=True)
    window = max(len(seen) // 12, 1)
    for axis, at in zip(axes, np.linspace(0, len(seen) - window, 4).astype(int) if len(seen) else []):
        rows = seen[at : at + window]
        axis.bar(index - 0.2, share[rows].sum(axis=0) / share[rows].sum(), 0.4, color=COLORS[0], label="prompts")
        axis.bar(index + 0.2, spent[rows].sum(axis=0) / spent[rows].sum(), 0.4, color=COLORS[1], label="rollouts")
        axis.set(title=f"steps {steps[rows[0]]} to {steps[rows[-1]]}", xlabel="difficulty bin (0 = hardest)", xticks=index)
    axes[0].set_ylabel("share")
    axes[0].legend(*axes[0].get_legend_handles_labels())
    return figure


def draw(folders):
    """Write every figure of the first folder (curves of all) -> list of paths."""
    plt = pyplot()
    names = [os.path.basename(os.path.normpath(folder)) for folder in folders]
    runs = dict(zip(names if len(set(names)) == len(names) else folders, folders))
    metrics = read_jsonl(os.path.join(folders[0], "metrics.jsonl"))
    steps, figures = column(metrics, "step").astype(int), {}
    evals = {run: read_jsonl(os.path.join(folder, "eval.jsonl")) for run, folder in runs.items() if has_lines(folder, "eval.jsonl")}
    if len(evals) < len(runs):
        print(f"no learning curves of {', '.join(run for run in runs if run not in evals)}: never evaluated (eval_sets was empty)")
    for name in dict.fromkeys(r["set"] for records in evals.values() for r in records):
        of_set = {run: [r for r in records if r["set"] == name] for run, records in evals.items()}
        title = "learning_curves" if not figures else "learning_curves_" + os.path.basename(name)
        figures[title] = learning_curves(plt, {run: records for run, records in of_set.items() if records}, name)
    if np.nansum(column(metrics, "bins/share")) == 0:
        print("no figures over bins: no prompt was visited twice, so none has had a bin; train for more than an epoch")
    else:
        figures |= {drawing.__name__: drawing(plt, metrics, steps) for drawing in (triptych, budget_frontier, dynamics, standard_error, snapshots)}
    os.makedirs(os.path.join(folders[0], "figures"), exist_ok=True)
    paths = []
    for name, figure in figures.items():
        paths.append(os.path.join(folders[0], "figures", name + ".png"))
        figure.savefig(paths[-1])
        plt.close(figure)
    return paths


NAMES = {"mean@8": "mean@8", "pass@8": "pass@8", "worst": "worst family, mean@8"}


def arm_curves(plt, saved, arms):
    """mean@8, pass@8 and the worst family over rollouts generated: means over seeds with 95 % intervals (t distribution), for the results of bench/arms.py."""
    from bench.arms import half_width

    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.7), layout="constrained")
    for color, arm in zip(itertools.cycle(COLORS), arms):
        runs = list(saved["results"][arm].values())
        rollouts = np.array(runs[0]["rollouts"]) / 1000
        for axis, (key, title) in zip(axes, NAMES.items()):
            curves = np.array([run["curve"][key] for run in runs])
            half = half_width(curves)
            axis.plot(rollouts, curves.mean(axis=0), color=color, marker=".", label=arm)
            axis.fill_between(rollouts, curves.mean(axis=0) - half, curves.mean(axis=0) + half, color=color, alpha=0.15, linewidth=0)
            axis.set(title=f"{saved['world']}: {title}", xlabel="thousand rollouts generated", ylabel="share right" if key != "pass@8" else "share solved")
    for axis in axes:
        axis.set_ylim(bottom=0)
    axes[0].legend()
    return figure


def gains(plt, reports, baseline="grpo"):
    """What every arm gains over the baseline in each world: the change in pass@8 relative to it, paired by seed, with 95 % intervals (t distribution)."""
    from bench.arms import ARMS, gain

    changes = [{arm: gain(saved["results"], arm, baseline, "pass@8") for arm in saved["results"] if arm != baseline} for saved in reports]
    arms = sorted(changes[0], key=lambda arm: changes[0][arm][0])
    figure, axes = plt.subplots(1, len(reports), figsize=(WIDTH, 0.8 + 0.17 * len(arms)), layout="constrained", sharey=True, squeeze=False)
    for axis, saved, change in zip(axes[0], reports, changes):
        for y, arm in enumerate(arms):
            if arm in change:
                (middle, low, high), rival = change[arm], bool(ARMS[arm][1])
                axis.plot([low, high], [y, y], color=COLORS[rival])
                axis.plot(middle, y, "s" if rival else "o", color=COLORS[rival], label="of another paper" if rival else "here")
        axis.axvline(0, color="#888888", linewidth=0.8)
        axis.grid(axis="x", color="#dddddd", linewidth=0.5)
        axis.set(title=saved["world"], xlabel=f"pass@8 relative to {baseline}, % (95 % interval)", yticks=range(len(arms)), yticklabels=arms, ylim=(-0.6, len(arms) - 0.4))
    kinds = dict(zip(*reversed(axes[0, 0].get_legend_handles_labels())))
    axes[0, 0].legend(kinds.values(), kinds, loc="lower right")
    return figure


def read_report(path):
    """The file that bench/arms.py --json=path wrote."""
    if not os.path.exists(path):
        raise UsageError(f"{path}: no such file; python bench/arms.py --json={path} writes one")
    with open(path) as file:
        return json.load(file)


def draw_arms(path, arms, out):
    """Write the curves of the arms (all, if none are named) in a result file of bench/arms.py -> path."""
    saved = read_report(path)
    if missing := [arm for arm in arms if arm not in saved["results"]]:
        raise UsageError(f"{path} has no arm {missing[0]}; it has {', '.join(saved['results'])}")
    arm_curves(pyplot(), saved, arms or list(saved["results"])).savefig(out)
    return out


def draw_gains(paths, out):
    """Write the gains of all arms in result files of bench/arms.py, one a world -> path."""
    gains(pyplot(), [read_report(path) for path in paths]).savefig(out)
    return out


def main(argv=None):
    folders = sys.argv[1:] if argv is None else argv
    if not folders or folders[0].startswith("-"):
        print(__doc__.strip())
        sys.exit(0 if "--help" in folders else 2)
    try:
        *rest, out = folders if folders[-1].endswith(".png") else [*folders, ""]
        if rest in ([], ["gains"]):
            raise UsageError("what is to be drawn? " + __doc__.strip())
        if rest[0] == "gains":
            print(draw_gains(rest[1:], out or "gains.png"))
        elif rest[0].endswith(".json"):
            print(draw_arms(rest[0], rest[1:], out or rest[0][:-5] + ".png"))
        else:
            print("\n".join(draw(folders)))
    except UsageError as error:
        refuse(error)


if __name__ == "__main__":
    main()
