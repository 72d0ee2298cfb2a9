"""Claims about the embedded world `steps`: its problems, its demonstrations, its base policy."""

import json
import os

import numpy as np
import pytest

from reward import Grader
from worlds.problems import Problem
from worlds.steps import (
    LONGEST,
    RULES,
    SKILLS,
    demonstration,
    draw,
    ending,
    prompt_of,
    result,
    step,
    steps,
)

BY_NAME = {skill.name: skill for skill in SKILLS}


@pytest.fixture(scope="module")
def tokenizer():
    from model import load_tokenizer

    return load_tokenizer("worlds/steps")


def test_rules_do_what_they_are_called():
    after = {name: "".join(map(str, rule([3, 7, 4])[1])) for name, rule in RULES.items()}
    assert [after[name] for name in ("reverse", "left", "right", "front", "back")] == [
        "473", "743", "437", "734", "347"]
    assert [after[name] for name in ("nines", "double", "raise", "lower", "jump")] == [
        "625", "648", "485", "152", "829"]
    assert [after[name] for name in ("sum first", "gap first", "sum last", "gap middle")] == [
        "174", "374", "370", "394"]
    assert [after[name] for name in ("turn", "climb", "sink")] == ["743", "371", "974"]
    assert step(BY_NAME["jask"], [3, 7, 4]) == (
        "jask means nines: 9-3=6, 9-7=2, 9-4=5, 625. ", [6, 2, 5])


def test_every_rule_is_right_for_one_skill_and_the_decoy_of_another():
    assert len(SKILLS) == len(RULES) == len(BY_NAME) == 24
    assert {s.right for s in SKILLS} == {s.decoy for s in SKILLS} == set(RULES)
    assert all(s.right != s.decoy for s in SKILLS)
    ratios = np.diff(np.log([s.q for s in SKILLS]))
    assert ratios == pytest.approx(ratios.mean())


def test_no_prompt_is_in_both_splits_and_each_split_is_always_the_same(monkeypatch):
    train, held_out = steps("train"), steps("eval")
    assert not {p.prompt for p in train} & {p.prompt for p in held_out}
    assert train == steps("train")
    uids = {p.uid for p in train}
    assert len(uids) == len(train) == 768
    groups = [p.group for p in train], [p.group for p in held_out]
    assert {groups[1].count(name) for name in BY_NAME} == {10}
    counts = [groups[0].count(name) for name in BY_NAME]
    assert counts == sorted(counts, reverse=True) and counts[0] > 3 * counts[-1] > 30
    monkeypatch.setattr("worlds.problems.SEED", 1)
    assert len(uids & {p.uid for p in steps("train")}) < len(train) / 20


def test_the_family_is_the_hardest_skill_and_decoys_do_not_lead_to_the_answer():
    order = list(BY_NAME)
    for p in steps("eval"):
        number, _, names = p.prompt.removeprefix("Take ").removesuffix(".").partition(". Do ")
        skills = [BY_NAME[name] for name in names.split(", then ")]
        digits = [int(c) for c in number]
        assert p == Problem(p.uid, prompt_of(skills, digits), p.answer, p.group)
        assert p.group == max((s.name for s in skills), key=order.index)
        assert result(skills, digits, [False] * len(skills)) != p.answer
        assert result(skills, digits, [True] * len(skills)) == p.answer


def test_written_solutions_are_graded_by_math(tokenizer):
    some = steps("eval")[::16]
    zero = next(p for p in steps("train") if p.answer.startswith("0"))  # 047 is no octal number
    grader = Grader("math", workers=1)
    for p in [*some, zero]:
        wrong = f"{(int(p.answer) + 1) % 1000:03}"
        responses = [f"So it is {p.answer}.", "Let me check: 0. " * 9,
                     f"The answer is \\boxed{{{p.answer}}}.", f"The answer is \\boxed{{{wrong}}}."]
        verdicts = [grade.verdict for grade in grader.grade(responses, [p.answer] * 4)]
        assert verdicts == ["no_answer", "no_answer", "right", "wrong"]
    grader.close()


def test_demonstrations_are_cut_into_the_tokens_of_the_whole_text(tokenizer):
    def encode(text):
        return tokenizer(text)["input_ids"]

    rng = np.random.default_rng(0)
    lengths = []
    for i in range(240):
        skills, digits = draw(rng, i % 24)
        ids, weights = demonstration(rng, skills, digits, encode)
        assert len(ids) == len(weights)
        assert sum(weight != 1 for weight in weights) == len(skills)  # one a step
        assert encode(tokenizer.decode(ids)) == ids
        lengths.append(min(len(ids) + 1, LONGEST))
    assert 35 < np.mean(lengths) < 50
    assert min(lengths) >= 17 and max(lengths) > 100


def test_weights_turn_even_chances_into_the_mixture(tokenizer):
    """Of a skill's rule, the weighted share of right ones is q; and weights have mean 1."""
    rng = np.random.default_rng(0)
    for skill in (SKILLS[0], SKILLS[8], SKILLS[-1]):
        rule = tokenizer(f" {skill.right}")["input_ids"][0]
        of_right, of_all = [], []
        for _ in range(2000):
            ids, weights = demonstration(
                rng, [skill], [1, 2, 3], lambda text: tokenizer(text)["input_ids"])
            weight = next(w for w in weights if w != 1)
            of_all.append(weight)
            of_right.append(weight * (ids[weights.index(weight)] == rule))
        assert np.mean(of_right) == pytest.approx(skill.q, rel=0.1)
        assert np.mean(of_all) == pytest.approx(1, abs=0.1)


def test_few_demonstrations_have_no_box_or_no_end():
    rng = np.random.default_rng(0)
    ends = [ending(rng, "123") for _ in range(4000)]
    unboxed = np.mean(["boxed" not in end for end in ends])
    endless = np.mean([end.startswith("Let me check") for end in ends])
    assert 0.02 < unboxed < 0.045 and 0.006 < endless < 0.018


def test_the_base_policy_has_the_success_rates_it_says():
    """And they spread: an easy family, a hopeless one, nothing missing between."""
    from worlds.make_steps import measure

    with open("worlds/steps/success_rates.json") as file:
        stated = json.load(file)
    measured = measure(8)
    for name, rate in measured["success_rates"].items():
        four_sigma = 4 * (max(stated["success_rates"][name], 0.01) / 80) ** 0.5  # 80 responses
        assert rate == pytest.approx(stated["success_rates"][name], abs=four_sigma)
    for key in ("no_answer", "truncated"):
        assert measured[key] == pytest.approx(stated[key], abs=0.01)
    rates = sorted(stated["success_rates"].values(), reverse=True)
    assert rates[0] > 0.8 and 0.001 < rates[-1] < 0.006
    assert os.path.getsize("worlds/steps/model.safetensors") < 4e6
