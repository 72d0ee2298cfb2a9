"""
The paper's further figures of a run (Figs 4 to 6, 8 and 9; plot.py draws Figs 3 and 7).
$ python bench/paper_figures.py out/arith_gdro    # writes out/arith_gdro/figures/*.png
"""
# Shapes: S steps of a run, B difficulty bins.
# Figures and equations named in docstrings are those of the paper.
import os
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from configurator import UsageError, refuse
from plot import NO_BINS, WIDTH, column, pyplot, read_run, save_figures, window_means, with_bins

STYLES = ("C0-", "C1--", "C2-.")  # the first colours, with lines that differ without colour too


def masses(metrics):
    """How much of a step's prompts, of their weight and of its rollouts is in each bin.

    -> three arrays [S, B]; all are 0 where no prompt of the step has a bin."""
    share = column(metrics, "bins/share")
    # Bins without prompts have neither weight nor rollouts but NaN, and 0 times NaN is not 0.
    weight = np.nan_to_num(column(metrics, "bins/weight"))
    rollouts = np.nan_to_num(column(metrics, "bins/rollouts"))
    return share, share * weight, share * rollouts


def distribution(mass):
    """[S, B] with every row divided by its sum; a row of zeros becomes NaN."""
    total = mass.sum(axis=1, keepdims=True)
    return mass / np.where(total > 0, total, np.nan)


def smooth_line(axis, metrics, values, nth, label=None):
    """Means over windows of steps, in the `nth` style."""
    steps = window_means(column(metrics, "step"), most=40)
    axis.plot(steps, window_means(values, most=40), STYLES[nth], label=label)


def dynamics(plt, metrics):
    """Mean bin, the lead of weights and rollouts over the prompts (Eq 32), entropy over bins, and
    the share in the easy bins (Figs 4, 8)."""
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH, 5.4), sharex=True)
    mean_bin, lead, entropy, in_easy = axes.flat
    prompts, weight, rollouts = map(distribution, masses(metrics))
    bins = np.arange(prompts.shape[1])
    easy = bins >= 0.7 * len(bins)
    spread = {"prompts": prompts, "prompts x weight": weight, "rollouts": rollouts}
    for nth, (label, p) in enumerate(spread.items()):
        smooth_line(mean_bin, metrics, p @ bins, nth, label)
        if nth > 0:
            smooth_line(lead, metrics, (p - prompts) @ bins, nth)
        log_p = np.log(np.where(p > 0, p, 1))  # 0 log 0 counts as 0
        smooth_line(entropy, metrics, -(p * log_p).sum(axis=1), nth)
        smooth_line(in_easy, metrics, p[:, easy].sum(axis=1), nth)
    lead.axhline(0, color="#888888", linewidth=0.8)
    mean_bin.set(title="mean difficulty bin", ylabel="bin (0 = hardest)")
    lead.set(title="lead over the prompts", ylabel="bins (below 0: harder)")
    entropy.set(title="entropy over bins", ylabel="nats", xlabel="step")
    in_easy.set_title(f"share in the {easy.sum()} easiest bins")
    in_easy.set(ylabel="share", xlabel="step", ylim=(-0.02, 1.02))
    mean_bin.legend()
    return figure


def standard_error(plt, metrics):
    """Weighted standard error of the share solved, sum_b q(b) sigma_b / sqrt(n_b), with the
    rollouts as allocated and with equally many for every bin (Eq 33, Fig 6).

    q is the weighted share of prompts. sigma_b^2 is the bin's mean of p (1 - p), or e (1 - e) of
    its mean error e where every prompt had a single rollout."""
    metrics = with_bins(metrics)
    variance = column(metrics, "bins/signal_variance")
    error = column(metrics, "bins/signal_error")
    sigma = np.sqrt(np.where(np.isfinite(variance), variance, error * (1 - error)))
    share, weight, _ = map(distribution, masses(metrics))
    rollouts = column(metrics, "bins/rollouts")
    mean = np.nansum(share * rollouts, axis=1, keepdims=True)  # [S, 1]
    allocated = np.nansum(weight * sigma / np.sqrt(rollouts), axis=1)
    uniform = np.nansum(weight * sigma / np.sqrt(mean), axis=1)
    change = 100 * (allocated.sum() / uniform.sum() - 1)
    figure, axis = plt.subplots(figsize=(WIDTH * 0.7, 3.2))
    smooth_line(axis, metrics, allocated, 0, "as allocated")
    smooth_line(axis, metrics, uniform, 1, "uniform")
    axis.set_title(f"weighted standard error: {change:+.1f} % over the run")
    axis.set(xlabel="step", ylabel="share solved", ylim=(0, None))
    axis.legend()
    return figure


def snapshots(plt, metrics):
    """Share of prompts beside share of rollouts by bin, at four times of the run (Figs 5, 9)."""
    metrics = with_bins(metrics)
    prompts, _, rollouts = masses(metrics)
    bins = np.arange(prompts.shape[1])
    window = max(len(metrics) // 12, 1)
    starts = np.linspace(0, len(metrics) - window, 4).astype(int)
    figure, axes = plt.subplots(1, 4, figsize=(WIDTH, 2.4), sharey=True)
    for axis, start in zip(axes, starts, strict=True):
        part = slice(start, start + window)
        for shift, label, mass in ((-0.2, "prompts", prompts), (0.2, "rollouts", rollouts)):
            share = mass[part].sum(axis=0) / mass[part].sum()
            axis.bar(bins + shift, share, 0.4, label=label)
        steps = column(metrics[part], "step")
        axis.set_title(f"steps {steps[0]:.0f} to {steps[-1]:.0f}")
        axis.set(xlabel="difficulty bin (0 = hardest)", xticks=bins)
    axes[0].set_ylabel("share")
    axes[0].legend()
    return figure


def draw(folder):
    """Write the figures of a run -> list of paths."""
    metrics = read_run(folder, "metrics.jsonl")
    if not with_bins(metrics):
        raise UsageError(f"{folder}: {NO_BINS}")
    plt = pyplot()
    drawings = (dynamics, standard_error, snapshots)
    return save_figures({drawing.__name__: drawing(plt, metrics) for drawing in drawings}, folder)


def main(folders):
    if len(folders) != 1 or folders[0].startswith("-"):
        print(__doc__.strip())
        sys.exit(0 if "--help" in folders else 2)
    try:
        print(*draw(folders[0]), sep="\n")
    except UsageError as error:
        refuse(error)


if __name__ == "__main__":
    main(sys.argv[1:])
