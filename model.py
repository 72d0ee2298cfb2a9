"""The policy: a Hugging Face causal LM that answers with the log-probabilities of given tokens, never with all its logits.
And the group of ranks it is sharded over."""
import functools
import json
import os
import shutil
import warnings

import torch
import torch.distributed as dist
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from configurator import UsageError

warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # checkpoints of a single process


class Policy(torch.nn.Module):
    """Wraps a Hugging Face causal LM. Everything that trains or scores tokens goes through `forward`, so that this module is
    the one place to shard: FSDP wraps the decoder layers of `hf.base_model`, then this module as the root."""

    block = 4096  # entries of the vocabulary whose logits exist at a time

    def __init__(self, hf, temperature=1.0, float32_head=False):
        super().__init__()
        self.hf, self.temperature, self.float32_head = hf, temperature, float32_head

    def forward(self, input_ids, response_mask):
        """Log-probability and entropy (nats) of every response token at the sampling temperature.

        input_ids [B, S] are right-padded: causal attention never looks at padding from the left, so no mask is needed.
        response_mask [B, S] is True on response tokens. -> two float32 tensors [T], T response tokens, row after row;
        entropy carries no gradient. Logits exist for `block` entries of the vocabulary at a time."""
        hidden = self.hf.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
        predicts = response_mask[:, 1:]  # the hidden state at t - 1 predicts token t
        hidden, targets = hidden[:, :-1][predicts], input_ids[:, 1:][predicts]  # [T, D], [T]
        head = self.hf.get_output_embeddings()
        bias = getattr(head, "bias", None)
        return TokenLogprobs.apply(hidden, head.weight, bias, targets, self.temperature, self.block, self.float32_head)

    def named_tensors(self):
        """(name, full tensor) of every weight under its Hugging Face name; tied weights come under each of their names, as engines want.
        Sharded weights are gathered one at a time: a collective, so every rank must run the iterator to its end."""
        for name, tensor in self.state_dict().items():
            yield name.removeprefix("hf."), full(tensor)


def scaled_logits(hidden, weight, bias, temperature, part=slice(None), float32_head=False):
    """float32 logits for a `part` of the vocabulary. With bfloat16 inputs the matrix product is rounded to bfloat16 too, unless `float32_head`."""
    bias = None if bias is None else bias[part]
    if not float32_head or hidden.dtype == torch.float32:
        logits = torch.nn.functional.linear(hidden, weight[part], bias).float()
    elif hidden.is_cuda:  # bfloat16 products, summed and kept in float32, as vLLM's head_dtype=float32 does
        logits = torch.mm(hidden, weight[part].T, out_dtype=torch.float32)
        logits = logits if bias is None else logits + bias.float()
    else:
        logits = torch.nn.functional.linear(hidden.float(), weight[part].float(), None if bias is None else bias.float())
    return logits if temperature == 1 else logits.div_(temperature)


