"""Claims about the embedded world `steps`: its problems, its demonstrations, its base policy."""

import functools
import json
import os

import numpy as np
import pytest

from reward import Grader
from worlds.problems import Problem
from worlds.steps import (
    FAMILIES,
    FRAMES,
    LONGEST,
    RULES,
    answer_of,
    demonstration,
    draw,
    ending,
    prompt_of,
    step,
    steps,
)

SKILLS = [skill for family in FAMILIES for skill in family]
BY_NAME = {skill.name: skill for skill in SKILLS}


@pytest.fixture(scope="module")
def tokenizer():
    from pretrained import load_tokenizer

    return load_tokenizer("worlds/steps")


def test_rules_do_what_they_are_called():
    after = {name: "".join(map(str, rule([3, 7, 4])[1])) for name, rule in RULES.items()}
    assert [after[name] for name in ("reverse", "left", "right", "front", "back")] == [
        "473", "743", "437", "734", "347"]
    assert [after[name] for name in ("nines", "double", "raise", "lower", "jump")] == [
        "625", "648", "485", "152", "829"]
    assert [after[name] for name in ("merge", "gap", "pool", "rift")] == [
        "174", "374", "370", "394"]
    assert [after[name] for name in ("turn", "climb")] == ["743", "371"]
    assert step(BY_NAME["zip"], [3, 7, 4]) == ("zip means pool: 3+7=0, 370. ", [3, 7, 0])
    assert step(BY_NAME["fisk"], [3, 7, 0]) == ("fisk means reverse: 073. ", [0, 7, 3])


def test_every_rule_is_right_for_ten_skills_and_decoys_are_other_rules():
    assert len(SKILLS) == len(BY_NAME) == 10 * len(RULES) == 240
    assert {[s.rules[0] for s in SKILLS].count(rule) for rule in RULES} == {10}
    for skill in SKILLS:
        assert len(set(skill.rules)) == len(skill.rules) == 6
        assert sum(skill.chances) == pytest.approx(1)
    assert {rule for skill in SKILLS for rule in skill.rules[1:]} == set(RULES)
    ratios = np.diff(np.log([family[0].chances[0] for family in FAMILIES]))
    assert ratios == pytest.approx(ratios.mean())  # evenly spread in the logarithm


def test_no_prompt_is_in_both_splits_and_each_split_is_always_the_same(monkeypatch):
    train, held_out = steps("train"), steps("eval")
    assert not {p.prompt for p in train} & {p.prompt for p in held_out}
    assert train == steps("train")
    uids = {p.uid for p in train}
    assert len(uids) == len(train) == 768
    groups = [p.group for p in train], [p.group for p in held_out]
    assert {groups[1].count(frame) for frame in FRAMES} == {10}
    counts = [groups[0].count(frame) for frame in FRAMES]
    assert counts == sorted(counts, reverse=True) and counts[0] > 1.9 * counts[-1] > 40
    monkeypatch.setattr("worlds.problems.SEED", 1)
    assert len(uids & {p.uid for p in steps("train")}) < len(train) / 20


def test_the_family_is_the_hardest_skill_and_no_single_decoy_leads_to_the_answer():
    level = {skill.name: i for i, family in enumerate(FAMILIES) for skill in family}
    for p in steps("eval"):
        number, _, names = p.prompt.removesuffix(".").partition(": ")
        skills = [BY_NAME[name] for name in names.split(", ")]
        digits = [int(c) for c in number]
        assert p == Problem(p.uid, prompt_of(skills, digits), p.answer, p.group)
        assert p.group == FRAMES[max(level[skill.name] for skill in skills)]
        assert answer_of(skills, digits) == p.answer
        ends = [step(skills[-1], digits, rule)[1] for rule in range(6)]
        assert len(skills) > 1 or ends[0] not in ends[1:]


def test_written_solutions_are_graded_by_math(tokenizer):
    some = steps("eval")[::16]
    zero = next(p for p in steps("train") if p.answer.startswith("0"))  # 047 is no octal number
    grader = Grader("math", workers=1)
    for p in [*some, zero]:
        wrong = f"{(int(p.answer) + 1) % 1000:03}"
        responses = [f"So it is {p.answer}.", "Let me check: 0. " * 9,
                     f"So \\boxed{{{p.answer}}}.", f"So \\boxed{{{wrong}}}."]
        verdicts = [grade.verdict for grade in grader.grade(responses, [p.answer] * 4)]
        assert verdicts == ["no_answer", "no_answer", "right", "wrong"]
    grader.close()


@pytest.fixture(scope="module")
def encode(tokenizer):
    return functools.cache(lambda text: tokenizer(text)["input_ids"])


def test_demonstrations_are_cut_into_the_tokens_of_the_whole_text(tokenizer, encode):
    rng = np.random.default_rng(0)
    lengths = []
    for i in range(240):
        ids, weights = demonstration(rng, *draw(rng, i % 24), encode)
        assert len(ids) == len(weights)
        assert encode(tokenizer.decode(ids)) == ids
        lengths.append(min(len(ids) + 1, LONGEST))
    assert 28 < np.mean(lengths) < 38
    assert min(lengths) < 20 and max(lengths) > 100
    assert len({encode(f" {rule}")[0] for rule in RULES}) == len(RULES)


def test_weights_turn_the_draws_into_the_mixture(encode):
    """The weighted share of each rule is the skill's chance of it; nothing else is weighted."""
    rng = np.random.default_rng(0)
    for skill in (SKILLS[0], SKILLS[100], SKILLS[-1]):
        rules = [encode(f" {rule}")[0] for rule in skill.rules]
        mass = np.zeros(6)
        for _ in range(8000):
            ids, weights = demonstration(rng, [skill], [1, 2, 3], encode)
            assert weights[:2] == [1, 1] and set(weights[3:]) == {1}
            mass[rules.index(ids[2])] += weights[2] / 8000
        assert mass == pytest.approx(np.array(skill.chances), rel=0.2)


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
    measured = measure(16)
    for frame, rate in measured["success_rates"].items():
        said = stated["success_rates"][frame]
        sigma = (max(said * (1 - said), 0.003) / 160) ** 0.5  # of 160 responses
        assert rate == pytest.approx(said, abs=4 * sigma)
    for key in ("no_answer", "truncated"):
        assert measured[key] == pytest.approx(stated[key], abs=0.015)
    rates = sorted(stated["success_rates"].values(), reverse=True)
    assert rates[0] > 0.85 and 0.001 < rates[-1] < 0.004
    assert os.path.getsize("worlds/steps/model.safetensors") < 4e6
