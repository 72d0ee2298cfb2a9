"""Problem sets: a list of `Problem`, each with an id that stays the same from run to run.

`arith` and `letters` are embedded (worlds/problems.py). Other names: the benchmarks of `HUB`, any Hugging Face data set as owner/name, and paths of .jsonl, .parquet or .csv files. Keys may follow:
name:split=test:prompt=question:answer=final_answer:group=level:id=number:config=main:revision=<commit>.
"""
import csv
import dataclasses
import hashlib
import json
import os
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from configurator import UsageError
from worlds.problems import Problem, arith, letters

DATASETS = {"arith": arith, "letters": letters}  # name -> loader of a split ("train" or "eval"); yours may join


# ---------- benchmarks and training sets of the Hugging Face hub ----------

def plain_dapo(row):
    """Some prompts still carry the instruction of the set they were taken from."""
    prompt = re.sub(r"\A\s*Solve the following math problem step by step\.[^\n]*Answer:[^\n]*\n+", "", row["prompt"])
    return row | {"prompt": re.sub(r"\n+\s*Remember to put your answer on its own line after \"Answer:\"\.?\s*\Z", "", prompt)}


def level_of_math(row):
    return row | {"group": f"{row['subject']}, level {row['level']}"}


def choices_of_gpqa(row):
    """Four options in an order that depends on the question only; the answer is the letter of the right one."""
    options = [row["Correct Answer"], *(row[f"Incorrect Answer {i}"] for i in (1, 2, 3))]
    order = np.random.default_rng(int(stable_id(row["Question"]), 16)).permutation(4)
    listed = "\n".join(f"({letter}) {options[i].strip()}" for letter, i in zip("ABCD", order))
    prompt = f"{row['Question'].strip()}\n\n{listed}\n\nThe answer is the letter of the right option."
    return row | {"prompt": prompt, "answer": "ABCD"[list(order).index(0)], "id": stable_id(row["Question"])}


@dataclass(frozen=True)
class HubSet:
    hub: str  # owner/name
    config: str = ""
    split: str = "test"  # "train test" where there are both: the first for training, the last for evaluation
    revision: str = "main"  # a commit, so that everybody reads the same rows
    prompt: str = "problem"  # column
    answer: str = "answer"  # column
    group: str = ""  # column, reported apart in evaluation
    id: str = ""  # column; without one, the id is a hash of the prompt
    prepare: object = None  # row -> row in which the columns above are filled
    needs: tuple = ()  # all columns it must have, if they are more than prompt and answer
    gated: bool = False  # needs a token of somebody who accepted the terms


HUB = {
    "dapo": HubSet("open-r1/DAPO-Math-17k-Processed", "en", "train", "31dd309567e3da778038cc87d868b6097a3ccf68", "prompt", "solution", prepare=plain_dapo),
    "gsm8k": HubSet("openai/gsm8k", "main", "train test", "740312add88f781978c0658806c59bc2815b9866", "question"),
    "math500": HubSet("HuggingFaceH4/MATH-500", "", "test", "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be", group="group", prepare=level_of_math, needs=("problem", "answer", "subject", "level")),
    "aime24": HubSet("HuggingFaceH4/aime_2024", "", "train", "2fe88a2f1091d5048c0f36abc874fb997b3dd99a"),
    "aime25": HubSet("math-ai/aime25", "", "test", "563bb8404243c5f09de6ec262f2db674fe5bce9b"),
    "amc23": HubSet("math-ai/amc23", "", "test", "80815d37005feb82cd7f8fbc6901d5d3eff43057", "question"),
    "minerva": HubSet("math-ai/minervamath", "", "test", "ee46ddc498933b1977577953250ca5c66be64f96", "question"),
    "olympiad": HubSet("math-ai/olympiadbench", "", "test", "4faaf1e6ec17d11a4218a9bf4c049ecaf954dd84", "question", "final_answer"),
    "gpqa": HubSet("Idavidrein/gpqa", "gpqa_diamond", "train", "633f5ee89ab8ad4522a9f850766b73f62147ffdd", "prompt", "answer", id="id",
                   prepare=choices_of_gpqa, needs=("Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"), gated=True),
}
KEYS = ("config", "split", "revision", "prompt", "answer", "group", "id")  # that may follow a name
COLUMNS = {"prompt": ("prompt", "problem", "question"), "answer": ("answer", "final_answer", "solution"), "group": ("group",), "id": ("id",)}  # of files, unless keys say others
SUFFIXES = (".jsonl", ".parquet", ".csv")


