"""Rollouts: the record, the engine that samples them, and the plan that cuts them into micro-batches.

An engine has `generate(prompts, seeds, sampling, progress)` and `sync(named_tensors)`. Rollout counts are ragged by nature: prompt i gets
len(seeds[i]) rollouts, each a pure function of (weights, prompt, seed), whatever else is in the batch.
"""
import hashlib
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm import tqdm

from model import load_hf


@dataclass
class Rollout:
    prompt_id: int  # index of the prompt in the step: rollouts that share it are one rollout group
    sample: int  # index within the rollout group
    prompt_ids: list  # token ids
    response_ids: list  # token ids as sampled, the stop token included if one was
    engine_logprobs: list = field(repr=False)  # of the response tokens, at the sampling temperature, under the engine
    finished: bool  # False: cut by the length limit
    text: str  # the response without special tokens
    reward: float = float("nan")  # set by the grader


@dataclass(frozen=True)
class Sampling:
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0  # below 1 only in evaluation: truncated training samples would falsify the importance ratio
    top_k: int = 0  # 0 is off; likewise


def seed_of(*parts):
    """A seed in [0, 2^63) that depends on all parts, and on nothing else (not on the process, as Python's hash would)."""
    return int.from_bytes(hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest(), "big") >> 1


class TorchEngine:
    """Batched sampling with a key-value cache in plain PyTorch, on a copy of the model. Finished sequences leave the batch."""

    def __init__(self, model, device="cpu", dtype=torch.float32, max_num_seqs=256):
        self.hf, self.tokenizer = load_hf(model, dtype, device)
        self.hf.requires_grad_(False)
        self.device, self.max_num_seqs = device, max_num_seqs
        stop = self.hf.generation_config.eos_token_id
        stop = {self.tokenizer.eos_token_id} | set(stop if isinstance(stop, list) else [stop] if stop is not None else [])
        self.stop_ids = torch.tensor(sorted(stop), device=device)

    def sync(self, named_tensors):
        """Take over the trainer's weights: every tensor of the model, under its Hugging Face name."""
        mine, got = self.hf.state_dict(), set()
        with torch.no_grad():
            for name, tensor in named_tensors:
                if name in mine:
                    mine[name].copy_(tensor)
                got.add(name)
        if got != set(mine):
            raise ValueError(f"sync: the engine misses {sorted(set(mine) - got)[:3]} and does not know {sorted(got - set(mine))[:3]}")

    def generate(self, prompts, seeds, sampling, progress="generate"):
        """prompts: token ids of each prompt; seeds: for each prompt a list with one seed a rollout -> list of Rollout, prompt after
        prompt, `prompt_id` its position. `progress` names a bar that shows where this takes longer than two seconds."""
        requests = [(len(ids), i, j) for i, ids in enumerate(prompts) for j in range(len(seeds[i]))]
        requests.sort()  # similar lengths together: less padding
        rollouts = []
        with tqdm(total=len(requests), desc=progress, unit="rollout", delay=2, leave=False, dynamic_ncols=True) as bar:
            for start in range(0, len(requests), self.max_num_seqs):
                batch = [(i, j) for _, i, j in requests[start : start + self.max_num_seqs]]
                rollouts += self._generate(batch, prompts, seeds, sampling)
                bar.update(len(batch))
        return sorted(rollouts, key=lambda r: (r.prompt_id, r.sample))

    @torch.no_grad()
    def _generate(self, batch, prompts, seeds, sampling):
        from transformers import DynamicCache

        unique = sorted({i for i, _ in batch})  # each prompt is read once, then copied to its rollouts
        width = max(len(prompts[i]) for i in unique)
        ids = torch.tensor([[0] * (width - len(prompts[i])) + prompts[i] for i in unique], device=self.device)  # left padding
        mask = torch.tensor([[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in unique], device=self.device)
        cache = DynamicCache(config=self.hf.config)
        position = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = self.hf(input_ids=ids, attention_mask=mask, position_ids=position, past_key_values=cache, logits_to_keep=1).logits
        row = torch.tensor([unique.index(i) for i, _ in batch], device=self.device)
        cache.batch_select_indices(row)
        logits, mask = logits[row, -1], mask[row]

        N, T = len(batch), sampling.max_tokens
        uniform = np.stack([np.random.Generator(np.random.Philox(seeds[i][j])).random(T) for i, j in batch])
        uniform = torch.from_numpy(uniform).to(self.device)  # [N, T] float64: one number decides one token
        tokens = torch.zeros(N, T, dtype=torch.long, device=self.device)
        logprobs, length = torch.zeros(N, T, device=self.device), torch.full((N,), T, device=self.device)
        finished, alive = torch.zeros(N, dtype=torch.bool, device=self.device), torch.arange(N, device=self.device)
        for t in range(T):
            token, logp = draw(logits, uniform[alive, t], sampling)
            tokens[alive, t], logprobs[alive, t] = token, logp
            stopped = torch.isin(token, self.stop_ids)
            if stopped.any():
                length[alive[stopped]], finished[alive[stopped]] = t + 1, True
                keep = (~stopped).nonzero().squeeze(-1)
                alive, token, mask = alive[keep], token[keep], mask[keep]
                cache.batch_select_indices(keep)
            if len(alive) == 0 or t == T - 1:
                break
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            position = mask.sum(-1, keepdim=True) - 1
            logits = self.hf(input_ids=token[:, None], attention_mask=mask, position_ids=position, past_key_values=cache).logits[:, -1]

        rollouts = []
        for k, (i, j) in enumerate(batch):
            ids = tokens[k, : length[k]].tolist()
            text = self.tokenizer.decode(ids, skip_special_tokens=True)
            rollouts.append(Rollout(i, j, prompts[i], ids, logprobs[k, : length[k]].tolist(), bool(finished[k]), text))
        return rollouts


ENGINES = {"auto": TorchEngine, "torch": TorchEngine}


def make_engine(cfg, device):
    """The engine that cfg.engine names, on the model cfg.model."""
    return ENGINES[cfg.engine](cfg.model, device, max_num_seqs=cfg.max_num_seqs)


def draw(logits, uniform, sampling):
    """Sample one token a row by inverting the distribution function at `uniform` [N] in [0, 1). logits [N, V].
    -> token [N] and its log-probability [N] at the temperature, before any truncation."""
    if sampling.temperature == 0:
        token = logits.argmax(-1)
        return token, logits.float().log_softmax(-1).gather(-1, token[:, None]).squeeze(-1)
    logp = (logits.float() / sampling.temperature).log_softmax(-1)  # [N, V]
    probs = logp.double().exp()
    if sampling.top_k > 0:
        smallest = probs.topk(min(sampling.top_k, probs.shape[-1])).values[:, -1:]
        probs = probs.where(probs >= smallest, 0.0)
        probs = probs / probs.sum(-1, keepdim=True)
    if sampling.top_p < 1:  # keep the fewest most likely tokens that reach top_p together
        ranked, order = probs.sort(dim=-1, descending=True)
        beyond = ranked.cumsum(-1) - ranked >= sampling.top_p
        probs = probs.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), 0.0)
    cdf = probs.cumsum(-1)
    token = torch.searchsorted(cdf, (uniform[:, None] * cdf[:, -1:]), right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
    return token, logp.gather(-1, token[:, None]).squeeze(-1)


def plan_micro_batches(lengths, budget):
    """Cut sequences into micro-batches of at most `budget` tokens, padding included -> list of lists of indices, longest first.
    ValueError where one sequence alone is over the budget."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    if order and lengths[order[0]] > budget:
        raise ValueError(f"a sequence of {lengths[order[0]]} tokens does not fit tokens_per_micro_batch={budget}")
    plan = []
    for i in order:
        if plan and (len(plan[-1]) + 1) * lengths[plan[-1][0]] <= budget:
            plan[-1].append(i)
        else:
            plan.append([i])
    return plan


def pad_batch(rollouts, device="cpu"):
    """-> input_ids [B, S] right-padded, response_mask [B, S] True on response tokens."""
    width = max(len(r.prompt_ids) + len(r.response_ids) for r in rollouts)
    ids, mask = torch.zeros(len(rollouts), width, dtype=torch.long), torch.zeros(len(rollouts), width, dtype=torch.bool)
    for row, r in enumerate(rollouts):
        end = len(r.prompt_ids) + len(r.response_ids)
        ids[row, :end] = torch.tensor(r.prompt_ids + r.response_ids)
        mask[row, len(r.prompt_ids) : end] = True
    return ids.to(device), mask.to(device)


class MicroBatch:
    """Some rollouts, packed for the policy. Flat tensors are [T], one entry a response token, sequence after sequence."""

    def __init__(self, index, rollouts, device):
        self.index, self.device = np.array(index), device  # positions in the step's list of rollouts
        self.lengths = torch.tensor([len(rollouts[i].response_ids) for i in index], device=device)
        self.input_ids, self.mask = pad_batch([rollouts[i] for i in index], device)
        self.engine = torch.tensor([x for i in index for x in rollouts[i].engine_logprobs], device=device)  # [T]

    def spread(self, per_rollout):
        """One value a rollout of the step (numpy [N]) -> one a response token [T], float32."""
        return torch.as_tensor(per_rollout[self.index], dtype=torch.float32, device=self.device).repeat_interleave(self.lengths)

    def sums(self, per_token):
        """[T] -> its sum over each sequence, numpy float64 [sequences]."""
        sequence = torch.arange(len(self.index), device=self.device).repeat_interleave(self.lengths)
        return np.bincount(sequence.cpu(), weights=per_token.double().cpu(), minlength=len(self.index))


def plan_updates(rollouts, n_prompts, n_updates, budget, device="cpu"):
    """The step's micro-batches, planned once and used by every pass, so that the first ratio is exactly 1 -> for each optimizer step,
    which takes its n_prompts / n_updates prompts with all their rollouts, a list of MicroBatch."""
    part = n_prompts // n_updates
    plan = []
    for update in range(n_updates):
        index = [i for i, r in enumerate(rollouts) if r.prompt_id // part == update]
        lengths = [len(rollouts[i].prompt_ids) + len(rollouts[i].response_ids) for i in index]
        plan.append([MicroBatch([index[j] for j in rows], rollouts, device) for rows in plan_micro_batches(lengths, budget)])
    return plan
