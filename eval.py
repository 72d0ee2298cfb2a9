"""
Evaluates a model: mean@n, unbiased pass@k, per group and for the worst group, with 95 % intervals.
$ python eval.py --model=out/arith_gdro/hf
$ python eval.py --model=out/mine/hf --eval_sets=my.jsonl --max_prompt_len=512 \
    --max_response_len=1024         # repeat the lengths, template and reward of the training
$ torchrun --nproc_per_node=8 eval.py config/eval_paper.py --model=out/mine/hf --output=mine.json
$ python eval.py --compare=grpo.json,mine.json        # runs side by side, gains over the first
$ python eval.py --help
"""
import dataclasses
import glob
import json
import os
import sys
from dataclasses import dataclass

import numpy as np

from checkpoint import load_weights
from configurator import UsageError, check_knobs, configure, knob, refuse
from data import Gated, fingerprint, load_set, reasons
from engines.torch_engine import TorchEngine
from engines.vllm_engine import VLLMEngine
from grader.answers import string_match
from pretrained import load_policy, load_tokenizer
from ranks import Group
from reward import Grader, close_graders, grade, source_fingerprint
from rollout import Sampling, generate_share, seed_of
from runlog import without_secrets

AT_ONCE = 8192  # samples between two records of an evaluation that can be resumed


@dataclass
class SharedConfig:
    """The knobs that training and evaluation share."""
    # model and engine
    model: str = knob("worlds/arith")  # folder of Hugging Face files, or a hub id; in training also
    #   the frozen reference of the KL term; for eval.py also a checkpoint, out/run/ckpt/step_000100
    engine: str = knob("auto", one_of=("auto", "torch", "vllm"))  # auto: vllm on GPUs, torch
    #   (plain PyTorch sampling) on CPUs
    kv_cache_gib: float = knob(4.0, 1e-3, 1e3, resume="rounding")  # vllm: GiB of key-value cache
    eager: bool = knob(False, resume="rounding")  # vllm: no CUDA graphs: starts sooner, runs slower
    max_num_seqs: int = knob(256, 1, resume="rounding")  # sequences decoded at once
    float32_head: bool = knob(False)  # logits in float32 where dtype is bfloat16, with vllm there
    #   too: a smaller mismatch, a slower head
    # machine
    device: str = knob("auto", one_of=("auto", "cpu", "cuda"), resume="rounding")  # auto: cuda if
    #   there is one
    dtype: str = knob("auto", one_of=("auto", "float32", "bfloat16"))  # of computation; auto:
    #   bfloat16 on GPUs, float32 on CPUs; trained weights and optimizer are float32 in any case
    collective_timeout: int = knob(1800, 1, resume="free")  # seconds that ranks wait for each
    #   other; longer than the slowest generation
    seed: int = knob(0, 0)  # every sample, permutation and bootstrap is a function of it
    # data and grading
    eval_sets: str = knob("arith")  # comma-separated: names (math500, aime24, ...), owner/name of
    #   the hub, or .jsonl, .parquet and .csv files; see data.py; training takes none if it is empty
    data_dir: str = knob("problems")  # where named sets are looked for before the hub, as
    #   math500.jsonl or .parquet or .csv
    template: str = knob("auto")  # prompt: bare | boxed: with an instruction | chat: boxed, in the
    #   model's chat format | a text with {question}; auto: bare for embedded worlds and loaders of
    #   yours, else boxed
    reward: str = knob("auto")  # exact | math | path.py:function; auto: exact for embedded worlds
    #   and loaders of yours, else math
    solved_at: float = knob(1.0, 1e-9, 1)  # from this score on, a response counts as right
    grade_workers: int = knob(2, 1, resume="free")  # grading processes a rank, except for exact
    grade_timeout: float = knob(5.0, 0.1, 3600)  # seconds an answer may take to grade
    max_prompt_len: int = knob(16, 1)  # tokens; longer prompts are left out and counted
    max_response_len: int = knob(12, 1)  # tokens; longer responses are cut
    # evaluation
    eval_samples: int = knob(8, 1)  # n of mean@n: responses a question
    eval_passk: int = knob(8, 1)  # k of pass@k, at most eval_samples
    eval_temperature: float = knob(1.0, 0, 100)  # 0 is greedy
    eval_top_p: float = knob(1.0, 1e-6, 1)  # keep the likeliest tokens that reach this probability
    #   together; 1 keeps all
    eval_top_k: int = knob(0, 0, 1e6)  # keep this many likeliest tokens; 0 keeps all

    def __post_init__(self):
        check_knobs(self)
        if self.eval_passk > self.eval_samples:
            raise UsageError(f"eval_passk={self.eval_passk} cannot be estimated from eval_samples="
                             f"{self.eval_samples}: lower one or raise the other")


