"""
Evaluates a model: mean@n, unbiased pass@k, per group and for the worst group, with 95 % intervals.
$ python eval.py --model=out/arith_gdro/hf
$ python eval.py --model=out/mine/hf --eval_sets=my.jsonl --max_prompt_len=512 --max_response_len=1024      # repeat the lengths, template and reward of the training
$ torchrun --nproc_per_node=8 eval.py config/eval_paper.py --model=out/mine/hf --output=mine.json      # the paper's benchmarks
$ python eval.py --compare=grpo.json,mine.json                             # runs side by side, gains over the first
$ python eval.py --help
"""
import dataclasses
import glob
import json
import os
import sys
from dataclasses import dataclass

import numpy as np

from answers import string_match
from checkpoint import load_weights
from configurator import UsageError, check_knobs, configure, refuse
from data import Gated, fingerprint, load_set, reasons, split_name
from model import load_policy, load_tokenizer
from ranks import Group
from reward import Grader, close_graders, grade, source_fingerprint
from rollout import Sampling, VLLMEngine, generate_share, seed_of
from runlog import shown
from torch_engine import TorchEngine

ENGINES = ("auto", "torch", "vllm")
CHOICES = {"engine": ENGINES, "device": ("auto", "cpu", "cuda"), "dtype": ("auto", "float32", "bfloat16")}
AT_LEAST = dict.fromkeys("eval_samples passk max_prompt_len max_response_len max_num_seqs cpu_threads collective_timeout grade_workers".split(), 1) | {"seed": 0}
WITHIN = {"eval_temperature": (0, 100), "eval_top_p": (1e-6, 1), "eval_top_k": (0, 1e6), "kv_cache_gib": (1e-3, 1e3), "grade_timeout": (0.1, 3600)}
AT_ONCE = 8192  # samples between two records of an evaluation that can be resumed


@dataclass
class EvalConfig:
    # what
    model: str = "worlds/arith"  # folder of Hugging Face files (a run's hf/ or best/), a checkpoint (out/run/ckpt/step_000100), or a hub id
    engine: str = "auto"  # auto: vllm on GPUs, torch on CPUs | vllm | torch: plain PyTorch sampling
    kv_cache_gib: float = 4.0  # vllm: GiB of key-value cache a rank
    eager: bool = False  # vllm: no CUDA graphs: starts sooner, samples slower
    collective_timeout: int = 1800  # seconds that ranks wait for each other
    float32_head: bool = False  # vllm: logits in float32 where dtype is bfloat16
    device: str = "auto"  # auto: cuda if there is one; or cpu, cuda
    dtype: str = "auto"  # of computation: auto: bfloat16 on GPUs, float32 on CPUs
    cpu_threads: int = 1  # PyTorch's threads on a CPU; small models are fastest with 1
    eval_sets: str = "arith"  # comma-separated: names (math500, aime24, ...), owner/name of the hub, paths; see data.py
    data_dir: str = "problems"  # where named sets are looked for before the hub, as math500.jsonl or .parquet or .csv
    template: str = "auto"  # prompt: bare | boxed: with an instruction | chat: boxed, in the model's chat format | a text with {question}; auto: bare for embedded worlds and loaders of yours, else boxed
    reward: str = "auto"  # exact | math | path.py:function; auto: exact for embedded worlds and loaders of yours, else math
    grade_workers: int = 2  # grading processes a rank, except for exact
    grade_timeout: float = 5.0  # seconds an answer may take to grade
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
    output: str = ""  # file for the result, as JSON; with one, an evaluation that was stopped goes on where it was
    compare: str = ""  # comma-separated results of earlier evaluations: print them side by side and evaluate nothing

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


def make_engine(cfg, group):
    """The engine that cfg.engine names, on the model cfg.model; `auto` is vLLM on a GPU and the plain engine on a CPU."""
    if cfg.engine == "vllm" or cfg.engine == "auto" and group.device == "cuda":
        return VLLMEngine(cfg.model, group.device, group.dtype, cfg.max_num_seqs, cfg.max_prompt_len + cfg.max_response_len, cfg.kv_cache_gib, cfg.eager, group.rank,
                          cfg.float32_head)
    return TorchEngine(cfg.model, group.device, group.dtype, cfg.max_num_seqs)


