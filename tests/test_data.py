"""Claims about the embedded world, data sets by name, local files, and what happens to bad ones."""

import csv
import json
import os
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest
from make_files import (
    benchmark_rows,
    dapo_rows,
    tiny_qwen3,
    write_benchmarks,
    write_jsonl,
)

from configurator import UsageError
from data import DATASETS, HUB, Gated, load_problems, load_set, read_rows
from grader.answers import string_match
from reward import Grader
from worlds.problems import ARITH, Problem, arith, arith_trace


def settings(**changes):
    knobs = {"data_dir": "problems", "template": "auto", "reward": "auto", "max_prompt_len": 1000}
    return SimpleNamespace(**knobs | changes)


def answers_of(*arguments):
    return [p.answer for p in load_problems(*arguments)[0]]


def write_parquet(path, rows):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


# ---------- the embedded world ----------


def test_traces_are_the_running_results():
    by_letter = {f.letter: f for f in ARITH.families}
    assert arith_trace(by_letter["A"], (3, 1, 7, 2)) == "377"
    assert arith_trace(by_letter["B"], (3, 8, 4, 5)) == "150"
    assert arith_trace(by_letter["C"], (3, 8, 4, 5)) == "516"
    assert arith_trace(by_letter["G"], (3, 1, 1)) == "01"


def test_no_prompt_is_in_both_splits_and_each_split_is_always_the_same(monkeypatch):
    train, held_out = arith("train"), arith("eval")
    assert not {p.prompt for p in train} & {p.prompt for p in held_out}
    assert train == arith("train")
    uids = {p.uid for p in train}
    assert len(uids) == len(train)
    monkeypatch.setattr("worlds.problems.SEED", 1)
    assert len(uids & {p.uid for p in arith("train")}) < len(train) / 100


def test_training_is_heavy_tailed_and_evaluation_even():
    counts = {}
    for split in ("train", "eval"):
        group_of_each = [p.group for p in arith(split)]
        counts[split] = [group_of_each.count(f.letter) for f in ARITH.families]
    assert counts["train"] == sorted(counts["train"], reverse=True)
    assert counts["train"][0] > 10 * counts["train"][-1] > 0
    assert len(set(counts["eval"])) == 1


def test_the_shipped_base_policy_has_the_success_rates_it_says():
    """And they spread: an easy family, a hopeless one, nothing missing between."""
    from worlds.make_base import success_rates

    with open("worlds/arith/success_rates.json") as file:
        stated = json.load(file)["success_rates"]
    for letter, rate in success_rates(32, "arith").items():
        four_sigma = 4 * (stated[letter] / 1280) ** 0.5  # of 1,280 responses a family
        assert rate == pytest.approx(stated[letter], abs=four_sigma)
    rates = sorted(stated.values(), reverse=True)
    assert rates[0] > 0.85
    assert 0.001 < rates[-1] < 0.004
    assert os.path.getsize("worlds/arith/model.safetensors") < 2e6


# ---------- local files ----------


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv"])
def test_local_files_load_and_incomplete_rows_are_counted(tmp_path, suffix):
    rows = [
        {"prompt": "1+1=", "answer": "2"},
        {"prompt": "2+2=", "answer": None},
        {"prompt": "", "answer": "5"},
        {"prompt": "3+3=", "answer": "6"},
    ]
    path = tmp_path / ("set" + suffix)
    if suffix == ".jsonl":
        write_jsonl(path, rows)
    elif suffix == ".csv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, ["prompt", "answer"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        write_parquet(path, rows)
    problems, left_out = load_problems(str(path))
    assert [(p.prompt, p.answer) for p in problems] == [("1+1=", "2"), ("3+3=", "6")]
    assert left_out == {"incomplete": 2}
    assert [p.uid for p in problems] == [p.uid for p in load_problems(str(path))[0]]


def test_id_and_group_columns_are_used_and_numbers_become_text(tmp_path):
    rows = [{"prompt": "1+1=", "answer": 2, "id": 0, "group": 0}, {"prompt": "0+0=", "answer": 0}]
    first, second = load_problems(write_jsonl(tmp_path / "a.jsonl", rows))[0]
    assert first == Problem("0", "1+1=", "2", "0")
    assert second.answer == "0"


def test_columns_are_found_by_their_usual_names_or_named_by_key(tmp_path):
    row = {"problem": "1+1", "solution": "so it is 2", "final_answer": ["2"], "level": 3}
    path = write_jsonl(tmp_path / "a.jsonl", [row])
    assert load_problems(path)[0] == load_problems(path + ":answer=final_answer")[0]
    [p] = load_problems(path + ":prompt=solution:answer=level:group=level:id=problem")[0]
    assert p == Problem("1+1", "so it is 2", "3", "3")
    for spec, message in (
        (path + ":revision=x", "revision= means nothing for a file"),
        ("arith:split=train", "arith takes no keys"),
        (path + ":colour=red", "there is no key 'colour'"),
        (path + ":prompt=question", "needs the columns question and final_answer, has"),
        (path + ":group=lvel", "no row has a column 'lvel'"),
    ):
        with pytest.raises(UsageError, match=message):
            load_problems(spec)


