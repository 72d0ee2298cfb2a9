"""
Evaluates a model: mean@n, unbiased pass@k, per group and for the worst group, with 95 % intervals.
$ python eval.py --model=out/arith_gdro/hf
$ python eval.py --model=out/arith_gdro/hf --eval_sets=my.jsonl --eval_samples=16 --passk=4
$ torchrun --nproc_per_node=8 eval.py --model=out/arith_gdro/hf             # questions spread over ranks
$ python eval.py --help
"""
import json
import os
import sys
from dataclasses import dataclass

import numpy as np

from configurator import UsageError, check_knobs, configure, refuse
from data import load_problems, within_length
from model import Group
from reward import RIGHT, Grader, grade_all
from rollout import ENGINES, Sampling, generate_all, make_engine, seed_of


CHOICES = {"engine": ENGINES, "device": ("auto", "cpu", "cuda")}
AT_LEAST = dict.fromkeys("eval_samples passk max_prompt_len max_response_len max_num_seqs cpu_threads collective_timeout".split(), 1) | {"seed": 0}
WITHIN = {"eval_temperature": (0, 100), "eval_top_p": (1e-6, 1), "eval_top_k": (0, 1e6), "kv_cache_gib": (1e-3, 1e3)}


@dataclass
class EvalConfig:
    # what
    model: str = "arith/base"  # folder of Hugging Face files (a run's hf/, say) or a hub id
    engine: str = "auto"  # auto: vllm on GPUs, torch on CPUs | vllm | torch: plain PyTorch sampling
    kv_cache_gib: float = 4.0  # vllm: GiB of key-value cache a rank
    eager: bool = False  # vllm: no CUDA graphs: starts sooner, samples slower
    collective_timeout: int = 1800  # seconds that ranks wait for each other
    device: str = "auto"  # auto: cuda if there is one; or cpu, cuda
    cpu_threads: int = 1  # PyTorch's threads on a CPU; small models are fastest with 1
    eval_sets: str = "arith"  # comma-separated: arith, or paths to .jsonl or .parquet files
    reward: str = "exact"  # grader, see reward.py
    # how
    eval_samples: int = 8  # n, responses a question
    passk: int = 8  # k of pass@k, at most eval_samples
    eval_temperature: float = 1.0  # 0 is greedy
    eval_top_p: float = 1.0  # keep the likeliest tokens that reach this probability together; 1 keeps all
    eval_top_k: int = 0  # keep this many likeliest tokens; 0 keeps all
    max_prompt_len: int = 16  # tokens; longer prompts are left out and counted
    max_response_len: int = 12  # tokens; longer responses are cut
    max_num_seqs: int = 256  # sequences decoded at once
    seed: int = 0  # seeds the samples and the bootstrap
    output: str = ""  # file to write the result to, as JSON; empty for none

    def __post_init__(self):
        check_knobs(self, CHOICES, AT_LEAST, WITHIN)
        if self.passk > self.eval_samples:
            raise UsageError(f"passk={self.passk} cannot be estimated from eval_samples={self.eval_samples}: lower one or raise the other")
        if not self.eval_sets.strip(", "):
            raise UsageError("eval_sets is empty: nothing to evaluate")
        if self.output and not os.path.isdir(os.path.dirname(os.path.abspath(self.output))):
            raise UsageError(f"output={self.output}: there is no such folder; make it first")


def pass_at_k(n_correct, n, k):
    """Unbiased pass@k of questions with n_correct [Q] right among n samples: 1 - C(n-c, k) / C(n, k) -> [Q] (Chen et al. 2021, Eq 1)."""
    if not 1 <= k <= n:
        raise UsageError(f"pass@{k} cannot be estimated from {n} samples a question: need passk <= eval_samples")
    wrong = n - np.asarray(n_correct, float)
    i = np.arange(k)
    return 1 - np.prod(np.clip(wrong[:, None] - i, 0, None) / (n - i), axis=1)


def interval(values, seed=0, resamples=2000):
    """95 % percentile bootstrap interval of the mean of `values` [Q], resampling questions -> [low, high]."""
    values = np.asarray(values, float)
    counts = np.random.default_rng(seed).multinomial(len(values), np.full(len(values), 1 / len(values)), resamples)
    return np.quantile(counts @ values / len(values), [0.025, 0.975]).tolist()


