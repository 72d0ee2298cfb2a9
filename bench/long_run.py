"""
2,000 steps of a small run, watched from outside: memory, descriptors, processes and file sizes by quarter.
$ python bench/long_run.py
$ python bench/long_run.py --steps=200
Exit status 1 if resident memory in the last quarter is over 5 % above the second's, if descriptors or processes grow, if the log grows faster than linearly,
or if a process is left at the end.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RUN = ["--prompt_gdro=true", "--rollout_gdro=true", "--n_max=8", "--prompts_per_step=8", "--n_rollouts=2", "--template=bare", "--reward=math", "--eval_samples=2", "--passk=2", "--device=cpu"]


def family(leader):
    """Ids of the living processes that the leader started, and its own: grading workers have sessions of their own, so parents are asked too."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as file:
                state, parent, _, session = file.read().rpartition(")")[2].split()[:4]
        except OSError:  # gone meanwhile
            continue
        if state != "Z" and leader in (int(parent), int(session)):
            found.add(int(pid))
    return found


def watch(process, out, samples):
    """Look twice a second: appends (steps done, resident MiB, descriptors, processes, bytes of the log) -> all processes that were ever there."""
    seen = set()
    log, page = os.path.join(out, "metrics.jsonl"), os.sysconf("SC_PAGE_SIZE")
    while process.poll() is None:
        time.sleep(0.5)
        try:
            with open(f"/proc/{process.pid}/statm") as file:
                resident = int(file.read().split()[1]) * page / 2**20
            with open(log, "rb") as file:
                text = file.read()
            here = family(process.pid)
            samples.append((text.count(b"\n"), resident, len(os.listdir(f"/proc/{process.pid}/fd")), len(here), len(text)))
            seen |= here
        except OSError:  # not begun, or just over
            continue
    return seen


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    args = parser.parse_args()
    samples = []
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "run")
        command = [sys.executable, os.path.join(ROOT, "train.py"), *RUN, f"--steps={args.steps}", f"--eval_every={args.steps // 8}", f"--save_every={args.steps // 20}", f"--out_dir={out}"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=open(out + ".err", "w"), start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        seen = watch(process, out, samples)
        left = [pid for pid in seen if os.path.exists(f"/proc/{pid}")]
        if process.returncode:
            with open(out + ".err") as file:
                sys.exit(f"the run failed with status {process.returncode}:\n{file.read()[-2000:]}")
    step, resident, descriptors, processes, size = np.array([s for s in samples if s[0] < args.steps], float).T
    quarter = np.minimum(4 * step // args.steps, 3)
    means = [[values[quarter == q].mean() for q in range(4)] for values in (resident, descriptors, processes)]
    ends = [size[quarter == q].max() for q in range(4)]
    growth = np.diff([0, *ends])
    print(f"{args.steps} steps; by quarter of the run\n| | 1st | 2nd | 3rd | 4th |\n|---|---|---|---|---|")
    for name, values in (("resident MiB, mean", means[0]), ("descriptors, mean", means[1]), ("processes, mean", means[2]), ("metrics.jsonl grew by, KiB", growth / 1024)):
        print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in values) + " |")
    wrong = [name for name, bad in {"memory": means[0][3] > 1.05 * means[0][1], "descriptors": means[1][3] > means[1][1] + 1, "processes": means[2][3] > means[2][1] + 0.5,
                                    "log": growth[3] > 1.1 * growth[1] + 4096, f"processes left: {left}": bool(left)}.items() if bad]
    print(f"memory of the last quarter against the second: {100 * (means[0][3] / means[0][1] - 1):+.1f} %; " + (f"grew: {', '.join(wrong)}" if wrong else "nothing grew, no process was left"))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
