"""
A verdict on this machine's GPUs in ten minutes: does the trainer run, is it right, is it fast.
$ python bench/gpu.py                       # all GPUs, random weights of Qwen3-1.7B's shape
$ python bench/gpu.py --quick               # the first parts with few layers: about two minutes
$ python bench/gpu.py --minutes=20          # time for all parts, TRL beside this trainer included
$ python bench/gpu.py --ranks=1 --engine=torch --lr=1e-5    # other knobs of train.py may follow
$ python bench/gpu.py --trial               # tiny, on a CPU: whether every part runs
Prints a line a verdict: pass, fail or skip; what; the figure; the goal. Exits with 1 if one failed.
The figures go into out/gpu.json, what parts print into the folder out/gpu_logs. Needs no downloads.
"""
import argparse
import contextlib
import importlib.util
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
CHILD = os.path.join(ROOT, "bench", "gpu_child.py")

# bfloat16 TFLOP/s without sparsity, by a part of the GPU's name
PEAKS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "4090": 165, "B200": 2250}
SMALL = {"layers": 28, "width": 2048, "inner": 6144, "heads": 16, "kv_heads": 8}  # Qwen3-1.7B
LARGE = {"layers": 36, "width": 2560, "inner": 9728, "heads": 32, "kv_heads": 8}  # Qwen3-4B
SMALL, LARGE = SMALL | {"vocabulary": 151_936}, LARGE | {"vocabulary": 151_936}
TINY = {"layers": 2, "width": 64, "inner": 192, "heads": 2, "kv_heads": 1, "vocabulary": 2048}
PROMPT = 7.5  # tokens of a prompt of the embedded world, on average
RESERVE = 6.0  # GiB for what the estimate of memory leaves out: contexts, CUDA graphs, fragments
OURS = {"model", "dataset", "prompts_per_step", "steps", "out_dir", "resume"}  # knobs set here
TRIAL = {"shape": TINY, "prompts": 8, "tokens": 16, "seqs": 32, "micro": 2048,
         "kv_cache_gib": 0.0625, "checkpointing": True, "smaller": ""}


class Skip(Exception):
    """A part that cannot run here; the message says why."""


class PartFailed(Exception):
    """A part's process failed; the message is the last line of its error."""


# ---------- sizes ----------