class TokenLogprobs(torch.autograd.Function):
    """Log-probability and entropy (nats) of `targets` [T] under softmax((hidden [T, D] @ weight [V, D].T + bias) / temperature) -> two float32 [T].
    Logits exist for `block` entries of the vocabulary at a time: dropped in the forward pass, made again in the backward pass and turned into their gradient in place."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, temperature, block, float32_head=False):
        top = hidden.new_full((len(hidden),), -torch.inf, dtype=torch.float32)
        total, expected, target_logit = (torch.zeros_like(top) for _ in range(3))  # relative to `top`: sum of exp(logit), and of exp(logit) * logit
        for part, inside, column in blocks(len(weight), targets, block):
            logits = scaled_logits(hidden, weight, bias, temperature, part, float32_head)  # [T, block]
            target_logit = torch.where(inside, logits.gather(-1, column).squeeze(-1), target_logit)
            before, top = top, torch.maximum(top, logits.amax(-1))
            shrink, p = (before - top).exp(), (logits - top[:, None]).exp_()
            total = total * shrink + p.sum(-1)
            expected = expected * shrink + logits.mul_(p).sum(-1)  # in place: no third tensor of this size
            del logits, p  # before the next block's
        logz = top + total.log()
        entropy = logz - expected / total
        ctx.save_for_backward(hidden, weight, bias, targets, logz)
        ctx.temperature, ctx.block, ctx.float32_head = temperature, block, float32_head
        ctx.mark_non_differentiable(entropy)
        return (target_logit - top) - total.log(), entropy

    @staticmethod
    def backward(ctx, grad, _):
        hidden, weight, bias, targets, logz = ctx.saved_tensors
        grad = grad / ctx.temperature
        d_hidden = torch.zeros_like(hidden, dtype=torch.float32)  # many small terms: too many for a sum in bfloat16
        d_weight, d_bias = (torch.empty_like(x) if needed else None for x, needed in zip((weight, bias), ctx.needs_input_grad[1:3]))
        for part, inside, column in blocks(len(weight), targets, ctx.block):
            d_logits = scaled_logits(hidden, weight, bias, ctx.temperature, part, ctx.float32_head)
            d_logits.sub_(logz[:, None]).exp_().mul_(-grad[:, None])  # grad * (one-hot - p)
            d_logits.scatter_add_(-1, column, (grad * inside)[:, None])
            d_logits = d_logits.to(hidden.dtype)
            d_hidden += d_logits @ weight[part]
            if d_weight is not None:
                torch.mm(d_logits.T, hidden, out=d_weight[part])
            if d_bias is not None:
                d_bias[part] = d_logits.sum(0)
            del d_logits
        return d_hidden.to(hidden.dtype), d_weight, d_bias, None, None, None, None


def blocks(vocabulary, targets, block):
    """Cut the vocabulary -> for each block its slice, whether it holds a row's target [T], and at which column [T, 1] (any column where it does not)."""
    for start in range(0, vocabulary, block):
        end = min(start + block, vocabulary)
        yield slice(start, end), (targets >= start) & (targets < end), (targets - start).clamp(0, end - start - 1)[:, None]


def full(tensor):
    """The whole of a sharded tensor; any other tensor as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def explained(load):
    """Makes a loader of Hugging Face files raise UsageError, which says what is missing."""
    @functools.wraps(load)
    def loader(path, *arguments):
        if os.path.isdir(path) and (not os.path.exists(os.path.join(path, "config.json")) or os.path.isdir(os.path.join(path, "hf"))):
            inside = os.path.join(path, "hf")
            hint = f"did you mean {inside}?" if os.path.isdir(inside) else "give one written by save_pretrained (a run's hf/ folder, say) or a hub id"
            raise UsageError(f"model={path}: no model in this folder; {hint}")
        try:
            return load(path, *arguments)
        except (OSError, ValueError) as error:
            raise error if isinstance(error, UsageError) else UsageError(f"model={path}: neither a model folder nor a hub model that can be loaded: {str(error).splitlines()[0]}") from error
    return loader


@explained
def load_hf(path, dtype=torch.float32, device="cpu"):
    """(causal LM, tokenizer) from a folder of Hugging Face files or a hub id."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, use_safetensors=True).to(device).eval(), load_tokenizer(path)  # no pickle


