"""Claims about the embedded worlds with decoys, `chains` and `orders`."""
import json
import os

import numpy as np
import pytest

from data import DATASETS
from worlds.make_base import success_rates
from worlds.skills import (
    CHAINS,
    LEVELS,
    ORDERS,
    SUMS,
    all_orders,
    reordered,
    running_results,
)

WORLDS = [CHAINS, ORDERS]


def test_responses_name_the_rule_and_give_the_running_results():
    by_name = {rule[0]: rule for rule in SUMS}
    assert running_results(by_name["a"], (3, 8, 4, 5, 9)) == "a1509"  # adds
    assert running_results(by_name["b"], (3, 8, 4, 5, 9)) == "b5167"  # subtracts
    assert running_results(by_name["c"], (3, 1, 7, 2)) == "c377"  # the larger one
    assert running_results(by_name["h"], (3, 1, 7, 2)) == "h233"  # the smaller one, plus 1


def test_letters_are_reordered():
    drawn = ["abcdefghij".index(c) for c in "cabjdf"]
    found = {reordered(order, drawn) for order in all_orders()}
    assert len(found) == 24
    # as it is, swapped, reversed, turned
    assert {"0cabjdf", "1acjbfd", "2fdjbac", "4abjdfc"} <= found


@pytest.mark.parametrize("world", WORLDS)
def test_the_rules_of_a_skill_show_at_the_first_symbol(world):
    assert len({skill.name for skill in world.skills}) == len(world.skills) == 144
    rules = [skill.rules[0] for skill in world.skills]
    assert len(set(rules)) == 24 and all(rules.count(rule) == 6 for rule in rules)
    rng = np.random.default_rng(0)
    for skill in world.skills:
        drawn = world.draw(rng)
        responses = [world.follow(rule, drawn) for rule in skill.rules]
        assert len({response[0] for response in responses}) == 6 == len(skill.chances)
        assert sum(skill.chances) == pytest.approx(1)


@pytest.mark.parametrize("world", WORLDS)
def test_demonstrations_follow_each_rule_with_its_chance_where_it_is_decided(world):
    """Rare rules have more of them; weighted, the mixture is the one that is wanted."""
    rng = np.random.default_rng(0)
    for number in (0, 143):
        skill = world.skills[number]
        weight, count = np.zeros(6), np.zeros(6)
        for _ in range(4000):
            prompt, response, weights = world.demonstration(rng, number, set())
            symbols = prompt.removeprefix(skill.name).removesuffix("=")
            drawn = [world.symbols.index(symbol) for symbol in symbols]
            first = [world.follow(rule, drawn)[0] for rule in skill.rules]
            if response[0] in first:  # it did not slip to another symbol
                weight[first.index(response[0])] += weights[0]
                count[first.index(response[0])] += 1
            assert len(weights) == len(response) + 1 and (weights[1:] == 1).all()
        np.testing.assert_allclose(weight / 4000, skill.chances, rtol=0.1, atol=0.004)
        assert min(count) > 200


@pytest.mark.parametrize("name", ["chains", "orders"])
def test_no_prompt_is_in_both_splits_and_levels_are_in_equal_parts(name, monkeypatch):
    train, held_out = DATASETS[name]("train"), DATASETS[name]("eval")
    assert not {p.prompt for p in train} & {p.prompt for p in held_out}
    for split, size in ((train, 720), (held_out, 288)):
        levels = [p.group for p in split]
        assert len({p.uid for p in split}) == size
        assert {levels.count(level) for level in LEVELS} == {size // 24}
    assert train == DATASETS[name]("train")
    monkeypatch.setattr("worlds.problems.SEED", 1)
    assert len({p.uid for p in train} & {p.uid for p in DATASETS[name]("train")}) < 8


@pytest.mark.parametrize("name", ["chains", "orders"])
def test_the_base_policies_spread_from_nearly_always_to_nearly_never(name):
    """Evenly in the logarithm, as they say."""
    with open(f"worlds/{name}/success_rates.json") as file:
        stated = json.load(file)["success_rates"]
    for level, rate in success_rates(32, name).items():
        four_sigma = 4 * (stated[level] / 384) ** 0.5  # of 384 responses a level
        assert rate == pytest.approx(stated[level], abs=four_sigma)
    logs = np.log([stated[level] for level in LEVELS])
    assert np.corrcoef(logs, np.arange(len(LEVELS)))[0, 1] < -0.95
    assert 0 < min(stated.values()) < 0.005 and max(stated.values()) > 0.8
    assert os.path.getsize(f"worlds/{name}/model.safetensors") < 2e6
