"""Claims about advantages, the loss and how the batch is cut."""
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batch import plan_updates
from configurator import UsageError
from model import TokenLogprobs
from pretrained import load_policy
from ranks import Group
from rollout import Sampling, seed_of
from train import Config, group_advantages, grpo_loss, prompts_of_step, token_weights


@pytest.fixture(scope="module")
def batch(engine, prompts):
    """Ragged rollout groups (1 to 6 rollouts) of twelve prompts, with scores that are not all
    alike."""
    seeds = [[seed_of("loss", i, j) for j in range(1 + i % 6)] for i in range(len(prompts))]
    rollouts = engine.generate(prompts, seeds, Sampling(max_tokens=9))
    for r in rollouts:
        r.score = float(seed_of(r.prompt_id, r.sample) % 3 == 0)
    return rollouts


def step_loss(policy, rollouts, cfg, prompt_weight=None, shift=0.0, ref_shift=0.0):
    """Loss and gradient of the whole batch as train.py computes them; old = log-probs + shift, ref
    = old + ref_shift."""
    ids = np.array([r.prompt_id for r in rollouts])
    lengths = np.array([len(r.response_ids) for r in rollouts])
    advantages = group_advantages(ids, [r.score for r in rollouts], cfg.adv_clip)
    per_token = token_weights(ids, lengths, cfg)
    prompt_weight = np.ones(cfg.prompts_per_step) if prompt_weight is None else prompt_weight
    policy.zero_grad()
    total, ratios = 0.0, []
    for micro in (
        m
        for update in plan_updates(
            rollouts, cfg.prompts_per_step, cfg.updates_per_step, cfg.tokens_per_micro_batch
        )
        for m in update
    ):
        with torch.no_grad():
            old = policy(micro.input_ids, micro.mask)[0] + shift
        logp, _ = policy(micro.input_ids, micro.mask)
        ratios.append((logp - old).exp().detach())
        loss, _ = grpo_loss(
            logp,
            old,
            old + ref_shift,
            micro.spread(advantages),
            micro.spread(prompt_weight[ids]),
            micro.spread(per_token),
            cfg,
        )
        loss.backward()
        total += loss.item()
    return total, torch.cat([p.grad.flatten() for p in policy.parameters()]), torch.cat(ratios)


def config(**changes):
    return Config(
        **{"prompts_per_step": 12, "updates_per_step": 1, "kl_coef": 0.1, "n_min": 1} | changes
    )


# ---------- advantages ----------


def test_advantages_of_one_of_equals_and_of_a_mixed_group():
    ids = [0, 1, 1, 2, 2, 2, 2, 3, 3]
    scores = [1, 0, 0, 1, 0, 0, 0, 1, 0]
    a = group_advantages(ids, scores, 5.0)
    assert a[:3].tolist() == [0, 0, 0]
    assert a[3:7] == pytest.approx(
        [3**0.5] + [-(3**-0.5)] * 3, abs=1e-5
    )  # mean 0.25, population std 0.433
    assert a[7:] == pytest.approx([1, -1], abs=1e-5)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0, 0.1, 1])), min_size=1, max_size=60)
)
def test_advantages_sum_to_zero_in_every_group_and_ignore_order(pairs):
    ids, scores = map(np.array, zip(*pairs, strict=True))
    a = group_advantages(ids, scores, 100.0)
    assert np.abs(np.bincount(ids, a)).max() < 1e-9
    order = np.random.default_rng(0).permutation(len(ids))
    assert group_advantages(ids[order], scores[order], 100.0) == pytest.approx(a[order])


@given(st.floats(0, 1), st.integers(1, 24))
def test_equal_scores_have_advantages_of_exactly_0(score, n):
    assert not group_advantages([0] * n, [score] * n, 5.0).any()


@given(st.lists(st.booleans(), min_size=1, max_size=24))
def test_scores_of_0_and_1_differ_from_minus_1_and_1_by_the_epsilon_alone(right):
    """With s the standard deviation of 0 and 1, A = c / (s + 1e-6) against 2 c / (2 s + 1e-6): they
    differ by the factor (s + 5e-7) / (s + 1e-6), so by less than 1e-6 / s."""
    right = np.array(right, float)
    ids = np.zeros(len(right), int)
    of_0_and_1 = group_advantages(ids, right, 100.0)
    of_signs = group_advantages(ids, 2 * right - 1, 100.0)
    bound = 1e-6 / max(right.std(), 1e-3)
    assert np.all(np.abs(of_0_and_1 - of_signs) <= bound * np.abs(of_signs) + 1e-12)