class Gated(UsageError):
    """A data set that needs a token, and there is none. Evaluation goes on without it and says so."""


def split_name(spec):
    """name:key=value:key=value -> name and dict. UsageError at an unknown key."""
    name, *pairs = re.split(r":(?=\w+=)", spec)
    keys = dict(pair.split("=", 1) for pair in pairs)
    if unknown := [key for key in keys if key not in KEYS]:
        raise UsageError(f"data set {spec!r}: there is no key {unknown[0]!r}; there are {', '.join(KEYS)}")
    return name, keys


def load_problems(spec, split="train", data_dir="problems"):
    """(list of Problem, Counter of the rows left out, by reason) of a data set; `split` ("train" or "eval") is used by sets that have
    both. Named sets are read from data_dir if they were placed there, else from the hub. UsageError says what to change."""
    name, keys = split_name(spec)
    if name in DATASETS:
        if keys:
            raise UsageError(f"{spec}: {name} takes no keys")
        return checked(DATASETS[name](split), name), Counter()
    if name in HUB:
        known = HUB[name]
        part = keys.get("split") or known.split.split()[0 if split == "train" else -1]
        stem = os.path.join(data_dir, name if " " not in known.split else f"{name}_{part}")
        placed = [stem + suffix for suffix in SUFFIXES if os.path.exists(stem + suffix)]
        if placed and (idle := [key for key in ("config", "revision", "split")[: 2 if " " in known.split else 3] if key in keys]):
            raise UsageError(f"{spec}: {placed[0]} is there and goes before the hub, so {idle[0]}= has no effect: remove the key or the file")
        rows = read_rows(placed[0]) if placed else hub_rows(dataclasses.replace(known, **{k: v for k, v in keys.items() if k in ("config", "revision")}), part, stem)
        columns = {key: keys.get(key) or getattr(known, key) for key in COLUMNS}
        prepare, needs = known.prepare, known.needs or (columns["prompt"], columns["answer"])
    elif name.endswith(SUFFIXES):
        if idle := [key for key in ("config", "split", "revision") if key in keys]:
            raise UsageError(f"{spec}: {idle[0]}= means nothing for a file: remove it")
        rows, prepare, needs = read_rows(name), None, ()
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        rows, prepare, needs = hub_rows(HubSet(name, keys.get("config", ""), revision=keys.get("revision", "main")), keys.get("split", "train" if split == "train" else "test")), None, ()
    else:
        raise UsageError(f"data set {name!r} is unknown; there are {', '.join([*DATASETS, *HUB])}, owner/name of the Hugging Face hub, or a path that ends in {', '.join(SUFFIXES)}")
    if name not in HUB:
        have = {key for row in rows[:100] if isinstance(row, dict) for key in row}
        columns = {key: keys.get(key) or next((c for c in candidates if c in have), "") for key, candidates in COLUMNS.items()}
        if (columns["prompt"], columns["answer"]) == (HUB["dapo"].prompt, HUB["dapo"].answer):  # a copy of it, or laid out like it
            prepare, needs = plain_dapo, ("prompt", "solution")
    for key in ("id", "group"):
        if key in keys and not any(keys[key] in row for row in rows if isinstance(row, dict)):
            raise UsageError(f"{spec}: no row has a column {keys[key]!r}: correct {key}={keys[key]}, or leave it out")
    return problems_of(rows, columns, prepare, needs, spec)


