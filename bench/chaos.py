"""
Kills a run with SIGKILL, resumes it each time, and compares what it wrote with a run that nobody disturbed. Of the kills one in five comes while it
starts, two while a checkpoint or a model is being written, the others whenever; and behind one in five the last line of the log is torn, as a dying machine may leave it.
$ python bench/chaos.py                                           # 30 kills, some minutes
$ python bench/chaos.py --kills=3 --seed=1
Exit status 1 if a single line differs. Times and memory, which the machine decides, are left out.
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

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FILES = ("metrics.jsonl", "samples.jsonl", "eval.jsonl")
RUN = ["config/arith_gdro.py", "--prompts_per_step=32", "--eval_every=4", "--save_every=3", "--samples_every=2", "--eval_samples=2", "--passk=2", "--device=cpu", "--resume=auto"]


def start(out, steps):
    """train.py in a process group of its own; what it complains of goes to `out`.err."""
    command = [sys.executable, os.path.join(ROOT, "train.py"), *RUN, f"--steps={steps}", f"--out_dir={out}"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=open(out + ".err", "w"), text=True, start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"})


def lines(out):
    """What the run wrote, times and memory blanked."""
    found = {}
    for name in FILES:
        with open(os.path.join(out, name)) as file:
            found[name] = re.sub(r'"(time|mem)/\w+": [^,}]+', "", file.read())
    return found


def unfinished(out):
    """Names of what is being written: a checkpoint, a model."""
    checkpoints = os.path.join(out, "ckpt")
    return [name for folder in (out, checkpoints) if os.path.isdir(folder) for name in os.listdir(folder) if name.endswith(".tmp") and os.path.isdir(os.path.join(folder, name))]


def finished(process, out):
    """Wait for a run that nobody kills any more; the last lines it wrote, if it failed."""
    if process.wait():
        with open(out + ".err") as file:
            sys.exit(f"a run failed with status {process.returncode}:\n{file.read()[-2000:]}")


def written(out):
    """Lines in the log, 0 without one."""
    path = os.path.join(out, "metrics.jsonl")
    if not os.path.exists(path):
        return 0
    with open(path, "rb") as file:
        return file.read().count(b"\n")


def tear(out):
    """Cut the log in the middle of its last line, if no checkpoint has it: those were made durable before."""
    latest = os.path.join(out, "ckpt", "latest")
    saved = 0
    if os.path.exists(latest):
        with open(latest) as file:
            saved = int(file.read().removeprefix("step_"))
    if written(out) > saved:
        os.truncate(os.path.join(out, "metrics.jsonl"), os.path.getsize(os.path.join(out, "metrics.jsonl")) - 100)


def traces(out):
    """What is found after a kill -> the moments that it hit."""
    moments = ["with a checkpoint half written"] * any(name.startswith("step_") for name in unfinished(out))
    moments += ["with a model half written"] * any(name in ("best.tmp", "hf.tmp") for name in unfinished(out))
    path = os.path.join(out, "metrics.jsonl")
    if os.path.exists(path) and os.path.getsize(path):
        with open(path, "rb") as file:
            moments += ["with a torn line"] * (not file.read().endswith(b"\n"))
    return moments


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, hits, killed, runs, equal = random.Random(args.seed), {}, 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        whole, victim = os.path.join(folder, "whole"), os.path.join(folder, "victim")
        begun = time.perf_counter()
        process = start(whole, args.steps)
        for line in process.stdout:
            if line.startswith("step: "):
                startup = time.perf_counter() - begun
        finished(process, whole)
        working = time.perf_counter() - begun - startup
        while killed < args.kills or os.path.exists(victim) or not runs:
            process = start(victim, args.steps)
            if killed < args.kills:
                kind = rng.choice(("start", "write", "write", "any", "any"))
                if kind == "start":
                    time.sleep(rng.uniform(0, startup))
                else:
                    next((line for line in process.stdout if line.startswith("step: ")), None)
                    time.sleep(rng.uniform(0, working / 3))
                while kind == "write" and process.poll() is None and not unfinished(victim):
                    time.sleep(0.0005)
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    killed += 1
                    if rng.random() < 0.2:
                        tear(victim)
                    for moment in traces(victim) or ["between writes"]:
                        hits[moment] = hits.get(moment, 0) + 1
                    print(f"kill {killed}: {written(victim)} lines written", file=sys.stderr)
                    continue
            finished(process, victim)
            runs, equal = runs + 1, equal + (lines(victim) == lines(whole))
            shutil.rmtree(victim)
    print(f"{killed} kills ({', '.join(f'{n} {moment}' for moment, n in sorted(hits.items()))}); {equal} of {runs} runs wrote the lines of the undisturbed one")
    sys.exit(equal < runs)


if __name__ == "__main__":
    main()