@explained
def load_tokenizer(path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    if tokenizer.eos_token_id is None:
        raise UsageError(f"model={path}: its tokenizer has no eos_token, so no response could ever end; set one in tokenizer_config.json")
    return tokenizer


def shard(policy, group, checkpointing):
    """FSDP2: a unit a decoder layer, and the root with embedding, norm and head (so a tied head stays with its embedding). Computation is in
    group.dtype (bfloat16 on GPUs); what is trained, its gradients' reduction and the optimizer are in float32."""
    layers = policy.hf.base_model.layers
    if checkpointing:
        for i, layer in enumerate(layers):
            layers[i] = checkpoint_wrapper(layer, preserve_rng_state=False)
    if group.mesh is not None:
        precision = MixedPrecisionPolicy(group.dtype, torch.float32) if group.dtype != torch.float32 else MixedPrecisionPolicy()
        for layer in layers:
            fully_shard(layer, mesh=group.mesh, mp_policy=precision)
        # PyTorch leaves the root gathered after its forward pass, for the backward pass: a model that is only read has none to free it
        reshard = None if any(p.requires_grad for p in policy.parameters()) else True
        fully_shard(policy, mesh=group.mesh, mp_policy=precision, reshard_after_forward=reshard)


def load_policy(path, group, temperature=1.0, trainable=True, checkpointing=False, float32_head=False):
    """(Policy, tokenizer), sharded over the group; in float32, or in group.dtype if it is only read. Only the master reads the weights; the
    other ranks start empty and receive their shards. UsageError at a model whose logits are more than head(hidden) (soft-capped or scaled)."""
    hf, dtype = None, torch.float32 if trainable else group.dtype

    def read():
        nonlocal hf
        hf, tokenizer = load_hf(path, dtype)
        check_head(hf, path)
        return tokenizer, hf.config

    tokenizer, config = group.on_master(read)
    if group.mesh is None:
        policy = Policy(hf, temperature, float32_head)
        shard(policy, group, checkpointing)
        return policy.requires_grad_(trainable), tokenizer

    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config, dtype=dtype)
    policy = Policy(empty.eval(), temperature, float32_head).requires_grad_(trainable)
    shard(policy, group, checkpointing)
    policy.to_empty(device=group.device)
    empty.tie_weights()  # to_empty made two tensors of a tied one
    weights = {f"hf.{name}": tensor for name, tensor in hf.state_dict().items()} if group.master else {}
    set_model_state_dict(policy, weights, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))
    buffers = dict(hf.named_buffers()) if group.master else {}
    for name, buffer in empty.named_buffers():  # rotary frequencies are in no state dict
        name = name.replace("_checkpoint_wrapped_module.", "")
        if group.master:
            buffer.copy_(buffers[name])
        dist.broadcast(buffer, 0)
    return policy, tokenizer


@torch.no_grad()
def check_head(hf, path):
    ids = torch.arange(8)[None] % hf.config.get_text_config().vocab_size
    head = hf.get_output_embeddings()
    direct = scaled_logits(hf.base_model(input_ids=ids).last_hidden_state, head.weight, getattr(head, "bias", None), 1.0)
    if not torch.allclose(hf(input_ids=ids).logits.float(), direct, atol=1e-3, rtol=1e-3):
        raise UsageError(f"model={path}: its logits are not output_embeddings(hidden); teach TokenLogprobs this model's scaling first")


def save_hf(policy, tokenizer, path, group, note=None):
    """Write the policy as Hugging Face files (transformers and vLLM load them), and `note` as evaluation.json beside them. The folder appears
    only when complete."""
    weights = get_model_state_dict(policy, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if group.master:
        shutil.rmtree(path + ".tmp", ignore_errors=True)
        policy.hf.save_pretrained(path + ".tmp", state_dict={name.removeprefix("hf."): tensor for name, tensor in weights.items()})
        tokenizer.save_pretrained(path + ".tmp")
        if note:
            with open(os.path.join(path + ".tmp", "evaluation.json"), "w") as file:
                json.dump(note, file)
        shutil.rmtree(path, ignore_errors=True)
        os.rename(path + ".tmp", path)
    group.barrier()


def memory_gib(parameters, config, cfg, shards):
    """GiB that one of the `shards` GPUs of a host needs while vLLM generates and while the policy updates, by arithmetic: an estimate to plan with.

    Sharded: float32 weights, two moments, gradients (update only) and the reference of the KL term. Not sharded: vLLM's bfloat16 weights and
    cache (generation only); one layer and the embeddings gathered in bfloat16, a micro-batch's activations, the logits of a block (update only)."""
    layers, width, inner, vocabulary = config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.vocab_size
    kept = (12 + 4 * (cfg.kl_coef > 0)) * parameters / shards
    layer = cfg.tokens_per_micro_batch * (8 * width + 4 * inner) * 2
    activations = layer + layers * cfg.tokens_per_micro_batch * width * 2 if cfg.activation_checkpointing else layers * layer
    gathered = 2 * (2 * vocabulary * width + parameters / layers)
    logits = 3 * 4 * cfg.tokens_per_micro_batch * Policy.block + 2 * vocabulary * width  # and the head's gradient
    generate = kept + 2 * parameters + cfg.kv_cache_gib * 2**30
    return generate / 2**30, (kept + 4 * parameters / shards + gathered + activations + logits) / 2**30
