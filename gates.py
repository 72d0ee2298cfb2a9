"""Gates: each stops a run that would go on with nonsense, and is named by what it looks at. What
graders are given to score before the first step is `Grader.canary` in reward.py."""
import numpy as np
import torch
from tqdm import tqdm


class SyncGate:
    """Protects the policy that samples: all weights of the trainer reached the engine, finite, and
    the engine holds what was sent, bit for bit, in the beginnings of the tensors `probes`."""

    def __init__(self, probes, dtype):
        self.probes = set(probes)
        self.dtype = dtype  # the engine's
        self.names = set()
        self.sent = {}

    def watch(self, named_tensors):
        """The (name, tensor) pairs on their way to the engine."""
        for name, tensor in named_tensors:
            if not torch.isfinite(tensor.sum()):  # a sum needs no memory
                raise RuntimeError(f"sync gate: the trainer's {name} is not finite: the last "
                                   "update went wrong; try a lower lr")
            self.names.add(name)
            if name in self.probes:
                self.sent[name] = tensor.detach().flatten()[:4096].to(self.dtype).cpu()
            yield name, tensor

    def check_names(self, known):
        if self.names != known:
            raise RuntimeError(f"sync gate: the trainer did not send "
                               f"{sorted(known - self.names)[:3]}, and the engine does not know "
                               f"{sorted(self.names - known)[:3]}")

    def check_held(self, held):
        """held: name -> tensor in the engine, whose vocabulary may be padded at the end."""
        stale = [name for name, sent in sorted(self.sent.items())
                 if not torch.equal(held[name].flatten()[: len(sent)].cpu(), sent)]
        if stale:
            raise RuntimeError(f"sync gate: after the sync the engine holds other values of "
                               f"{', '.join(stale)} than the trainer: it would sample from a "
                               "stale policy")


def check_untruncated(sampling):
    """Protects the importance ratio: with top-p or top-k the engine samples from a distribution
    that is not the trainer's. -> sampling"""
    if sampling.top_p < 1 or sampling.top_k > 0:
        raise RuntimeError(f"training samples must not be truncated: {sampling}; top_p must be 1 "
                           "and top_k 0")
    return sampling


def check_agreement(group, number, uids, counts):
    """Protects the global batch: all ranks are about to generate for the same step, prompts and
    allocation."""
    plans = group.gather([(number, list(uids), np.asarray(counts).tolist())])
    other = [rank for rank, plan in enumerate(plans) if plan != plans[0]]
    if other:
        raise RuntimeError(f"step {number}: ranks {other} drew other prompts or another allocation "
                           "than rank 0: their data, config or controller state differs")


def check_rollouts(rollouts, most, vocabulary):
    """Protects the batch: the engine's tokens and log-probabilities can be those of 1 to `most`
    sampled tokens of a vocabulary of that size."""
    for r in rollouts:
        ids = np.array(r.response_ids)
        logprobs = np.array(r.engine_logprobs)
        possible = len(ids) == len(logprobs) and 1 <= len(ids) <= most
        possible = possible and ids.min() >= 0 and ids.max() < vocabulary
        # a probability may round to a little more than 1
        possible = possible and np.isfinite(logprobs).all() and logprobs.max() < 1e-3
        if not possible:
            raise RuntimeError("the engine returned what cannot have been sampled: "
                               f"{len(ids)} tokens (1 to {most}), ids {ids[:8]}... (0 to "
                               f"{vocabulary - 1}), log-probabilities {logprobs[:8]}...")


def check_mismatch(mismatch):
    """Protects the gradient: mean |log-probability trainer - engine| of the sampled tokens, 1e-6 in
    float32, about 0.03 for a large model in bfloat16."""
    if not mismatch <= 0.2:  # NaN too
        raise RuntimeError(f"engine and trainer disagree by {mismatch:.3f} nats a token: the "
                           "engine's weights are stale, or its temperature, truncation or "
                           "tokenizer differs from the trainer's. Training on would follow a "
                           "false gradient")
    if mismatch > 0.05:
        tqdm.write(f"warning: engine and trainer disagree by {mismatch:.3f} nats a token "
                   "(stops above 0.2)")


class GradientGate:
    """Protects the weights: an update whose gradient is not finite is skipped; after `most` in a
    row the run stops and leaves the step's batch in broken_batch.jsonl."""

    def __init__(self, run, most):
        self.run = run
        self.most = most
        self.in_a_row = 0

    def passes(self, norm, step):
        """Whether to take the update; the same on every rank, since the norm is global."""
        if np.isfinite(norm):
            self.in_a_row = 0
            return True
        self.in_a_row += 1
        if self.in_a_row == self.most:
            self.stop(norm, step)
        if self.run.group.master:
            tqdm.write(f"warning: step {step.number}: the gradient norm is {norm}; this update is "
                       f"skipped ({self.in_a_row} in a row, stops at {self.most})")
        return False

    def stop(self, norm, step):
        for r, advantage in zip(step.rollouts, step.advantages, strict=True):
            self.run.append("broken_batch.jsonl", {
                "step": step.number, "uid": step.uids[r.prompt_id], "response": r.text,
                "score": r.score, "advantage": advantage, "weight": step.weights[r.prompt_id]})
        raise RuntimeError(f"step {step.number}: the gradient of {self.most} updates in a row was "
                           f"not finite (norm {norm}); the step's batch is in "
                           f"{self.run.path('broken_batch.jsonl')}. The weights are those before "
                           "the first of them, and so are the checkpoints; try a lower lr")


class SuccessWatch:
    """Says it once when nothing can be learned, since that may still change by itself."""

    def __init__(self, group):
        self.group = group
        self.steps_without = 0

    def see(self, step):
        self.steps_without = 0 if step.scores.any() else self.steps_without + 1
        if self.steps_without == 5 and self.group.master:
            tqdm.write("warning: no rollout scored above 0 in five steps, so every advantage is 0 "
                       "and nothing is learned: look at samples.jsonl")
