"""Problem sets: a list of `Problem`, each with an id that stays the same from run to run.

`arith` is embedded: families of step-by-step digit computations with a heavy tail. A prompt names a family and lists digits; the
right response is the running result after every digit, e.g. family B adds modulo 10: "B38459=" is answered by
"1509" (3+8 is 1, +4 is 5, +5 is 0, +9 is 9).
Anything else is a path to a .jsonl or .parquet file with the columns `prompt` and `answer` (and, optionally, `id` and `group`).
"""
import hashlib
import json
import os
from dataclasses import dataclass

import numpy as np

from configurator import UsageError


@dataclass(frozen=True)
class Problem:
    uid: str  # stable id: the classifier remembers a problem by it
    prompt: str  # the text the policy continues
    answer: str  # what the grader compares with
    group: str = ""  # family, subject or level; evaluation reports each group and the worst


@dataclass(frozen=True)
class Family:
    letter: str
    rule: object  # (running result, next digit) -> new running result, all modulo 10
    error: float  # chance that one step of a demonstration is wrong: sets the base policy's success rate
    share: float  # share of the training prompts; the evaluation set has equally many of each family


FAMILIES = (
    Family("A", lambda r, d: max(r, d), 0.02, 0.44),
    Family("B", lambda r, d: r + d, 0.11, 0.28),
    Family("C", lambda r, d: r - d, 0.3, 0.14),
    Family("D", lambda r, d: r * d, 0.45, 0.04),
    Family("E", lambda r, d: 3 * r + d, 0.53, 0.03),
    Family("F", lambda r, d: r + 7 * d, 0.59, 0.03),
    Family("G", lambda r, d: r * r + d, 0.65, 0.02),
    Family("H", lambda r, d: r * d + d, 0.69, 0.02),
)
ARITH_SEED = 0
ARITH_TRAIN, ARITH_EVAL = 768, 320  # prompts


def arith_trace(family, digits, rng=None):
    """The running results for `digits`, as a string one digit shorter. With `rng` a step goes wrong with the family's
    `error` and the trace carries the wrong result on, as a demonstration by somebody who slips would."""
    result, trace = digits[0], []
    for digit in digits[1:]:
        result = family.rule(result, digit) % 10
        if rng is not None and rng.random() < family.error:
            result = (result + rng.integers(1, 10)) % 10
        trace.append(str(result))
    return "".join(trace)


def arith_digits(rng):
    return tuple(int(d) for d in rng.integers(0, 10, rng.integers(5, 7)))


def arith(split):
    """The `train` (heavy-tailed) or `eval` (families in equal parts) problems of the embedded world; no prompt is in both."""
    rng, seen, sets = np.random.default_rng(ARITH_SEED), set(), {}
    sizes = {"eval": [ARITH_EVAL // len(FAMILIES)] * len(FAMILIES), "train": [round(f.share * ARITH_TRAIN) for f in FAMILIES]}
    sizes["train"][0] += ARITH_TRAIN - sum(sizes["train"])
    for name, counts in sizes.items():
        sets[name] = []
        for family, count in zip(FAMILIES, counts):
            while count:
                digits = arith_digits(rng)
                prompt = family.letter + "".join(map(str, digits)) + "="
                if prompt not in seen:
                    seen.add(prompt)
                    sets[name].append(Problem(prompt, prompt, arith_trace(family, digits), family.letter))
                    count -= 1
    return sets[split]


def load_problems(name, split="train"):
    """(list of Problem, number of rows left out for want of a prompt or an answer) of the data set `name`: `arith`, or a path to a
    .jsonl or .parquet file. UsageError says what to change. `split` ("train" or "eval") is used by sets that have both."""
    if name in DATASETS:
        return distinct(DATASETS[name](split), name), 0
    rows, problems = read_rows(name), []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not {"prompt", "answer"} <= row.keys():
            have = sorted(row) if isinstance(row, dict) else type(row).__name__
            raise UsageError(f"{name}, row {number}: needs the columns prompt and answer, has {have}; rename them in the file")
        cells = {key: text_of(row.get(key), f"{name}, row {number}, column {key}") for key in ("prompt", "answer", "id", "group")}
        if cells["prompt"] and cells["answer"]:
            uid = cells["id"] or hashlib.sha256(cells["prompt"].encode("utf-8", "surrogatepass")).hexdigest()[:16]
            problems.append(Problem(uid, cells["prompt"], cells["answer"], cells["group"]))
    if not problems:
        raise UsageError(f"{name}: no usable row ({len(rows)} rows, none with both a prompt and an answer)")
    return distinct(problems, name), len(rows) - len(problems)


def text_of(cell, where):
    """A cell as text: text and numbers are accepted; missing, NaN and blank are ""."""
    if cell is None or isinstance(cell, float) and cell != cell:
        return ""
    if isinstance(cell, bool) or not isinstance(cell, (str, int, float)):
        raise UsageError(f"{where}: needs text or a number, has {type(cell).__name__} {str(cell)[:60]}; convert it in the file")
    return str(cell) if str(cell).strip() else ""


def distinct(problems, name):
    """The problems, if every id is a text that occurs once."""
    seen = set()
    for p in problems:
        if not isinstance(p.uid, str) or p.uid in seen:
            raise UsageError(f"{name}: the id {p.uid!r} (of prompt {p.prompt[:60]!r}) " + ("occurs twice" if p.uid in seen else "is no text")
                             + "; ids must be texts that tell problems apart: drop or change one row")
        seen.add(p.uid)
    return problems


DATASETS = {"arith": arith}


def read_rows(path):
    """Rows of a .jsonl or .parquet file as a list of dicts."""
    if not path.endswith((".jsonl", ".parquet")):
        raise UsageError(f"data set {path!r} is unknown; there are {', '.join(DATASETS)}, or a path that ends in .jsonl or .parquet")
    if not os.path.isfile(path):
        raise UsageError(f"data set {path}: no such file")
    try:
        if path.endswith(".parquet"):
            import pyarrow.parquet

            return pyarrow.parquet.read_table(path).to_pylist()
        with open(path, encoding="utf-8") as file:
            lines = file.read().split("\n")
    except (OSError, ValueError) as error:  # pyarrow's errors and UnicodeDecodeError are ValueErrors
        raise UsageError(f"data set {path}: cannot be read as {'parquet' if path.endswith('.parquet') else 'UTF-8 text'}: {error}") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise UsageError(f"{path}, line {number}: not JSON ({error.msg}); a .jsonl file has one object a line") from error
    return rows


def within_length(problems, tokenizer, max_prompt_len):
    """(problems whose prompt has at most `max_prompt_len` tokens, their token ids, number left out). UsageError if none is left."""
    ids = [tokenizer(p.prompt)["input_ids"] for p in problems]
    keep = [i for i, tokens in enumerate(ids) if 0 < len(tokens) <= max_prompt_len]
    if not keep:
        raise UsageError(f"every prompt is longer than max_prompt_len={max_prompt_len} tokens (the shortest has {min(map(len, ids))}); raise it")
    return [problems[i] for i in keep], [ids[i] for i in keep], len(problems) - len(keep)