def test_keys_also_name_the_columns_of_a_benchmark_placed_as_a_file(tmp_path):
    write_jsonl(tmp_path / "aime24.jsonl", [{"prompt": "1+1", "level": 3}])
    spec = "aime24:prompt=prompt:answer=level:id=prompt"
    assert answers_of(spec, "eval", str(tmp_path)) == ["3"]


def test_repeated_rows_are_kept_once_and_conflicting_ones_dropped_altogether(tmp_path):
    rows = [
        {"prompt": "a", "answer": "1"},
        {"prompt": " a\n", "answer": "1"},
        {"prompt": "b", "answer": "1"},
        {"prompt": "b", "answer": "2"},
        {"prompt": "b", "answer": "1"},
        {"prompt": "c", "answer": "3"},
    ]
    problems, left_out = load_problems(write_jsonl(tmp_path / "a.jsonl", rows))
    assert [p.prompt for p in problems] == ["a", "c"]
    assert left_out == {"repeated": 1, "conflicting": 3}


OTHER_COLUMNS = [{"text": "1", "answer": "1"}]
CALLED_X = [{"prompt": "1", "answer": "1", "id": "x"}, {"prompt": "2", "answer": "2", "id": "x"}]
CONFLICT = [{"prompt": "1", "answer": "1"}, {"prompt": "1", "answer": "2"}]
CHAT_PROMPT = [{"prompt": [{"role": "user"}, {}], "answer": "1"}]
BAD_FILES = [
    ([], "no usable row"),
    ([{"prompt": "1", "answer": None}], "no usable row .1 rows: 1 incomplete."),
    (OTHER_COLUMNS, r"row 1: needs the columns prompt and answer, has \['answer', 'text'\]"),
    (["text"], "row 1: .* has str"),
    (CONFLICT, "no usable row .2 rows: 2 conflicting."),
    (CALLED_X, "'x' .of prompt '2'. occurs twice"),
    (CHAT_PROMPT, "row 1, column prompt: needs text or a number, has dict"),
    ([{"prompt": "1", "answer": True}], "row 1, column answer: needs text or a number, has bool"),
]


@pytest.mark.parametrize("rows, message", BAD_FILES)
def test_bad_files_say_what_to_change(tmp_path, rows, message):
    with pytest.raises(UsageError, match=message):
        load_problems(write_jsonl(tmp_path / "bad.jsonl", rows))


def test_unreadable_names_say_what_there_is(tmp_path):
    with pytest.raises(UsageError,
                       match="there are arith, chains, .* steps, dapo, .* gpqa, owner/name"):
        load_problems("arithmetic")
    with pytest.raises(UsageError, match="no such file"):
        load_problems("nowhere.jsonl")
    for name in ("latin.jsonl", "broken.parquet", "latin.csv"):
        (tmp_path / name).write_bytes(b"\xe9\xff")
        with pytest.raises(UsageError, match=name + ": cannot be read"):
            load_problems(str(tmp_path / name))
    (tmp_path / "torn.jsonl").write_text('{"prompt": "1", "answer": "1"}\n{"prompt": ')
    with pytest.raises(UsageError, match="line 2: not JSON"):
        load_problems(str(tmp_path / "torn.jsonl"))


@pytest.mark.parametrize("uids, message", [(["a", "a"], "occurs twice"), ([1, 2], "is no text")])
def test_loaders_by_name_must_give_distinct_text_ids(monkeypatch, uids, message):
    problems = [Problem(uid, "B12=", "3") for uid in uids]
    monkeypatch.setitem(DATASETS, "sums", lambda split: problems)
    with pytest.raises(UsageError, match=message):
        load_problems("sums")


# ---------- the benchmarks, from files with the real columns ----------


@pytest.fixture(scope="module")
def problems_dir(tmp_path_factory):
    return write_benchmarks(tmp_path_factory.mktemp("data") / "problems")


def test_every_named_set_loads_from_its_real_columns(problems_dir):
    answers = {name: answers_of(name, "eval", problems_dir) for name in HUB}
    assert answers["dapo"] == [str(3 * i) for i in range(12)]
    assert answers["gsm8k"] == ["1,001", "2,001", "3,001"]
    assert answers["aime24"] == ["025", "033", "204"]
    assert answers["aime25"] == ["70", "588"]
    assert answers["amc23"] == ["27.0", "4.0"]
    assert answers["minerva"] == ["4.5e33", "120"]
    assert answers["olympiad"] == ["$2$", r"$\frac{1}{2}$", "(0, 1)"]
    assert answers_of("gsm8k", "train", problems_dir) == ["1,001", "2,001"]
    groups = [p.group for p in load_problems("math500", "eval", problems_dir)[0]]
    assert groups[0] == "Geometry, level 2"
    assert len(set(groups)) == 6


