"""Claims about the plain engine, sampling and micro-batch planning."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from batch import pad_batch, plan_micro_batches
from engines.torch_engine import TorchEngine, draw
from model import TokenLogprobs
from rollout import Rollout, Sampling, seed_of, stop_ids, text_of


def seeds_for(prompts, count=lambda i: 1 + i % 5):
    return [[seed_of("rollout", i, j) for j in range(count(i))] for i in range(len(prompts))]


def same(a, b):
    return (a.prompt_ids, a.response_ids, a.finished, a.text) == (
        b.prompt_ids,
        b.response_ids,
        b.finished,
        b.text,
    )


def test_every_prompt_gets_its_own_number_of_rollouts(engine, prompts):
    seeds = seeds_for(prompts, lambda i: i % 4)  # some get none
    rollouts = engine.generate(prompts, seeds, Sampling(9))
    assert np.bincount([r.prompt_id for r in rollouts], minlength=12).tolist() == [
        len(s) for s in seeds
    ]
    assert [(r.prompt_id, r.sample) for r in rollouts] == [
        (i, j) for i, s in enumerate(seeds) for j in range(len(s))
    ]


def test_samples_do_not_depend_on_batch_composition(engine, prompts):
    seeds = seeds_for(prompts)
    together = engine.generate(prompts, seeds, Sampling(9))
    small = TorchEngine("worlds/arith", max_num_seqs=5).generate(prompts, seeds, Sampling(9))
    for r, other in zip(together, small, strict=True):
        alone = engine.generate(
            [prompts[r.prompt_id]], [[seeds[r.prompt_id][r.sample]]], Sampling(9)
        )[0]
        assert same(r, alone) and same(r, other)
        assert r.engine_logprobs == pytest.approx(alone.engine_logprobs, abs=1e-5)


def test_same_seed_same_sample_and_other_seed_other_sample(engine, prompts):
    a, b = engine.generate([prompts[5]], [[7, 7]], Sampling(9))
    assert same(a, b)
    many = engine.generate([prompts[5]], [list(range(50))], Sampling(9))
    assert len({r.text for r in many}) > 10


def test_samples_follow_the_distribution(engine, prompts):
    """First tokens of 4,000 rollouts against the model's probabilities: chi-square, 99.9 % quantile
    for at most 20 degrees is 45.3."""
    rollouts = engine.generate(
        [prompts[11]], [[seed_of("chi", j) for j in range(4000)]], Sampling(1)
    )
    probs = engine.hf(torch.tensor([prompts[11]])).logits[0, -1].softmax(-1).numpy()
    counts = np.bincount([r.response_ids[0] for r in rollouts], minlength=len(probs))
    common = probs * 4000 >= 5
    assert ((counts - 4000 * probs)[common] ** 2 / (4000 * probs)[common]).sum() < 45.3


def test_engine_logprobs_equal_the_trainers_at_any_temperature(engine, policy, prompts):
    for temperature in (1.0, 0.7):
        rollouts = engine.generate(prompts, seeds_for(prompts), Sampling(9, temperature))
        policy.temperature = temperature
        try:
            logp, entropy = policy(*pad_batch(rollouts))
        finally:
            policy.temperature = 1.0
        assert torch.allclose(
            logp, torch.tensor([x for r in rollouts for x in r.engine_logprobs]), atol=1e-5
        )
        assert entropy.min() >= 0


def test_the_policy_never_holds_logits_of_more_than_a_block(engine, policy, prompts, monkeypatch):
    ids, mask = pad_batch(engine.generate(prompts, seeds_for(prompts), Sampling(9)))
    tokens, vocabulary, columns = int(mask.sum()), policy.hf.config.vocab_size, []
    assert tokens > 100 and vocabulary % 12 > 1

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if (
                isinstance(out, torch.Tensor)
                and out.numel() > 1
                and out.shape[0] == tokens
                and out.ndim > 1
            ):
                columns.append(out.numel() // tokens)
            return out

    monkeypatch.setattr(policy, "block", 12)
    with Watch():
        logp, _ = policy(ids, mask)
        logp.sum().backward()
    policy.zero_grad()
    assert set(columns) - {1, policy.hf.config.hidden_size} == {12, vocabulary % 12}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_and_gradients_are_those_of_all_logits_at_once(bias, temperature):
    torch.manual_seed(0)
    hidden, weight, grad, targets = (
        torch.randn(23, 8),
        torch.randn(31, 8),
        torch.randn(23),
        torch.randint(0, 31, (23,)),
    )
    inputs = [x.requires_grad_() for x in (hidden, weight, *([torch.randn(31)] if bias else []))]
    full = (torch.nn.functional.linear(*inputs) / temperature).log_softmax(-1)
    expected = torch.autograd.grad(full.gather(-1, targets[:, None]).squeeze(-1), inputs, grad)
    for block in (5, 31, 100):
        logp, entropy = TokenLogprobs.apply(
            *(inputs if bias else [*inputs, None]), targets, temperature, block
        )
        torch.testing.assert_close(
            logp, full.gather(-1, targets[:, None]).squeeze(-1), atol=1e-5, rtol=1e-5
        )
        torch.testing.assert_close(entropy, -(full.exp() * full).sum(-1), atol=1e-5, rtol=1e-5)
        for ours, theirs in zip(torch.autograd.grad(logp, inputs, grad), expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        assert not entropy.requires_grad


def test_a_response_cut_by_the_limit_is_not_finished_and_has_no_stop_token(engine, prompts):
    rollouts = engine.generate(prompts, seeds_for(prompts), Sampling(3))
    assert all(len(r.response_ids) == 3 and not r.finished for r in rollouts)
    stop = engine.tokenizer.eos_token_id
    assert all(
        r.finished and r.response_ids[-1] == stop and stop not in r.response_ids[:-1]
        for r in engine.generate(prompts, seeds_for(prompts), Sampling(12))
    )


def test_an_empty_response_is_one_stop_token_and_empty_text(prompts):
    engine = TorchEngine("worlds/arith")
    with (
        torch.no_grad()
    ):  # a policy that always stops at once: constant hidden states that point at <eos>
        engine.hf.model.norm.weight.zero_()
    engine.stop_ids = torch.tensor(
        [0]
    )  # all logits equal 0; with temperature 0 the first token wins
    rollouts = engine.generate(prompts[:2], [[1], [2]], Sampling(9, temperature=0))
    assert [(r.response_ids, r.text, r.finished) for r in rollouts] == [([0], "", True)] * 2


def test_special_tokens_inside_a_response_are_seen_by_the_grader(engine):
    ids = engine.tokenizer("12")["input_ids"]
    assert (
        text_of(engine.tokenizer, ids + [1], True) == "12"
        and text_of(engine.tokenizer, ids[:1] + [0] + ids[1:] + [1], True) == "1<pad>2"
    )


def test_stop_ids_are_those_of_tokenizer_and_generation_config(engine):
    for more, ids in ((None, [1]), (7, [1, 7]), ([9, 1], [1, 9])):
        assert stop_ids(SimpleNamespace(eos_token_id=more), engine.tokenizer) == ids


def test_sync_takes_over_the_weights_and_wants_all_of_them(prompts, policy):
    engine = TorchEngine("worlds/arith")
    before = engine.generate(prompts, seeds_for(prompts), Sampling(9))
    changed = {
        name: tensor + 0.1 * torch.randn_like(tensor) for name, tensor in policy.named_tensors()
    }
    changed["lm_head.weight"] = changed["model.embed_tokens.weight"]
    engine.sync(changed.items())
    after = engine.generate(prompts, seeds_for(prompts), Sampling(9))
    assert not all(same(a, b) for a, b in zip(before, after, strict=True))
    engine.sync(policy.named_tensors())
    again = engine.generate(prompts, seeds_for(prompts), Sampling(9))
    assert all(same(a, b) for a, b in zip(before, again, strict=True))
    with pytest.raises(RuntimeError, match="did not send"):
        engine.sync(list(policy.named_tensors())[1:])


def test_the_sync_gate_sees_a_stale_weight(policy, monkeypatch):
    engine = TorchEngine("worlds/arith")
    load, stale = engine.load, next(name for name in engine.probes if "q_proj" in name)
    monkeypatch.setattr(
        engine, "load", lambda tensors: load([(n, t * 2 if n == stale else t) for n, t in tensors])
    )
    with pytest.raises(
        RuntimeError, match=f"sync gate: after the sync the engine holds other values of {stale}"
    ):
        engine.sync(policy.named_tensors())
    with pytest.raises(RuntimeError, match="is not finite"):
        engine.sync((n, t * float("nan")) for n, t in policy.named_tensors())


def test_top_k_and_top_p_keep_the_likeliest_tokens():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().repeat(2000, 1)
    uniform = torch.rand(2000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert set(draw(logits, uniform, Sampling(1, top_k=2))[0].tolist()) == {0, 1}
    assert set(draw(logits, uniform, Sampling(1, top_p=0.79))[0].tolist()) == {0, 1}
    assert set(draw(logits, uniform, Sampling(1, top_p=0.81))[0].tolist()) == {0, 1, 2}
    assert set(draw(logits, uniform, Sampling(1))[0].tolist()) == {0, 1, 2, 3}
    assert set(draw(logits, uniform, Sampling(1, temperature=0))[0].tolist()) == {0}


def test_the_extremes_of_the_unit_interval_draw_possible_tokens():
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]]).repeat(2, 1)
    token, _ = draw(logits, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64), Sampling(1))
    assert token.tolist() == [1, 2]


def test_seeds_depend_on_every_part_and_not_on_the_process():
    assert seed_of(0, 1, 2, 3) == 4066107366651121100
    assert (
        len(
            {
                seed_of(s, t, p, j)
                for s in range(3)
                for t in range(3)
                for p in range(3)
                for j in range(3)
            }
        )
        == 81
    )


@given(st.lists(st.integers(1, 50), max_size=80), st.integers(50, 400), st.integers(1, 4))
def test_the_plan_covers_every_sequence_once_within_the_budget(lengths, budget, world):
    plan, alone = plan_micro_batches(lengths, budget, world), plan_micro_batches(lengths, budget)
    assert sorted(i for rows in plan for i in rows) == list(range(len(lengths))) and all(plan)
    assert all(len(rows) * max(lengths[i] for i in rows) <= budget for rows in plan)
    assert len(plan) <= -(-len(alone) // world) * world


def test_ranks_get_equal_work_and_little_padding():
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(6.5, 0.9, 512), 1, 4096).astype(int) + rng.integers(
        60, 300, 512
    )
    for world in (1, 8):
        plan = plan_micro_batches(lengths.tolist(), 16_384, world)
        padded = [len(rows) * lengths[rows].max() for rows in plan]
        slowest = sum(
            max(padded[i : i + world]) for i in range(0, len(plan), world)
        )  # ranks go through their micro-batches in step
        assert (
            len(plan) % world == 0
            and lengths.sum() / sum(padded) > 0.95
            and lengths.sum() / (slowest * world) > 0.9
        )


def test_a_sequence_over_the_budget_is_refused():
    with pytest.raises(ValueError, match="tokens_per_micro_batch=50"):
        plan_micro_batches([10, 51], 50)


def test_padding_marks_the_response_only():
    rollouts = [
        Rollout(0, 0, [5, 6], [7], [0.0], True, ""),
        Rollout(1, 0, [8], [9, 10, 11], [0.0] * 3, True, ""),
    ]
    ids, mask = pad_batch(rollouts)
    assert ids.tolist() == [[5, 6, 7, 0], [8, 9, 10, 11]]
    assert mask.tolist() == [[False, False, True, False], [False, True, True, True]]
