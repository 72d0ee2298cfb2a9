"""Whatever is typed or read: a config that holds what was asked for, or one line that says what is wrong. Never another error."""
import dataclasses
import json
import math
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configurator import BOOLS, UsageError, parse
from data import Problem, load_problems, load_set
from eval import EvalConfig
from train import PRESETS, Config

anything = st.one_of(st.integers(), st.integers(-3, 40), st.floats(), st.booleans(), st.none(), st.text(max_size=12), st.lists(st.integers(), max_size=2),
                     st.sampled_from(["", "0", "1e400", "-0.0", "nan", "inf", "１２", "0x10", "1_0", "true", "TRUE", "9" * 5000, "'", "\n", "\ud800", "\0", "=", "--"]))
lax = settings(suppress_health_check=list(HealthCheck))


def names(config_class):
    known = [f.name for f in dataclasses.fields(config_class)]
    return st.one_of(st.sampled_from(known), st.sampled_from(known), st.sampled_from(known).map(lambda name: name[:-1]), st.text(max_size=8))


def as_typed(text, kind):
    """What somebody who types `text` for a knob of type `kind` asks for."""
    return BOOLS[text.lower()] if kind is bool else kind(text)


@pytest.mark.parametrize("config_class", [Config, EvalConfig])
@settings(lax, max_examples=1000)
@given(st.data())
def test_command_lines(config_class, data):
    assigned = data.draw(st.lists(st.tuples(names(config_class), anything), max_size=4))
    try:
        cfg = parse(config_class, [f"--{name}={value}" for name, value in assigned])
    except UsageError as error:
        assert str(error)
        return
    wanted = {name.split("=")[0] if "=" in name else name: f"{name}={value}".split("=", 1)[1] for name, value in assigned}
    preset = PRESETS.get(wanted.get("preset"), {}) if config_class is Config else {}
    for field in dataclasses.fields(cfg):
        value = getattr(cfg, field.name)
        want = as_typed(wanted[field.name], field.type) if field.name in wanted else preset.get(field.name, field.default)
        assert type(value) is field.type and (value == want or math.isnan(value) and math.isnan(want))


@settings(lax, max_examples=1000)
@given(st.lists(st.tuples(names(Config), anything), max_size=4), st.text(alphabet="=#'\"()\n \\:aé", max_size=6))
def test_config_files(tmp_path_factory, assigned, rubbish):
    path = tmp_path_factory.getbasetemp() / "fuzz.py"
    assigned = [(name, value) for name, value in assigned if name.isidentifier()]
    text = "".join(f"{name} = {value!r}\n" for name, value in assigned) + rubbish
    path.write_text(text.encode("utf-8", "replace").decode(), newline="")
    try:
        cfg = parse(Config, [str(path)])
    except UsageError as error:
        assert "fuzz.py" in str(error) or any(re.search(rf"\b{name}\b", str(error)) for name, _ in assigned)
        return
    for name, value in dict(assigned).items():
        if not name.startswith("_"):
            assert getattr(cfg, name) == value and type(value) in (type(getattr(cfg, name)), int)


cells = st.one_of(anything, st.just("huge").map(lambda word: word * 50_000), st.text(), st.dictionaries(st.text(max_size=3), anything, max_size=2), st.lists(st.text(max_size=3), max_size=3))
rows = st.dictionaries(st.sampled_from(["prompt", "problem", "question", "answer", "solution", "final_answer", "id", "group", "x"]), cells, max_size=5)
good = st.fixed_dictionaries({"prompt": st.one_of(st.text(min_size=1, max_size=8), st.just("A1\ud800")), "answer": st.one_of(st.text(min_size=1, max_size=4), st.integers())})


@pytest.fixture(scope="module")
def tokenizer():
    from model import load_tokenizer

    return load_tokenizer("worlds/arith")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@settings(lax, max_examples=350)
@given(data=st.data())
def test_data_rows(tmp_path_factory, tokenizer, suffix, data):
    """At least three rows an example: more than 2,000 in all."""
    path = tmp_path_factory.getbasetemp() / ("fuzz" + suffix)
    table = data.draw(st.one_of(st.lists(good, min_size=3, max_size=6), st.lists(st.one_of(good, rows), min_size=3, max_size=6)))
    if suffix == ".jsonl":
        lines = [json.dumps(row) for row in table] + data.draw(st.lists(st.one_of(st.text(max_size=5), st.sampled_from(["nested", "9" * 5000, "NaN", '{"a":1}{"a":2}'])), max_size=1))
    else:
        columns = list(dict.fromkeys(key for row in table for key in row))
        lines = [",".join(columns)] + [",".join('"' + str(row.get(key, "")).replace('"', '""') + '"' for key in columns) for row in table]
    path.write_bytes("\n".join(lines).replace("nested", "[" * 100_000).encode("utf-8", "replace"))
    cfg = Config(dataset=str(path))
    try:
        problems, left_out = load_problems(str(path))
        loaded = load_set(str(path), "train", cfg, tokenizer)
    except UsageError as error:
        assert "fuzz" in str(error)
        return
    assert problems and all(isinstance(p, Problem) and all(isinstance(text, str) for text in (p.uid, p.prompt, p.answer, p.group)) and p.prompt.strip() and p.answer.strip() for p in problems)
    assert len({p.uid for p in problems}) == len(problems) and len(problems) + sum(left_out.values()) <= len(lines)
    assert all(0 < len(ids) <= cfg.max_prompt_len for ids in loaded.prompt_ids)