def problems_of(rows, columns, prepare, needs, where):
    """Rows (dicts) -> (problems, Counter of what was left out). A prompt that occurs again with its answer is kept once; one that occurs with
    different answers is dropped altogether: nobody knows which is right."""
    problems = []
    for number, row in enumerate(rows, 1):
        need = needs or [columns["prompt"] or "prompt", columns["answer"] or "answer"]
        if not isinstance(row, dict) or not set(need) <= row.keys():
            have = sorted(map(str, row)) if isinstance(row, dict) else type(row).__name__
            raise UsageError(f"{where}, row {number}: needs the columns {' and '.join(need)}, has {have}; rename them in the file, or name them: {where}:prompt=...:answer=...")
        if prepare and all(isinstance(row[c], (str, int)) and str(row[c]).strip() for c in need):
            row = prepare(row)
        cells = {key: text_of(row.get(column), f"{where}, row {number}, column {column}") for key, column in columns.items()}
        cells["answer"] = cells["answer"].rpartition("####")[2].strip()  # GSM8K's way to mark the answer behind a solution
        if cells["prompt"] and cells["answer"]:
            problems.append(Problem(cells["id"] or stable_id(cells["prompt"]), cells["prompt"], cells["answer"], cells["group"]))
    left_out, same, kept = Counter(incomplete=len(rows) - len(problems)), {}, []
    for p in problems:
        same.setdefault(" ".join(p.prompt.split()), []).append(p)
    for group in same.values():
        if len({p.answer.strip() for p in group}) > 1:
            left_out["conflicting"] += len(group)
        else:
            kept.append(group[0])
            left_out["repeated"] += len(group) - 1
    if not kept:
        raise UsageError(f"{where}: no usable row ({len(rows)} rows: {said(left_out) or 'none'})")
    return checked(kept, where), +left_out


def stable_id(text):
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def fingerprint(problems):
    """16 hexadecimal digits that change with any problem."""
    return hashlib.sha256(repr([(p.uid, p.prompt, p.answer, p.group) for p in problems]).encode()).hexdigest()[:16]


def said(left_out):
    """A Counter of rows left out, in words."""
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)


def text_of(cell, where):
    """A cell as text: text, numbers and lists of them are accepted; missing, NaN and blank are ""."""
    if isinstance(cell, list):
        return ", ".join(filter(None, (text_of(one, where) for one in cell)))
    if cell is None or isinstance(cell, float) and cell != cell:
        return ""
    if isinstance(cell, bool) or not isinstance(cell, (str, int, float)):
        raise UsageError(f"{where}: needs text or a number, has {type(cell).__name__} {str(cell)[:60]}; convert it in the file")
    try:
        str(cell).encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{where}: has half a character (a lone surrogate), which no tokenizer takes; mend it in the file") from error
    return str(cell) if str(cell).strip() else ""


def checked(problems, name):
    """The problems, if every id is a text that occurs once."""
    seen = set()
    for p in problems:
        if not isinstance(p.uid, str) or p.uid in seen:
            raise UsageError(f"{name}: the id {p.uid!r} (of prompt {p.prompt[:60]!r}) " + ("occurs twice" if p.uid in seen else "is no text")
                             + "; ids must be texts that tell problems apart: drop or change one row")
        seen.add(p.uid)
    return problems


def read_rows(path):
    """Rows of a .jsonl, .parquet or .csv file as a list of dicts."""
    if not os.path.isfile(path):
        raise UsageError(f"data set {path}: no such file")
    try:
        if path.endswith(".parquet"):
            import pyarrow.parquet

            return pyarrow.parquet.read_table(path).to_pylist()
        with open(path, encoding="utf-8-sig", newline="") as file:
            if path.endswith(".csv"):
                return list(csv.DictReader(file))
            lines = file.read().split("\n")
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's errors and UnicodeDecodeError are ValueErrors
        raise UsageError(f"data set {path}: cannot be read as {'parquet' if path.endswith('.parquet') else 'UTF-8 text'}: {error}") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:  # a number of too many digits is no JSONDecodeError
                raise UsageError(f"{path}, line {number}: not JSON ({str(error)[:100]}); a .jsonl file has one object a line") from error
    return rows