def test_advantages_are_clipped():
    assert np.abs(group_advantages([0] * 100, [1] + [0] * 99, 5.0)).max() == 5.0


# ---------- loss ----------


def test_loss_equals_a_hand_computed_example():
    """Two tokens: ratio 1.5 with advantage 2 is clipped at 1.28; ratio 0.5 with advantage -1 is
    clipped at 0.8."""
    cfg = config(kl_coef=0.1)
    old = torch.tensor([-1.0, -1.0])
    logp = (old + torch.tensor([1.5, 0.5]).log()).requires_grad_()
    ref = logp.detach() + torch.tensor([0.0, 0.2])
    loss, stats = grpo_loss(
        logp,
        old,
        ref,
        torch.tensor([2.0, -1.0]),
        torch.tensor([3.0, 1.0]),
        torch.tensor([0.5, 0.25]),
        cfg,
    )
    k3 = np.exp(0.2) - 0.2 - 1
    assert loss.item() == pytest.approx(-(0.5 * 3 * 1.28 * 2 + 0.25 * (-0.8 - 0.1 * k3)), abs=1e-6)
    assert stats["clipfrac"].tolist() == [1, 1] and stats["kl"].tolist() == pytest.approx(
        [0, k3], abs=1e-6
    )
    loss.backward()  # clipped tokens get gradient from the KL term only
    assert logp.grad.tolist() == pytest.approx([0, 0.25 * 0.1 * (1 - np.exp(0.2))], abs=1e-6)


def test_plain_grpo_equals_the_textbook(policy, engine, prompts):
    """Constant n, weights 1: the mean over prompts, rollouts and tokens of the clipped surrogate,
    written the obvious way."""
    rollouts = engine.generate(
        prompts, [[seed_of(i, j) for j in range(4)] for i in range(12)], Sampling(9)
    )
    for r in rollouts:
        r.score = float(r.sample % 2)
    loss, _, _ = step_loss(policy, rollouts, config(loss_agg="prompt"), shift=0.25, ref_shift=-0.3)
    textbook = 0.0
    for prompt in range(12):
        group = [r for r in rollouts if r.prompt_id == prompt]
        scores = torch.tensor([r.score for r in group])
        advantages = (scores - scores.mean()) / (scores.std(correction=0) + 1e-6)
        for r, a in zip(group, advantages, strict=True):
            logits = policy.hf(torch.tensor([r.prompt_ids + r.response_ids])).logits[
                0, len(r.prompt_ids) - 1 : -1
            ]
            logp = logits.log_softmax(-1)[range(len(r.response_ids)), r.response_ids]
            ratio, log_ref = torch.exp(logp - (logp + 0.25)), logp + 0.25 - 0.3
            kl = torch.exp(log_ref - logp) - (log_ref - logp) - 1
            textbook -= (
                (torch.min(ratio * a, ratio.clamp(0.8, 1.28) * a) - 0.1 * kl).mean() / 4 / 12
            )
    assert loss == pytest.approx(textbook.item(), abs=1e-6)


@pytest.mark.parametrize("loss_agg", ["prompt", "token"])
def test_loss_and_gradient_do_not_depend_on_the_micro_batches(batch, loss_agg):
    policy = load_policy("worlds/arith", Group(Config()))[0]
    weight = np.linspace(0.5, 2, 12)
    results = [
        step_loss(
            policy,
            batch,
            config(loss_agg=loss_agg, tokens_per_micro_batch=budget),
            weight,
            0.1,
            0.2,
        )
        for budget in (8192, 100, 28)
    ]
    for loss, grad, _ in results[1:]:
        assert loss == pytest.approx(results[0][0], abs=1e-6)
        assert torch.allclose(grad, results[0][1], atol=1e-6)
    assert results[0][1].abs().max() > 1e-3  # there was a gradient to compare


