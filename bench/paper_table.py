"""
Table 1 of the paper, from what eval.py saved with config/eval_paper.py.
$ python bench/paper_table.py grpo.json rollout.json
"""
import os
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from configurator import UsageError, refuse
from data import split_name
from eval import pass_at_k, read_results, relative

PAPER = {"MATH500": ("math500",), "AIME": ("aime24", "aime25"), "AMC": ("amc23",),
         "Minerva": ("minerva",), "Olympiad": ("olympiad",), "GPQA": ("gpqa",)}


def paper_table(runs, scorer=""):
    """Lines of Table 1 of the paper from runs (heading -> results of `evaluate`): mean@n in percent
    for each benchmark, AIME as the mean of its two years, then pass@k pooled over all questions of
    the sets that every run has (at least one), with the gain over the first run. `scorer`: "" or
    "string"."""
    named = {heading: {split_name(name)[0]: r for name, r in results.items()}
             for heading, results in runs.items()}
    shared = [name for names in PAPER.values() for name in names
              if all(name in results for results in named.values())]
    any_result = next(iter(named.values()))[shared[0]]
    passed = next(key for key in any_result if key.startswith("pass@"))
    k = int(passed.removeprefix("pass@"))
    prefix = f"{scorer}/" if scorer else ""
    right = f"{scorer}_right" if scorer else "right"
    lines = [f"{'':<24}" + "".join(f"{column:>10}" for column in PAPER) + f"{passed:>20}"]
    base = None
    for heading, results in named.items():
        cells = []
        for names in PAPER.values():
            means = [r[f"{prefix}mean@{r['sampling']['n']}"]
                     for name in names if (r := results.get(name))]
            cells.append(f"{100 * np.mean(means):.2f}" if len(means) == len(names) else "-")
        solved = [pass_at_k(results[name][right], results[name]["sampling"]["n"], k)
                  for name in shared]
        pooled = np.mean(np.concatenate(solved))
        last = f"{100 * pooled:.2f}"
        if base is not None:
            last += f" ({relative(pooled, base).replace(' %', '%')})"
        base = pooled if base is None else base
        cells = "".join(f"{cell:>10}" for cell in cells)
        lines.append(f"{heading[:23]:<24}{cells}{last:>20}")
    return lines


def print_tables(runs):
    """The paper's table of all runs, once a scorer."""
    of_paper = {name for names in PAPER.values() for name in names}
    sets_of_runs = [{split_name(name)[0] for name in results} for results in runs.values()]
    shared = of_paper.intersection(*sets_of_runs)
    if not shared:
        raise UsageError("these runs share none of the paper's benchmarks: evaluate all with "
                         "config/eval_paper.py")
    of_shared = [r for results in runs.values() for name, r in results.items()
                 if split_name(name)[0] in shared]
    scorers = {"": "the reward"}
    if all("string_right" in r for r in of_shared):  # all were graded by math
        scorers["string"] = "normalised string match"
    for scorer, title in scorers.items():
        print(f"Graded by {title}; percent, pass@k pooled over all questions:")
        print("\n".join(paper_table(runs, scorer)) + "\n")


def main(paths):
    if not paths or paths[0].startswith("-"):
        print(__doc__.strip())
        sys.exit(0 if "--help" in paths else 2)
    try:
        print_tables(read_results(paths))
    except UsageError as error:
        refuse(error)


if __name__ == "__main__":
    main(sys.argv[1:])
