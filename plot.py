"""
Draws the figures of one or more run folders. The learning curves show all of them, the other figures the first.
$ python plot.py out/arith_gdro                                            # writes out/arith_gdro/figures/*.png
$ python plot.py out/arith_gdro out/arith_grpo out/arith_rollout_gdro      # curves side by side
"""
import itertools
import json
import os
import sys

import numpy as np

from configurator import UsageError, refuse

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito, told apart by the colour-blind


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
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for axis, key in zip(axes, keys):
        for color, (run, records) in zip(itertools.cycle(COLORS), evals.items()):
            records = [r for r in records if r["set"] == name]
            steps, interval = [r["step"] for r in records], np.array([r[key + "/interval"] for r in records])
            axis.plot(steps, [r[key] for r in records], color=color, marker=".", label=run)
            axis.fill_between(steps, interval[:, 0], interval[:, 1], color=color, alpha=0.15, linewidth=0)
        axis.set(title=f"{name}: {key}", xlabel="step", ylabel=key, ylim=(0, 1.02))
    axes[0].legend(fontsize=8)
    of_set = [r for r in first if r["set"] == name]
    groups = list(of_set[0]["groups"])
    for i, group in enumerate(groups):
        axes[2].plot([r["step"] for r in of_set], [r["groups"][group][keys[0]] for r in of_set], color=plt.cm.viridis(i / max(len(groups) - 1, 1)),
                     marker=".", label=group or "all")
    axes[2].set(title=f"{next(iter(evals))}: {keys[0]} by group", xlabel="step", ylabel=keys[0], ylim=(0, 1.02))
    axes[2].legend(fontsize=8, title="group", loc="center left", bbox_to_anchor=(1, 0.5), ncols=1 + len(groups) // 14)
    return figure


def triptych(plt, metrics, steps):
    """Share of prompts, weight and mean reward by step and bin (Fig 3)."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    share_map(axes[0], metrics, steps)
    weight = column(metrics, "bins/weight")
    heatmap(axes[1], weight, steps, "weight on the advantage (Prompt-GDRO)", vmin=0, vmax=max(2, np.nanmax(weight)))
    heatmap(axes[2], column(metrics, "bins/reward"), steps, "mean reward", vmin=-1, vmax=1)
    return figure


def budget_frontier(plt, metrics, steps):
    """Where the prompts are and where the rollouts go (Fig 7)."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    share_map(axes[0], metrics, steps)
    rollouts = column(metrics, "bins/rollouts")
    heatmap(axes[1], rollouts, steps, "rollouts per prompt (Rollout-GDRO)", vmin=0, vmax=np.nanmax(rollouts))
    return figure


def mean_bin(plt, metrics, steps):
    """Mean bin index under the data, the weights and the rollouts; below the data means leaning to the hard side (Figs 4, 8, Eq 32)."""
    figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
    share = column(metrics, "bins/share")
    index = np.arange(share.shape[1])
    by = {"prompts": share, "prompts x weight": share * np.nan_to_num(column(metrics, "bins/weight")),
          "rollouts": share * np.nan_to_num(column(metrics, "bins/rollouts"))}
    for color, style, (label, mass) in zip(COLORS, ("-", "--", "-."), by.items()):
        total = mass.sum(axis=1)
        mean = np.divide(mass @ index, total, out=np.full(len(total), np.nan), where=total > 0)
        axis.plot(window_means(steps[:, None], 40), window_means(mean[:, None], 40), style, color=color, label=label)
    axis.set(title="mean difficulty bin", xlabel="step", ylabel="bin (0 = hardest)")
    axis.legend(fontsize=8)
    return figure


def snapshots(plt, metrics, steps):
    """Share of rollouts beside share of prompts, by bin, early to late, each over a few steps (Figs 5, 9)."""
    share = column(metrics, "bins/share")
    spent = share * np.nan_to_num(column(metrics, "bins/rollouts"))
    seen, index = np.flatnonzero(share.sum(axis=1) > 0), np.arange(share.shape[1])
    figure, axes = plt.subplots(1, 4, figsize=(12, 3.0), layout="constrained", sharey=True)
    window = max(len(seen) // 12, 1)
    for axis, at in zip(axes, np.linspace(0, len(seen) - window, 4).astype(int) if len(seen) else []):
        rows = seen[at : at + window]
        axis.bar(index - 0.2, share[rows].sum(axis=0) / share[rows].sum(), 0.4, color=COLORS[0], label="prompts")
        axis.bar(index + 0.2, spent[rows].sum(axis=0) / spent[rows].sum(), 0.4, color=COLORS[1], label="rollouts")
        axis.set(title=f"steps {steps[rows[0]]} to {steps[rows[-1]]}", xlabel="difficulty bin (0 = hardest)", xticks=index)
    axes[0].set_ylabel("share")
    axes[0].legend(*axes[0].get_legend_handles_labels(), fontsize=8)
    return figure


def draw(folders):
    """Write every figure of the first folder (curves of all) -> list of paths."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

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
        figures |= {drawing.__name__: drawing(plt, metrics, steps) for drawing in (triptych, budget_frontier, mean_bin, snapshots)}
    os.makedirs(os.path.join(folders[0], "figures"), exist_ok=True)
    paths = []
    for name, figure in figures.items():
        paths.append(os.path.join(folders[0], "figures", name + ".png"))
        figure.savefig(paths[-1], dpi=110)
        plt.close(figure)
    return paths


def main(argv=None):
    folders = sys.argv[1:] if argv is None else argv
    if not folders or folders[0].startswith("-"):
        print(__doc__.strip())
        sys.exit(0 if "--help" in folders else 2)
    try:
        print("\n".join(draw(folders)))
    except UsageError as error:
        refuse(error)


if __name__ == "__main__":
    main()