@dataclass
class EvalConfig(SharedConfig):
    # result
    output: str = knob("")  # file for the result, as JSON; with one, an evaluation that was stopped
    #   goes on where it was
    compare: str = knob("")  # comma-separated results of earlier evaluations: print them side by
    #   side and evaluate nothing

    def __post_init__(self):
        super().__post_init__()
        if not self.eval_sets.strip(", "):
            raise UsageError("eval_sets is empty: nothing to evaluate")
        folder = os.path.dirname(os.path.abspath(self.output))
        if self.output and not os.path.isdir(folder):
            raise UsageError(f"output={self.output}: there is no such folder; make it first")


def make_engine(cfg, group):
    """The engine that cfg.engine names, on the model cfg.model."""
    if cfg.engine == "vllm" or (cfg.engine == "auto" and group.device == "cuda"):
        longest = cfg.max_prompt_len + cfg.max_response_len
        return VLLMEngine(cfg.model, group.device, group.dtype, cfg.max_num_seqs, longest,
                          cfg.kv_cache_gib, cfg.eager, group.rank, cfg.float32_head)
    return TorchEngine(cfg.model, group.device, group.dtype, cfg.max_num_seqs)


def make_graders(cfg, names):
    """A grader for each different name of `names`, by name."""
    return {name: Grader(name, cfg.grade_workers, cfg.grade_timeout, cfg.solved_at)
            for name in dict.fromkeys(names)}


def load_eval_sets(cfg, tokenizer, group):
    """name -> ProblemSet of every set in cfg.eval_sets. A gated set without a token is skipped with
    one line."""
    sets = {}
    for name in filter(None, map(str.strip, cfg.eval_sets.split(","))):
        try:
            sets[name] = group.on_master(load_set, name, "eval", cfg, tokenizer)
        except Gated as error:
            if group.master:
                print(f"skipped {name}: {error}")
    if not sets and cfg.eval_sets.strip(", "):
        raise UsageError(f"eval_sets={cfg.eval_sets}: none of them can be loaded")
    return sets


# ---------- metrics ----------

def pass_at_k(n_correct, n, k):
    """Unbiased pass@k of questions with n_correct [Q] right among n samples:
    1 - C(n-c, k) / C(n, k) -> [Q] (Chen et al. 2021, Eq 1)."""
    if not 1 <= k <= n:
        raise UsageError(f"pass@{k} cannot be estimated from {n} samples a question: "
                         "need eval_passk <= eval_samples")
    wrong = n - np.asarray(n_correct, float)
    i = np.arange(k)
    # the chance that k draws without replacement are all wrong
    return 1 - np.prod(np.clip(wrong[:, None] - i, 0, None) / (n - i), axis=1)


def interval(values, seed=0, resamples=2000):
    """95 % percentile bootstrap interval of the mean of `values` [Q] over questions -> [low, high].
    """
    values = np.asarray(values, float)
    rng = np.random.default_rng(seed)
    # how often each question is in a resample: the mean needs no more
    counts = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), resamples)
    return np.quantile(counts @ values / len(values), [0.025, 0.975]).tolist()


