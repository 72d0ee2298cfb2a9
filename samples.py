"""
$ python samples.py out/arith_gdro                                  # every rollout that was written
$ python samples.py out/arith_gdro --step=10 --bin=3 --verdict=wrong
$ python samples.py out/arith_gdro --sort=advantage                 # the largest advantage first
"""
# Reads samples.jsonl of a run, also while the run writes it.
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from configurator import UsageError, configure, knob, refuse
from plot import read_run

COLORS = {"right": "green", "partial": "yellow", "wrong": "red", "no_answer": "magenta",
          "timeout": "blue"}
# What moves the cursor or has no character: printed as Python writes it. A new line and a tab stay.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass
class Wanted:
    # which rollouts; empty: all of them
    step: str = knob("")  # of this step
    bin: str = knob("")  # whose prompt was in this bin: 0 is the hardest, -1 was never visited
    verdict: str = knob("")  # graded so: right, partial, wrong, no_answer, timeout
    # in which order
    sort: str = knob("")  # largest first, by score, advantage, weight, ...; empty: as written


def read(folder):
    """The records of samples.jsonl in `folder`."""
    if not Path(folder, "samples.jsonl").exists():
        beside = [str(path.parent) for path in sorted(Path(folder).parent.glob("*/samples.jsonl"))]
        raise UsageError(f"{folder} has no samples.jsonl; beside it these folders have one: "
                         + (", ".join(beside) or "none"))
    records = read_run(folder, "samples.jsonl")
    if not records:
        raise UsageError(f"{folder}/samples.jsonl has no sample yet: its first step is not done")
    return records


def select(records, wanted):
    """The records that are wanted, in the order that is."""
    before = ""
    for name in ("step", "bin", "verdict"):
        value = getattr(wanted, name)
        found = [record for record in records if value in ("", str(record[name]))]
        if not found:
            there = ", ".join(map(str, sorted({record[name] for record in records})))
            raise UsageError(f"no sample{before} has {name}={value}; there are: {there}")
        records = found
        before += f" with {name}={value}" * bool(value)
    if not wanted.sort:
        return records
    numbers = [name for name, value in records[0].items() if type(value) in (int, float)]
    if wanted.sort not in numbers:
        raise UsageError(f"sort={wanted.sort}: choose one of {', '.join(numbers)}")
    return sorted(records, key=lambda record: record[wanted.sort], reverse=True)


def show(record, console):
    """One rollout: a line of numbers, then the texts as they are."""
    level = f"bin {record['bin']:>2}" if record["bin"] >= 0 else "unseen"
    console.out(f"step {record['step']:>5}  {level}  ", style="bold", end="")
    console.out(f"{record['verdict']:<9}", style=COLORS.get(record["verdict"]), end="")
    numbers = f"  score {record['score']:.3f}  advantage {record['advantage']:+.3f}"
    if "weight" in record:  # runs of older versions do not write it
        numbers += f"  weight {record['weight']:6.3f}  rollouts {record['rollouts']:>3}"
    console.out(f"{numbers}  {printable(record['uid'])}", style="bold")
    for name in ("prompt", "response", "answer"):
        console.out(f"{name}:", style="dim")
        print(printable(record[name]))  # rich would put spaces in the place of tabs
    print()


def printable(text):
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def main(argv):
    if not argv or argv[0].startswith("-"):
        argv = ["", "--help"]
    folder, *options = argv
    wanted = configure(Wanted, options, __doc__)
    try:
        records = read(folder)
        chosen = select(records, wanted)
    except UsageError as error:
        refuse(error)
    console = Console(highlight=False)
    try:
        for record in chosen:
            show(record, console)
        console.out(f"{len(chosen)} of {len(records)} samples of {folder}", style="bold")
    except BrokenPipeError:  # a pager was left
        console.on_broken_pipe()


if __name__ == "__main__":
    main(sys.argv[1:])