def head_of(shape):
    """Dimensions of an attention head, as bench/common.py chooses them."""
    return min(128, max(shape["width"] // 4, 32))


def count_parameters(shape):
    """Number of parameters of a Qwen3 with a tied head."""
    width, head = shape["width"], head_of(shape)
    attention = 2 * width * head * (shape["heads"] + shape["kv_heads"]) + 2 * head
    layer = attention + 3 * width * shape["inner"] + 2 * width
    return shape["vocabulary"] * width + shape["layers"] * layer + width


def cache_gib(shape, seqs, tokens):
    """GiB of key-value cache for so many sequences at their full length, in steps of 1/4."""
    token = 2 * 2 * shape["layers"] * shape["kv_heads"] * head_of(shape)  # bytes, in bfloat16
    return np.ceil(4 * 1.02 * token * seqs * (tokens + 32) / 2**30) / 4


def memory_needed(shape, size, ranks):
    """GiB that a GPU needs at most, by train.py's own estimate."""
    from budget import phases

    config = SimpleNamespace(
        num_hidden_layers=shape["layers"], hidden_size=shape["width"],
        intermediate_size=shape["inner"], vocab_size=shape["vocabulary"],
        num_attention_heads=shape["heads"], num_key_value_heads=shape["kv_heads"],
        head_dim=head_of(shape), tie_word_embeddings=True)
    cfg = SimpleNamespace(
        kl_coef=0.001, lora_rank=0, tokens_per_micro_batch=size["micro"],
        kv_cache_gib=size["kv_cache_gib"], activation_checkpointing=size["checkpointing"],
        max_num_seqs=size["seqs"])
    needed = phases(count_parameters(shape), config, cfg, ranks)
    return max(needed.values()) + RESERVE


def choose_size(shape, gib, ranks, tokens=512):
    """The largest run of this shape that fits a GPU of `gib`: first the micro-batches get
    smaller, then the sequences at once (and so the cache), then there are fewer layers.
    Activations are kept where there is plenty of room. Skip: nothing fits."""
    full = shape["layers"]
    layers = sorted({full, 3 * full // 4, full // 2, full // 4, 2}, reverse=True)
    for number, seqs, micro in itertools.product(layers, (256, 128, 64), (16384, 8192, 4096)):
        shape = shape | {"layers": number}
        size = {"shape": shape, "prompts": min(64 * ranks, 512), "tokens": tokens, "seqs": seqs,
                "micro": micro, "kv_cache_gib": float(cache_gib(shape, seqs, tokens))}
        smaller = [f"{number} of {full} layers"] * (number < full)
        smaller += [f"{seqs} of 256 sequences at once"] * (seqs < 256)
        smaller += [f"{micro:,} of 16,384 tokens a micro-batch"] * (micro < 16384)
        for checkpointing, most in ((False, 0.65 * gib), (True, gib)):
            size |= {"checkpointing": checkpointing, "smaller": ", ".join(smaller)}
            if memory_needed(shape, size, ranks) <= most:
                return size
    raise Skip(f"needs more memory than {gib:.0f} GiB a GPU")


def describe(size, ranks):
    """What is run, in a line."""
    text = (f"{count_parameters(size['shape']):,} parameters, {size['shape']['layers']} layers of "
            f"width {size['shape']['width']}; {size['prompts']} prompts x 4 rollouts x "
            f"{size['tokens']} tokens on {ranks} rank{'s' * (ranks > 1)}; cache of "
            f"{size['kv_cache_gib']:g} GiB; activations "
            + ("recomputed" if size["checkpointing"] else "kept"))
    return text + (f"\nsmaller than usual, for want of memory: {size['smaller']}"
                   if size["smaller"] else "")


# ---------- a run of the bench ----------

@dataclass
class Bench:
    args: argparse.Namespace
    machine: dict
    size: dict
    folder: str  # for models and runs, deleted at the end
    extra: list  # knobs of train.py
    lines: list = field(default_factory=list)
    figures: dict = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)
    pace: float = 1.0  # how much longer than planned parts take on this machine

    @property
    def device(self):
        return "cpu" if self.args.trial else "cuda"

    def left(self):
        """Seconds of the whole run's time that are left."""
        return 60 * self.args.minutes - (time.monotonic() - self.begun)

    def say(self, status, what, figure="", goal=""):
        self.lines.append({"status": status, "what": what, "figure": figure, "goal": goal})
        goal = f"   goal: {goal}" if goal else ""
        print(f"{status:<5} {what:<34} {figure}{goal}", flush=True)

    def verdict(self, what, figure, goal="", ok=True):
        self.say("pass" if ok else "fail", what, figure, goal)

    def speed(self, what, figure, goal, ok):
        """A verdict on a speed: on a CPU none is expected."""
        self.verdict(what, figure, "none on a CPU" if self.args.trial else goal,
                     bool(ok) or self.args.trial)

    def process(self, name, command, limit, **environment):
        """Run a command with a time limit -> what it printed. Its process group ends with it."""
        log = os.path.join(logs_of(self.args.json), name + ".log")
        limit, begun = max(min(limit, self.left()), 1), time.monotonic()
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if self.args.trial else {}
        environment = os.environ | {"HF_HUB_OFFLINE": "1"} | environment | hidden
        with open(log, "w") as file:
            child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT,
                                     env=environment, start_new_session=True)
            try:
                child.wait(limit)
            except subprocess.TimeoutExpired:
                seconds = f"{time.monotonic() - begun:.0f} s"
                if self.left() <= 1:
                    raise Skip(f"no time left: stopped after {seconds}") from None
                raise PartFailed(f"not done after {seconds}") from None
            finally:
                end_group(child)
        text = read(log)
        if child.returncode:
            raise PartFailed(last_error(text) or f"it exited with {child.returncode}")
        return text

    def child(self, ranks, *arguments):
        """The command that runs a function of gpu_child.py on so many ranks."""
        several = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
        return [sys.executable, *(several if ranks > 1 else []), CHILD, *arguments]

    def model(self, shape):
        """The folder of a random model of this shape; made once."""
        path = os.path.join(self.folder, "model_" + "_".join(map(str, shape.values())))
        if not os.path.exists(os.path.join(path, "tokenizer.json")):
            command = self.child(1, "model", path, json.dumps(shape))
            self.process(os.path.basename(path), command, limit=150)
        return path

    def problems(self):
        """A file with as many problems as a step has prompts: from the second step on all have
        been seen, so that the adversaries have something to do."""
        from worlds.problems import arith

        path = os.path.join(self.folder, "problems.jsonl")
        if not os.path.exists(path):
            with open(path, "w") as file:
                for problem in arith("train")[: self.size["prompts"]]:
                    row = {"prompt": problem.prompt, "answer": problem.answer}
                    file.write(json.dumps(row) + "\n")
        return path

    def knobs(self, size, **changes):
        """Arguments of train.py for this size."""
        knobs = {
            "model": self.model(size["shape"]), "engine": self.args.engine, "device": self.device,
            "dtype": "bfloat16", "dataset": self.problems(), "template": "bare",
            "prompt_gdro": True, "rollout_gdro": True,
            "reward": "bench/common.py:uneven_coin", "eval_sets": "", "n_rollouts": 4, "lr": 1e-6,
            "prompts_per_step": size["prompts"], "max_response_len": size["tokens"],
            "kv_cache_gib": size["kv_cache_gib"], "max_num_seqs": size["seqs"],
            "tokens_per_micro_batch": size["micro"],
            "activation_checkpointing": size["checkpointing"]}
        return [f"--{key}={value}" for key, value in (knobs | changes).items()] + self.extra

    def train(self, name, size, steps, limit, ranks=None, knobs=None, **environment):
        """So many steps of train.py -> its lines of metrics (also of a run that failed later),
        seconds until the first step, its warnings, and the error or None."""
        out = os.path.join(self.folder, name)
        arguments = self.knobs(size, steps=steps, out_dir=out, **(knobs or {}))
        command = self.child(ranks or self.args.ranks, "train", *arguments)
        error, begun = None, time.time()
        try:
            text = self.process(name, command, limit, **environment)
        except (PartFailed, Skip) as problem:
            error, text = problem, read(os.path.join(logs_of(self.args.json), name + ".log"))
        built = os.path.join(out, "built.json")
        run = {"steps": [json.loads(line) for line in
                         read(os.path.join(out, "metrics.jsonl")).splitlines()],
               "start": os.path.getmtime(built) - begun if os.path.exists(built) else None,
               "built": json.loads(read(built) or "[]"), "error": error and str(error),
               "warnings": re.findall(r"warning: .*", text)}
        self.figures[name] = run
        return run, error


def logs_of(path):
    """The folder for what the parts print, beside the JSON file."""
    return os.path.splitext(path)[0] + "_logs"


def read(path):
    """The text of a file; empty if there is none."""
    if not os.path.exists(path):
        return ""
    with open(path, errors="replace") as file:  # lines end at a carriage return too: progress bars
        return file.read()


def end_group(child):
    """End whatever is left of a process that was started in a group of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)  # torchrun ends its ranks at this
    if child.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def last_error(text):
    """What names the error in a process's output, without what torchrun and PyTorch add."""
    lines = [re.sub(r"^\[rank\d+\]: ?", "", line).rstrip() for line in text.splitlines()]
    lines = [line for line in lines if line.strip(" =-")]
    named = [at for at, line in enumerate(lines) if "ChildFailedError" not in line
             and re.match(r"([\w.]+(Error|Exception)|error)\b.*:", line)]
    if not named:
        return "".join(lines[-1:])[:300]
    rest = itertools.takewhile(lambda line: line.startswith(" "), lines[named[-1] + 1 :])
    return " ".join([lines[named[-1]], *map(str.strip, rest)])[:300]


def median(steps, key):
    """Over the steps after the first, which warms up."""
    return float(np.median([step[key] for step in steps[1:] or steps]))


def worst_mismatch(steps):
    """The largest mismatch of a step; infinite where one is not a number."""
    return max(np.inf if step["mismatch"] is None else step["mismatch"] for step in steps)


def generated_per_s(steps):
    tokens = median(steps, "response_len") * median(steps, "rollouts/total")
    return tokens / median(steps, "time/generate")


# ---------- the parts, each a function of the bench ----------

def steps_part(bench):
    """train.py with both adversaries and all gates: start, parity, gradients, memory, speeds."""
    number = 3 if bench.args.quick or bench.args.trial else 5
    run, error = bench.train("steps", bench.size, number, limit=420)
    if run["start"]:
        names = ("policy", "reference", "engine")
        built = ", ".join(f"{name} {seconds:.0f}"
                          for name, (_, seconds) in zip(names, run["built"], strict=True))
        bench.verdict("start: until the first step", f"{run['start']:.0f} s ({built})")
    steps = run["steps"]
    if steps:
        worst, norms = worst_mismatch(steps), [step["grad_norm"] for step in steps]
        each = " ".join("nan" if s["mismatch"] is None else f"{s['mismatch']:.4f}" for s in steps)
        bench.verdict("steps: mismatch of each", each, "at most 0.05", worst <= 0.05)
        finite = None not in norms and not any(step["skipped_updates"] for step in steps)
        bench.verdict("steps: gradients", f"norms {norms}" if None in norms else
                      f"norms {min(norms):.3g} to {max(norms):.3g}", "finite", finite)
        memory = {key[4:-4]: max(step[key] for step in steps) / 1024
                  for key in steps[0] if key.startswith("mem/")}
        spread = [(step["rollouts/min"], step["rollouts/max"]) for step in steps]
        bench.verdict("steps: rollouts a prompt", " ".join(f"{a}-{b}" for a, b in spread))
        bench.verdict("steps: memory", ", ".join(f"{k} {v:.1f} GiB" for k, v in memory.items()))
        if not bench.args.quick:
            speeds(bench, steps)
    for warning in run["warnings"][:5]:
        print(f"      {warning[:200]}")
    if error:
        raise error
    bench.verdict("steps: all done", f"{len(steps)} of {number}", str(number),
                  len(steps) == number)


def speeds(bench, steps):
    """Where a step's time goes, from the lines of metrics.jsonl."""
    def of_step(*phases):
        return sum(median(steps, f"time/{p}") for p in phases) / median(steps, "time/step")

    tokens = (median(steps, "response_len") + PROMPT) * median(steps, "rollouts/total")
    # Forward and backward 6, the reference 2, old log-probabilities of the second update 1.
    # What checkpointing computes again does not count.
    flops = 9 * count_parameters(bench.size["shape"]) * tokens
    reached = flops / (median(steps, "time/logprobs") + median(steps, "time/update")) / 1e12
    if bench.args.peak:
        mfu = reached / bench.args.ranks / bench.args.peak
        bench.figures["mfu"] = mfu
        bench.speed("update: share of the peak", f"{mfu:.1%} of {bench.args.ranks} x "
                    f"{bench.args.peak:g} TFLOP/s", "at least 40 %", mfu >= 0.4)
    else:
        bench.say("skip", "update: share of the peak", f"{reached:,.0f} TFLOP/s; the peak of this "
                  "GPU is not known: --peak=TFLOP/s in bfloat16", "at least 40 %")
    other = 1 - of_step("generate", "logprobs", "update")
    bench.speed("neither generation nor update", f"{other:.1%} of the step", "at most 10 %",
                other <= 0.1)
    share = of_step("feedback")
    bench.speed("adversaries", f"{share:.3%} of the step", "at most 0.1 %", share <= 0.001)
    bench.verdict("generation", f"{generated_per_s(steps):,.0f} tokens a second")
    bench.verdict("sync within a step", f"{median(steps, 'time/sync'):.2f} s, waking included")
    bench.figures |= {"other_share": other, "adversaries_share": share, "tflops": reached,
                      "generated_per_s": generated_per_s(steps)}


def engine_part(bench):
    """The engine without the loop: weight syncs, sleep and wake."""
    size = bench.size | {"tokens": min(bench.size["tokens"], 64), "seqs": 32}
    result, error = os.path.join(bench.folder, "engine.jsonl"), None
    command = bench.child(bench.args.ranks, "engine", result, *bench.knobs(size))
    try:
        bench.process("engine", command, limit=240)
    except (PartFailed, Skip) as problem:
        error = problem  # after the figures of the checks before it
    found = {}
    for line in read(result).splitlines():
        found |= json.loads(line)
    bench.figures["engine"] = found
    if sync := found.get("sync_figures"):
        seconds = np.median(sync["seconds"])
        bench.speed("sync: weights into the engine", f"{seconds:.2f} s for "
                    f"{sync['bytes'] / 2**30:.2f} GiB", "at most 1 s", seconds <= 1)
    if sleep := found.get("sleep_figures"):
        same = sleep["same"] == sleep["samples"]
        bench.verdict("sleep: greedy samples after waking",
                      f"{sleep['same']} of {sleep['samples']} as before", "all", same)
        memory_given_back(bench, sleep, size)
    if error:
        raise error


def memory_given_back(bench, sleep, size):
    what, given = "sleep: memory given back", min(sleep["given_gib"])
    if bench.args.trial or bench.args.engine == "torch":
        bench.say("skip", what, "the engine sleeps on GPUs only, and only vLLM does")
        return
    if not sleep["can_sleep"]:
        bench.verdict(what, "vLLM says that it cannot sleep here", ok=False)
        return
    held = 2 * count_parameters(size["shape"]) / 2**30 + size["kv_cache_gib"]
    bench.verdict(what, f"{given:.1f} GiB; a sync that wakes takes "
                  f"{np.median(sleep['wake_seconds']):.2f} s", f"at least {0.9 * held:.1f} GiB, "
                  "nine tenths of weights and cache", given >= 0.9 * held)


def large_part(bench):
    """Tokens a second, all included, of a 4B model on one GPU."""
    if bench.args.trial:
        size = TRIAL | {"shape": TINY | {"inner": 160, "heads": 4, "kv_heads": 2}}
    else:
        gpu = bench.machine["gpus"][0]
        if gpu["gib"] < 120e9 / 2**30:
            raise Skip(f"needs a GPU of 120 GB, this one has {gpu['gib'] * 2**30 / 1e9:.0f}")
        size = choose_size(LARGE, gpu["free_gib"], 1)
        if size["shape"]["layers"] < LARGE["layers"]:
            raise Skip(f"needs more than the {gpu['free_gib']:.0f} GiB that are free")
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    run, error = bench.train("4B", size, 3, limit=300, ranks=1, CUDA_VISIBLE_DEVICES=first)
    if error:
        raise error
    speed, worst = median(run["steps"], "time/tokens_per_s"), worst_mismatch(run["steps"])
    bench.speed("4B: tokens a second, end to end", f"{speed:,.0f}", "at least 3,000",
                speed >= 3000)
    bench.verdict("4B: mismatch", f"{worst:.4f}", "at most 0.05", worst <= 0.05)


def few_tokens(bench):
    """A smaller step, for parts that compare."""
    small = {"prompts": max(bench.size["prompts"] // 2, 8)}
    return bench.size | small | {"tokens": min(bench.size["tokens"], 256)}


def runner_part(version):
    """A part for one of vLLM's two model runners."""
    def part(bench):
        if bench.args.engine != "vllm":
            raise Skip("needs --engine=vllm")
        if version == 2 and importlib.util.find_spec("triton") is None:
            raise Skip("needs Triton, which PyTorch for GPUs brings")
        run, error = bench.train(f"runner_V{version}", few_tokens(bench), 3, limit=200,
                                 VLLM_USE_V2_MODEL_RUNNER=str(version - 1))
        if error:
            raise error
        worst, speed = worst_mismatch(run["steps"]), generated_per_s(run["steps"])
        bench.verdict(f"vLLM's model runner V{version}", f"mismatch {worst:.4f}, {speed:,.0f} "
                      "tokens a second", "mismatch at most 0.05", worst <= 0.05)
    return part


def head_part(bench):
    """The mismatch with the logits in float32, beside that of the steps without."""
    run, error = bench.train("float32_head", few_tokens(bench), 2, limit=200,
                             knobs={"float32_head": True})
    if error:
        raise error
    before = bench.figures.get("steps", {}).get("steps")

    def mean(steps):
        return f"{np.mean([step['mismatch'] for step in steps]):.5f}"

    off = mean(before) if before else "not known, for want of steps"
    bench.verdict("float32_head: mismatch", f"on {mean(run['steps'])}, off {off}")


def save_part(bench):
    """train.py as it is, on one small layer's weights: a checkpoint, and a resume from it."""
    shape = TINY if bench.args.trial else SMALL | {"layers": 2, "vocabulary": 4096}
    size = TRIAL | {"shape": shape}
    for steps in (1, 2):
        arguments = bench.knobs(size, steps=steps, out_dir=os.path.join(bench.folder, "saved"),
                                resume="auto", engine="torch")
        command = bench.child(bench.args.ranks)[:-1] + ["train.py", *arguments]
        text = bench.process(f"save_{steps}", command, limit=120)
    resumed = "1 steps done" in text
    bench.verdict("checkpoint, and a resume from it", "resumed" if resumed else
                  "the second run began afresh", ok=resumed)


def generation_part(bench):
    """The plain engine beside transformers' generate."""
    sizes = {"width": 1024, "layers": 28, "tokens": 256}
    if bench.args.trial:
        sizes = {"width": 64, "layers": 2, "tokens": 8, "prompts": 4}
    sizes |= {"device": bench.device, "repeats": 1}
    arguments = [f"--{key}={value}" for key, value in sizes.items()]
    text = bench.process("generation", [sys.executable, "bench/generation.py", *arguments], 200)
    row = r"\| plain engine \| ([\d,]+) .*\| ([\d.]+) \|"
    speed, times = re.search(row, text).groups()
    bench.figures["plain_engine"] = {"tokens_per_s": speed, "against_transformers": float(times)}
    bench.verdict("plain engine", f"{speed} tokens a second, {times} times transformers' generate")


def trl_part(bench):
    """Samples a second and memory beside TRL. On a CPU with plain generation on both sides,
    because TRL's way of pushing weights stops at vLLM's repacked ones."""
    if importlib.util.find_spec("trl") is None:
        raise Skip("pip install trl==1.16.0")
    sizes = {"width": 1024, "layers": 28, "prompts": 16, "tokens": 192, "steps": 8}
    if bench.args.trial:
        sizes = {"width": 64, "layers": 2, "prompts": 4, "tokens": 8, "steps": 5}
    sizes |= {"device": bench.device, "repeats": 1}
    sizes["engine"] = "torch" if bench.args.trial else bench.args.engine
    arguments = [f"--{key}={value}" for key, value in sizes.items()]
    arguments += ["--plain"] * bench.args.trial
    text = bench.process("vs_trl", [sys.executable, "bench/vs_trl.py", *arguments], 600)
    ours = r"ours: ([\d.]+) times the samples a second .*, ([\d.]+) times the memory"
    speed, memory = map(float, re.search(ours, text).groups())
    bench.figures["vs_trl"] = {"samples_per_s": speed, "memory": memory}
    bench.verdict("beside TRL", f"{speed} times the samples a second, {memory} times the memory")


@dataclass
class Part:
    name: str
    run: object
    seconds: int  # about what it takes on an H200; it starts only if that much time is left
    quick: bool = False  # also with --quick


PARTS = [
    Part("steps", steps_part, 190, quick=True),
    Part("sync and sleep", engine_part, 70, quick=True),
    Part("4B, end to end", large_part, 170),
    Part("vLLM's model runner V2", runner_part(2), 65),
    Part("vLLM's model runner V1", runner_part(1), 65),
    Part("float32_head", head_part, 60),
    Part("checkpoint and resume", save_part, 40),
    Part("plain engine", generation_part, 70),
    Part("beside TRL", trl_part, 300),
]


# ---------- the whole ----------

def run_part(bench, part):
    """One part; whatever it raises is a line, and the next part runs."""
    if bench.args.quick and not part.quick:
        bench.say("skip", part.name, "not with --quick")
        return
    if part.seconds * bench.pace > bench.left():
        bench.say("skip", part.name, f"no time left: needs about {part.seconds * bench.pace:.0f} s "
                  f"of {max(bench.left(), 0):.0f}; --minutes={bench.args.minutes * 2:g} has more")
        return
    begun = time.monotonic()
    if sys.stderr.isatty():
        print(f"  ... {part.name}", file=sys.stderr)
    try:
        part.run(bench)
    except Skip as reason:
        bench.say("skip", part.name, str(reason))
    except Exception as error:  # of whatever kind: it is that part's verdict
        kind = "" if isinstance(error, PartFailed) else f"{type(error).__name__}: "
        bench.say("fail", part.name, f"{kind}{error}")
    seconds = time.monotonic() - begun
    bench.figures.setdefault("seconds", {})[part.name] = seconds
    bench.pace = max(bench.pace, seconds / part.seconds if part is PARTS[0] else 0)


def write_report(bench):
    statuses = [line["status"] for line in bench.lines]
    counts = {status: statuses.count(status) for status in ("pass", "fail", "skip")}
    report = {"counts": counts, "lines": bench.lines, "machine": bench.machine,
              "size": bench.size, "arguments": vars(bench.args), "train": bench.extra,
              "seconds": time.monotonic() - bench.begun, "figures": bench.figures}
    with open(bench.args.json, "w") as file:
        json.dump(report, file, indent=1)
    return counts


def look(trial):
    """The machine as gpu_child.py sees it. A process of its own, so that this one, which lives as
    long as the bench does, never holds memory of a GPU."""
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if trial else {}
    done = subprocess.run([sys.executable, CHILD, "machine"], capture_output=True, text=True,
                          cwd=ROOT, env=os.environ | hidden)
    if done.returncode:
        sys.exit(f"error: PyTorch cannot look at the GPUs: {last_error(done.stderr)}")
    return json.loads(done.stdout.splitlines()[-1])


def arguments_of(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Other --knob=value go to train.py.", allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=10, help="time for the whole")
    parser.add_argument("--quick", action="store_true", help="the first parts, few layers")
    parser.add_argument("--trial", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--engine", choices=("vllm", "torch"), help="default: vllm")
    parser.add_argument("--ranks", type=int, help="GPUs to use; default: all")
    parser.add_argument("--peak", type=float, help="TFLOP/s of a GPU in bfloat16, dense")
    parser.add_argument("--json", default="out/gpu.json", help="where the figures go")
    return parser.parse_known_args(argv)


def settle(args, machine):
    """Fill in what the command line leaves open -> the size of the main run."""
    gpus, vllm = machine["gpus"], machine["versions"]["vllm"]
    args.engine = args.engine or ("torch" if args.trial and "cpu" not in (vllm or "") else "vllm")
    args.ranks = args.ranks or (1 if args.trial else len(gpus))
    if args.trial:
        args.peak = args.peak or 0.05
        return TRIAL
    if args.ranks > len(gpus):
        sys.exit(f"error: --ranks={args.ranks}, but there are {len(gpus)} GPUs")
    known = [peak for name, peak in PEAKS.items() if name in gpus[0]["name"]]
    args.peak = args.peak or (known[0] if known else None)
    shape = SMALL | {"layers": 4} if args.quick else SMALL
    try:
        return choose_size(shape, min(gpu["free_gib"] for gpu in gpus[: args.ranks]), args.ranks)
    except Skip as reason:
        sys.exit(f"error: the smallest run {reason}")


def print_machine(args, machine, size):
    for gpu in machine["gpus"]:
        print(f"{gpu['name']}: {gpu['gib']:.0f} GiB, {gpu['free_gib']:.0f} free")
    if args.trial:
        print("a trial on the CPU: whether every part runs; speeds mean nothing")
    elif not args.peak:
        print("the peak of this GPU is not known: --peak=TFLOP/s in bfloat16, dense, for its share")
    print(", ".join(f"{name} {version}" for name, version in machine["versions"].items()))
    print(describe(size, args.ranks) + f"; engine {args.engine}; {args.minutes:g} minutes")


def main(argv=None):
    from configurator import UsageError, parse, refuse
    from train import Config

    args, extra = arguments_of(argv)
    try:
        parse(Config, extra)  # or every part would fail at it
        for knob in extra:
            if knob.lstrip("-").split("=")[0] in OURS:
                raise UsageError(f"{knob}: this bench chooses it")
    except UsageError as error:
        refuse(error)
    machine = look(args.trial)
    if not machine["gpus"] and not args.trial:
        print("PyTorch sees no GPU here; python bench/gpu.py --trial tries every part on the CPU",
              file=sys.stderr)
        return 2
    size = settle(args, machine)
    os.makedirs(logs_of(args.json), exist_ok=True)
    print_machine(args, machine, size)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, machine, size, folder, extra, pace=0.2 if args.trial else 1.0)
        try:
            for part in PARTS:
                run_part(bench, part)
        finally:
            counts = write_report(bench)
    print(", ".join(f"{number} {status}" for status, number in counts.items())
          + f" in {(time.monotonic() - bench.begun) / 60:.1f} minutes; figures: {args.json}, "
          f"what the parts printed: {logs_of(args.json)}/")
    return int(counts["fail"] > 0)


if __name__ == "__main__":
    sys.exit(main())
