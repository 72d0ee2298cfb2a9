"""
Every arm over seeds at equal rollouts: one JSON file, and a table with paired differences.
$ python bench/arms.py --quick                            # few arms, seeds and steps: does it run
$ python bench/arms.py --arms=grpo,both --seeds=4         # two arms on four seeds
$ python bench/arms.py --world=chains --dev               # development: other prompts, other seeds
$ python bench/arms.py --ablations=gspo,cispo --dev --seeds=4    # ablations/*.diff beside GRPO
$ python bench/arms.py --arms=grpo,grpo:lr=2e-4:updates_per_step=1 --dev     # knobs behind a name
$ python bench/arms.py --ablations=hora,hora:group_memory=32 --dev           # of an ablation too
$ python bench/arms.py --tune --arms=grpo,both --json=tuning.json   # every arm at every setting
$ python bench/arms.py --tuned=tuning.json --json=tuned.json        # then each at its best, fresh
$ python bench/arms.py --tune --tune_lr=2e-4,4e-4 --tune_updates=2 --finalists=1    # fewer settings
$ python bench/arms.py --read=bench/results/chains.json   # the table of a kept report
$ python bench/arms.py --read=bench/results/chains.json --against=maxrl --arms=maxrl,both
Without --arms all of ARMS are trained, 8 seeds each, on prompts that nobody tuned on. Stop it and
run it again: it continues. What the file of --json has already is not run again: name another one
to measure anew. Each run is train.py itself, in a process of its own; ARMS says what a rival
replaces, and an ablation is trained from a copy of this checkout to which its diff was applied.
Arguments that are not listed below go to every run.
"""
import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed

import numpy as np
from tqdm import tqdm

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

PROMPT = ["--prompt_gdro=true"]
ROLLOUT = ["--rollout_gdro=true"]
PASS = "--rollout_utility=pass"
ERROR = ["--prompt_signal=error", "--prompt_eta=3"]
MEMORY = "--group_memory=32"
PAPER = os.path.join(ROOT, "config", "paper.py")
REFERENCE = os.path.join(ROOT, "config", "reference.py")
DAPO = ["--prompts_per_step=128", "--steps=50"]  # twice the prompts, for half of the steps

# name -> arguments of train.py, and which of its names is replaced by which of bench/rivals.py
ARMS = {
    "grpo": ([], {}),
    "prompt_gdro": ([*PROMPT, MEMORY], {}),
    "rollout_gdro": ([*ROLLOUT, MEMORY], {}),
    "both": ([*PROMPT, *ROLLOUT, MEMORY, "--loss_agg=prompt"], {}),
    "both_token": ([*PROMPT, *ROLLOUT, MEMORY], {}),
    "grpo_memory": ([MEMORY], {}),
    "prompt_alone": (PROMPT, {}),
    "rollout_alone": (ROLLOUT, {}),
    "rollout_pass": ([*ROLLOUT, PASS, MEMORY], {}),
    "prompt_error": ([*PROMPT, *ERROR, MEMORY], {}),
    "paper_prompt": ([PAPER, *PROMPT], {}),
    "paper_rollout": ([PAPER, *ROLLOUT], {}),
    "reference_prompt": ([REFERENCE, *PROMPT], {}),
    "reference_rollout": ([REFERENCE, *ROLLOUT], {}),
    "one_minus_p": (PROMPT, {"PromptGDRO": "OneMinusP"}),
    "knapsack": (ROLLOUT, {"RolloutGDRO": "Knapsack"}),
    "inverse_rate": (ROLLOUT, {"RolloutGDRO": "InverseRate"}),
    "dapo": (DAPO, {"group_advantages": "dapo_advantages"}),
    "mopps": ([], {"sample_step": "mopps_step"}),
    "greso": ([], {"sample_step": "greso_step"}),
    "curverl": ([], {"group_advantages": "curve_advantages"}),
}
WORLDS = {  # name -> arguments of train.py
    "arith": [],
    "chains": ["--dataset=chains", "--eval_sets=chains", "--model=worlds/chains"],
    "orders": ["--dataset=orders", "--eval_sets=orders", "--model=worlds/orders"],
    # of worlds/make_base.py chains_wide: four times the parameters
    "chains_wide": ["--dataset=chains", "--eval_sets=chains", "--model=worlds/chains_wide"],
    "steps": ["--dataset=steps", "--eval_sets=steps", "--model=worlds/steps", "--template=boxed",
              "--reward=math", "--max_prompt_len=16", "--max_response_len=112",
              "--max_num_seqs=1024"],
}
# What --tune tries with every arm, and with GRPO besides: no arm has more.
LR = ("5e-5", "1e-4", "2e-4", "4e-4", "8e-4")
UPDATES = ("1", "2")
GRPO_TOO = ("prompts_per_step=32:n_rollouts=8", "kl_coef=0")
TUNED = ("lr", "updates_per_step", "prompts_per_step", "n_rollouts", "kl_coef")
FINALISTS = 3  # settings of an arm that are tried on all seeds, after one seed of each
# The seed that the world's prompts are drawn with, and the seeds of the runs.
DEVELOPMENT = {"prompts": 0, "seeds": range(100, 108)}
REPORT = {"prompts": 1, "seeds": range(16)}

