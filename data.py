"""Problem sets: a list of `Problem`, each with an id that stays the same from run to run.

`arith`, `chains`, `orders` and `steps` are embedded (worlds/). Other names: the
benchmarks of `HUB`, any Hugging Face data set as owner/name, and paths of .jsonl, .parquet or .csv
files. Keys may follow:
name:config=main:split=test:revision=<commit>:prompt=question:answer=final_answer:group=level:id=key
"""
import csv
import hashlib
import json
import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from configurator import UsageError
from worlds.problems import Problem, arith
from worlds.skills import chains, orders
from worlds.steps import steps

# name -> loader of a split ("train" or "eval"); add your own here
DATASETS = {"arith": arith, "chains": chains, "orders": orders, "steps": steps}


# ---------- benchmarks and training sets of the Hugging Face hub ----------

def plain_dapo(row, column="prompt"):
    """Some prompts still carry the instruction of the set they were taken from."""
    before = r"\A\s*Solve the following math problem step by step\.[^\n]*Answer:[^\n]*\n+"
    after = r"\n+\s*Remember to put your answer on its own line after \"Answer:\"\.?\s*\Z"
    return row | {column: re.sub(after, "", re.sub(before, "", str(row[column])))}


def level_of_math(row):
    """Subject and level are one group, for example "Geometry, level 2"."""
    return row | {"group": f"{row['subject']}, level {row['level']}"}


def choices_of_gpqa(row):
    """Four options in an order that depends on the question only; the answer is a letter."""
    # The question seeds the shuffle, so that every run shows the options in the same order.
    uid = short_hash(row["Question"])
    options = [row["Correct Answer"]] + [row[f"Incorrect Answer {i}"] for i in (1, 2, 3)]
    order = list(np.random.default_rng(int(uid, 16)).permutation(4))
    lines = [f"({letter}) {options[i].strip()}\n" for letter, i in zip("ABCD", order, strict=True)]
    prompt = (f"{row['Question'].strip()}\n\n{''.join(lines)}\n"
              "The answer is the letter of the right option.")
    return row | {"prompt": prompt, "answer": "ABCD"[order.index(0)], "id": uid}


@dataclass(frozen=True)
class HubSet:
    """Where a data set lies, and how its rows become problems."""
    hub: str  # owner/name
    revision: str = "main"  # a commit, so that everybody reads the same rows
    config: str = ""
    split: str = "test"  # or "train test": the first for training, the last for evaluation
    prompt: str = "problem"  # column
    answer: str = "answer"  # column
    group: str = ""  # column; evaluation reports each group
    id: str = ""  # column; without one, the id is a hash of the prompt
    prepare: object = None  # row -> row in which the columns above are filled
    needs: tuple = ()  # all columns it must have, if they are more than prompt and answer
    gated: bool = False  # needs a token of somebody who accepted the terms

    @property
    def required(self):
        """Columns that every row must have."""
        return self.needs or (self.prompt or "prompt", self.answer or "answer")


