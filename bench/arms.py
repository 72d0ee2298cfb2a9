"""
Every arm over seeds at equal rollouts: one JSON file and a table with paired differences
$ python bench/arms.py --quick                                    # two arms, two seeds, few steps: does it run
$ python bench/arms.py --json=bench/results/arith.json            # the report: 22 arms x 8 seeds, on prompts nobody tuned on; an hour on two cores
$ python bench/arms.py --world=letters --json=bench/results/letters.json
$ python bench/arms.py --dev --arms=grpo,rollout_price_pass       # the development set: other prompts, other seeds
$ python bench/arms.py --read=bench/results/arith.json            # the table of a kept report
Stop it and run it again: it continues. Each run is train.py itself, in a process of its own; what a rival replaces is in ARMS.
"""
import argparse
import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed

import numpy as np
from tqdm import tqdm

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

PROMPT, ROLLOUT = ["--prompt_gdro=true"], ["--rollout_gdro=true"]
EXP3P = ROLLOUT + ["--rollout_rule=exp3p", "--n_min=2", "--n_max=12"]  # the paper's arms
ARMS = {  # name -> arguments of train.py, and what of it is replaced by what of rivals.py
    "grpo": ([], {}),
    "grpo_prompt_mean": (["--loss_agg=prompt"], {}),
    "prompt_error": (PROMPT, {}),
    "prompt_variance": (PROMPT + ["--prompt_signal=variance"], {}),
    "prompt_nll": (PROMPT + ["--prompt_signal=nll"], {}),
    "prompt_surrogate": (PROMPT + ["--prompt_signal=surrogate"], {}),
    "rollout_price_pass": (ROLLOUT, {}),
    "rollout_price_mixed": (ROLLOUT + ["--rollout_utility=mixed"], {}),
    "rollout_price_variance": (ROLLOUT + ["--rollout_utility=variance"], {}),
    "rollout_exp3p_error": (EXP3P + ["--arm_signal=error"], {}),
    "rollout_exp3p_surrogate": (EXP3P, {}),
    "both": (PROMPT + ROLLOUT, {}),
    "preset_paper_prompt": (["--preset=paper"] + PROMPT, {}),
    "preset_paper_rollout": (["--preset=paper"] + ROLLOUT, {}),
    "preset_reference_prompt": (["--preset=reference"] + PROMPT, {}),
    "preset_reference_rollout": (["--preset=reference"] + ROLLOUT, {}),
    "one_minus_p": (PROMPT, {"PromptGDRO": "OneMinusP"}),
    "pools": (PROMPT, {"PromptGDRO": "Pools"}),
    "neyman": (ROLLOUT + ["--rollout_utility=variance"], {"RolloutGDRO": "Neyman"}),
    "knapsack": (ROLLOUT, {"RolloutGDRO": "Knapsack"}),
    "maxrl": ([], {"group_advantages": "maxrl_advantages"}),
    "dapo": (["--prompts_per_step=128", "--steps=50"], {"group_advantages": "dapo_advantages"}),
}
WORLDS = {"arith": [], "letters": ["--dataset=letters", "--eval_sets=letters", "--model=worlds/letters"]}  # name -> arguments of train.py
DEVELOPMENT, REPORT = {"prompts": 0, "seeds": range(100, 108)}, {"prompts": 1, "seeds": range(8)}  # seeds of the problems, and of the runs
METRICS = ("mean@8", "pass@8", "worst", "area")
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262, 12: 2.201, 16: 2.131}  # 97.5 % quantile, by number of seeds