CURVES = {"mean@8": "mean@8", "pass@8": "pass@8", "worst": "worst_group/mean@8", "tail": "tail"}
METRICS = (*CURVES, "area")  # columns of the table

# Number of seeds -> 97.5 % quantile of the t distribution, which has a degree of freedom less.
STUDENT = {
    2: 12.706,
    3: 4.303,
    4: 3.182,
    5: 2.776,
    6: 2.571,
    7: 2.447,
    8: 2.365,
    9: 2.306,
    10: 2.262,
    12: 2.201,
    16: 2.131,
}


# ---------- ablations ----------


def split_name(arm):
    """grpo:lr=2e-4 -> the name of an arm or an ablation, and knobs as arguments of train.py."""
    name, *knobs = arm.split(":")
    return name, [f"--{knob}" for knob in knobs]


def untuned(arm):
    """An arm without what --tune varies: hora:group_memory=32:lr=2e-4 -> hora:group_memory=32."""
    name, *knobs = arm.split(":")
    return ":".join([name, *[knob for knob in knobs if knob.split("=")[0] not in TUNED]])


def diff_of(name):
    return os.path.join(ROOT, "ablations", f"{name}.diff")


def base_of(world):
    """The weights of its base policy."""
    return os.path.join(ROOT, "worlds", world, "model.safetensors")


def hash_of(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:16]


def made_with(arm, world, extra):
    """What a kept result must agree in with a new one: further arguments, the diff of an ablation
    (an arm has none), and the base policy."""
    name, _ = split_name(arm)
    return {"extra": extra, "diff": "" if name in ARMS else hash_of(diff_of(name)),
            "base": hash_of(base_of(world))}