# Commits are pinned: the rows of another revision may differ, and scores would not compare.
HUB = {
    "dapo": HubSet(
        "open-r1/DAPO-Math-17k-Processed", "31dd309567e3da778038cc87d868b6097a3ccf68",
        config="en", split="train", prompt="prompt", answer="solution", prepare=plain_dapo),
    "gsm8k": HubSet(
        "openai/gsm8k", "740312add88f781978c0658806c59bc2815b9866",
        config="main", split="train test", prompt="question"),
    "math500": HubSet(
        "HuggingFaceH4/MATH-500", "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        group="group", prepare=level_of_math, needs=("problem", "answer", "subject", "level")),
    "aime24": HubSet(
        "HuggingFaceH4/aime_2024", "2fe88a2f1091d5048c0f36abc874fb997b3dd99a", split="train"),
    "aime25": HubSet("math-ai/aime25", "563bb8404243c5f09de6ec262f2db674fe5bce9b"),
    "amc23": HubSet(
        "math-ai/amc23", "80815d37005feb82cd7f8fbc6901d5d3eff43057", prompt="question"),
    "minerva": HubSet(
        "math-ai/minervamath", "ee46ddc498933b1977577953250ca5c66be64f96", prompt="question"),
    "olympiad": HubSet(
        "math-ai/olympiadbench", "4faaf1e6ec17d11a4218a9bf4c049ecaf954dd84",
        prompt="question", answer="final_answer"),
    "gpqa": HubSet(
        "Idavidrein/gpqa", "633f5ee89ab8ad4522a9f850766b73f62147ffdd",
        config="gpqa_diamond", split="train", prompt="prompt", id="id", gated=True,
        prepare=choices_of_gpqa, needs=(
            "Question", "Correct Answer",
            "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")),
}
COLUMNS = {  # usual names in files, in order of preference
    "prompt": ("prompt", "problem", "question"),
    "answer": ("answer", "final_answer", "solution"),
    "group": ("group",),
    "id": ("id",),
}
KEYS = ("config", "split", "revision", *COLUMNS)  # that may follow a name
SUFFIXES = (".jsonl", ".parquet", ".csv")


class Gated(UsageError):
    """A data set that needs a token, and there is none. Evaluation skips it and says so."""


def split_name(spec):
    """name:key=value:key=value -> name and dict. UsageError at an unknown key."""
    # A colon separates only where key= follows: paths may contain colons.
    name, *pairs = re.split(r":(?=\w+=)", spec)
    keys = dict(pair.split("=", 1) for pair in pairs)
    for key in keys:
        if key not in KEYS:
            raise UsageError(
                f"data set {spec!r}: there is no key {key!r}; there are {', '.join(KEYS)}")
    return name, keys


def load_problems(spec, split="train", data_dir="problems"):
    """(list of Problem, Counter of the rows left out, by reason) of a data set.

    `split` ("train" or "eval") is used by sets that have both. Named sets are read from data_dir
    if they were placed there, else from the hub. UsageError says what to change.
    """
    name, keys = split_name(spec)
    if name in DATASETS:
        if keys:
            raise UsageError(f"{spec}: {name} takes no keys")
        problems = DATASETS[name](split)
        check_ids(problems, name)
        return problems, Counter()

    if name in HUB:
        rows = benchmark_rows(spec, split, data_dir)
    elif name.endswith(SUFFIXES):
        for key in ("config", "split", "revision"):
            if key in keys:
                raise UsageError(f"{spec}: {key}= means nothing for a file: remove it")
        rows = read_rows(name)
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", name):  # owner/name
        hub_set = HubSet(name, keys.get("revision", "main"), keys.get("config", ""))
        rows = hub_rows(hub_set, keys.get("split", "train" if split == "train" else "test"))
    else:
        raise UsageError(
            f"data set {name!r} is unknown; there are {', '.join([*DATASETS, *HUB])}, "
            f"owner/name of the Hugging Face hub, or a path that ends in {', '.join(SUFFIXES)}")
    for key in ("id", "group"):
        if key in keys and not any(keys[key] in row for row in rows if isinstance(row, dict)):
            raise UsageError(f"{spec}: no row has a column {keys[key]!r}: "
                             f"correct {key}={keys[key]}, or leave it out")

    # A column is the one named in the spec, else the benchmark's own, else the first usual one.
    usual = vars(HUB[name]) if name in HUB else usual_columns(rows)
    columns = {key: keys.get(key) or usual[key] for key in COLUMNS}
    layout = replace(HUB.get(name, HubSet(name)), **columns)
    # A copy of DAPO, or a set laid out like it, carries its instructions too.
    is_like_dapo = name not in HUB and (layout.prompt, layout.answer) == ("prompt", "solution")
    if is_like_dapo or layout.prepare is plain_dapo:
        layout = replace(layout, prepare=partial(plain_dapo, column=layout.prompt))
    problems = problems_of(rows, layout, spec)
    kept, repeats = without_repeats(problems)
    left_out = Counter(incomplete=len(rows) - len(problems)) + repeats
    if not kept:
        raise UsageError(
            f"{spec}: no usable row ({len(rows)} rows: {reasons(left_out) or 'none'})")
    check_ids(kept, spec)
    return kept, left_out


def problems_of(rows, layout, spec):
    """Rows (dicts) -> problems. Rows without a prompt or an answer are left out."""
    problems = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not set(layout.required) <= row.keys():
            present = sorted(map(str, row)) if isinstance(row, dict) else type(row).__name__
            raise UsageError(
                f"{spec}, row {number}: needs the columns {' and '.join(layout.required)}, "
                f"has {present}; rename them in the file, or name them: "
                f"{spec}:prompt=...:answer=...")
        # Where a cell is empty there is nothing to prepare: the row is left out below.
        filled = [isinstance(row[c], (str, int)) and str(row[c]).strip() for c in layout.required]
        if layout.prepare and all(filled):
            row = layout.prepare(row)
        problem = problem_of(row, layout, f"{spec}, row {number}")
        if problem.prompt and problem.answer:
            problems.append(problem)
    return problems


def problem_of(row, layout, where):
    """The problem in a row that has all columns it needs."""
    prompt, answer, group, uid = [
        cell_text(row.get(column), f"{where}, column {column}")
        for column in (layout.prompt, layout.answer, layout.group, layout.id)]
    # GSM8K writes the solution, then #### and the answer.
    answer = answer.rpartition("####")[2].strip()
    return Problem(uid or short_hash(prompt), prompt, answer, group)


def without_repeats(problems):
    """A prompt that occurs again with its answer is kept once; one that occurs with different
    answers is dropped altogether, because nobody knows which is right -> problems, Counter."""
    same_prompt = {}
    for p in problems:
        same_prompt.setdefault(" ".join(p.prompt.split()), []).append(p)
    kept = []
    left_out = Counter()
    for copies in same_prompt.values():
        if len({p.answer.strip() for p in copies}) > 1:
            left_out["conflicting"] += len(copies)
        else:
            kept.append(copies[0])
            left_out["repeated"] += len(copies) - 1
    return kept, left_out


def short_hash(text):
    """16 hexadecimal digits that depend on nothing but the text."""
    # The text may hold half a character (a lone surrogate), which plain UTF-8 refuses.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def fingerprint(problems):
    """16 hexadecimal digits that change with any problem."""
    return short_hash(repr([(p.uid, p.prompt, p.answer, p.group) for p in problems]))


def reasons(left_out):
    """A Counter of rows left out as text, for example "2 incomplete, 1 repeated"."""
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)