def load_eval_sets(cfg, tokenizer, group):
    """name -> ProblemSet of every set in cfg.eval_sets. A gated set without a token is skipped with one line."""
    sets = {}
    for name in filter(None, map(str.strip, cfg.eval_sets.split(","))):
        try:
            sets[name] = group.on_master(lambda: load_set(name, "eval", cfg, tokenizer))
        except Gated as error:
            if group.master:
                print(f"skipped {name}: {error}")
    if not sets and cfg.eval_sets.strip(", "):
        raise UsageError(f"eval_sets={cfg.eval_sets}: none of them can be loaded")
    return sets


def make_graders(cfg, names):
    """One Grader for each different name of `names`, by name."""
    return {name: Grader(name, cfg.grade_workers, cfg.grade_timeout) for name in dict.fromkeys(names)}


OUTCOMES = {  # what is counted of each response; string match is the paper's way of scoring
    "right": lambda r, problem, reward: r.verdict == "right",
    "string_right": lambda r, problem, reward: reward == "math" and string_match(r.text, problem.answer),
    "no_answer": lambda r, problem, reward: r.verdict == "no_answer",
    "timeout": lambda r, problem, reward: r.verdict == "timeout",
    "truncated": lambda r, problem, reward: not r.finished,
    "tokens": lambda r, problem, reward: len(r.response_ids),
}


def measure(cfg, engine, graders, questions, group):
    """Sample and grade cfg.eval_samples responses of each of `questions`, (set's name, ProblemSet, index) -> list over the questions of the
    counts of OUTCOMES, the same on every rank. One call of the engine for all sets: their longest responses are waited for once."""
    sampling = Sampling(cfg.max_response_len, cfg.eval_temperature, cfg.eval_top_p, cfg.eval_top_k)
    problems = [data.problems[i] for _, data, i in questions]
    seeds = [[seed_of(cfg.seed, "eval", name, problem.uid, j) for j in range(cfg.eval_samples)]
             for (name, _, _), problem in zip(questions, problems, strict=True)]
    rollouts = generate_share(engine, [data.prompt_ids[i] for _, data, i in questions], seeds, sampling, group, "evaluate")
    rewards = [data.reward for _, data, _ in questions]
    for reward in dict.fromkeys(rewards):
        grade(graders[reward], [r for r in rollouts if rewards[r.prompt_id] == reward], problems)
    counts = np.zeros((len(questions), len(OUTCOMES)), int)
    for r in rollouts:
        counts[r.prompt_id] += [count(r, problems[r.prompt_id], rewards[r.prompt_id]) for count in OUTCOMES.values()]
    return group.sum(counts).astype(int).tolist()