def test_the_old_instruction_is_stripped_from_dapo(problems_dir):
    prompts = [p.prompt for p in load_problems("dapo", "train", problems_dir)[0]]
    assert prompts == [f"What is the sum of {i} and {2 * i}?" for i in range(12)]
    rows = dapo_rows() + [dapo_rows()[0] | {"solution": "5"}, dapo_rows()[3]]
    write_jsonl(os.path.join(problems_dir, "..", "dapo.jsonl"), rows)
    problems, left_out = load_problems("dapo", "train", os.path.dirname(problems_dir))
    assert len(problems) == 11
    assert left_out == {"conflicting": 2, "repeated": 1}
    # other columns, and a prompt that is a number
    asked = [{"prompt": 7, "solution": "7"}, {"x": "What is 1 + 1?", "solution": "2"}]
    folder = os.path.dirname(problems_dir)
    for row, spec in zip(asked, ("dapo", "dapo:prompt=x"), strict=True):
        write_jsonl(os.path.join(folder, "dapo.jsonl"), [row])
        found = load_problems(spec, "train", folder)[0]
        assert [p.prompt for p in found] == [str(row["x" if "x" in spec else "prompt"])]


def test_options_of_gpqa_are_shuffled_by_the_question_alone(problems_dir):
    problems = load_problems("gpqa", "eval", problems_dir)[0]
    assert problems == load_problems("gpqa", "eval", problems_dir)[0]
    assert len({p.answer for p in problems}) > 1
    for p, row in zip(problems, benchmark_rows()["gpqa"], strict=True):
        assert p.prompt.startswith(row["Question"])
        assert f"({p.answer}) {row['Correct Answer']}\n" in p.prompt
        listed = [line[4:] for line in p.prompt.split("\n\n")[1].splitlines()]
        assert sorted(listed) == sorted(row[c].strip() for c in row if "Answer" in c)
        assert row["Correct Answer"] not in p.uid
        assert row["Record ID"] not in p.uid


def test_odd_reference_answers_are_graded_as_what_they_mean(problems_dir):
    """Zero-padded, decimal, scientific, in dollars, a letter: by both scorers."""
    grader = Grader("math", workers=1)
    for name, response in (
        ("aime24", "25"),
        ("amc23", "27"),
        ("minerva", r"4.5 \times 10^{33}"),
        ("olympiad", "2"),
        ("gsm8k", "1,001"),
    ):
        gold = answers_of(name, "eval", problems_dir)[0]
        assert grader.grade([rf"\boxed{{{response}}}"], [gold])[0].verdict == "right"
        assert string_match(rf"\boxed{{{response}}}", gold)
    gold = answers_of("gpqa", "eval", problems_dir)[0]
    grades = grader.grade([rf"\boxed{{{letter}}}" for letter in "ABCD"], [gold] * 4)
    verdicts = [grade.verdict for grade in grades]
    assert verdicts.count("right") == 1
    grader.close()


def test_without_the_hub_the_error_says_which_file_to_place_where(tmp_path):
    assert os.environ["HF_HUB_OFFLINE"] == "1"  # conftest.py
    for name, stem in (("math500", "math500"), ("gsm8k", "gsm8k_test")):
        with pytest.raises(UsageError) as error:
            load_problems(name, "eval", str(tmp_path))
        for part in (
            HUB[name].hub,
            HUB[name].revision,
            f"place it at {tmp_path}/{stem}.jsonl",
            "with the columns",
            "hf download",
        ):
            assert part in str(error.value)
    message = "no/such-set .config main, split test.* give the path of a .jsonl"
    with pytest.raises(UsageError, match=message):
        load_problems("no/such-set:config=main", "eval", str(tmp_path))


def test_a_gated_set_without_a_token_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(Gated, match="Idavidrein/gpqa is gated .*hf auth login"):
        load_problems("gpqa", "eval", str(tmp_path))