def cell_text(cell, where):
    """A cell as text: text, numbers and lists of them; missing, NaN and blank are ""."""
    if isinstance(cell, list):
        return ", ".join(filter(None, [cell_text(one, where) for one in cell]))
    if cell is None or cell != cell:  # NaN is the only value that differs from itself
        return ""
    # To Python True is a number too, but no answer is meant by it.
    if isinstance(cell, bool) or not isinstance(cell, (str, int, float)):
        raise UsageError(f"{where}: needs text or a number, has {type(cell).__name__} "
                         f"{str(cell)[:60]}; convert it in the file")
    try:
        str(cell).encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{where}: has half a character (a lone surrogate), "
                         "which no tokenizer takes; mend it in the file") from error
    return str(cell) if str(cell).strip() else ""


def check_ids(problems, name):
    """UsageError unless every id is a text that occurs once."""
    seen = set()
    for p in problems:
        if not isinstance(p.uid, str) or p.uid in seen:
            raise UsageError(
                f"{name}: the id {p.uid!r} (of prompt {p.prompt[:60]!r}) "
                f"{'occurs twice' if p.uid in seen else 'is no text'}; "
                "ids must be texts that tell problems apart: drop or change one row")
        seen.add(p.uid)


# ---------- rows, from a file or from the hub ----------

def benchmark_rows(spec, split, data_dir):
    """Rows of a set of HUB: of a file in data_dir if there is one, else of the hub."""
    name, keys = split_name(spec)
    hub_set = HUB[name]
    has_both = " " in hub_set.split
    hub_split = keys.get("split") or hub_set.split.split()[0 if split == "train" else -1]
    stem = os.path.join(data_dir, f"{name}_{hub_split}" if has_both else name)
    for suffix in SUFFIXES:
        path = stem + suffix
        if os.path.exists(path):
            # Where there are two splits, split= chooses between two files.
            for key in ("config", "revision") if has_both else ("config", "revision", "split"):
                if key in keys:
                    raise UsageError(f"{spec}: {path} is there and goes before the hub, "
                                     f"so {key}= has no effect: remove the key or the file")
            return read_rows(path)
    changes = {key: keys[key] for key in ("config", "revision") if key in keys}
    return hub_rows(replace(hub_set, **changes), hub_split, stem)


def usual_columns(rows):
    """What the columns of a file are called: the first usual name that occurs, or ""."""
    present = {column for row in rows[:100] if isinstance(row, dict) for column in row}
    return {
        key: next((column for column in candidates if column in present), "")
        for key, candidates in COLUMNS.items()}


def read_rows(path):
    """Rows of a .jsonl, .parquet or .csv file as a list of dicts."""
    if not os.path.isfile(path):
        raise UsageError(f"data set {path}: no such file")
    try:
        if path.endswith(".parquet"):
            import pyarrow.parquet

            return pyarrow.parquet.read_table(path).to_pylist()
        # utf-8-sig: spreadsheets begin a file with a byte order mark.
        with open(path, encoding="utf-8-sig", newline="") as file:
            if path.endswith(".csv"):
                return list(csv.DictReader(file))
            # Not splitlines: it also cuts at characters that JSON allows inside a text.
            lines = file.read().split("\n")
    # pyarrow's errors and UnicodeDecodeError are ValueErrors.
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(
            f"data set {path}: cannot be read as "
            f"{'parquet' if path.endswith('.parquet') else 'UTF-8 text'}: {error}") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            # Too many digits in a number are a plain ValueError, no JSONDecodeError.
            except (ValueError, RecursionError) as error:
                raise UsageError(f"{path}, line {number}: not JSON ({str(error)[:100]}); "
                                 "a .jsonl file has one object a line") from error
    return rows