def run_one(arm, world, prompts, seed, folder, extra):
    """One run, its output in `folder`.log -> its result, kept as result.json."""
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    with open(folder + ".log", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        run_here(arm, world, prompts, ["--device=cpu", f"--seed={seed}", f"--out_dir={folder}", "--resume=auto", "--save_every=1000", *extra])
    except BaseException as error:  # SystemExit too
        raise RuntimeError(f"{arm}, seed {seed} failed ({error!r}): see {folder}.log") from error
    result = result_of(folder) | {"extra": extra}
    with open(os.path.join(folder, "result.json.tmp"), "w") as file:
        json.dump(result, file)
    os.replace(os.path.join(folder, "result.json.tmp"), os.path.join(folder, "result.json"))
    return result


def run_here(arm, world, prompts, arguments):
    """One run in this process."""
    import train
    from bench import rivals
    from worlds import problems

    problems.SEED = prompts
    settings, replaced = ARMS[arm]
    for name, rival in replaced.items():
        rival = getattr(rivals, rival)
        setattr(train, name, rival(train.group_advantages) if rival is rivals.dapo_advantages else rival)
    train.main([*WORLDS[world], *settings, *arguments])


def result_of(folder):
    """What a finished run achieved, from its own log: metrics after the last step, and the curve over rollouts generated."""
    with open(os.path.join(folder, "metrics.jsonl")) as file:
        spent = np.cumsum([0] + [json.loads(line)["rollouts/total"] for line in file])
    with open(os.path.join(folder, "eval.jsonl")) as file:
        records = [json.loads(line) for line in file]
    rollouts = [int(spent[r["step"]]) for r in records]
    curve = {name: [r[key] for r in records] for name, key in (("mean@8", "mean@8"), ("pass@8", "pass@8"), ("worst", "worst_group/mean@8"))}
    area = float(np.trapezoid(curve["pass@8"], rollouts) / rollouts[-1])  # mean pass@8 over the budget
    return {name: values[-1] for name, values in curve.items()} | {"area": area, "rollouts": rollouts, "curve": curve}


def run_all(args, arms, seeds, prompts, extra):
    """Every (arm, seed) that has no result yet, `args.jobs` at a time -> arm -> seed -> result, and the versions that the last ran with."""
    results, todo = {arm: {} for arm in arms}, []
    for seed in seeds:  # all arms of a seed before the next seed: a table can be read early
        for arm in arms:
            folder = os.path.join(args.out, args.world, f"prompts{prompts}", arm, f"seed{seed}")
            if os.path.exists(os.path.join(folder, "result.json")):
                with open(os.path.join(folder, "result.json")) as file:
                    results[arm][seed] = json.load(file)
                if results[arm][seed]["extra"] != extra:
                    sys.exit(f"{folder} was run with {results[arm][seed]['extra']}, not {extra}: choose another --out")
            else:
                todo.append((arm, seed, folder))

    if todo:
        os.environ |= {"OMP_NUM_THREADS": "1"}
        context = multiprocessing.get_context("forkserver")  # a clean process a run, which inherits the imports
        context.set_forkserver_preload(["train", "bench.rivals", "transformers.models.qwen3.modeling_qwen3"])
        with ProcessPoolExecutor(args.jobs, context, max_tasks_per_child=1) as pool:
            running = {pool.submit(run_one, arm, args.world, prompts, seed, folder, extra): (arm, seed) for arm, seed, folder in todo}
            try:
                for future in tqdm(as_completed(running), total=len(running), unit="run", dynamic_ncols=True):
                    arm, seed = running[future]
                    results[arm][seed] = future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    with open(os.path.join(folder, "config.json")) as file:  # of the last run
        versions = json.load(file)["versions"]
    return {arm: dict(sorted(by_seed.items())) for arm, by_seed in results.items()}, versions


def half_width(values):
    """Half of the 95 % interval of a mean over seeds (t distribution): values [seeds, ...] -> [...]."""
    n = len(values)
    return STUDENT[max(known for known in STUDENT if known <= n)] * np.std(values, axis=0, ddof=1) / np.sqrt(n) if n > 1 else np.zeros_like(values[0])


def paired(values, base):
    """Mean difference over the seeds that both have, and its 95 % interval (t distribution) -> difference, low, high, number of seeds."""
    seeds = sorted(set(values) & set(base))
    d = np.array([values[s] - base[s] for s in seeds])
    if len(d) < 2:
        return (float(d.mean()) if len(d) else float("nan")), float("nan"), float("nan"), len(d)
    half = half_width(d)
    return float(d.mean()), float(d.mean() - half), float(d.mean() + half), len(d)


def gain(results, arm, against, metric):
    """Relative gain of an arm over another in a metric, paired by seed, in percent -> gain, and its 95 % interval's low and high end."""
    values, base = ({seed: r[metric] for seed, r in results[name].items()} for name in (arm, against))
    scale = 100 / np.mean([base[seed] for seed in values if seed in base])
    return tuple(scale * np.array(paired(values, base)[:3]))


def table(results, against="grpo"):
    """Markdown lines: means over seeds, and gains in mean@8 and pass@8 relative to the arm `against`, paired by seed, in percent with 95 % intervals."""
    rows = [["arm", "seeds", *METRICS, f"mean@8 against {against}, %", f"pass@8 against {against}, %", "rollouts"]]
    for arm, by_seed in results.items():
        if not by_seed:
            continue
        gains = ["" if arm == against else "{:+.1f} [{:+.1f}, {:+.1f}]".format(*gain(results, arm, against, metric)) for metric in ("mean@8", "pass@8")]
        means = [f"{np.mean([r[metric] for r in by_seed.values()]):.3f}" for metric in METRICS]
        rows.append([arm, str(len(by_seed)), *means, *gains, "/".join(sorted({f"{r['rollouts'][-1]:,}" for r in by_seed.values()}))])
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", choices=WORLDS, default="arith")
    parser.add_argument("--arms", default=",".join(ARMS), help="comma-separated; all")
    parser.add_argument("--seeds", type=int, help="so many of the set's seeds")
    parser.add_argument("--dev", action="store_true", help="development prompts and seeds")
    parser.add_argument("--quick", action="store_true", help="grpo and both, two seeds, three steps")
    parser.add_argument("--read", default="", help="a file of --json: its table, and run nothing")
    parser.add_argument("--against", default="", help="the arm that others are compared with; grpo, or the first")
    parser.add_argument("--out", default="", help="folder of the runs; out/arms, or out/arms_quick")
    parser.add_argument("--json", default="", help="file for the results; empty for none")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at once, a core each")
    args, extra = parser.parse_known_args()
    arms = ["grpo", "both"] if args.quick else args.arms.split(",")
    if unknown := [arm for arm in arms if arm not in ARMS]:
        parser.error(f"no such arm: {', '.join(unknown)}; there are {', '.join(ARMS)}")
    if args.read and args.json:
        parser.error("--read runs nothing: leave out --json")
    args.out = args.out or ("out/arms_quick" if args.quick else "out/arms")
    chosen = DEVELOPMENT if args.dev or args.quick else REPORT
    seeds = list(chosen["seeds"])[: 2 if args.quick else args.seeds]
    if args.quick:
        extra = ["--steps=3", "--eval_every=3", "--prompts_per_step=16", *extra]
    if args.read:
        with open(args.read) as file:
            results = json.load(file)["results"]
    else:
        results, versions = run_all(args, arms, seeds, chosen["prompts"], extra)
    if args.json:
        lines = ",\n".join(f"{json.dumps(arm)}: {json.dumps(by_seed)}" for arm, by_seed in results.items())
        about = json.dumps({"world": args.world, "prompts": chosen["prompts"], "extra": extra, "versions": versions})
        with open(args.json, "w") as file:
            file.write(f'{about[:-1]}, "results": {{\n{lines}\n}}}}\n')
    print("\n".join(table(results, args.against or ("grpo" if "grpo" in results else next(iter(results))))))


if __name__ == "__main__":
    main()
