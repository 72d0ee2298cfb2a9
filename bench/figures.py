"""
The figures of the report, from what bench/arms.py --json=... wrote.
$ python bench/figures.py curves bench/results/arith.json             # writes arith.png beside it
$ python bench/figures.py curves bench/results/arith.json grpo both   # the same of two arms
$ python bench/figures.py gains bench/results/arith.json bench/results/letters.json --out=gains.png
"""
import argparse
import json
import os
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from bench.arms import ARMS, gain, half_width
from configurator import UsageError, refuse
from plot import WIDTH, pyplot

CURVES = {  # key in a result's curves -> title and axis of its panel
    "mean@8": ("mean@8", "share right"),
    "pass@8": ("pass@8", "share solved"),
    "worst": ("worst family, mean@8", "share right"),
}


PUBLIC = {"grpo": "GRPO", "prompt_error": "Prompt-GDRO", "rollout_price_pass": "Rollout-GDRO"}


def arm_curves(plt, report, arms):
    """Three metrics over the rollouts generated: means over seeds with 95 % intervals."""
    figure, axes = plt.subplots(1, len(CURVES), figsize=(WIDTH, 2.7))
    for axis, (key, (title, ylabel)) in zip(axes, CURVES.items(), strict=True):
        for arm in arms:
            runs = list(report["results"][arm].values())
            rollouts = np.array(runs[0]["rollouts"]) / 1000  # the same in every run
            curves = np.array([run["curve"][key] for run in runs])  # [seeds, evaluations]
            mean, half = curves.mean(axis=0), half_width(curves)
            [line] = axis.plot(rollouts, mean, marker=".", label=PUBLIC.get(arm, arm))
            color = line.get_color()
            axis.fill_between(
                rollouts, mean - half, mean + half, color=color, alpha=0.15, linewidth=0
            )
        axis.set(title=f"{report['world']}: {title}", ylabel=ylabel)
        axis.set_xlabel("thousand rollouts generated")
        axis.set_ylim(bottom=0)
    axes[0].legend()
    return figure


def arm_gains(plt, reports, baseline="grpo"):
    """What every arm gains over the baseline in pass@8, one panel a world.

    Gains are relative and paired by seed, with 95 % intervals. The first world orders the arms."""
    gains = []  # of each report: arm -> gain, and its interval
    for report in reports:
        others = [arm for arm in report["results"] if arm != baseline]
        gains.append({arm: gain(report["results"], arm, baseline, "pass@8") for arm in others})
    arms = sorted(gains[0], key=lambda arm: gains[0][arm][0])
    size = (WIDTH, 0.8 + 0.17 * len(arms))
    figure, axes = plt.subplots(1, len(reports), figsize=size, sharey=True, squeeze=False)
    for axis, report, gain_of in zip(axes[0], reports, gains, strict=True):
        for y, arm in enumerate(arms):
            if arm not in gain_of:
                continue
            middle, low, high = gain_of[arm]
            color, marker, label = "C0", "o", "here"
            if arm_is_rival(arm):
                color, marker, label = "C1", "s", "of another paper"
            axis.plot([low, high], [y, y], color)
            axis.plot(middle, y, color + marker, label=label)
        axis.axvline(0, color="#888888", linewidth=0.8)
        axis.grid(axis="x", color="#dddddd", linewidth=0.5)
        axis.set(title=report["world"], yticks=range(len(arms)), yticklabels=arms)
        axis.set_xlabel(f"pass@8 relative to {baseline}, % (95 % interval)")
        axis.set_ylim(-0.6, len(arms) - 0.4)
    points, labels = axes[0, 0].get_legend_handles_labels()
    point_of = dict(zip(labels, points, strict=True))  # one of each label, for all its arms
    axes[0, 0].legend(point_of.values(), point_of, loc="lower right")
    return figure


def arm_is_rival(arm):
    """Whether the arm replaces parts of train.py, with those of another paper or by a diff."""
    _, replaced = ARMS.get(arm, ([], True))  # an ablation
    return bool(replaced)


def read_report(path):
    """The file that bench/arms.py --json=path wrote."""
    if not os.path.exists(path):
        raise UsageError(f"{path}: no such file; python bench/arms.py --json={path} writes one")
    with open(path) as file:
        return json.load(file)


def draw_arms(path, arms, out):
    """Write the curves of some arms of a report, or of all if none are named -> path."""
    report = read_report(path)
    for arm in arms:
        if arm not in report["results"]:
            raise UsageError(f"{path} has no arm {arm}; it has {', '.join(report['results'])}")
    arm_curves(pyplot(), report, arms or list(report["results"])).savefig(out)
    return out


def draw_gains(paths, out):
    """Write the gains of all arms in reports, one a world -> path."""
    arm_gains(pyplot(), [read_report(path) for path in paths]).savefig(out)
    return out


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    figures = parser.add_subparsers(dest="figure", required=True)
    curves = figures.add_parser("curves", help="metrics over the rollouts generated")
    curves.add_argument("report", help="a file that bench/arms.py --json=... wrote")
    curves.add_argument("arms", nargs="*", help="all, if none are named")
    curves.add_argument("--out", help="the image; the report's name with .png")
    gains = figures.add_parser("gains", help="gains over GRPO, world by world")
    gains.add_argument("reports", nargs="+", help="files that bench/arms.py --json=... wrote")
    gains.add_argument("--out", default="gains.png", help="the image")
    args = parser.parse_args()
    try:
        if args.figure == "curves":
            out = args.out or args.report.removesuffix(".json") + ".png"
            print(draw_arms(args.report, args.arms, out))
        else:
            print(draw_gains(args.reports, args.out))
    except UsageError as error:
        refuse(error)


if __name__ == "__main__":
    main()