def test_the_pinned_revision_config_and_split_are_read_from_the_hubs_cache(tmp_path, monkeypatch):
    """The libraries themselves, offline, on a cache laid out as a download leaves it: two
    revisions, two configs."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")

    def lay_out(hub, revision, configs):
        folder = tmp_path / "hub" / ("datasets--" + hub.replace("/", "--"))
        snapshot = folder / "snapshots" / revision
        card = ["---", "configs:"]
        for config, splits in configs.items():
            (snapshot / config).mkdir(parents=True, exist_ok=True)
            card += [f"- config_name: {config}", "  data_files:"]
            for split, rows in splits.items():
                write_parquet(snapshot / config / f"{split}-00000-of-00001.parquet", rows)
                card += [f"  - split: {split}", f"    path: {config}/{split}-*"]
        (snapshot / "README.md").write_text("\n".join([*card, "---", ""]))
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(revision)

    def answers(spec, split="eval"):
        return answers_of(spec, split, str(tmp_path))

    rows = benchmark_rows()
    other = [{"question": "other", "answer": "0"}]
    pinned = {
        "main": {"train": rows["gsm8k_train"], "test": rows["gsm8k_test"]},
        "socratic": {"train": other, "test": other},
    }
    lay_out("openai/gsm8k", HUB["gsm8k"].revision, pinned)
    newer = "f" * 40
    lay_out("openai/gsm8k", newer, {"main": {"train": other, "test": other}})
    lay_out("some/set", "e" * 40, {"default": {"test": [{"task": "1+1", "result": 2}]}})
    assert answers("gsm8k") == ["1,001", "2,001", "3,001"]
    assert answers("gsm8k", "train") == ["1,001", "2,001"]
    assert answers("gsm8k:revision=" + newer) == ["0"]
    assert answers("gsm8k:config=socratic") == ["0"]
    assert answers("openai/gsm8k:config=main") == ["0"]
    assert answers("some/set:prompt=task:answer=result") == ["2"]
    assert all(len(hub_set.revision) == 40 for hub_set in HUB.values())


# ---------- templates and lengths ----------


def test_templates(tmp_path, monkeypatch):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen3(tmp_path / "model"))
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "What is {x}?", "answer": "2"}])

    def prompt(template, name=path):
        data = load_set(name, "train", settings(template=template), tokenizer)
        return data.problems[0].prompt

    boxed = "What is {x}?\nLet's think step by step and output the final answer within \\boxed{}."
    assert prompt("bare") == "What is {x}?"
    assert prompt("boxed") == prompt("auto") == boxed
    assert prompt("Q: {question} A:") == "Q: What is {x}? A:"
    assert prompt("chat") == f"<|im_start|>user\n{boxed}<|im_end|>\n<|im_start|>assistant\n"
    assert prompt("auto", "arith") == arith("train")[0].prompt
    data = load_set(path, "train", settings(), tokenizer)
    assert tokenizer.decode(data.prompt_ids[0]) == boxed
    assert data.problems[0].uid == load_problems(path)[0][0].uid  # the id is the question's
    message = "choose auto, chat, bare, boxed, or write a text that contains .question."
    with pytest.raises(UsageError, match=message):
        prompt("boxd")
    tokenizer.chat_template = None
    with pytest.raises(UsageError, match="has no chat template"):
        prompt("chat")


def test_the_reward_is_exact_for_embedded_worlds_and_math_for_other_sets(engine, tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "B12=", "answer": "3"}])

    def reward(name, **changes):
        return load_set(name, "train", settings(**changes), engine.tokenizer).reward

    assert reward("arith") == "exact"
    assert reward(path) == "math"
    assert reward(path, reward="exact") == "exact"


def test_long_prompts_are_left_out_and_counted(engine, tmp_path):
    rows = [{"prompt": "B12=", "answer": "3"}, {"prompt": "B1234567890=", "answer": "3"}]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    data = load_set(path, "train", settings(template="bare", max_prompt_len=5), engine.tokenizer)
    assert [p.prompt for p in data.problems] == ["B12="]
    assert [len(ids) for ids in data.prompt_ids] == [4]
    assert data.left_out == {"too long": 1}
    with pytest.raises(UsageError, match="every prompt is longer than max_prompt_len=3"):
        load_set(path, "train", settings(template="bare", max_prompt_len=3), engine.tokenizer)


def test_a_local_copy_goes_before_the_hub_and_any_format_will_do(tmp_path):
    rows = [{"problem": "1+1", "answer": "2"}]
    write_parquet(tmp_path / "aime25.parquet", rows)
    assert answers_of("aime25", "eval", str(tmp_path)) == ["2"]
    assert read_rows(str(tmp_path / "aime25.parquet")) == rows
    message = "aime25.parquet is there and goes before the hub, so revision= has no effect"
    with pytest.raises(UsageError, match=message):
        load_problems("aime25:revision=x", "eval", str(tmp_path))


def test_files_as_spreadsheets_and_gsm8k_write_them(tmp_path):
    (tmp_path / "a.csv").write_bytes("prompt,answer\n1+1,2\n".encode("utf-8-sig"))
    assert answers_of(str(tmp_path / "a.csv")) == ["2"]
    rows = [
        {"question": "1+1", "answer": "one and one is two\n#### 2"},
        {"question": "both", "answer": ["1", "2"]},
    ]
    assert answers_of(write_jsonl(tmp_path / "a.jsonl", rows)) == ["2", "1, 2"]