def summarize(n_correct, groups, n, k, seed=0):
    """n_correct [Q] right among n samples, groups [Q] names -> the result of one set, ready for JSON."""
    n_correct, groups = np.asarray(n_correct), np.asarray(groups)
    mean, passed = n_correct / n, pass_at_k(n_correct, n, k)
    per_group = {str(g): {f"mean@{n}": float(mean[groups == g].mean()), f"pass@{k}": float(passed[groups == g].mean()),
                          "questions": int((groups == g).sum())} for g in sorted(set(groups.tolist()))}
    worst = min(per_group, key=lambda g: per_group[g][f"mean@{n}"])
    return {"questions": len(mean), f"mean@{n}": float(mean.mean()), f"mean@{n}/interval": interval(mean, seed),
            f"pass@{k}": float(passed.mean()), f"pass@{k}/interval": interval(passed, seed),
            "worst_group": worst, f"worst_group/mean@{n}": per_group[worst][f"mean@{n}"], "groups": per_group}


def load_eval_sets(cfg, tokenizer):
    """name -> (problems, prompt token ids, number of rows left out) of every set in cfg.eval_sets."""
    sets = {}
    for name in filter(None, map(str.strip, cfg.eval_sets.split(","))):
        problems, without = load_problems(name, "eval")
        problems, ids, long = within_length(problems, tokenizer, cfg.max_prompt_len)
        sets[name] = problems, ids, without + long
    return sets


def evaluate(cfg, engine, grader, sets, group):
    """Sample and grade every set with the engine's present weights -> name -> result of `summarize`. Questions keep their seeds from
    one call to the next, so that two policies are compared on the same random numbers."""
    sampling = Sampling(cfg.max_response_len, cfg.eval_temperature, cfg.eval_top_p, cfg.eval_top_k)
    results = {}
    for name, (problems, ids, left_out) in sets.items():
        seeds = [[seed_of(cfg.seed, "eval", name, p.uid, j) for j in range(cfg.eval_samples)] for p in problems]
        rollouts = generate_all(engine, ids, seeds, sampling, group, f"evaluate {name}")
        rewards = grade_all(grader, rollouts, problems, group)
        right = np.bincount([r.prompt_id for r in rollouts], weights=rewards == RIGHT, minlength=len(problems))
        results[name] = summarize(right, [p.group for p in problems], cfg.eval_samples, cfg.passk, cfg.seed)
        results[name] |= {"left_out": left_out, "truncated": float(np.mean([not r.finished for r in rollouts])),
                          "sampling": {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}}
    return results


def table(columns):
    """Lines of a table: `columns` maps a heading to a result of `evaluate`; rows are the metrics, then the groups."""
    results = list(columns.values())
    mean, passed = (next(key for key in results[0] if key.startswith(name)) for name in ("mean@", "pass@"))
    lines = [f"{'':<22}" + "".join(f"{heading:>24}" for heading in columns)]
    for key in (mean, passed):
        cells = [f"{r[key]:.3f} [{r[key + '/interval'][0]:.3f}, {r[key + '/interval'][1]:.3f}]" for r in results]
        lines.append(f"{key:<22}" + "".join(f"{cell:>24}" for cell in cells))
    lines.append(f"{'worst group ' + mean:<22}" + "".join(f"{r['worst_group'] + ' ' + format(r['worst_group/' + mean], '.3f'):>24}" for r in results))
    lines.append(f"{'truncated / left out':<22}" + "".join(f"{format(r['truncated'], '.3f') + ' / ' + str(r['left_out']):>24}" for r in results))
    for group in results[0]["groups"]:
        cells = [f"{r['groups'][group][mean]:.3f} / {r['groups'][group][passed]:.3f}" for r in results]
        lines.append(f"{'  ' + (group or 'all') + ' mean / pass':<22}" + "".join(f"{cell:>24}" for cell in cells))
    return lines


def main(argv=None):
    cfg, group = configure(EvalConfig, sys.argv[1:] if argv is None else argv, __doc__), None
    try:
        group, grader = Group(cfg), Grader(cfg.reward)
        engine = make_engine(cfg, group)
        results = evaluate(cfg, engine, grader, load_eval_sets(cfg, engine.tokenizer), group)
    except UsageError as error:
        refuse(error)
    finally:
        if group:
            group.close()
    if not group.master:
        return results
    for name, result in results.items():
        print("\n".join(table({f"{name} ({result['questions']})": result})))
    if cfg.output:
        with open(cfg.output, "w") as file:
            json.dump({"config": vars(cfg), "results": results}, file, indent=1)
    return results


if __name__ == "__main__":
    main()