def hub_rows(hub_set, split, stem=""):
    """Rows of a data set of the hub, or of its local cache (all there is with HF_HUB_OFFLINE=1).
    Gated or UsageError says what to do; `stem` is the file, less its suffix, that would do too."""
    from datasets import load_dataset
    from huggingface_hub import get_token, snapshot_download

    try:
        # Unlike load_dataset, this also finds what `hf download` left in the cache.
        folder = snapshot_download(
            hub_set.hub, repo_type="dataset", revision=hub_set.revision)
        return load_dataset(folder, hub_set.config or None, split=split).to_list()
    # The two libraries raise errors of many kinds, and all mean that there are no rows.
    except Exception as error:
        if hub_set.gated and not get_token():
            raise Gated(
                f"{hub_set.hub} is gated and there is no token: accept its terms on the hub, then "
                f"`hf auth login` or HF_TOKEN=...; or place the file {stem}.csv") from error
        advice = "give the path of a .jsonl, .parquet or .csv file instead"
        if stem:
            advice = (f"place it at {stem}.jsonl, .parquet or .csv, "
                      f"with the columns {', '.join(hub_set.required)}")
        raise UsageError(
            f"data set {hub_set.hub} (config {hub_set.config or 'default'}, split {split}, "
            f"revision {hub_set.revision}) cannot be loaded: "
            f"{type(error).__name__}: {''.join(str(error).splitlines()[:1])}. "
            f"Without the hub, {advice}; or fill the cache on a machine with a connection: "
            f"hf download {hub_set.hub} --repo-type dataset --revision {hub_set.revision}"
        ) from error


# ---------- problems as the policy sees them ----------

BOXED = "{question}\nLet's think step by step and output the final answer within \\boxed{}."
TEMPLATES = {
    "chat": BOXED,  # and around it the chat template of the tokenizer
    "bare": "{question}",
    "boxed": BOXED,
}


@dataclass
class ProblemSet:
    """Problems ready for the policy: `prompt_ids[i]` are the tokens of problems[i], template
    included."""
    problems: list
    prompt_ids: list
    left_out: Counter  # reason -> rows
    reward: str  # name of the grader


def load_set(spec, split, cfg, tokenizer):
    """ProblemSet of the data set `spec` under cfg.template and cfg.reward.

    Left to `auto`, they are bare and exact for embedded worlds and your own loaders, boxed and math
    for all else. Prompts over cfg.max_prompt_len tokens are left out and counted. UsageError if
    none remains.
    """
    problems, left_out = load_problems(spec, split, cfg.data_dir)
    has_loader = split_name(spec)[0] in DATASETS
    reward = cfg.reward
    if reward == "auto":
        reward = "exact" if has_loader else "math"
    template = cfg.template
    if template == "auto":
        template = "bare" if has_loader else "boxed"
    text = TEMPLATES.get(template, template)
    if "{question}" not in text:
        raise UsageError(f"template={template!r}: choose auto, {', '.join(TEMPLATES)}, "
                         "or write a text that contains {question}")
    # Not str.format: questions and templates are full of braces.
    prompts = [text.replace("{question}", p.prompt) for p in problems]
    if template == "chat":
        if not tokenizer.chat_template:
            raise UsageError("template=chat, but the model's tokenizer has no chat template: "
                             "--template=boxed")
        prompts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True)
            for prompt in prompts]
    # The chat template has written the special tokens already.
    prompt_ids = [
        tokenizer(prompt, add_special_tokens=template != "chat", verbose=False)["input_ids"]
        for prompt in prompts]
    keep = [i for i, ids in enumerate(prompt_ids) if 0 < len(ids) <= cfg.max_prompt_len]
    if not keep:
        raise UsageError(
            f"{spec}: every prompt is longer than max_prompt_len={cfg.max_prompt_len} tokens "
            f"(the shortest has {min(map(len, prompt_ids))}, template included); raise it")
    left_out["too long"] += len(problems) - len(keep)
    kept = [replace(problems[i], prompt=prompts[i]) for i in keep]
    return ProblemSet(kept, [prompt_ids[i] for i in keep], +left_out, reward)
