"""Claim: one step of train.py does what the equations say. Everything is recomputed here one
sequence at a time from full logits, with the optimizer, on rollouts whose engine disagrees with the
trainer, ragged counts and uneven weights."""

import json

import numpy as np
import pytest
import torch

import train
from engines.torch_engine import TorchEngine
from pretrained import load_hf

COUNTS, WEIGHTS = np.array([2, 6, 3, 5, 4, 4, 2, 6]), np.linspace(0.3, 2.0, 8)


@pytest.mark.parametrize(
    "loss_agg, temperature, updates, kl_coef",
    [("token", 1.0, 2, 0.5), ("prompt", 1.3, 2, 0.2), ("prompt", 1.0, 1, 0.0)],
)
def test_a_step_equals_its_dense_recomputation(
    tmp_path, monkeypatch, loss_agg, temperature, updates, kl_coef
):
    seen, lr, cap = {}, 3e-3, 1.1
    generate, signals = TorchEngine.generate, train.prompt_signals

    def noisy(self, *arguments):
        rng, seen["rollouts"] = np.random.default_rng(0), generate(self, *arguments)
        for r in seen["rollouts"]:
            r.engine_logprobs = [
                min(x + 0.15 * rng.standard_normal(), 0.0) for x in r.engine_logprobs
            ]
        return seen["rollouts"]

    def listen(correct, counts, success_rate, prompt_loss, score):
        seen["prompt_loss"] = prompt_loss
        return signals(correct, counts, success_rate, prompt_loss, score)

    monkeypatch.setattr(TorchEngine, "generate", noisy)
    monkeypatch.setattr(train, "prompt_signals", listen)
    monkeypatch.setattr(train.gates, "check_mismatch", lambda mismatch: None)
    monkeypatch.setattr(train.PromptGDRO, "weights", lambda self, bins, success_rate: WEIGHTS)
    monkeypatch.setattr(train.RolloutGDRO, "allocate", lambda self, bins, success_rate: COUNTS)
    train.main(
        [
            "--eval_sets=",
            "--prompts_per_step=8",
            "--steps=1",
            f"--lr={lr}",
            "--prompt_gdro=true",
            "--rollout_gdro=true",
            f"--loss_agg={loss_agg}",
            f"--temperature={temperature}",
            f"--updates_per_step={updates}",
            f"--kl_coef={kl_coef}",
            f"--tis_cap={cap}",
            "--grad_clip=0.7",
            "--tokens_per_micro_batch=120",
            "--weight_decay=0.01",
            f"--out_dir={tmp_path}/run",
        ]
    )
    metrics = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())

    hf, rollouts = load_hf("worlds/arith")[0], seen["rollouts"]
    optimizer = torch.optim.AdamW(hf.parameters(), lr=lr, weight_decay=0.01)

    def logprobs(r):
        """Log-probabilities of the whole vocabulary at every response position [L, V]."""
        logits = hf(torch.tensor([r.prompt_ids + r.response_ids])).logits[
            0, len(r.prompt_ids) - 1 : -1
        ]
        return (logits / temperature).log_softmax(-1)

    def pick(logp, r):
        return logp[range(len(r.response_ids)), r.response_ids]

    before = [logprobs(r).detach() for r in rollouts]
    old = [
        pick(logp, r) for logp, r in zip(before, rollouts, strict=True)
    ]  # and the reference: the base model itself
    tokens = sum(len(r.response_ids) for r in rollouts)
    expected = {"kl": 0.0, "clipfrac": 0.0, "approx_kl": 0.0, "loss": 0.0, "grad_norm": 0.0}
    expected["entropy"] = sum(-(logp.exp() * logp).sum().item() for logp in before) / tokens
    distances = [
        (o - torch.tensor(r.engine_logprobs)).abs() for o, r in zip(old, rollouts, strict=True)
    ]
    expected["mismatch"] = sum(distance.sum().item() for distance in distances) / tokens
    prompt_loss = np.zeros(8)
    for update in range(updates):
        part = [i for i, r in enumerate(rollouts) if r.prompt_id // (8 // updates) == update]
        loss = 0.0
        for i in part:
            r, group = (
                rollouts[i],
                [x.score for x in rollouts if x.prompt_id == rollouts[i].prompt_id],
            )
            advantage = (r.score - np.mean(group)) / (np.std(group) + 1e-6)
            logp = pick(logprobs(r), r)
            ratio = (logp - old[i]).exp()
            clipped = ratio.clamp(0.8, 1.28) * advantage
            surrogate = torch.minimum(ratio * advantage, clipped)
            k3 = (old[i] - logp).exp() - (old[i] - logp) - 1 if kl_coef else torch.zeros_like(logp)
            trust = (old[i] - torch.tensor(r.engine_logprobs)).exp().clamp(max=cap)
            per_token = trust * (WEIGHTS[r.prompt_id] * surrogate - kl_coef * k3)
            if loss_agg == "token":
                loss = loss - per_token.sum() / sum(len(rollouts[j].response_ids) for j in part)
            else:
                loss = loss - per_token.mean() / len(group) / (8 // updates)
            prompt_loss[r.prompt_id] += (kl_coef * k3 - surrogate).mean().item() / len(group)
            expected["kl"] += k3.sum().item() / tokens
            expected["clipfrac"] += (clipped < ratio * advantage).sum().item() / tokens
            expected["approx_kl"] += (old[i] - logp).sum().item() / tokens
        optimizer.zero_grad()
        loss.backward()
        expected["grad_norm"] += (
            torch.nn.utils.clip_grad_norm_(hf.parameters(), 0.7).item() / updates
        )
        expected["loss"] += loss.item() / updates
        optimizer.step()
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    np.testing.assert_allclose(seen["prompt_loss"], prompt_loss, rtol=1e-4, atol=1e-6)
    trained = load_hf(f"{tmp_path}/run/hf")[0].state_dict()
    for name, tensor in hf.state_dict().items():
        assert torch.allclose(trained[name], tensor, atol=1e-4), name
    if updates > 1:  # the second update was off policy, so that nothing above is trivially zero
        assert (
            (expected["clipfrac"] > 0 or loss_agg == "prompt")
            and abs(expected["approx_kl"]) > 1e-4
            and expected["kl"] > 1e-4
        )