def ablated(name, folder):
    """Copy this checkout into the new `folder` and apply ablations/`name`.diff -> folder."""
    for part in ("worlds", "grader", "engines", "config", "bench"):
        shutil.copytree(os.path.join(ROOT, part), os.path.join(folder, part))
    for file in os.listdir(ROOT):
        if file.endswith(".py"):
            shutil.copy(os.path.join(ROOT, file), folder)
    # outside of any repository, or git would look for the files in that one
    alone = os.environ | {"GIT_CEILING_DIRECTORIES": os.path.dirname(os.path.abspath(folder))}
    done = subprocess.run(["git", "apply", diff_of(name)], cwd=folder, env=alone,
                          capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ablations/{name}.diff does not apply: {done.stderr.strip()}")
    return folder


# ---------- runs ----------


def run_here(arm, world, prompts, arguments, checkout=ROOT):
    """One run of a checkout in this process, which must not have imported another one's train.py;
    the world's problems are drawn with the seed `prompts`."""
    sys.path.insert(0, checkout)
    import train
    from bench import rivals
    from worlds import problems

    problems.SEED = prompts
    name, knobs = split_name(arm)
    settings, replaced = ARMS.get(name, ([], {}))
    for name, rival_name in replaced.items():
        rival = getattr(rivals, rival_name)
        # a class takes the place of a class; a function wraps the one that it replaces
        setattr(train, name, rival if isinstance(rival, type) else rival(getattr(train, name)))
    train.main([*WORLDS[world], *settings, *knobs, *arguments])


def result_of(folder):
    """What a finished run achieved, from its own log.

    -> metrics after the last step, and their curves over the rollouts generated."""
    with open(os.path.join(folder, "metrics.jsonl")) as file:
        rollouts_of_step = [json.loads(line)["rollouts/total"] for line in file]
    with open(os.path.join(folder, "eval.jsonl")) as file:
        records = [json.loads(line) for line in file]
    spent = np.cumsum([0, *rollouts_of_step])  # before the first step, after it, ...
    rollouts = [int(spent[record["step"]]) for record in records]
    for record in records:
        record["tail"] = tail(record["groups"])
    curve = {name: [record[key] for record in records] for name, key in CURVES.items()}
    result = {name: values[-1] for name, values in curve.items()}
    # The area under pass@8, divided by the budget: its mean over the rollouts.
    result["area"] = float(np.trapezoid(curve["pass@8"], rollouts) / rollouts[-1])
    return result | {"rollouts": rollouts, "curve": curve}


def tail(groups):
    """Mean@8 of the worst quarter of the groups. Where groups are many and hard, the worst one is
    at 0 whatever the method."""
    by_family = sorted(group["mean@8"] for group in groups.values())
    return float(np.mean(by_family[: -(-len(by_family) // 4)]))


def run_one(arm, world, prompts, seed, folder, extra, checkout):
    """One run, what it prints in `folder`.log -> its result, kept as result.json in its folder."""
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    with open(folder + ".log", "w") as log:
        os.dup2(log.fileno(), 1)  # stdout and stderr, of this process and of what it starts
        os.dup2(log.fileno(), 2)
    own = [f"--seed={seed}", f"--out_dir={folder}"]
    arguments = ["--device=cpu", *own, "--resume=auto", "--save_every=1000", *extra]
    try:
        run_here(arm, world, prompts, arguments, checkout)
    except BaseException as error:  # train.py ends with SystemExit, which is no Exception
        raise RuntimeError(f"{arm}, seed {seed} failed ({error!r}): see {folder}.log") from error
    result = result_of(folder) | made_with(arm, world, extra)
    path = os.path.join(folder, "result.json")
    with open(path + ".tmp", "w") as file:
        json.dump(result, file)
    os.replace(path + ".tmp", path)  # whole or not at all
    return result


def kept_results(args, prompts):
    """What the file of an earlier call with the same --json holds -> arm -> seed -> result."""
    if not args.json or not os.path.exists(args.json):
        return {}
    with open(args.json) as file:
        kept = json.load(file)
    if (kept["world"], kept["prompts"]) != (args.world, prompts):
        sys.exit(f"{args.json} is of {kept['world']}, prompts {kept['prompts']}: choose another")
    return {arm: {int(seed): result for seed, result in by_seed.items()}
            for arm, by_seed in kept["results"].items()}


def kept_result(folder, made, result=None):
    """The result of a run that was finished before, from its folder unless it is given, or None;
    it must have been `made` with the same."""
    path = os.path.join(folder, "result.json")
    if result is None and not os.path.exists(path):
        return None
    if result is None:
        with open(path) as file:
            result = json.load(file)
    for what, value in made.items():
        if result.get(what, value) != value:  # older reports do not name all
            sys.exit(f"{folder} was run with another {what}, {result[what]} and not {value}: "
                     "choose another --out and --json, or delete both")
    return result


def run_all(args, arms, seeds, prompts, extra):
    """Every (arm, seed) that has no result yet, `args.jobs` at a time.

    -> arm -> seed -> result, with those that the file of --json has already, and the versions that
    one of the runs noted."""
    folders = {}
    for seed in seeds:  # all arms of a seed before the next seed: a table can be read early
        for arm in arms:
            place = (args.world, f"prompts{prompts}", arm, f"seed{seed}")
            folders[arm, seed] = os.path.join(args.out, *place)
    kept = kept_results(args, prompts)
    done = {(arm, seed): kept_result(folder, made_with(arm, args.world, extra),
                                     kept.get(arm, {}).get(seed))
            for (arm, seed), folder in folders.items()}
    todo = [run for run, result in done.items() if result is None]
    if len(todo) < len(done):
        print(f"{len(done) - len(todo)} of {len(done)} runs are kept from before", file=sys.stderr)
    if todo:
        os.environ["OMP_NUM_THREADS"] = "1"  # a run has a core to itself
        with (tempfile.TemporaryDirectory() as copies,
              ProcessPoolExecutor(args.jobs, clean_process(), max_tasks_per_child=1) as pool):
            names = {split_name(arm)[0] for arm, _ in todo} - set(ARMS)
            checkouts = {name: ablated(name, os.path.join(copies, name)) for name in names}
            running = {}
            for arm, seed in todo:
                what = (arm, args.world, prompts, seed, folders[arm, seed], extra,
                        checkouts.get(split_name(arm)[0], ROOT))
                running[pool.submit(run_one, *what)] = (arm, seed)
            try:
                finished = as_completed(running)
                for future in tqdm(finished, total=len(todo), unit="run", dynamic_ncols=True):
                    done[running[future]] = future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    for (arm, seed), result in done.items():
        kept.setdefault(arm, {})[seed] = result
    return kept, versions_of(args.json, folders[arms[-1], seeds[-1]])


def versions_of(path, folder):
    """What a run in `folder` noted, or the file of an earlier call."""
    own = os.path.join(folder, "config.json")
    with open(own if os.path.exists(own) else path) as file:
        return json.load(file)["versions"]


def clean_process():
    """A context for processes in which the libraries that train.py needs are imported, and nothing
    of this checkout is."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([
        "torch.distributed.checkpoint.state_dict", "torch.distributed.fsdp",
        "transformers.models.auto.tokenization_auto", "transformers.models.qwen3.modeling_qwen3"])
    return context


# ---------- statistics ----------


def half_width(values):
    """Half of the 95 % interval of a mean over seeds (t distribution): [seeds, ...] -> [...]."""
    n = len(values)
    if n == 1:
        return np.zeros_like(values[0])
    # Where the table has no such number of seeds, the next smaller: its interval is the wider one.
    quantile = STUDENT[max(known for known in STUDENT if known <= n)]
    return quantile * np.std(values, axis=0, ddof=1) / np.sqrt(n)


def paired(values, base):
    """Mean difference over the seeds that both have -> it, its 95 % interval, number of seeds."""
    seeds = sorted(set(values) & set(base))
    differences = np.array([values[seed] - base[seed] for seed in seeds])
    n = len(seeds)
    mean = float(differences.mean()) if n else float("nan")
    if n < 2:
        return mean, float("nan"), float("nan"), n
    half = float(half_width(differences))
    return mean, mean - half, mean + half, n


def gain(results, arm, against, metric):
    """Gain of an arm over another in a metric, paired by seed, in percent of the other's mean.

    -> gain, and the ends of its 95 % interval."""
    values = {seed: result[metric] for seed, result in results[arm].items()}
    base = {seed: result[metric] for seed, result in results[against].items()}
    percent = 100 / np.mean([base[seed] for seed in values if seed in base])
    difference, low, high, _ = paired(values, base)
    return percent * difference, percent * low, percent * high


# ---------- tuning ----------


def late_score(result):
    """What settings are chosen by: mean@8 averaged over the second half of the run's evaluations,
    which is steadier than the last one."""
    curve = result["curve"]["mean@8"]
    return float(np.mean(curve[(len(curve) + 1) // 2 :]))


def variants(arm, rates=LR, updates=UPDATES):
    """An arm at every setting that --tune tries with it."""
    # a step of DAPO's has twice the prompts: with twice the updates it has as many as the others
    times = 2 if arm == "dapo" else 1
    grid = [f"lr={lr}:updates_per_step={times * int(n)}" for lr in rates for n in updates]
    if arm == "grpo":
        grid += [f"{settings}:{more}" for settings in grid for more in GRPO_TOO]
    return [f"{arm}:{settings}" for settings in grid]


def ranked(results):
    """An arm -> its variants in `results`, the best first. Those with more seeds come
    before those with fewer, which one lucky run could put there."""
    by_name = {}
    for arm, by_seed in results.items():
        score = np.mean([late_score(r) for r in by_seed.values()])
        by_name.setdefault(untuned(arm), []).append((len(by_seed), score, arm))
    return {name: [arm for _, _, arm in sorted(of, key=lambda v: v[:2], reverse=True)]
            for name, of in by_name.items()}


def chosen(results):
    """Of the results of --tune, each arm's best settings -> arm -> variant."""
    return {name: best for name, (best, *_) in ranked(results).items()}


def tune(args, arms, seeds, prompts, extra):
    """One seed of every variant, and the other seeds of each arm's best few -> as `run_all`."""
    first, _ = run_all(args, arms, seeds[:1], prompts, extra)
    # the file of an earlier call may have more seeds of some, which are no better for it
    one_seed = {arm: {seeds[0]: of[seeds[0]]} for arm, of in first.items()}
    grid = len(args.tune_lr.split(",")) * len(args.tune_updates.split(","))
    # of GRPO, which has three times the settings, three times as many
    best = [arm for of in ranked(one_seed).values()
            for arm in of[: args.finalists * len(of) // grid]]
    results, versions = run_all(args, best, seeds, prompts, extra)
    return first | results, versions


def rollouts_to(result, target):
    """Rollouts after which mean@8 is first `target`, by the line between two evaluations; infinity
    if it never is."""
    rollouts, curve = result["rollouts"], result["curve"]["mean@8"]
    if curve[0] >= target:
        return 0.0
    for i in range(1, len(curve)):
        if curve[i] >= target:  # and the one before is below it
            share = (target - curve[i - 1]) / (curve[i] - curve[i - 1])
            return rollouts[i - 1] + share * (rollouts[i] - rollouts[i - 1])
    return float("inf")


def share_needed(results, arm, against):
    """The share of the budget that an arm needs to the final mean@8 (over seeds) of another, with
    its 95 % interval -> text; where some seeds never get there, how many do."""
    target = np.mean([r["mean@8"] for r in results[against].values()])
    budget = next(iter(results[against].values()))["rollouts"][-1]
    needed = np.array([rollouts_to(r, target) for r in results[arm].values()]) / budget
    reached = np.isfinite(needed)
    if not reached.all():
        return f"{reached.sum()} of {len(needed)}"
    half = half_width(needed)
    return f"{needed.mean():.2f} [{needed.mean() - half:.2f}, {needed.mean() + half:.2f}]"


def p_value(values, base):
    """Of Student's paired t test, two-sided, over the seeds that both have."""
    from mpmath import betainc

    seeds = sorted(set(values) & set(base))
    differences = np.array([values[seed] - base[seed] for seed in seeds])
    if not differences.any():
        return 1.0
    freedom = len(seeds) - 1
    spread = np.std(differences, ddof=1)
    if freedom < 1 or spread == 0:
        return float("nan") if freedom < 1 else 0.0
    t2 = (differences.mean() / (spread / np.sqrt(len(seeds)))) ** 2
    return float(betainc(freedom / 2, 0.5, 0, freedom / (freedom + t2), regularized=True))


def holm(p_values):
    """Holm's correction for comparing several arms with one: name -> p -> name -> adjusted p."""
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.get)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return adjusted


def tuned_table(results, against):
    """Markdown lines: what `table` leaves out. The share of the rollouts to the baseline's final
    mean@8, and p values of mean@8 and pass@8 corrected for the number of arms."""
    others = [arm for arm in results if arm != against]
    base = untuned(against)
    rows = [["arm", f"rollouts to final mean@8 of {base}, share", "p mean@8", "p pass@8"]]
    corrected = {}
    for metric in ("mean@8", "pass@8"):
        by_seed = {arm: {seed: r[metric] for seed, r in results[arm].items()} for arm in results}
        corrected[metric] = holm({a: p_value(by_seed[a], by_seed[against]) for a in others})
    for arm in others:
        rows.append([arm, share_needed(results, arm, against),
                     *[f"{corrected[metric][arm]:.3f}" for metric in corrected]])
    return aligned(rows)


def aligned(rows):
    """Rows of cells, the first of which is the head -> lines of a markdown table."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return [lines[0], rule, *lines[1:]]


def table(results, against="grpo"):
    """Markdown lines: means over seeds, and gains over the arm `against` with 95 % intervals."""
    compared = ("mean@8", "pass@8")
    headings = [f"{metric} against {untuned(against)}, %" for metric in compared]
    first = next(result for by_seed in results.values() for result in by_seed.values())
    metrics = [name for name in METRICS if name in first]  # an older report has no tail
    rows = [["arm", "seeds", *metrics, *headings, "rollouts"]]
    for arm, by_seed in results.items():
        if not by_seed:
            continue
        row = [arm, str(len(by_seed))]
        for metric in metrics:
            row.append(f"{np.mean([result[metric] for result in by_seed.values()]):.3f}")
        for metric in compared:
            middle, low, high = gain(results, arm, against, metric)
            row.append("" if arm == against else f"{middle:+.1f} [{low:+.1f}, {high:+.1f}]")
        row.append("/".join(sorted({f"{r['rollouts'][-1]:,}" for r in by_seed.values()})))
        rows.append(row)
    return aligned(rows)


# ---------- command line ----------


def parse_arguments():
    """-> the arguments, the arms, and what is handed on to train.py."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--world", choices=WORLDS, default="arith")
    add("--arms", help="comma-separated; all, or grpo beside ablations")
    add("--ablations", default="", help="comma-separated names of diffs in ablations/")
    add("--seeds", type=int, help="so many of the set's seeds; 8, and 3 to tune")
    add("--dev", action="store_true", help="development prompts and seeds")
    add("--quick", action="store_true", help="grpo and both, two seeds, three steps")
    add("--tune", action="store_true", help="each arm at every setting on one development seed, "
        "its best ones on three")
    add("--tune_lr", default=",".join(LR), help="the learning rates of --tune")
    add("--tune_updates", default=",".join(UPDATES), help="its updates_per_step")
    add("--finalists", type=int, default=FINALISTS, help="how many of an arm's are its best "
        "ones; of GRPO's three times as many")
    add("--tuned", default="", help="a file of --tune: each arm at its best settings")
    add("--read", default="", help="a file of --json: its table, or that of --arms; run nothing")
    add("--against", default="", help="the arm that others are compared with; grpo, or the first")
    add("--out", default="", help="folder of the runs; out/arms, or out/arms_quick")
    add("--json", default="", help="file for the results; empty for none")
    add("--jobs", type=int, default=os.cpu_count(), help="runs at once, a core each")
    args, extra = parser.parse_known_args()
    ablations = [name for name in args.ablations.split(",") if name]
    arms = list(ARMS)
    if args.arms:
        arms = args.arms.split(",")
    elif ablations:
        arms = ["grpo"]
    elif args.quick:
        arms = ["grpo", "both"]
    if not (args.read or os.path.exists(base_of(args.world))):
        parser.error(f"there is no {base_of(args.world)}: python worlds/make_base.py {args.world}")
    if args.quick:
        args.dev, args.seeds = True, 2
        extra = ["--steps=3", "--eval_every=3", "--prompts_per_step=16", *extra]
    args.out = args.out or ("out/arms_quick" if args.quick else "out/arms")
    unknown = [arm for arm in arms if split_name(arm)[0] not in ARMS]
    if unknown:
        parser.error(f"no such arm: {', '.join(unknown)}; there are {', '.join(ARMS)}")
    files = [diff_of(split_name(name)[0]) for name in ablations]
    missing = [path for path in files if not os.path.exists(path)]
    if missing:
        parser.error(f"no such file: {', '.join(missing)}")
    arms += ablations
    if args.tune:
        args.dev, args.seeds = True, args.seeds or 3
        grid = args.tune_lr.split(","), args.tune_updates.split(",")
        arms = [variant for arm in arms for variant in variants(arm, *grid)]
    if args.tuned:
        with open(args.tuned) as file:
            best = chosen(json.load(file)["results"])
        arms = [best[arm] for arm in (arms if args.arms or ablations else best)]
    if args.read and args.json:
        parser.error("--read runs nothing: leave out --json")
    return args, arms, extra


def write_results(path, about, results):
    """A JSON object: what `about` says, and the results with a line an arm, which diffs well."""
    by_arm = ",\n".join(f"{json.dumps(arm)}: {json.dumps(of)}" for arm, of in results.items())
    about = json.dumps(about).removesuffix("}")
    with open(path, "w") as file:
        file.write(f'{about}, "results": {{\n{by_arm}\n}}}}\n')


def main():
    args, arms, extra = parse_arguments()
    if args.read:
        with open(args.read) as file:
            report = json.load(file)
        results, of_best = report["results"], report.get("tuned")
        if args.arms:
            results = {arm: of for arm, of in results.items() if untuned(arm) in arms}
    else:
        of_set = DEVELOPMENT if args.dev else REPORT
        prompts, seeds = of_set["prompts"], of_set["seeds"][: args.seeds or 8]
        run = tune if args.tune else run_all
        results, versions = run(args, arms, seeds, prompts, extra)
        of_best = bool(args.tuned)
        if args.json:
            about = {"world": args.world, "prompts": prompts, "extra": extra, "tuned": of_best,
                     "versions": versions}
            write_results(args.json, about, results)
    named = [arm for arm in results if (args.against or "grpo") in (arm, untuned(arm))]
    if args.against and not named:
        sys.exit(f"no arm {args.against}; there are {', '.join(results)}")
    against = named[0] if named else next(iter(results))
    print("\n".join(table(results, against)))
    if args.tune:
        print("\nbest: " + ", ".join(chosen(results).values()))
    if of_best:
        print("\n" + "\n".join(tuned_table(results, against)))


if __name__ == "__main__":
    main()
