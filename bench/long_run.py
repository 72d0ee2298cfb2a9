"""
2,000 steps of a small run, watched from outside: memory, descriptors, processes and file sizes.
$ python bench/long_run.py
$ python bench/long_run.py --steps=200
Exit status 1 if resident memory in the last quarter is over 5 % above the second's, if descriptors
or processes grow, if the log grows faster than linearly, or if a process is left at the end.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RUN = [
    "--prompt_gdro=true",
    "--rollout_gdro=true",
    "--n_max=8",
    "--prompts_per_step=8",
    "--n_rollouts=2",
    "--template=bare",
    "--reward=math",
    "--eval_samples=2",
    "--eval_passk=2",
    "--device=cpu",
]


def family(leader):
    """Ids of the living processes that the leader started, and its own.

    Grading workers have sessions of their own, so parents are asked as well as sessions."""
    found = set()
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        try:
            with open(f"/proc/{pid}/stat") as file:
                text = file.read()
        except OSError:  # gone meanwhile
            continue
        # The name comes first and may hold anything, so what follows its closing bracket is read.
        state, parent, _, session = text.rpartition(")")[2].split()[:4]
        if state != "Z" and leader in (int(parent), int(session)):
            found.add(int(pid))
    return found


def watch(process, out):
    """Look twice a second until the process is over.

    -> samples (steps done, resident MiB, descriptors, processes, bytes of the log), and the ids
    of all processes that were ever there."""
    samples, seen = [], set()
    page = os.sysconf("SC_PAGE_SIZE")
    while process.poll() is None:
        time.sleep(0.5)
        try:
            with open(f"/proc/{process.pid}/statm") as file:
                resident = int(file.read().split()[1]) * page / 2**20
            with open(os.path.join(out, "metrics.jsonl"), "rb") as file:
                log = file.read()
            descriptors = len(os.listdir(f"/proc/{process.pid}/fd"))
        except OSError:  # not begun, or just over
            continue
        here = family(process.pid)
        samples.append((log.count(b"\n"), resident, descriptors, len(here), len(log)))
        seen |= here
    return samples, seen


def run_watched(steps):
    """A run from its start to its end -> its samples, and the ids of processes that it left."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "run")
        every = [f"--eval_every={steps // 8}", f"--save_every={steps // 20}"]
        command = [sys.executable, os.path.join(ROOT, "train.py"), *RUN, *every]
        with open(out + ".err", "w") as errors:
            process = subprocess.Popen(
                [*command, f"--steps={steps}", f"--out_dir={out}"],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        samples, seen = watch(process, out)
        left = [pid for pid in seen if os.path.exists(f"/proc/{pid}")]
        if process.returncode:
            with open(out + ".err") as file:
                sys.exit(f"the run failed with status {process.returncode}:\n{file.read()[-2000:]}")
    return samples, left


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2000)
    args = parser.parse_args()
    samples, left = run_watched(args.steps)

    # After the last step come an evaluation and the export of the model, which are no steps.
    samples = np.array([sample for sample in samples if sample[0] < args.steps], float)
    quarter = np.minimum(4 * samples[:, 0] // args.steps, 3)
    means = np.array([samples[quarter == q].mean(axis=0) for q in range(4)])
    _, memory, descriptors, processes, _ = means.T  # each by quarter
    ends = [samples[quarter == q][-1] for q in range(4)]
    grown = np.diff([np.zeros(5), *ends], axis=0)
    line = grown[:, 4] / grown[:, 0]  # bytes of the log a step

    print(f"{args.steps} steps; by quarter of the run")
    print("| | 1st | 2nd | 3rd | 4th |\n|---|---|---|---|---|")
    rows = {
        "resident MiB, mean": memory,
        "descriptors, mean": descriptors,
        "processes, mean": processes,
        "metrics.jsonl, KiB a step": line / 1024,
    }
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in values) + " |")

    # Of the first quarter a part is the start, so the last is compared with the second.
    checks = {
        "memory": memory[3] > 1.05 * memory[1],
        "descriptors": descriptors[3] > descriptors[1] + 1,
        "processes": processes[3] > processes[1] + 0.5,
        "log": line[3] > 1.1 * line[1],
        f"processes left: {left}": bool(left),
    }
    wrong = [name for name, failed in checks.items() if failed]
    verdict = f"grew: {', '.join(wrong)}" if wrong else "nothing grew, no process was left"
    change = 100 * (memory[3] / memory[1] - 1)
    print(f"memory of the last quarter against the second: {change:+.1f} %; {verdict}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
