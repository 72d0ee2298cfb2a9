"""Gates: each stops a run that would train on nonsense, and says what it protects."""
import numpy as np
from tqdm import tqdm

from rollout import seed_of


def untruncated(sampling):
    """Gate on the samples trained on: with top-p or top-k the engine's distribution is not the trainer's, and every ratio is wrong."""
    if sampling.top_p < 1 or sampling.top_k > 0:
        raise RuntimeError(f"training samples must not be truncated: {sampling}; top_p must be 1 and top_k 0")
    return sampling


def check_agreement(group, step, uids, counts):
    """Gate: all ranks are about to generate for the same step, prompts and allocation."""
    hashes = group.gather([seed_of(step, *uids, *counts)])
    apart = [rank for rank, other in enumerate(hashes) if other != hashes[0]]
    if apart:
        raise RuntimeError(f"step {step}: ranks {apart} drew other prompts or another allocation than rank 0: their data, config or controller state differs")


def check_rollouts(rollouts, most, vocabulary):
    """Gate: the engine's tokens and log-probabilities can be those of at most `most` sampled tokens."""
    for r in rollouts:
        ids, logprobs = np.array(r.response_ids), np.array(r.engine_logprobs)
        if not (0 < len(ids) == len(logprobs) <= most and 0 <= ids.min() and ids.max() < vocabulary and np.isfinite(logprobs).all() and logprobs.max() < 1e-3):
            raise RuntimeError(f"the engine returned what cannot have been sampled: {len(ids)} tokens (1 to {most}), ids {ids[:8]}... (0 to {vocabulary - 1}), log-probabilities {logprobs[:8]}...")


def check_mismatch(mismatch):
    """Gate on the mean |log-probability trainer - engine| of the sampled tokens: 1e-6 in float32, about 0.03 for a large bf16 model."""
    if not mismatch <= 0.2:  # NaN too
        raise RuntimeError(f"engine and trainer disagree by {mismatch:.3f} nats a token: the engine's weights are stale, or its temperature, "
                           "truncation or tokenizer differs from the trainer's. Training on would follow a false gradient")
    if mismatch > 0.05:
        tqdm.write(f"warning: engine and trainer disagree by {mismatch:.3f} nats a token (stops above 0.2)")


def give_up_after(most, broken, step, norm, run, batch):
    """An update whose gradient is not finite is skipped; after `most` in a row the run stops and leaves the step's batch in broken_batch.jsonl."""
    if broken < most:
        if run.group.master:
            tqdm.write(f"warning: step {step}: the gradient norm is {norm}; this update is skipped ({broken} in a row, stops at {most})")
        return
    for row in batch:
        run.append("broken_batch.jsonl", {"step": step} | dict(zip(("uid", "response", "reward", "advantage", "weight"), row)))
    raise RuntimeError(f"step {step}: the gradient of {most} updates in a row was not finite (norm {norm}); the step's batch is in {run.path('broken_batch.jsonl')}. "
                       "The weights are those before the first of them, and so are the checkpoints; try a lower lr")
