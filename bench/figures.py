"""
The figures of the report, from what bench/arms.py --json=... wrote.
$ python bench/figures.py curves bench/results/chains.json            # writes chains.png beside it
$ python bench/figures.py curves bench/results/chains.json grpo both  # the same of two arms
$ python bench/figures.py gains bench/results/chains.json bench/results/orders.json --out=gains.png
$ python bench/figures.py sweep bench/results/tuning/chains.json    # of bench/arms.py --tune
"""
import argparse
import json
import os
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from bench.arms import ARMS, LR, MEMORY, chosen, gain, half_width, late_score, split_name, untuned
from configurator import UsageError, refuse
from plot import WIDTH, pyplot

CURVES = {  # key in a result's curves -> title and axis of its panel
    "mean@8": ("mean@8", "share right"),
    "pass@8": ("pass@8", "share solved"),
    "tail": ("hardest quarter, mean@8", "share right"),
}

PUBLIC = {"grpo": "GRPO", "prompt_gdro": "Prompt-GDRO", "rollout_gdro": "Rollout-GDRO",
          "grpo_memory": "GRPO with memory", "both_token": "both, token mean", "maxrl": "MaxRL",
          "hora": "HORA", "knapsack": "Knapsack RL", "curverl": "CurveRL",
          "paper_prompt": "Prompt-GDRO as printed", "paper_rollout": "Rollout-GDRO as printed",
          "reference_prompt": "Prompt-GDRO as launched",
          "reference_rollout": "Rollout-GDRO as launched",
          "one_minus_p": "weight 1 - p", "inverse_rate": "rollouts as 1 / p", "mopps": "MoPPS",
          "greso": "GRESO", "dapo": "DAPO", "pkpo": "PKPO", "f_grpo": "F-GRPO"}


def public(arm):
    """An arm's name for readers, without the settings it was tuned to."""
    name, knobs = split_name(arm)
    return PUBLIC.get(name, name) + " with memory" * (MEMORY in knobs)


def arm_curves(plt, report, arms):
    """Three metrics over the rollouts generated: means over seeds with 95 % intervals."""
    figure, axes = plt.subplots(1, len(CURVES), figsize=(WIDTH, 2.7))
    for axis, (key, (title, ylabel)) in zip(axes, CURVES.items(), strict=True):
        for arm in arms:
            runs = list(report["results"][arm].values())
            rollouts = np.array(runs[0]["rollouts"]) / 1000  # the same in every run
            curves = np.array([run["curve"][key] for run in runs])  # [seeds, evaluations]
            mean, half = curves.mean(axis=0), half_width(curves)
            [line] = axis.plot(rollouts, mean, marker=".", label=public(arm))
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
    """What every arm gains over the baseline in mean@8, one panel a world.

    Gains are relative and paired by seed, with 95 % intervals. The first world orders the arms."""
    gains = []  # of each report: name of the arm -> gain, and its interval
    for report in reports:
        results = report["results"]
        variant = {untuned(arm): arm for arm in results}  # a tuned arm carries its settings
        gains.append({name: gain(results, arm, variant[baseline], "mean@8")
                      for name, arm in variant.items() if name != baseline})
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
        axis.set(title=report["world"], yticks=range(len(arms)), yticklabels=map(public, arms))
        axis.set_ylim(-0.6, len(arms) - 0.4)
    figure.supxlabel(f"mean@8 relative to {public(baseline)}, % (95 % interval)", fontsize=8)
    points, labels = axes[0, -1].get_legend_handles_labels()
    point_of = dict(zip(labels, points, strict=True))  # one of each label, for all its arms
    axes[0, -1].legend(point_of.values(), point_of, loc="lower right")
    return figure


def arm_sweep(plt, report):
    """The score that settings are chosen by against the learning rate, a panel an arm: a line for
    each other setting, and a ring around the chosen one."""
    results = report["results"]
    best = chosen(results)
    columns = 5
    rows = -(-len(best) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, 1.6 * rows), sharex=True,
                                sharey=True, squeeze=False)
    lines = {}  # settings without the rate -> handle of its line
    for i, (axis, (name, variant)) in enumerate(zip(axes.flat, best.items(), strict=False)):
        axis.tick_params(labelbottom=i + columns >= len(best))  # the lowest of its column
        curves = {}
        for arm, by_seed in results.items():
            if untuned(arm) == name:
                knobs = dict(knob.split("=") for knob in arm.split(":")[1:])
                score = np.mean([late_score(result) for result in by_seed.values()])
                point = (float(knobs["lr"]), score)
                curves.setdefault(settings_of(name, knobs), []).append(point)
                if arm == variant:
                    axis.plot(*point, "o", markersize=9, color="#444444", fillstyle="none")
        for settings, points in curves.items():
            color = f"C{list(SETTINGS).index(settings)}"
            [lines[settings]] = axis.plot(*zip(*sorted(points), strict=True), ".-", color=color)
        axis.set_title(public(name), fontsize=8)
        axis.set_xscale("log")
        axis.set_xticks([float(rate) for rate in LR], LR, fontsize=6)
        axis.minorticks_off()
    for axis in axes.flat[len(best) :]:
        axis.axis("off")
    figure.legend([lines[s] for s in lines], [SETTINGS[s] for s in lines], ncols=len(lines),
                  loc="lower center", bbox_to_anchor=(0.5, -0.06))
    figure.supxlabel("learning rate", fontsize=8)
    figure.supylabel("mean@8, second half", fontsize=8)
    return figure


SETTINGS = {  # of the grid besides the rate -> label
    ("1",): "1 update a step",
    ("2",): "2 updates a step",
    ("1", "kl"): "1 update, no KL term",
    ("2", "kl"): "2 updates, no KL term",
    ("1", "wide"): "1 update, 32 x 8 rollouts",
    ("2", "wide"): "2 updates, 32 x 8 rollouts",
}


def settings_of(name, knobs):
    """Knobs of a variant (name -> text) -> key of SETTINGS."""
    # a step of dapo's is two of the others' in rollouts and updates
    updates = int(knobs["updates_per_step"]) // (2 if name == "dapo" else 1)
    more = ("kl",) if "kl_coef" in knobs else ("wide",) if "n_rollouts" in knobs else ()
    return (str(updates), *more)


def arm_is_rival(arm):
    """Whether the arm replaces parts of train.py, with those of another paper or by a diff."""
    _, replaced = ARMS.get(split_name(arm)[0], ([], True))  # an ablation
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
    known = {untuned(arm): arm for arm in report["results"]}
    for arm in arms:
        if arm not in known:
            raise UsageError(f"{path} has no arm {arm}; it has {', '.join(known)}")
    arm_curves(pyplot(), report, [known[arm] for arm in arms or known]).savefig(out)
    return out


def draw_sweep(path, out):
    """Write the score of every setting that was tried -> path."""
    arm_sweep(pyplot(), read_report(path)).savefig(out, bbox_inches="tight")
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
    sweep = figures.add_parser("sweep", help="score against learning rate, arm by arm")
    sweep.add_argument("report", help="a file that bench/arms.py --tune --json=... wrote")
    sweep.add_argument("--out", help="the image; the report's name with .png")
    args = parser.parse_args()
    try:
        if args.figure == "gains":
            print(draw_gains(args.reports, args.out))
            return
        out = args.out or args.report.removesuffix(".json") + ".png"
        if args.figure == "sweep":
            print(draw_sweep(args.report, out))
        else:
            print(draw_arms(args.report, args.arms, out))
    except UsageError as error:
        refuse(error)


if __name__ == "__main__":
    main()
