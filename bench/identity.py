"""
Whether this checkout writes what another one writes, number by number: for changes that change
nothing. Trains the four arith configs in both, on one process and on two ranks.
$ python bench/identity.py ../before            # some minutes
$ python bench/identity.py ../before --vllm     # with vLLM as engine too: longer
$ python bench/identity.py ../before --steps=5 --configs=arith_gdro --ranks=1
$ python bench/identity.py ../before --renamed=rollouts/total:rollouts,loss:loss/mean
Compares metrics.jsonl, eval.jsonl and samples.jsonl line by line, times and memory aside. Each
checkout takes its own defaults, run by this interpreter. Exit status 1 at any difference.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CONFIGS = ("arith_grpo", "arith_prompt_gdro", "arith_rollout_gdro", "arith_gdro")
FILES = ("metrics.jsonl", "eval.jsonl", "samples.jsonl")
MACHINE = ("time/", "mem/")  # beginnings of keys whose values the machine decides
ENGINES = {"torch": ["--engine=torch"], "vllm": ["--engine=vllm", "--kv_cache_gib=0.0625"]}


def run(checkout, config, ranks, engine, steps, out):
    """One run of a checkout, into the folder `out`."""
    launcher = [sys.executable]
    if ranks > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    own = [f"config/{config}.py", f"--steps={steps}", f"--out_dir={out}", "--device=cpu"]
    done = subprocess.run(
        [*launcher, "train.py", *own, "--samples_every=1", *ENGINES[engine]],
        cwd=checkout,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        failed = f"{config}, {ranks} rank(s), {engine} failed with status {done.returncode}"
        sys.exit(f"{checkout}: {failed}:\n{done.stderr[-3000:]}")


def records_of(out, name, renamed):
    """The records of one of a run's files, keys that the machine decides left out.

    Values are kept as they are written, so that 1 and 1.0 differ, and NaN equals NaN."""
    with open(os.path.join(out, name)) as file:
        lines = [json.loads(line) for line in file]
    records = []
    for line in lines:
        kept = {key: value for key, value in line.items() if not key.startswith(MACHINE)}
        records.append({renamed.get(key, key): json.dumps(kept[key]) for key in kept})
    return records


def first_difference(old, new):
    """Of two lists of records -> what differs first, as a text, or None."""
    for number, (before, after) in enumerate(zip(old, new, strict=False), 1):
        for key in before | after:
            one, other = before.get(key, "missing"), after.get(key, "missing")
            if one != other:
                return f"line {number}, {key}: old {one}, new {other}"
    if len(old) != len(new):
        return f"old has {len(old)} lines, new has {len(new)}"
    return None


def compare(old_out, new_out, steps, renamed):
    """Two run folders -> whether they are identical, and a text that says it."""
    counts = []
    for name in FILES:
        old = records_of(old_out, name, renamed)
        new = records_of(new_out, name, {})
        difference = first_difference(old, new)
        if difference:
            return False, f"{name}, {difference}"
        counts.append(f"{len(new)} of {name}")
        assert name != "metrics.jsonl" or len(new) == steps, "a run without all of its steps"
    return True, f"identical, lines: {', '.join(counts)}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", help="folder of the other checkout")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--vllm", action="store_true", help="with vLLM as engine too")
    parser.add_argument("--configs", default=",".join(CONFIGS), help="comma-separated")
    parser.add_argument("--ranks", default="1,2", help="comma-separated")
    parser.add_argument("--renamed", default="", help="keys, as old:new,old:new")
    args = parser.parse_args()
    if not os.path.exists(os.path.join(args.old, "train.py")):
        parser.error(f"{args.old} has no train.py: give the folder of a checkout")
    renamed = dict(pair.split(":") for pair in args.renamed.split(",") if pair)
    runs = [
        (config, int(ranks), engine)
        for engine in (ENGINES if args.vllm else ["torch"])
        for ranks in args.ranks.split(",")
        for config in args.configs.split(",")
    ]
    all_equal = True
    for config, ranks, engine in runs:
        with tempfile.TemporaryDirectory() as folder:
            old_out, new_out = os.path.join(folder, "old"), os.path.join(folder, "new")
            run(args.old, config, ranks, engine, args.steps, old_out)
            run(ROOT, config, ranks, engine, args.steps, new_out)
            equal, said = compare(old_out, new_out, args.steps, renamed)
        print(f"{config}, {ranks} rank{'s' * (ranks > 1)}, {engine}: {said}", flush=True)
        all_equal &= equal
    sys.exit(not all_equal)


if __name__ == "__main__":
    main()
