"""
Kills a run again and again, resumes it each time, and compares it with a run that nobody disturbed.
$ python bench/chaos.py                                           # 30 kills, some minutes
$ python bench/chaos.py --kills=3 --seed=1
$ python bench/chaos.py --kills=6 --lora_rank=8 --lr=1e-3         # other knobs of train.py follow
Of the kills (SIGKILL) one in five comes while the run starts, two while a checkpoint or a model is
being written, the others whenever. Behind one kill in five the last line of the log is torn, as a
dying machine may leave it. Exit status 1 if a single line differs. Times and memory, which the
machine decides, are left out.
"""
import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FILES = ("metrics.jsonl", "samples.jsonl", "eval.jsonl")
RUN = [
    "config/arith_gdro.py",
    "--prompts_per_step=32",
    "--eval_every=4",
    "--save_every=3",
    "--samples_every=2",
    "--eval_samples=2",
    "--eval_passk=2",
    "--device=cpu",
    "--resume=auto",
]


# ---------- a run from outside ----------


def start(out, steps):
    """train.py in a process group of its own; what it complains of goes to `out`.err."""
    script = os.path.join(ROOT, "train.py")
    command = [sys.executable, script, *RUN, f"--steps={steps}", f"--out_dir={out}"]
    with open(out + ".err", "w") as errors:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        )


def wait_for_first_step(process):
    """Until train.py prints the line that begins with "step: ", or ends."""
    for line in process.stdout:
        if line.startswith("step: "):
            return


def wait_for_end(process, out):
    """Until a run that nobody kills any more is done; what it complained of, if it failed."""
    process.communicate()
    if process.returncode:
        with open(out + ".err") as file:
            sys.exit(f"a run failed with status {process.returncode}:\n{file.read()[-2000:]}")


def kill(process):
    """SIGKILL to the run and all that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_undisturbed(out, steps):
    """A whole run -> seconds until its first step, and from there to its end."""
    begun = time.perf_counter()
    process = start(out, steps)
    wait_for_first_step(process)
    stepping = time.perf_counter()
    wait_for_end(process, out)
    return stepping - begun, time.perf_counter() - stepping


def wait_for_moment(rng, process, out, startup, working):
    """Until one of the moments to kill at, drawn by `rng`; the run may be over by then."""
    kind = rng.choice(("start", "write", "write", "any", "any"))
    if kind == "start":
        time.sleep(rng.uniform(0, startup))
    else:
        wait_for_first_step(process)
        time.sleep(rng.uniform(0, working / 3))
    while kind == "write" and process.poll() is None and not being_written(out):
        time.sleep(0.0005)


# ---------- what a run leaves ----------


def lines_of(out):
    """All that the run wrote, times and memory blanked."""
    found = {}
    for name in FILES:
        with open(os.path.join(out, name)) as file:
            found[name] = re.sub(r'"(time|mem)/\w+": [^,}]+', "", file.read())
    return found


def being_written(out):
    """Names of the folders that are not finished: a checkpoint, a model."""
    names = []
    for folder in (out, os.path.join(out, "ckpt")):
        if os.path.isdir(folder):
            paths = [os.path.join(folder, name) for name in os.listdir(folder)]
            names += [os.path.basename(path) for path in paths if os.path.isdir(path)]
    return [name for name in names if name.endswith(".tmp")]


def log_of(out):
    """The bytes of metrics.jsonl, none if there is no such file yet."""
    path = os.path.join(out, "metrics.jsonl")
    if not os.path.exists(path):
        return b""
    with open(path, "rb") as file:
        return file.read()


def tear(out):
    """Cut the log in the middle of its last line.

    Lines that a checkpoint has are made durable before it is written, so those are left whole."""
    latest = os.path.join(out, "ckpt", "latest")
    saved = 0
    if os.path.exists(latest):
        with open(latest) as file:
            saved = int(file.read().removeprefix("step_"))
    log = log_of(out)
    if log.count(b"\n") > saved:
        os.truncate(os.path.join(out, "metrics.jsonl"), len(log) - 100)


def traces(out):
    """What is found after a kill -> the moments that it hit."""
    moments = []
    unfinished = being_written(out)
    if any(name.startswith("step_") for name in unfinished):
        moments.append("with a checkpoint half written")
    if any(name in ("best.tmp", "hf.tmp") for name in unfinished):
        moments.append("with a model half written")
    log = log_of(out)
    if log and not log.endswith(b"\n"):
        moments.append("with a torn line")
    return moments or ["between writes"]


# ---------- the experiment ----------


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args, knobs = parser.parse_known_args()
    RUN.extend(knobs)
    rng = random.Random(args.seed)
    hits = Counter()
    killed, runs, equal = 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        whole, victim = os.path.join(folder, "whole"), os.path.join(folder, "victim")
        startup, working = run_undisturbed(whole, args.steps)
        # The run that was killed last is brought to its end, and at least one run is compared.
        while killed < args.kills or os.path.exists(victim) or not runs:
            process = start(victim, args.steps)
            if killed < args.kills:
                wait_for_moment(rng, process, victim, startup, working)
                if process.poll() is None:
                    kill(process)
                    killed += 1
                    if rng.random() < 0.2:
                        tear(victim)
                    hits.update(traces(victim))
                    lines = log_of(victim).count(b"\n")
                    print(f"kill {killed}: {lines} lines written", file=sys.stderr)
                    continue
            wait_for_end(process, victim)
            runs += 1
            equal += lines_of(victim) == lines_of(whole)
            shutil.rmtree(victim)
    what = ", ".join(f"{n} {moment}" for moment, n in sorted(hits.items()))
    print(f"{killed} kills ({what}); {equal} of {runs} runs wrote the lines of the undisturbed one")
    sys.exit(equal < runs)


if __name__ == "__main__":
    main()