def summarize(n_correct, groups, n, k, seed=0):
    """n_correct [Q] right among n samples, groups [Q] names -> the result of one set, for JSON."""
    n_correct = np.asarray(n_correct)
    groups = np.asarray(groups)
    mean = n_correct / n
    passed = pass_at_k(n_correct, n, k)
    per_group = {}
    for name in sorted(set(groups.tolist())):
        of_group = groups == name
        per_group[str(name)] = {f"mean@{n}": float(mean[of_group].mean()),
                                f"pass@{k}": float(passed[of_group].mean()),
                                "questions": int(of_group.sum())}
    worst = min(per_group, key=lambda name: per_group[name][f"mean@{n}"])
    return {"questions": len(mean),
            f"mean@{n}": float(mean.mean()), f"mean@{n}/interval": interval(mean, seed),
            f"pass@{k}": float(passed.mean()), f"pass@{k}/interval": interval(passed, seed),
            "worst_group": worst, f"worst_group/mean@{n}": per_group[worst][f"mean@{n}"],
            "groups": per_group}


# ---------- sampling and grading ----------

OUTCOMES = ("right", "string_right", "no_answer", "timeout", "truncated", "tokens", "score")


def outcomes(rollout, problem, reward):
    """What is counted of one response, in the order of OUTCOMES. Comparing normalised strings is
    the paper's way of scoring."""
    as_string = reward == "math" and string_match(rollout.text, problem.answer)
    return [rollout.verdict == "right", as_string, rollout.verdict == "no_answer",
            rollout.verdict == "timeout", not rollout.finished, len(rollout.response_ids),
            rollout.score]


def measure(cfg, engine, graders, questions, group):
    """Sample and grade cfg.eval_samples responses of each of `questions`, (set's name, ProblemSet,
    index) -> counts of OUTCOMES, a list a question, the same on every rank. One call of the engine
    serves all sets, so that their longest responses are waited for once."""
    sampling = Sampling(cfg.max_response_len, cfg.eval_temperature, cfg.eval_top_p, cfg.eval_top_k)
    problems = [data.problems[i] for _, data, i in questions]
    prompts = [data.prompt_ids[i] for _, data, i in questions]
    rewards = [data.reward for _, data, _ in questions]
    seeds = []
    for (name, _, _), problem in zip(questions, problems, strict=True):
        seeds.append([seed_of(cfg.seed, "eval", name, problem.uid, j)
                      for j in range(cfg.eval_samples)])
    rollouts = generate_share(engine, prompts, seeds, sampling, group, "evaluate")
    for reward in dict.fromkeys(rewards):
        grade(graders[reward], [r for r in rollouts if rewards[r.prompt_id] == reward], problems)
    counts = np.zeros((len(questions), len(OUTCOMES)))
    for r in rollouts:
        counts[r.prompt_id] += outcomes(r, problems[r.prompt_id], rewards[r.prompt_id])
    # all are whole numbers but the score
    return [[*map(int, whole), score] for *whole, score in group.sum(counts).tolist()]


