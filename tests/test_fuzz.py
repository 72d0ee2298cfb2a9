"""Whatever is typed or read: a config that holds what was asked for, or one line that says what is
wrong. Never another error."""

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
from train import Config

words = ["", "true", "TRUE", "'", "\n", "\ud800", "\0", "=", "--"]
numbers = ["0", "1e400", "-0.0", "nan", "inf", "１２", "0x10", "1_0", "9" * 5000]
anything = st.one_of(
    st.integers(),
    st.integers(-3, 40),
    st.floats(),
    st.booleans(),
    st.none(),
    st.text(max_size=12),
    st.lists(st.integers(), max_size=2),
    st.sampled_from(words + numbers),
)
lax = settings(suppress_health_check=list(HealthCheck))


def names(config_class):
    """Mostly names of knobs, some of them without their last letter, and any text."""
    knobs = [f.name for f in dataclasses.fields(config_class)]
    return st.one_of(
        st.sampled_from(knobs),
        st.sampled_from(knobs),
        st.sampled_from(knobs).map(lambda name: name[:-1]),
        st.text(max_size=8),
    )


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
    # A name may hold "=" itself: then the name ends there.
    wanted = dict(f"{name}={value}".split("=", 1) for name, value in assigned)
    for field in dataclasses.fields(cfg):
        value = getattr(cfg, field.name)
        want = field.default
        if field.name in wanted:
            want = as_typed(wanted[field.name], field.type)
        assert type(value) is field.type
        assert value == want or (math.isnan(value) and math.isnan(want))


@settings(lax, max_examples=1000)
@given(
    st.lists(st.tuples(names(Config), anything), max_size=4),
    st.text(alphabet="=#'\"()\n \\:aé", max_size=6),
)
def test_config_files(tmp_path_factory, assigned, rubbish):
    path = tmp_path_factory.getbasetemp() / "fuzz.py"
    assigned = [(name, value) for name, value in assigned if name.isidentifier()]
    text = "".join(f"{name} = {value!r}\n" for name, value in assigned) + rubbish
    path.write_text(text.encode("utf-8", "replace").decode(), newline="")
    try:
        cfg = parse(Config, [str(path)])
    except UsageError as error:
        message = str(error)
        named = [name for name, _ in assigned if re.search(rf"\b{name}\b", message)]
        assert "fuzz.py" in message or named
        return
    for name, value in dict(assigned).items():
        if not name.startswith("_"):
            assert getattr(cfg, name) == value
            assert type(value) in (type(getattr(cfg, name)), int)


cells = st.one_of(
    anything,
    st.just("huge").map(lambda word: word * 50_000),
    st.text(),
    st.dictionaries(st.text(max_size=3), anything, max_size=2),
    st.lists(st.text(max_size=3), max_size=3),
)
prompts = ["prompt", "problem", "question"]
answers = ["answer", "solution", "final_answer"]
columns = prompts + answers + ["id", "group", "x"]
any_row = st.dictionaries(st.sampled_from(columns), cells, max_size=5)
good_row = st.fixed_dictionaries(
    {
        "prompt": st.one_of(st.text(min_size=1, max_size=8), st.just("A1\ud800")),
        "answer": st.one_of(st.text(min_size=1, max_size=4), st.integers()),
    }
)
tables = st.one_of(
    st.lists(good_row, min_size=3, max_size=6),
    st.lists(st.one_of(good_row, any_row), min_size=3, max_size=6),
)
bad_lines = st.one_of(
    st.text(max_size=5),
    st.sampled_from(["nested", "9" * 5000, "NaN", '{"a":1}{"a":2}']),
)


def jsonl_lines(table, data):
    """One object a line, and perhaps a line that is none."""
    return [json.dumps(row) for row in table] + data.draw(st.lists(bad_lines, max_size=1))


def csv_lines(table):
    """A heading of all columns, then a line for each row, every cell in quotes."""
    heading = list(dict.fromkeys(key for row in table for key in row))
    lines = [",".join(heading)]
    for row in table:
        quoted = ['"' + str(row.get(key, "")).replace('"', '""') + '"' for key in heading]
        lines.append(",".join(quoted))
    return lines


@pytest.fixture(scope="module")
def tokenizer():
    from pretrained import load_tokenizer

    return load_tokenizer("worlds/arith")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@settings(lax, max_examples=350)
@given(data=st.data())
def test_data_rows(tmp_path_factory, tokenizer, suffix, data):
    """At least three rows an example: more than 2,000 in all."""
    path = tmp_path_factory.getbasetemp() / ("fuzz" + suffix)
    table = data.draw(tables)
    lines = jsonl_lines(table, data) if suffix == ".jsonl" else csv_lines(table)
    # 100,000 brackets are written only here: hypothesis would print them with every failure.
    text = "\n".join(lines).replace("nested", "[" * 100_000)
    path.write_bytes(text.encode("utf-8", "replace"))
    cfg = Config(dataset=str(path))
    try:
        problems, left_out = load_problems(str(path))
        loaded = load_set(str(path), "train", cfg, tokenizer)
    except UsageError as error:
        assert "fuzz" in str(error)
        return
    assert problems
    for p in problems:
        assert isinstance(p, Problem)
        assert all(isinstance(text, str) for text in (p.uid, p.prompt, p.answer, p.group))
        assert p.prompt.strip() and p.answer.strip()
    assert len({p.uid for p in problems}) == len(problems)
    assert len(problems) + sum(left_out.values()) <= len(lines)
    assert all(0 < len(ids) <= cfg.max_prompt_len for ids in loaded.prompt_ids)
