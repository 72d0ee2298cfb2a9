"""Micro-batches: how rollouts are cut into them, padded, dealt to ranks, and how a value of a
rollout is spread over its tokens and summed back."""
import numpy as np
import torch

from configurator import UsageError


def tokens_of(rollout):
    return len(rollout.prompt_ids) + len(rollout.response_ids)


def plan_micro_batches(lengths, budget, world=1):
    """Cut sequences into micro-batches of at most `budget` tokens, padding included -> list of
    lists of indices, longest first. As few as the budget allows, rounded up to a multiple of
    `world` where there are enough sequences, and as equal as that number allows.
    UsageError where one sequence alone is over the budget."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])  # similar lengths: less padding
    if not order:
        return []
    if lengths[order[0]] > budget:
        raise UsageError(f"a sequence of {lengths[order[0]]} tokens does not fit "
                         f"tokens_per_micro_batch={budget}")
    number = -(-len(cut(order, lengths, budget)) // world) * world  # rounded up
    # the smallest size that needs no more micro-batches makes them equal
    low, high = lengths[order[0]], budget
    while low < high:
        middle = (low + high) // 2
        if len(cut(order, lengths, middle)) <= number:
            high = middle
        else:
            low = middle + 1
    return cut(order, lengths, low)


def cut(order, lengths, size):
    """Neighbours of `order`, longest first, together as long as their padded tokens fit `size`."""
    plan = []
    for i in order:
        if plan and (len(plan[-1]) + 1) * lengths[plan[-1][0]] <= size:
            plan[-1].append(i)
        else:
            plan.append([i])
    return plan


def pad_batch(rollouts, device="cpu"):
    """-> input_ids [B, S] right-padded, response_mask [B, S] True on response tokens."""
    width = max(tokens_of(r) for r in rollouts)
    ids = torch.zeros(len(rollouts), width, dtype=torch.long)
    mask = torch.zeros(len(rollouts), width, dtype=torch.bool)
    for row, r in enumerate(rollouts):
        end = tokens_of(r)
        ids[row, :end] = torch.tensor(r.prompt_ids + r.response_ids)
        mask[row, len(r.prompt_ids) : end] = True
    return ids.to(device), mask.to(device)


class MicroBatch:
    """Some rollouts, packed for the policy. Flat tensors are [T], one entry a response token,
    sequence after sequence. `idle`: stands in on a rank that has fewer micro-batches than others;
    it counts for nothing, but goes through every collective."""

    old = None      # [T] log-probabilities under the policy before the step's first update
    ref = None      # [T] under the reference, if there is one
    entropy = None  # [T]

    def __init__(self, index, rollouts, device, idle=False):
        self.index = np.array(index)  # positions in the step's list of rollouts
        self.device = device
        self.idle = idle
        chosen = [rollouts[i] for i in index]
        self.lengths = torch.tensor([len(r.response_ids) for r in chosen], device=device)
        self.input_ids, self.mask = pad_batch(chosen, device)
        logprobs = [logprob for r in chosen for logprob in r.engine_logprobs]
        self.engine = torch.tensor(logprobs, device=device)  # [T] as the engine sampled them

    def spread(self, per_rollout):
        """One value a rollout of the step (numpy [N]) -> one a response token [T], float32; zeros
        if idle."""
        values = np.zeros(len(self.index)) if self.idle else per_rollout[self.index]
        values = torch.as_tensor(values, dtype=torch.float32, device=self.device)
        return values.repeat_interleave(self.lengths)

    def sums(self, per_token):
        """[T] -> its sum over each sequence, numpy float64 [sequences]; zeros if idle."""
        sequence = torch.arange(len(self.index), device=self.device).repeat_interleave(self.lengths)
        values = per_token.double().cpu()
        total = np.bincount(sequence.cpu(), weights=values, minlength=len(self.index))
        return total * (not self.idle)


def plan_updates(rollouts, n_prompts, n_updates, budget, device="cpu", rank=0, world=1):
    """This rank's micro-batches of the step, planned once and used by every pass -> for each
    optimizer step, which takes its n_prompts / n_updates prompts with all their rollouts, a list of
    MicroBatch, equally long on all ranks."""
    prompts = n_prompts // n_updates  # of one update
    shortest = min(range(len(rollouts)), key=lambda i: tokens_of(rollouts[i]))
    updates = []
    for update in range(n_updates):
        index = [i for i, r in enumerate(rollouts) if r.prompt_id // prompts == update]
        plan = plan_micro_batches([tokens_of(rollouts[i]) for i in index], budget, world)
        micros = [MicroBatch([index[j] for j in rows], rollouts, device)
                  for rows in plan[rank::world]]
        missing = -(-len(plan) // world) - len(micros)
        micros += [MicroBatch([shortest], rollouts, device, idle=True) for _ in range(missing)]
        updates.append(micros)
    return updates
