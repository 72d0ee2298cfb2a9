"""
$ python plot.py out/arith_gdro                   # writes out/arith_gdro/figures/*.png
$ python plot.py out/arith_gdro out/arith_grpo    # learning curves of both, the rest of the first
"""
# Shapes: S steps of a run, B difficulty bins, W windows of steps.
# Figures named in docstrings are those of the paper.
import json
import math
import re
import sys
import warnings
from pathlib import Path

import numpy as np

from configurator import UsageError, refuse

# The palette of Okabe and Ito: people who cannot tell red from green can tell these colours.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
NO_BINS = "no prompt was visited twice, so none has had a bin; train for more than an epoch"
WIDTH = 8  # inches of a figure: with letters of 8 points it can be read 700 pixels wide

# A window of steps without any value has no mean: NaN, which is drawn as a gap. numpy warns of it.
warnings.filterwarnings("ignore", "Mean of empty slice")


def pyplot():
    """matplotlib without a display."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {
        "axes.prop_cycle": matplotlib.cycler(color=COLORS),  # "C0", "C1", ... name these
        "figure.constrained_layout.use": True,
        "figure.figsize": (WIDTH, 2.7),  # of a row of three panels
        "font.size": 8,
        "axes.titlesize": 8.5,
        "legend.fontsize": 7,
        "lines.linewidth": 1.2,
        "lines.markersize": 4,
        "savefig.dpi": 175,
    }
    import matplotlib.pyplot as plt

    return plt


# ---------- reading a run ----------


def read_run(folder, name):
    """The records of one of a run's files; a line that the run has not ended yet is left out."""
    path = Path(folder, name)
    if not path.exists():
        raise UsageError(f"{path}: no such file; give the folder of a run that has taken a step")
    with open(path) as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


def column(records, key):
    """One metric of every step: [S], or [S, B] if there is one a bin; null becomes NaN."""
    return np.array([record[key] for record in records], dtype=float)


def window_means(values, most):
    """Means of values [S, ...] over equal windows of steps, NaN left out -> [W <= most, ...]."""
    size = math.ceil(len(values) / most)
    starts = range(0, len(values), size)
    return np.array([np.nanmean(values[start : start + size], axis=0) for start in starts])


def with_bins(metrics):
    """The steps in which at least one prompt had a bin."""
    return [record for record in metrics if any(record["bins/share"])]


# ---------- learning curves ----------


def learning_curves(plt, runs, set_name):
    """mean@n, pass@k and partial scores of one set with 95 % intervals; groups of the first run.

    runs: name -> its records of that set."""
    first = next(iter(runs))
    metrics = [key for key in runs[first][0] if re.fullmatch(r"(mean|pass)@\d+", key)]
    for run, records in runs.items():
        if not set(metrics) <= set(records[0]):
            raise UsageError(
                f"{run} was not evaluated by {' and '.join(metrics)} as {first} was: "
                "draw runs of equal eval_samples and passk together"
            )
    if any(r["scores"] != r["right"] for records in runs.values() for r in records):
        metrics.append("score")
    figure, axes = plt.subplots(1, len(metrics) + 1)
    for axis, key in zip(axes, metrics, strict=False):
        for run, records in runs.items():
            steps = column(records, "step")
            low, high = column(records, key + "/interval").T
            [line] = axis.plot(steps, column(records, key), marker=".", label=run)
            axis.fill_between(steps, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        axis.set(title=f"{set_name}: {key}", xlabel="step", ylabel=key, ylim=(0, 1.02))
    axes[0].legend()
    group_curves(plt, axes[-1], runs[first], metrics[0], first)
    return figure


def group_curves(plt, axis, records, key, run):
    """One metric by group. Of more than ten groups only the three worst and the best are named."""
    steps = column(records, "step")
    curves = {
        group: column([record["groups"][group] for record in records], key)
        for group in records[0]["groups"]
    }
    named = list(curves)
    legend = {"title": "group", "loc": "center left", "bbox_to_anchor": (1, 0.5)}
    if len(curves) > 10:
        worst_first = sorted(curves, key=lambda group: curves[group][-1])
        named = [*worst_first[:3], worst_first[-1]]
        legend = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.25)}
        axis.figure.set_figheight(3.5)  # room for the legend below
    for group in curves:
        if group not in named:
            axis.plot(steps, curves[group], color="#cccccc", linewidth=0.7)
    axis.set_prop_cycle(color=plt.cm.viridis(np.linspace(0, 1, len(named))))
    for group in named:
        axis.plot(steps, curves[group], marker=".", label=group or "all")
    axis.set(title=f"{run}: {key} by group", xlabel="step", ylabel=key, ylim=(0, 1.02))
    axis.legend(**legend)