def evaluate(cfg, engine, graders, sets, group, kept=None):
    """Sample and grade every set with the engine's present weights -> name -> result of `summarize`. Questions keep their seeds from
    one call to the next, so that two policies are compared on the same random numbers. `kept`: a Kept, to go on where it was stopped."""
    questions = [(name, data, i) for name, data in sets.items() for i in range(len(data.problems))]
    size = max(AT_ONCE // cfg.eval_samples, 1) if kept else max(len(questions), 1)
    counts = []
    for start in range(0, len(questions), size):
        some = kept and kept.find(start)
        if not some:
            some = measure(cfg, engine, graders, questions[start : start + size], group)
            if kept:
                kept.add(start, some)
        counts += some
    results, start = {}, 0
    for name, data in sets.items():
        of_set = counts[start : start + len(data.problems)]
        start += len(data.problems)
        results[name] = result_of_set(cfg, data, dict(zip(OUTCOMES, map(list, zip(*of_set)), strict=True)))
    return results


def result_of_set(cfg, data, total):
    """`total`: a list over the set's problems of each of OUTCOMES -> the set's result, ready for JSON."""
    groups, n = [p.group for p in data.problems], cfg.eval_samples
    result = summarize(total["right"], groups, n, cfg.passk, cfg.seed)
    if data.reward == "math":
        as_string = summarize(total["string_right"], groups, n, cfg.passk, cfg.seed)
        result |= {f"string/{key}": as_string[key] for key in (f"mean@{n}", f"pass@{cfg.passk}")} | {"string_right": total["string_right"]}
    share = {key: sum(total[key]) / n / len(groups) for key in ("no_answer", "timeout", "truncated", "tokens")}
    sampling = {"n": n, "temperature": cfg.eval_temperature, "top_p": cfg.eval_top_p, "top_k": cfg.eval_top_k, "max_tokens": cfg.max_response_len}
    return result | {"no_answer": share["no_answer"], "timeout": share["timeout"], "truncated": share["truncated"], "response_len": share["tokens"],
                     "left_out": dict(data.left_out), "right": total["right"], "reward": data.reward, "sampling": sampling}


class Kept:
    """What a stopped evaluation has done so far: lines beside the output, the first of which says what it is an evaluation of."""

    def __init__(self, path, identity, group):
        self.path, self.group, self.parts = path, group, {}
        lines = group.on_master(self.read)
        if lines and lines[0] != identity:
            raise UsageError(f"{path} belongs to another evaluation ({', '.join(differing(lines[0], identity))} differ): delete it, or give another --output")
        self.parts = {line["start"]: line["counts"] for line in lines[1:]}
        if not lines:
            self.append(identity)

    def read(self):
        if not os.path.exists(self.path):
            return []
        with open(self.path) as file:
            whole = [line for line in file if line.endswith("\n")]  # a kill may tear the last
        with open(self.path, "w") as file:
            file.writelines(whole)
        return [json.loads(line) for line in whole]

    def append(self, record):
        if self.group.master:
            with open(self.path, "a") as file:
                file.write(json.dumps(record) + "\n")

    def find(self, start):
        return self.parts.get(start)

    def add(self, start, counts):
        self.append({"start": start, "counts": counts})


def differing(a, b):
    return [key for key in {**a, **b} if a.get(key) != b.get(key)]


def identity_of(cfg, sets):
    """What a result depends on: the knobs, the problems, the files of the weights, and a grader of the user's own."""
    free = ("output", "compare", "collective_timeout", "cpu_threads", "max_num_seqs", "kv_cache_gib", "eager", "grade_workers", "device")
    problems = {name: fingerprint(data.problems) for name, data in sets.items()}
    files = [path for pattern in ("*.safetensors", "*.bin", "weights/*") for path in sorted(glob.glob(os.path.join(cfg.model, pattern)))]
    weights = [[os.path.basename(path), os.path.getsize(path), os.stat(path).st_mtime_ns] for path in files]
    return {"config": {k: v for k, v in shown(cfg).items() if k not in free}, "problems": problems, "weights": weights, "reward": source_fingerprint(cfg.reward)}


def table(columns, gains=False):
    """Lines of a table: `columns` maps a heading to a result of `evaluate`; rows are the metrics, then the groups. `gains`: relative to the
    first column, with the 95 % interval of the difference over the same questions."""
    results = list(columns.values())
    mean, passed = (next(key for key in results[0] if key.startswith(name)) for name in ("mean@", "pass@"))
    first = results[0]
    row = lambda name, cells: f"{name:<22}" + "".join(f"{cell:>26}" for cell in cells)
    lines = [row("", columns)]
    for key in (mean, passed):
        lines.append(row(key, (f"{r[key]:.3f} [{r[key + '/interval'][0]:.3f}, {r[key + '/interval'][1]:.3f}]" for r in results)))
    for key, of in ((mean, lambda r: np.array(r["right"]) / r["sampling"]["n"]), (passed, lambda r: pass_at_k(r["right"], r["sampling"]["n"], int(passed[5:])))) if gains else ():
        lines.append(row(f"  {key} relative", ["", *(f"{gain(r[key], first[key])}" for r in results[1:])]))
        differences = (interval(of(r) - of(first)) for r in results[1:])
        lines.append(row(f"  {key} difference", ["", *(f"{r[key] - first[key]:+.3f} [{low:+.3f}, {high:+.3f}]" for r, (low, high) in zip(results[1:], differences))]))
    if any(f"string/{mean}" in r for r in results):
        lines.append(row("as strings, mean/pass", (f"{r[f'string/{mean}']:.3f} / {r[f'string/{passed}']:.3f}" if f"string/{mean}" in r else "-" for r in results)))
    lines.append(row(f"worst group {mean}", (r["worst_group"] + " " + format(r[f"worst_group/{mean}"], ".3f") for r in results)))
    lines.append(row("truncated / no answer", (f"{r['truncated']:.3f} / {r['no_answer']:.3f}" for r in results)))
    for group in first["groups"] if len(first["groups"]) <= 10 else ():
        cells = (f"{r['groups'][group][mean]:.3f} / {r['groups'][group][passed]:.3f}" if group in r["groups"] else "-" for r in results)
        lines.append(row(f"  {group or 'all'} mean / pass", cells))
    return lines


def gain(value, base):
    return f"{100 * (value / base - 1):+.2f} %" if base else "-"


PAPER = {"MATH500": ("math500",), "AIME": ("aime24", "aime25"), "AMC": ("amc23",), "Minerva": ("minerva",), "Olympiad": ("olympiad",), "GPQA": ("gpqa",)}


def paper_table(runs, scorer=""):
    """Lines of Table 1 of the paper from runs (heading -> results of `evaluate`): mean@n in percent for each benchmark, AIME as the mean of its
    two years, then pass@k pooled over all questions of the sets that every run has (at least one), with the gain over the first run. `scorer`: "" or "string"."""
    named = {heading: {split_name(name)[0]: r for name, r in results.items()} for heading, results in runs.items()}
    shared = [name for names in PAPER.values() for name in names if all(name in results for results in named.values())]
    any_result = next(iter(named.values()))[shared[0]]
    passed = next(key for key in any_result if key.startswith("pass@"))
    lines, base = [f"{'':<24}" + "".join(f"{column:>10}" for column in PAPER) + f"{passed:>20}"], None
    for heading, results in named.items():
        cells, prefix = [], f"{scorer}/" if scorer else ""
        for names in PAPER.values():
            means = [r[f"{prefix}mean@{r['sampling']['n']}"] for name in names if (r := results.get(name))]
            cells.append(f"{100 * np.mean(means):.2f}" if len(means) == len(names) else "-")
        pooled = np.mean(np.concatenate([pass_at_k(results[name][f"{scorer}_right" if scorer else "right"], results[name]["sampling"]["n"], int(passed[5:])) for name in shared]))
        last = f"{100 * pooled:.2f}" + (f" ({gain(pooled, base).replace(' %', '%')})" if base else "")
        base = pooled if base is None else base
        lines.append(f"{heading[:23]:<24}" + "".join(f"{cell:>10}" for cell in cells) + f"{last:>20}")
    return lines


def heading_of(model):
    """A short name of a model: out/run/hf and out/run/best are run, out/run/ckpt/step_000100 is run 100."""
    parts = os.path.normpath(model).split(os.sep)
    if parts[-1] in ("hf", "best") and len(parts) > 1:
        return parts[-2]
    return f"{parts[-3]} {int(parts[-1][5:])}" if len(parts) > 2 and parts[-2] == "ckpt" and parts[-1][5:].isdigit() else parts[-1]


def print_runs(runs):
    """Every set's table with the runs side by side, then the paper's table, once a scorer."""
    for name in dict.fromkeys(name for results in runs.values() for name in results):
        columns = {heading: results[name] for heading, results in runs.items() if name in results}
        r = next(iter(columns.values()))
        s = r["sampling"]
        left_out = f", left out: {reasons(r['left_out'])}" if r["left_out"] else ""
        print(f"\n{name}: {r['questions']} questions x {s['n']} samples at temperature {s['temperature']:g}, top-p {s['top_p']:g}, top-k {s['top_k']}{left_out}")
        print("\n".join(table(columns, gains=len(columns) > 1)))
    shared = set(sum(PAPER.values(), ())).intersection(*({split_name(name)[0] for name in results} for results in runs.values()))
    of_paper = [r for results in runs.values() for name, r in results.items() if split_name(name)[0] in shared]
    if of_paper:
        for scorer, says in (("", "the reward"), ("string", "normalised string match")):
            if scorer and not all("string_right" in r for r in of_paper):
                continue  # graded by something else than math
            print(f"\nTable 1 of the paper, graded by {says}; percent, pass@k pooled over all questions")
            print("\n".join(paper_table(runs, scorer)))


def compare(paths):
    """Print the saved results side by side -> heading -> results."""
    runs, seen = {}, {}
    for path in filter(None, map(str.strip, paths.split(","))):
        try:
            with open(path) as file:
                saved = json.load(file)
            heading = heading_of(saved["config"]["model"])
            runs[heading if heading not in runs else path] = saved["results"]
            settings = {name: {"questions": saved["problems"][name], "passk": saved["config"]["passk"], "reward": r["reward"]} | r["sampling"] for name, r in saved["results"].items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"compare={path}: not a result of eval.py --output=... ({type(error).__name__}: {error})") from error
        for name, its in settings.items():
            other, theirs = seen.setdefault(name, (path, its))
            if differing(theirs, its):
                raise UsageError(f"compare: {name} was evaluated differently in {other} and {path} ({', '.join(differing(theirs, its))} differ); evaluate both with the same settings")
    print_runs(runs)
    return runs


def run(cfg, group):
    """The evaluation that cfg describes, resumed if it was stopped -> name -> result."""
    trained = os.path.join(cfg.model, "state.json")  # a checkpoint: sharded weights of the model that its config names
    base = cfg.model
    if os.path.exists(trained):
        with open(os.path.join(cfg.model, "config.json")) as file:
            base = json.load(file)["config"]["model"]
    policy, tokenizer = load_policy(base, group) if base != cfg.model else (None, load_tokenizer(cfg.model))
    sets = load_eval_sets(cfg, tokenizer, group)
    identity, kept = group.on_master(lambda: identity_of(cfg, sets)), None
    if cfg.output:
        finished = group.on_master(lambda: read_finished(cfg.output))
        if finished and (differ := differing({k: finished.get(k) for k in identity}, identity)):
            differ = differing(finished.get("config", {}), identity["config"]) or differ
            raise UsageError(f"{cfg.output} holds the result of another evaluation ({', '.join(differ)} differ): delete it, or give another --output")
        if finished:
            if group.master:
                print(f"{cfg.output} holds this evaluation already; delete it to repeat it")
            return finished["results"]
        kept = Kept(cfg.output + ".part", identity, group)
    graders = make_graders(cfg, [data.reward for data in sets.values()])
    for data in sets.values():
        graders[data.reward].canary(data.problems[0].answer)
    engine = make_engine(dataclasses.replace(cfg, model=base), group)
    if policy:
        load_weights(policy, None, cfg.model)
        engine.sync(policy.named_tensors())
        del policy
    results = evaluate(cfg, engine, graders, sets, group, kept)
    if cfg.output and group.master:
        with open(cfg.output + ".tmp", "w") as file:
            json.dump(identity | {"results": results}, file, indent=1)
        os.replace(cfg.output + ".tmp", cfg.output)
        os.remove(cfg.output + ".part")
    return results


def read_finished(path):
    if os.path.exists(path):
        try:
            with open(path) as file:
                finished = json.load(file)
        except ValueError:
            finished = None
        if not isinstance(finished, dict) or "results" not in finished:
            raise UsageError(f"output={path} exists and is no result of eval.py: give another --output")
        return finished


def main(argv=None):
    cfg = configure(EvalConfig, sys.argv[1:] if argv is None else argv, __doc__)
    try:
        if cfg.compare:
            return compare(cfg.compare)
        with Group(cfg) as group:
            try:
                results = run(cfg, group)
            finally:
                close_graders()
    except UsageError as error:
        refuse(error)
    if group.master:
        print_runs({heading_of(cfg.model): results})
    return results


if __name__ == "__main__":
    main()
