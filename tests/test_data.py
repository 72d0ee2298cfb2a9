"""Claims about the embedded world, local files and what happens to bad ones."""
import json
import os

import pyarrow
import pyarrow.parquet
import pytest

from data import FAMILIES, Problem, arith, arith_trace, load_problems, within_length


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_traces_are_the_running_results():
    by_letter = {f.letter: f for f in FAMILIES}
    assert arith_trace(by_letter["A"], (3, 1, 7, 2)) == "377"
    assert arith_trace(by_letter["B"], (3, 8, 4, 5)) == "150"
    assert arith_trace(by_letter["C"], (3, 8, 4, 5)) == "516"
    assert arith_trace(by_letter["G"], (3, 1, 1)) == "01"


def test_no_prompt_is_in_both_splits_and_each_split_is_always_the_same():
    train, held_out = arith("train"), arith("eval")
    assert not {p.prompt for p in train} & {p.prompt for p in held_out}
    assert len({p.uid for p in train}) == len(train) and train == arith("train")


def test_training_is_heavy_tailed_and_evaluation_even():
    count = lambda problems: [sum(p.group == f.letter for p in problems) for f in FAMILIES]
    train, held_out = count(arith("train")), count(arith("eval"))
    assert train == sorted(train, reverse=True) and train[0] > 10 * train[-1] > 0
    assert len(set(held_out)) == 1


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_local_files_load_and_incomplete_rows_are_counted(tmp_path, suffix):
    rows = [{"prompt": "1+1=", "answer": "2"}, {"prompt": "2+2=", "answer": None}, {"prompt": "", "answer": "5"}, {"prompt": "3+3=", "answer": "6"}]
    path = tmp_path / ("set" + suffix)
    if suffix == ".jsonl":
        write_jsonl(path, rows)
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    problems, left_out = load_problems(str(path))
    assert [(p.prompt, p.answer) for p in problems] == [("1+1=", "2"), ("3+3=", "6")] and left_out == 2
    assert [p.uid for p in problems] == [p.uid for p in load_problems(str(path))[0]]


def test_id_and_group_columns_are_used_and_numbers_become_text(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "1+1=", "answer": 2, "id": 0, "group": 0}, {"prompt": "0+0=", "answer": 0}])
    assert load_problems(path)[0][0] == Problem("0", "1+1=", "2", "0") and load_problems(path)[0][1].answer == "0"


@pytest.mark.parametrize("rows, message", [
    ([], "no usable row"),
    ([{"prompt": "1", "answer": None}], "no usable row"),
    ([{"question": "1", "answer": "1"}], r"row 1: needs the columns prompt and answer, has \['answer', 'question'\]"),
    (["text"], "row 1: .* has str"),
    ([{"prompt": "1", "answer": "1"}, {"prompt": "1", "answer": "2"}], "occurs twice"),
    ([{"prompt": [{"role": "user"}], "answer": "1"}], "row 1, column prompt: needs text or a number, has list"),
    ([{"prompt": "1", "answer": True}], "row 1, column answer: needs text or a number, has bool"),
])
def test_bad_files_say_what_to_change(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        load_problems(write_jsonl(tmp_path / "bad.jsonl", rows))


def test_unreadable_names_say_what_there_is(tmp_path):
    with pytest.raises(ValueError, match="there are arith, or a path"):
        load_problems("arithmetic")
    with pytest.raises(ValueError, match="no such file"):
        load_problems("nowhere.jsonl")
    for name in ("latin.jsonl", "broken.parquet"):
        (tmp_path / name).write_bytes(b"\xe9\xff")
        with pytest.raises(ValueError, match=name + ": cannot be read"):
            load_problems(str(tmp_path / name))
    (tmp_path / "torn.jsonl").write_text('{"prompt": "1", "answer": "1"}\n{"prompt": ')
    with pytest.raises(ValueError, match="line 2: not JSON"):
        load_problems(str(tmp_path / "torn.jsonl"))


def test_long_prompts_are_left_out_and_counted(engine):
    problems = [Problem("a", "B12=", "3"), Problem("b", "B1234567890=", "")]
    kept, ids, left_out = within_length(problems, engine.tokenizer, 5)
    assert kept == problems[:1] and len(ids[0]) == 4 and left_out == 1
    with pytest.raises(ValueError, match="longer than max_prompt_len=3"):
        within_length(problems, engine.tokenizer, 3)


def test_the_shipped_base_policy_has_the_success_rates_it_says(engine):
    """And they spread: an easy family, a hopeless one, nothing missing between."""
    from arith.make_base import success_rates

    with open("arith/base/success_rates.json") as file:
        said = json.load(file)["success_rates"]
    for letter, rate in success_rates(samples=32).items():
        assert rate == pytest.approx(said[letter], abs=4 * (said[letter] / 1280) ** 0.5)  # 1,280 responses a family
    rates = sorted(said.values(), reverse=True)
    assert rates[0] > 0.85 and 0.001 < rates[-1] < 0.004
    assert os.path.getsize("arith/base/model.safetensors") < 2e6


def test_loaders_by_name_must_give_distinct_text_ids(monkeypatch):
    import data

    for uids in (["a", "a"], [1, 2]):
        monkeypatch.setitem(data.DATASETS, "mine", lambda split: [Problem(uid, "B12=", "3") for uid in uids])
        with pytest.raises(ValueError, match="occurs twice|is no text"):
            load_problems("mine")
