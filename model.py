"""The policy: a Hugging Face causal LM that answers with the log-probabilities of given tokens, never with all its logits."""
import os
import shutil
import warnings

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.utils.checkpoint import checkpoint


warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # checkpoints of a single process


class Policy(torch.nn.Module):
    """Wraps a Hugging Face causal LM. Everything that trains or scores tokens goes through `forward`, so that this module is
    the one place to shard: FSDP wraps the decoder layers of `hf.base_model`, then this module as the root."""

    def __init__(self, hf, temperature=1.0, chunk=1024):
        super().__init__()
        self.hf, self.temperature, self.chunk = hf, temperature, chunk

    def forward(self, input_ids, response_mask):
        """Log-probability and entropy (nats) of every response token at the sampling temperature.

        input_ids [B, S] are right-padded: causal attention never looks at padding from the left, so no mask is needed.
        response_mask [B, S] is True on response tokens. -> two float32 tensors [T], T response tokens, row after row;
        entropy carries no gradient. Logits exist for `chunk` tokens at a time, also in the backward pass."""
        hidden = self.hf.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
        predicts = response_mask[:, 1:]  # the hidden state at t - 1 predicts token t
        hidden, targets = hidden[:, :-1][predicts], input_ids[:, 1:][predicts]  # [T, D], [T]
        chunks = [checkpoint(self.chunk_logprobs, h, t, use_reentrant=False, preserve_rng_state=False)
                  for h, t in zip(hidden.split(self.chunk), targets.split(self.chunk))]
        logp, entropy = zip(*chunks)
        return torch.cat(logp), torch.cat(entropy)

    def chunk_logprobs(self, hidden, targets):
        logits = self.hf.get_output_embeddings()(hidden).float() / self.temperature  # [chunk, V]
        logz = logits.logsumexp(-1)
        with torch.no_grad():
            entropy = logz - (logits.softmax(-1) * logits).sum(-1)
        return logits.gather(-1, targets[:, None]).squeeze(-1) - logz, entropy

    def named_tensors(self):
        """(name, tensor) of every weight under its Hugging Face name; tied weights come under each of their names, as engines want."""
        yield from self.hf.state_dict().items()


def pick_device(cfg):
    """cfg.device, with `auto` resolved; a CPU gets cfg.cpu_threads threads."""
    device = ("cuda" if torch.cuda.is_available() else "cpu") if cfg.device == "auto" else cfg.device
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda, but PyTorch sees no GPU: --device=cpu, or install a CUDA build of PyTorch")
    if device == "cpu":
        torch.set_num_threads(cfg.cpu_threads)
    return device


def load_hf(path, dtype=torch.float32, device="cpu"):
    """(causal LM, tokenizer) from a folder of Hugging Face files or a hub id. ValueError says what is missing."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    if os.path.isdir(path) and not os.path.exists(os.path.join(path, "config.json")):
        raise ValueError(f"model={path}: no config.json in this folder; give one written by save_pretrained (a run's hf/ folder, say) or a hub id")
    try:
        hf, tokenizer = AutoModelForCausalLM.from_pretrained(path, dtype=dtype), AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"model={path}: neither a model folder nor a hub model that can be loaded: {str(error).splitlines()[0]}") from error
    if tokenizer.eos_token_id is None:
        raise ValueError(f"model={path}: its tokenizer has no eos_token, so no response could ever end; set one in tokenizer_config.json")
    return hf.to(device).eval(), tokenizer


def load_policy(path, temperature=1.0, dtype=torch.float32, device="cpu", trainable=True):
    """(Policy, tokenizer). Stops at a model whose logits are more than head(hidden) (soft-capped or scaled logits)."""
    hf, tokenizer = load_hf(path, dtype, device)
    with torch.no_grad():
        ids = torch.arange(8, device=device)[None] % hf.config.get_text_config().vocab_size
        logits = hf(input_ids=ids).logits
        direct = hf.get_output_embeddings()(hf.base_model(input_ids=ids).last_hidden_state)
    if not torch.allclose(logits, direct, atol=1e-3, rtol=1e-3):
        raise ValueError(f"model={path}: its logits are not output_embeddings(hidden); teach Policy.chunk_logprobs this model's scaling first")
    return Policy(hf, temperature).requires_grad_(trainable), tokenizer


def save_hf(policy, tokenizer, path):
    """Write the policy as Hugging Face files (transformers and vLLM load them). The folder appears only when complete."""
    shutil.rmtree(path + ".tmp", ignore_errors=True)
    policy.hf.save_pretrained(path + ".tmp")
    tokenizer.save_pretrained(path + ".tmp")
    shutil.rmtree(path, ignore_errors=True)
    os.rename(path + ".tmp", path)


def save_weights(policy, optimizer, path):
    """Write policy and optimizer into `path`/weights, sharded where they are sharded."""
    weights, moments = get_state_dict(policy, optimizer)
    dcp.save({"policy": weights, "optimizer": moments}, checkpoint_id=os.path.join(path, "weights"))


def load_weights(policy, optimizer, path):
    """Read into policy and optimizer, in place, what `save_weights` wrote."""
    weights, moments = get_state_dict(policy, optimizer)
    state = {"policy": weights, "optimizer": moments}
    dcp.load(state, checkpoint_id=os.path.join(path, "weights"))
    set_state_dict(policy, optimizer, model_state_dict=state["policy"], optim_state_dict=state["optimizer"])
