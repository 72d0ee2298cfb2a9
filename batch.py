"""Micro-batches: how rollouts are cut, padded, dealt to ranks, and their values spread over tokens."""
import bisect

import numpy as np
import torch

from configurator import UsageError


def plan_micro_batches(lengths, budget, world=1):
    """Cut sequences into micro-batches of at most `budget` tokens, padding included -> list of lists of indices, longest first. As few as the budget allows,
    rounded up to a multiple of `world` where there are enough sequences, and as equal as that number allows.
    UsageError where one sequence alone is over the budget."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    if not order:
        return []
    if lengths[order[0]] > budget:
        raise UsageError(f"a sequence of {lengths[order[0]]} tokens does not fit tokens_per_micro_batch={budget}")

    def cut(size):
        plan = [[]]
        for i in order:
            if plan[-1] and (len(plan[-1]) + 1) * lengths[plan[-1][0]] > size:
                plan.append([])
            plan[-1].append(i)
        return plan

    number = -(-len(cut(budget)) // world) * world  # and the smallest size that needs no more makes them equal:
    return cut(bisect.bisect_left(range(budget), True, lengths[order[0]], key=lambda size: len(cut(size)) <= number))


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
    """Some rollouts, packed for the policy. Flat tensors are [T], one entry a response token, sequence after sequence.
    `idle`: stands in on a rank that has fewer micro-batches than others; it counts for nothing, but goes through every collective."""

    def __init__(self, index, rollouts, device, idle=False):
        self.index, self.device, self.idle = np.array(index), device, idle  # positions in the step's list of rollouts
        self.lengths = torch.tensor([len(rollouts[i].response_ids) for i in index], device=device)
        self.input_ids, self.mask = pad_batch([rollouts[i] for i in index], device)
        self.engine = torch.tensor([x for i in index for x in rollouts[i].engine_logprobs], device=device)  # [T]

    def spread(self, per_rollout):
        """One value a rollout of the step (numpy [N]) -> one a response token [T], float32; zeros if idle."""
        values = np.zeros(len(self.index)) if self.idle else per_rollout[self.index]
        return torch.as_tensor(values, dtype=torch.float32, device=self.device).repeat_interleave(self.lengths)

    def sums(self, per_token):
        """[T] -> its sum over each sequence, numpy float64 [sequences]; zeros if idle."""
        sequence = torch.arange(len(self.index), device=self.device).repeat_interleave(self.lengths)
        return np.bincount(sequence.cpu(), weights=per_token.double().cpu(), minlength=len(self.index)) * (not self.idle)


def plan_updates(rollouts, n_prompts, n_updates, budget, device="cpu", rank=0, world=1):
    """This rank's micro-batches of the step, planned once and used by every pass -> for each optimizer
    step, which takes its n_prompts / n_updates prompts with all their rollouts, a list of MicroBatch, equally long on all ranks."""
    part = n_prompts // n_updates
    updates, shortest = [], min(range(len(rollouts)), key=lambda i: len(rollouts[i].prompt_ids) + len(rollouts[i].response_ids))
    for update in range(n_updates):
        index = [i for i, r in enumerate(rollouts) if r.prompt_id // part == update]
        lengths = [len(rollouts[i].prompt_ids) + len(rollouts[i].response_ids) for i in index]
        plan = plan_micro_batches(lengths, budget, world)
        micros = [MicroBatch([index[j] for j in rows], rollouts, device) for rows in plan[rank::world]]
        updates.append(micros + [MicroBatch([shortest], rollouts, device, idle=True) for _ in range(-(-len(plan) // world) - len(micros))])
    return updates