def hub_rows(known, split, stem=""):
    """Rows of a data set of the hub, or of its local cache (all there is with HF_HUB_OFFLINE=1). Gated or UsageError says what to do."""
    from datasets import load_dataset
    from huggingface_hub import get_token, snapshot_download

    try:
        folder = snapshot_download(known.hub, repo_type="dataset", revision=known.revision)  # also finds what `hf download` left in the cache
        return load_dataset(folder, known.config or None, split=split).to_list()
    except Exception as error:  # the library has many, and all mean that there are no rows
        if known.gated and not get_token():
            raise Gated(f"{known.hub} is gated and there is no token: accept its terms on the hub, then `hf auth login` or HF_TOKEN=...; or place the file {stem}.csv") from error
        columns = ", ".join(known.needs or (known.prompt, known.answer))
        place = f"place it at {stem}.jsonl, .parquet or .csv, with the columns {columns}" if stem else "give the path of a .jsonl, .parquet or .csv file instead"
        raise UsageError(f"data set {known.hub} (config {known.config or 'default'}, split {split}, revision {known.revision}) cannot be loaded: {type(error).__name__}: "
                         f"{str(error).splitlines()[0] if str(error) else ''}. Without the hub, {place}; or fill the cache on a machine with a connection: hf download {known.hub} "
                         f"--repo-type dataset --revision {known.revision}") from error


# ---------- problems as the policy sees them ----------

TEMPLATES = {
    "bare": "{question}",
    "boxed": "{question}\nLet's think step by step and output the final answer within \\boxed{}.",
}


@dataclass
class ProblemSet:
    """Problems ready for the policy: `prompt_ids[i]` are the tokens of problems[i], template included."""
    problems: list
    prompt_ids: list
    left_out: Counter  # reason -> rows
    reward: str  # name of the grader


def load_set(spec, split, cfg, tokenizer):
    """ProblemSet of the data set `spec` under cfg.template and cfg.reward. Left to `auto`, they are bare and exact for embedded worlds and your
    own loaders, boxed and math for all else. Prompts over cfg.max_prompt_len tokens are left out and counted. UsageError if none remains."""
    problems, left_out = load_problems(spec, split, cfg.data_dir)
    own = split_name(spec)[0] in DATASETS
    template = cfg.template if cfg.template != "auto" else "bare" if own else "boxed"
    text = TEMPLATES["boxed" if template == "chat" else template] if template in TEMPLATES or template == "chat" else template
    if "{question}" not in text:
        raise UsageError(f"template={template!r}: choose auto, chat, {', '.join(TEMPLATES)}, or write a text that contains {{question}}")
    prompts = [text.replace("{question}", p.prompt) for p in problems]
    if template == "chat":
        if not tokenizer.chat_template:
            raise UsageError("template=chat, but the model's tokenizer has no chat template: --template=boxed")
        prompts = [tokenizer.apply_chat_template([{"role": "user", "content": p}], tokenize=False, add_generation_prompt=True) for p in prompts]
    ids = [tokenizer(p, add_special_tokens=template != "chat", verbose=False)["input_ids"] for p in prompts]
    keep = [i for i, tokens in enumerate(ids) if 0 < len(tokens) <= cfg.max_prompt_len]
    if not keep:
        raise UsageError(f"{spec}: every prompt is longer than max_prompt_len={cfg.max_prompt_len} tokens (the shortest has {min(map(len, ids))}, template included); raise it")
    left_out["too long"] += len(problems) - len(keep)
    reward = cfg.reward if cfg.reward != "auto" else "exact" if own else "math"
    return ProblemSet([dataclasses.replace(problems[i], prompt=prompts[i]) for i in keep], [ids[i] for i in keep], +left_out, reward)