# ---------- bins over steps ----------


def heatmap(axis, metrics, key, title, **limits):
    """A metric as an image, steps to the right and bins upwards; bins without prompts are grey."""
    values = column(metrics, key)  # [S, B]
    axis.set_facecolor("#dddddd")
    bins = values.shape[1]
    image = axis.imshow(
        window_means(values, most=75).T,  # narrower stripes cannot be read
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        extent=(metrics[0]["step"], metrics[-1]["step"] + 1, -0.5, bins - 0.5),
        **limits,
    )
    axis.set(title=title, xlabel="step", yticks=range(bins))
    return axis.figure.colorbar(image, ax=axis)


def share_map(axis, metrics):
    """Share of the step's prompts by bin, on a logarithmic scale, which shows the rare bins too."""
    from matplotlib.colors import LogNorm

    bar = heatmap(axis, metrics, "bins/share", "share of prompts", norm=LogNorm(0.01, 1))
    ticks = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1]
    bar.set_ticks(ticks, labels=ticks)
    bar.minorticks_off()
    axis.set_ylabel("difficulty bin (0 = hardest)")


def triptych(plt, metrics):
    """Share of prompts, weight and mean score by step and bin (Fig 3)."""
    figure, axes = plt.subplots(1, 3)
    share_map(axes[0], metrics)
    most = max(2, np.nanmax(column(metrics, "bins/weight")))
    title = "weight on the advantage (Prompt-GDRO)"
    heatmap(axes[1], metrics, "bins/weight", title, vmin=0, vmax=most)
    heatmap(axes[2], metrics, "bins/score", "mean score", vmin=0, vmax=1)
    return figure


def budget_frontier(plt, metrics):
    """Where the prompts are and where the rollouts go (Fig 7)."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3))
    share_map(axes[0], metrics)
    most = np.nanmax(column(metrics, "bins/rollouts"))
    title = "rollouts per prompt (Rollout-GDRO)"
    heatmap(axes[1], metrics, "bins/rollouts", title, vmin=0, vmax=most)
    return figure


# ---------- all figures ----------


def draw_evaluations(plt, folders):
    """Learning curves of all runs -> name -> figure, one for each evaluation set."""
    names = [Path(folder).absolute().name for folder in folders]
    if len(set(names)) < len(names):
        names = folders  # out/a/run and out/b/run
    by_set = {}  # evaluation set -> run -> its records
    for run, folder in zip(names, folders, strict=True):
        records = read_run(folder, "eval.jsonl")
        if not records:
            print(f"no learning curves of {run}: never evaluated (eval_sets was empty)")
        for record in records:
            by_set.setdefault(record["set"], {}).setdefault(run, []).append(record)
    figures = {}
    for name, runs in by_set.items():
        title = "learning_curves" + ("_" + Path(name).name if figures else "")
        figures[title] = learning_curves(plt, runs, name)
    return figures


def draw_bins(plt, metrics):
    """What the bins of a run tell -> name -> figure."""
    if not with_bins(metrics):
        print(f"no figures over bins: {NO_BINS}")
        return {}
    return {"triptych": triptych(plt, metrics), "budget_frontier": budget_frontier(plt, metrics)}


def draw(folders):
    """Write every figure of the first folder, with the learning curves of all -> list of paths."""
    plt = pyplot()
    metrics = read_run(folders[0], "metrics.jsonl")
    if not metrics:
        raise UsageError(f"{folders[0]} has no step yet; give the folder of a run that has")
    figures = draw_evaluations(plt, folders) | draw_bins(plt, metrics)
    return save_figures(figures, folders[0])


def save_figures(figures, folder):
    """Write figures, given by name, into the folder's figures/ -> list of paths."""
    target = Path(folder, "figures")
    target.mkdir(exist_ok=True)
    paths = []
    for name, figure in figures.items():
        paths.append(target / f"{name}.png")
        figure.savefig(paths[-1])
    return paths


def main(folders):
    if not folders or folders[0].startswith("-"):
        print(__doc__.strip())
        sys.exit(0 if "--help" in folders else 2)
    try:
        print(*draw(folders), sep="\n")
    except UsageError as error:
        refuse(error)


if __name__ == "__main__":
    main(sys.argv[1:])
