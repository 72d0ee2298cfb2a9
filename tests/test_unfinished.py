"""The measurement of bench/unfinished.py runs; its table on the page has the form that it prints.
"""
import re

import numpy as np
import pytest
from processes import python

from bench.unfinished import BLOCKS, HEADER, SUMS, World, solved, write_problems

SHARE = r"\d+\.\d%"
ROW = rf"^\| (\d+(?: to \d+)?) \|(?: {SHARE} \|){{6}}$"


def rows(text):
    """The steps of each row of the table."""
    return re.findall(ROW, text, re.M)


def test_the_table_on_the_page_has_the_form_of_the_command():
    with open("docs/data_and_grading.md") as file:
        page = file.read()
    table = page[page.index(HEADER):].split("\n\n")[0]
    assert rows(table) == ["1", "1 to 20", "21 to 40", "41 to 60", "61 to 80", "81 to 100"]
    assert len(table.splitlines()) == 3 + BLOCKS


def test_demonstrations_are_right_repeat_the_question_or_slip_as_often_as_wanted():
    rng = np.random.default_rng(0)
    held_out = {question + "=" for question in SUMS[::2]}
    kinds = {"right": 0, "question": 0, "slip": 0}
    world = World(steps=1)
    for number in range(4000):
        prompt, response, weights = world.demonstration(rng, number, held_out)
        question, content = prompt[:-1], response[len(r"\boxed{"):-1]
        assert prompt not in held_out and len(weights) == len(content) + 3
        if content == question:
            kinds["question"] += 1
        else:
            kinds["right" if content == str(solved(question)) else "slip"] += 1
    assert kinds["right"] / 4000 == pytest.approx(0.55, abs=0.03)
    assert kinds["question"] / 4000 == pytest.approx(0.15, abs=0.03)


def test_no_sum_is_trained_on_and_evaluated(tmp_path):
    held_out = write_problems(tmp_path)
    training = (tmp_path / "train.jsonl").read_text()
    assert len(held_out) + len(training.splitlines()) == len(SUMS)
    assert not any(f'"{prompt}"' in training for prompt in held_out)


@pytest.mark.slow
def test_a_few_steps_print_the_table(tmp_path):
    done = python("bench/unfinished.py", "--quick", f"--out={tmp_path}/run")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith(HEADER + "\n")
    assert rows(done.stdout) == list("112345")
    assert len(done.stdout.splitlines()) == 3 + BLOCKS