def evaluate(cfg, engine, graders, sets, group, kept=None):
    """Sample and grade every set with the engine's present weights -> name -> result, see
    `summarize`. Questions keep their seeds from one call to the next, so that two policies are
    compared on the same random numbers. `kept`: a Kept, to go on where it was stopped."""
    questions = [(name, data, i) for name, data in sets.items() for i in range(len(data.problems))]
    size = max(AT_ONCE // cfg.eval_samples, 1) if kept else max(len(questions), 1)
    counts = []
    for start in range(0, len(questions), size):
        of_piece = kept and kept.find(start)
        if not of_piece:
            piece = questions[start : start + size]
            of_piece = measure(cfg, engine, graders, piece, group)
            if kept:
                kept.add(start, of_piece)
        counts += of_piece
    results = {}
    start = 0
    for name, data in sets.items():
        of_set = counts[start : start + len(data.problems)]
        start += len(data.problems)
        by_outcome = map(list, zip(*of_set, strict=True))  # a list a question -> a list an outcome
        results[name] = result_of_set(cfg, data, dict(zip(OUTCOMES, by_outcome, strict=True)))
    return results


def result_of_set(cfg, data, counts):
    """`counts`: a list over the set's problems for each of OUTCOMES -> the result, for JSON."""
    groups = [problem.group for problem in data.problems]
    n = cfg.eval_samples
    k = cfg.eval_passk
    scores = np.array(counts["score"]) / n
    result = summarize(counts["right"], groups, n, k, cfg.seed) | {
        "score": float(scores.mean()), "score/interval": interval(scores, cfg.seed)}
    if data.reward == "math":
        as_string = summarize(counts["string_right"], groups, n, k, cfg.seed)
        result |= {f"string/{key}": as_string[key] for key in (f"mean@{n}", f"pass@{k}")}
        result["string_right"] = counts["string_right"]
    share = {key: sum(values) / n / len(groups) for key, values in counts.items()}
    sampling = {"n": n, "temperature": cfg.eval_temperature, "top_p": cfg.eval_top_p,
                "top_k": cfg.eval_top_k, "max_tokens": cfg.max_response_len}
    return result | {"no_answer": share["no_answer"], "timeout": share["timeout"],
                     "truncated": share["truncated"], "response_len": share["tokens"],
                     "left_out": dict(data.left_out), "right": counts["right"],
                     "scores": counts["score"], "reward": data.reward, "sampling": sampling}


class Kept:
    """What a stopped evaluation has done so far: lines beside the output, the first of which says
    what it is an evaluation of."""

    def __init__(self, path, identity, group):
        self.path = path
        self.group = group
        lines = group.on_master(self.read)
        if lines and lines[0] != identity:
            differ = ", ".join(differing(lines[0], identity))
            raise UsageError(f"{path} belongs to another evaluation ({differ} differ): delete it, "
                             "or give another --output")
        self.pieces = {line["start"]: line["counts"] for line in lines[1:]}
        if not lines:
            self.append(identity)

    def read(self):
        """Its records; a last line that a kill has torn is removed."""
        if not os.path.exists(self.path):
            return []
        with open(self.path) as file:
            whole = [line for line in file if line.endswith("\n")]
        with open(self.path, "w") as file:
            file.writelines(whole)
        return [json.loads(line) for line in whole]

    def append(self, record):
        if self.group.master:
            with open(self.path, "a") as file:
                file.write(json.dumps(record) + "\n")

    def find(self, start):
        return self.pieces.get(start)

    def add(self, start, counts):
        self.append({"start": start, "counts": counts})


def differing(a, b):
    """The keys under which two dicts differ."""
    return [key for key in {**a, **b} if a.get(key) != b.get(key)]


# What a result does not depend on.
MACHINE = ("output", "compare", "collective_timeout", "max_num_seqs", "kv_cache_gib", "eager",
           "grade_workers", "device")


def identity_of(cfg, sets):
    """What a result depends on: the knobs, the problems, the files of the weights, and a grader of
    the user's own."""
    weights = []
    for pattern in ("*.safetensors", "*.bin", "weights/*"):
        for path in sorted(glob.glob(os.path.join(cfg.model, pattern))):
            status = os.stat(path)
            weights.append([os.path.basename(path), status.st_size, status.st_mtime_ns])
    knobs = {key: value for key, value in without_secrets(cfg).items() if key not in MACHINE}
    return {"config": knobs, "weights": weights, "reward": source_fingerprint(cfg.reward),
            "problems": {name: fingerprint(data.problems) for name, data in sets.items()}}


# ---------- tables ----------

def row(name, cells):
    return f"{name:<22}" + "".join(f"{cell:>26}" for cell in cells)


def relative(value, base):
    return f"{100 * (value / base - 1):+.2f} %" if base else "-"


def table(columns, gains=False):
    """Lines of a table: `columns` maps a heading to a result of `evaluate`; rows are the metrics,
    then the groups. `gains`: relative to the first column, with the 95 % interval of the
    difference over the same questions."""
    results = list(columns.values())
    first = results[0]
    mean = next(key for key in first if key.startswith("mean@"))
    passed = next(key for key in first if key.startswith("pass@"))
    lines = [row("", columns)]
    keys = [mean, passed] + ["score"] * any(map(partly_scored, results))
    for key in keys:
        bounds = [r[f"{key}/interval"] for r in results]
        lines.append(row(key, (f"{r[key]:.3f} [{low:.3f}, {high:.3f}]"
                               for r, (low, high) in zip(results, bounds, strict=True))))
    if gains:
        lines += gain_rows(results, keys)
    if any(f"string/{mean}" in r for r in results):
        cells = [f"{r[f'string/{mean}']:.3f} / {r[f'string/{passed}']:.3f}"
                 if f"string/{mean}" in r else "-" for r in results]
        lines.append(row("as strings, mean/pass", cells))
    worst = f"worst_group/{mean}"
    lines.append(row(f"worst group {mean}", (f"{r['worst_group']} {r[worst]:.3f}"
                                             for r in results)))
    lines.append(row("truncated / no answer", (f"{r['truncated']:.3f} / {r['no_answer']:.3f}"
                                               for r in results)))
    groups = list(first["groups"])
    if len(groups) > 10:
        groups = sorted(groups, key=lambda group: first["groups"][group][mean])[:5]
    for group in groups:
        cells = []
        for r in results:
            of_group = r["groups"].get(group)
            cells.append(f"{of_group[mean]:.3f} / {of_group[passed]:.3f}" if of_group else "-")
        lines.append(row(f"  {group or 'all'} mean / pass", cells))
    if len(groups) < len(first["groups"]):
        lines.append(f"  and {len(first['groups']) - len(groups)} groups that began better")
    return lines


def partly_scored(result):
    """Whether the scores of a result say more than its right responses."""
    return result["scores"] != result["right"]


def per_question(result, key):
    """The values [Q] whose mean is result[key], for mean@n, pass@k and score."""
    n = result["sampling"]["n"]
    if key.startswith("pass@"):
        return pass_at_k(result["right"], n, int(key.removeprefix("pass@")))
    return np.array(result["scores" if key == "score" else "right"]) / n


def gain_rows(results, keys):
    """Lines of `table`: gains over the first result in the metrics called `keys`."""
    first = results[0]
    lines = []
    for key in keys:
        cells = [""] + [relative(r[key], first[key]) for r in results[1:]]
        lines.append(row(f"  {key} relative", cells))
        cells = [""]
        for r in results[1:]:
            low, high = interval(per_question(r, key) - per_question(first, key))
            cells.append(f"{r[key] - first[key]:+.3f} [{low:+.3f}, {high:+.3f}]")
        lines.append(row(f"  {key} difference", cells))
    return lines


def heading_of(model):
    """A short name of a model: out/run/hf and out/run/best are run, out/run/ckpt/step_000100 is
    run 100."""
    folders = os.path.normpath(model).split(os.sep)
    if folders[-1] in ("hf", "best") and len(folders) > 1:
        return folders[-2]
    step = folders[-1].removeprefix("step_")
    if len(folders) > 2 and folders[-2] == "ckpt" and step.isdigit():
        return f"{folders[-3]} {int(step)}"
    return folders[-1]


def print_runs(runs):
    """Every set's table with the runs side by side."""
    for name in dict.fromkeys(name for results in runs.values() for name in results):
        columns = {heading: results[name] for heading, results in runs.items() if name in results}
        r = next(iter(columns.values()))
        s = r["sampling"]
        left_out = f", left out: {reasons(r['left_out'])}" if r["left_out"] else ""
        print(f"\n{name}: {r['questions']} questions x {s['n']} samples at temperature "
              f"{s['temperature']:g}, top-p {s['top_p']:g}, top-k {s['top_k']}{left_out}")
        print("\n".join(table(columns, gains=len(columns) > 1)))


def read_results(paths):
    """Results that were saved with --output -> heading -> results. UsageError where one cannot be
    read, or where two evaluated a set in different ways."""
    runs = {}
    first_seen = {}  # set -> the first file that has it, and its settings there
    for path in paths:
        try:
            with open(path) as file:
                saved = json.load(file)
            heading = heading_of(saved["config"]["model"])
            runs[heading if heading not in runs else path] = saved["results"]
            k = saved["config"]["eval_passk"]
            settings = {name: {"questions": saved["problems"][name], "eval_passk": k,
                               "reward": r["reward"], "solved_at": saved["config"]["solved_at"]}
                        | r["sampling"]
                        for name, r in saved["results"].items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path}: not a result of eval.py --output=... "
                             f"({type(error).__name__}: {error})") from error
        for name, of_set in settings.items():
            other_path, of_other = first_seen.setdefault(name, (path, of_set))
            if differ := differing(of_other, of_set):
                raise UsageError(f"{name} was evaluated differently in {other_path} and "
                                 f"{path} ({', '.join(differ)} differ); evaluate both with the "
                                 "same settings")
    return runs