def test_first_ratio_of_a_step_is_exactly_one(policy, batch):
    for budget in (8192, 100):
        ratios = step_loss(policy, batch, config(tokens_per_micro_batch=budget))[2]
        assert torch.equal(ratios, torch.ones_like(ratios))


def test_prompt_mean_weighs_prompts_alike_and_token_mean_tokens(batch):
    ids, lengths = (
        np.array([r.prompt_id for r in batch]),
        np.array([len(r.response_ids) for r in batch]),
    )

    def of_prompt(agg):
        cfg = config(loss_agg=agg, updates_per_step=2)
        return np.bincount(ids, token_weights(ids, lengths, cfg) * lengths)

    assert of_prompt("prompt") == pytest.approx(np.full(12, 1 / 6))  # two updates of six prompts
    tokens = np.bincount(ids, lengths)
    assert of_prompt("token") == pytest.approx(
        np.concatenate([tokens[:6] / tokens[:6].sum(), tokens[6:] / tokens[6:].sum()])
    )


@pytest.mark.parametrize("bias", [True, False])
def test_a_float32_head_loses_nothing_to_the_rounding_of_logits(bias):
    """bfloat16 hidden states and weights; the exact result in float64."""
    torch.manual_seed(0)
    hidden, weight, targets = (
        torch.randn(50, 64).bfloat16(),
        torch.randn(3000, 64).bfloat16(),
        torch.randint(3000, (50,)),
    )
    offset = torch.randn(3000).bfloat16() if bias else None
    logits = hidden.double() @ weight.double().T + (offset.double() if bias else 0)
    exact = logits.log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
    error = {
        head: (TokenLogprobs.apply(hidden, weight, offset, targets, 1.0, 1024, head)[0] - exact)
        .abs()
        .max()
        .item()
        for head in (True, False)
    }
    assert error[True] < 1e-4 < 1e-2 < error[False]


@pytest.mark.parametrize("kind, message", [
    ("Cohere", r"its logits are not output_embeddings\(hidden\)"),  # it scales them
    ("GPT2", "GPT2LMHeadModel has no list `layers`"),
])
def test_a_model_that_is_built_otherwise_is_refused(tmp_path, kind, message):
    import transformers

    sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    head = "GPT2LMHeadModel" if kind == "GPT2" else "CohereForCausalLM"
    config = getattr(transformers, f"{kind}Config")(**sizes, intermediate_size=48)
    shutil.copytree("worlds/arith", tmp_path / "model")
    getattr(transformers, head)(config).save_pretrained(tmp_path / "model")
    with pytest.raises(UsageError, match=message):
        load_policy(str(tmp_path / "model"), Group(Config()))


def test_the_adversary_weight_scales_the_surrogate_and_not_the_kl(policy, batch):
    cfg = config(kl_coef=0.0)
    once, twice = (step_loss(policy, batch, cfg, np.full(12, w), 0.1)[0] for w in (1.0, 2.0))
    assert twice == pytest.approx(2 * once, rel=1e-5) and once != 0
    with_kl = [
        step_loss(policy, batch, config(kl_coef=0.5), np.full(12, w), 0.1, 0.4)[0]
        for w in (1.0, 2.0)
    ]
    assert with_kl[1] - with_kl[0] == pytest.approx(once, abs=1e-5)


def test_updates_split_the_prompts_and_keep_rollout_groups_whole(batch):
    updates = plan_updates(batch, n_prompts=12, n_updates=3, budget=60)
    parts = [
        sorted({batch[i].prompt_id for micro in update for i in micro.index}) for update in updates
    ]
    assert parts == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert sorted(i for update in updates for micro in update for i in micro.index) == list(
        range(len(batch))
    )


# ---------- sampling of prompts ----------


@given(st.integers(1, 9), st.integers(9, 40), st.integers(0, 3))
def test_every_prompt_comes_once_an_epoch_in_a_new_order(per_step, total, seed):
    drawn = np.concatenate(
        [prompts_of_step(seed, step, per_step, total) for step in range(-(-2 * total // per_step))]
    )
    first, second = drawn[:total].tolist(), drawn[total : 2 * total].tolist()
    assert sorted(first) == sorted(second) == list(range(total))
    assert first != second