# ---------- the command ----------

def run(cfg, group):
    """The evaluation that cfg describes, resumed if it was stopped -> name -> result."""
    base = cfg.model
    if os.path.exists(os.path.join(cfg.model, "state.json")):
        # a checkpoint: sharded weights of the model that its config names
        with open(os.path.join(cfg.model, "config.json")) as file:
            saved = json.load(file)
        base, rank = saved["config"]["model"], saved["config"].get("lora_rank")
        lora = (rank, saved["config"]["lora_alpha"], 0) if rank else None
    if base != cfg.model:
        policy, tokenizer = load_policy(base, group, lora=lora)
        if lora and policy.fingerprint != saved["data"]["base model"]:
            raise UsageError(f"{cfg.model} holds adapters for another model than {base} is now: "
                             "put back the weights that it was trained from")
    else:
        policy, tokenizer = None, load_tokenizer(cfg.model)
    sets = load_eval_sets(cfg, tokenizer, group)
    kept = None
    identity = group.on_master(identity_of, cfg, sets)
    if cfg.output:
        if finished := group.on_master(read_finished, cfg.output, identity):
            if group.master:
                print(f"{cfg.output} holds this evaluation already; delete it to repeat it")
            return finished["results"]
        kept = Kept(cfg.output + ".part", identity, group)
    graders = make_graders(cfg, [data.reward for data in sets.values()])
    for data in sets.values():
        first = data.problems[0]
        graders[data.reward].canary(first.answer, first.prompt)
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


def read_finished(path, identity):
    """The result in `path`, or None if there is no such file. UsageError where it is of another
    evaluation, or none at all."""
    if not os.path.exists(path):
        return None
    try:
        with open(path) as file:
            finished = json.load(file)
    except ValueError:
        finished = None
    if not isinstance(finished, dict) or "results" not in finished:
        raise UsageError(f"output={path} exists and is no result of eval.py: "
                         "give another --output")
    differ = differing({key: finished.get(key) for key in identity}, identity)
    if differ:
        differ = differing(finished.get("config", {}), identity["config"]) or differ
        raise UsageError(f"{path} holds the result of another evaluation ({', '.join(differ)} "
                         "differ): delete it, or give another --output")
    return finished


def main(argv=None):
    cfg = configure(EvalConfig, sys.argv[1:] if argv is None else argv, __doc__)
    try:
        if cfg.compare:
            runs = read_results(filter(None, map(str.strip, cfg.compare.split(","))))
            print_runs(runs)
            return runs
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
