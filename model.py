"""The policy: a Hugging Face causal LM that answers with the log-probabilities of given tokens,
never with all its logits. How it is loaded, sharded and exported."""
import functools
import hashlib
import json
import os
import shutil

import torch
import torch.distributed as dist
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    checkpoint_wrapper,
)
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from configurator import UsageError


class Policy(torch.nn.Module):
    """Wraps a Hugging Face causal LM. Everything that trains or scores tokens goes through
    `forward`, so that this module is the one place to shard: FSDP wraps the decoder layers of
    `hf.base_model`, then this module as the root."""

    block = 4096  # entries of the vocabulary whose logits exist at a time

    def __init__(self, hf, temperature=1.0, float32_head=False):
        super().__init__()
        self.hf = hf
        self.temperature = temperature
        self.float32_head = float32_head
        self.adapters = {f"{name}.weight": module for name, module in self.named_modules()
                         if isinstance(module, LoRALinear)}

    def forward(self, input_ids, response_mask):
        """Log-probability and entropy (nats) of every response token at the sampling temperature.

        input_ids [B, S] are right-padded: causal attention never looks at padding from the left, so
        no mask is needed. response_mask [B, S] is True on response tokens. -> two float32 tensors
        [T], T response tokens, row after row; entropy carries no gradient."""
        # the head is left out here: its output would be [B, S, V], gigabytes of float32
        hidden = self.hf.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
        # rows of different lengths become one list of tokens: nothing is done for padding and
        # prompts, and no sum downstream has to mask them again
        predicts = response_mask[:, 1:]  # the hidden state at t - 1 predicts token t
        hidden = hidden[:, :-1][predicts]  # [T, D]
        targets = input_ids[:, 1:][predicts]  # [T]
        head = self.hf.get_output_embeddings()
        bias = getattr(head, "bias", None)
        return TokenLogprobs.apply(hidden, head.weight, bias, targets, self.temperature,
                                   self.block, self.float32_head)

    def named_tensors(self):
        """(name, full tensor) of every weight under its Hugging Face name; tied weights come under
        each of their names, as engines want. Sharded weights are gathered one at a time: a
        collective, so every rank must run the iterator to its end."""
        # not named_parameters, which leaves a tied head out: the engine's would be stale
        yield from self.merged(self.state_dict())

    def merged(self, tensors):
        """(Hugging Face name, full tensor) of a state dict of this policy; what adapters learned is
        in the weights beside them."""
        for name, tensor in tensors.items():
            # an engine or a file gets W + scale B A as one weight, and never hears of adapters
            if name in self.adapters:
                layer = name.removesuffix("weight")
                a, b = unsharded(tensors[layer + "lora_A"]), unsharded(tensors[layer + "lora_B"])
                yield name.removeprefix("hf."), self.adapters[name].merge(unsharded(tensor), a, b)
            elif ".lora_" not in name:
                yield name.removeprefix("hf."), unsharded(tensor)

    def base(self, input_ids, response_mask):
        """As `forward`, with adapters off: the model that training began with."""
        LoRALinear.on = False
        try:
            return self(input_ids, response_mask)
        finally:
            LoRALinear.on = True


def scaled_logits(hidden, weight, bias, temperature, entries=slice(None), float32_head=False):
    """float32 logits of some `entries` of the vocabulary. Of bfloat16 inputs the matrix product is
    rounded to bfloat16 too, unless `float32_head`."""
    weight = weight[entries]
    bias = None if bias is None else bias[entries]
    if not float32_head or hidden.dtype == torch.float32:
        logits = torch.nn.functional.linear(hidden, weight, bias).float()
    elif hidden.is_cuda:  # products of bfloat16, summed and kept in float32, as vLLM's float32 head
        logits = torch.mm(hidden, weight.T, out_dtype=torch.float32)
        logits = logits if bias is None else logits + bias.float()
    else:
        bias = None if bias is None else bias.float()
        logits = torch.nn.functional.linear(hidden.float(), weight.float(), bias)
    return logits if temperature == 1 else logits.div_(temperature)


class TokenLogprobs(torch.autograd.Function):
    """Log-probability and entropy (nats) of `targets` [T] under
    softmax((hidden [T, D] @ weight [V, D].T + bias) / temperature) -> two float32 [T].

    Logits exist for `block` entries of the vocabulary at a time: dropped in the forward pass, made
    again in the backward pass and turned into their gradient in place."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, temperature, block, float32_head=False):
        # logits of 16,384 tokens over 151,936 entries would take 9.3 GiB in float32
        # Three sums over the vocabulary are enough. With Z = sum of exp(logit), a log-probability
        # is logit(target) - log Z, and the entropy is log Z - E[logit].
        # They are made in one pass over the blocks, relative to the highest logit so far: exp of a
        # logit alone would overflow.
        top = hidden.new_full((len(hidden),), -torch.inf, dtype=torch.float32)
        total = torch.zeros_like(top)     # sum of exp(logit - top)
        expected = torch.zeros_like(top)  # sum of exp(logit - top) * logit
        target_logit = torch.zeros_like(top)
        for entries, inside, column in blocks(len(weight), targets, block):
            logits = scaled_logits(hidden, weight, bias, temperature, entries, float32_head)
            found = logits.gather(-1, column).squeeze(-1)
            target_logit = torch.where(inside, found, target_logit)
            before, top = top, torch.maximum(top, logits.amax(-1))
            shrink = (before - top).exp()  # what was summed is relative to a lower top
            p = (logits - top[:, None]).exp_()  # [T, block]
            total = total * shrink + p.sum(-1)
            expected = expected * shrink + logits.mul_(p).sum(-1)  # in place: no third such tensor
            del logits, p  # before the next block's
        logz = top + total.log()
        entropy = logz - expected / total
        ctx.save_for_backward(hidden, weight, bias, targets, logz)
        ctx.temperature, ctx.block, ctx.float32_head = temperature, block, float32_head
        ctx.mark_non_differentiable(entropy)
        return (target_logit - top) - total.log(), entropy

    @staticmethod
    def backward(ctx, grad, _):
        # no logits were kept: making them again is one matrix product more, four instead of three
        hidden, weight, bias, targets, logz = ctx.saved_tensors
        _, weight_learns, bias_learns, *_ = ctx.needs_input_grad
        grad = grad / ctx.temperature
        # many small terms: too many for a sum in bfloat16
        d_hidden = torch.zeros_like(hidden, dtype=torch.float32)
        d_weight = torch.empty_like(weight) if weight_learns else None
        d_bias = torch.empty_like(bias) if bias_learns else None
        for entries, inside, column in blocks(len(weight), targets, ctx.block):
            d_logits = scaled_logits(hidden, weight, bias, ctx.temperature, entries,
                                     ctx.float32_head)
            # the gradient of a log-probability by the logits is one-hot - p: p is made in place
            # from the logits, and 1 is added at the target
            d_logits.sub_(logz[:, None]).exp_().mul_(-grad[:, None])
            d_logits.scatter_add_(-1, column, (grad * inside)[:, None])
            d_logits = d_logits.to(hidden.dtype)
            d_hidden += d_logits @ weight[entries]
            if weight_learns:
                torch.mm(d_logits.T, hidden, out=d_weight[entries])
            if bias_learns:
                d_bias[entries] = d_logits.sum(0)
            del d_logits
        return d_hidden.to(hidden.dtype), d_weight, d_bias, None, None, None, None


def blocks(vocabulary, targets, block):
    """Cut the vocabulary -> for each block its slice, whether it holds a row's target [T], and at
    which column [T, 1] (any column where it does not)."""
    for start in range(0, vocabulary, block):
        end = min(start + block, vocabulary)
        inside = (targets >= start) & (targets < end)
        yield slice(start, end), inside, (targets - start).clamp(0, end - start - 1)[:, None]


def unsharded(tensor):
    """The whole of a sharded tensor; any other tensor as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def plain_name(name):
    """A weight's name without what activation checkpointing adds to it."""
    return name.replace("_checkpoint_wrapped_module.", "")


# ---------- LoRA ----------

class LoRALinear(torch.nn.Module):
    """W x + scale B A x in the place of a linear layer (arXiv 2106.09685): W [out, in] stays as it
    was, A [rank, in] and B [out, rank] learn. B is 0 at first: training begins at W x."""

    on = True  # False: W x

    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias  # under the names that they had
        self.scale = alpha / rank
        # in float32, where small steps are not lost; W may be in bfloat16
        like = {"device": linear.weight.device, "dtype": torch.float32}
        self.lora_A = torch.nn.Parameter(torch.zeros(rank, linear.in_features, **like))
        self.lora_B = torch.nn.Parameter(torch.zeros(linear.out_features, rank, **like))

    def forward(self, x):
        linear = torch.nn.functional.linear
        y = linear(x, self.weight, self.bias)
        return y + self.scale * linear(linear(x, self.lora_A), self.lora_B) if self.on else y

    def merge(self, weight, a, b):
        """The weight of one linear layer that does what W, A and B do."""
        return (weight.float() + self.scale * (b @ a)).to(weight.dtype)


def add_adapters(hf, rank, alpha, seed):
    """Freeze a model, and put LoRA on every linear layer of its decoder."""
    hf.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for parent in list(hf.base_model.layers.modules()):
        for name, linear in list(parent.named_children()):
            if isinstance(linear, torch.nn.Linear):
                adapter = LoRALinear(linear, rank, alpha)
                setattr(parent, name, adapter)
                if not linear.weight.is_meta:  # other ranks receive the master's
                    bound = linear.in_features**-0.5
                    torch.nn.init.uniform_(adapter.lora_A, -bound, bound, generator)


def fingerprint_of(hf):
    """16 hexadecimal digits that change with any weight of a model, as rounded to bfloat16."""
    digest = hashlib.sha256()
    for name, tensor in hf.state_dict().items():
        bits = tensor.to(torch.bfloat16).view(torch.int16)  # their sum is exact in any order
        digest.update(f"{name} {tuple(tensor.shape)} {bits.sum(dtype=torch.int64)}\n".encode())
    return digest.hexdigest()[:16]


# ---------- load ----------

def explained(load):
    """Makes a loader of Hugging Face files raise UsageError, which says what is missing."""
    @functools.wraps(load)
    def loader(path, *arguments):
        # the usual slip: the run folder instead of the model in it
        inside = os.path.join(path, "hf")
        if os.path.isdir(inside):
            raise UsageError(f"model={path}: no model in this folder; did you mean {inside}?")
        if os.path.isdir(path) and not os.path.exists(os.path.join(path, "config.json")):
            raise UsageError(f"model={path}: no model in this folder; give one written by "
                             "save_pretrained (a run's hf/ folder, say) or a hub id")
        try:
            return load(path, *arguments)
        except UsageError:
            raise
        except (OSError, ValueError) as error:
            raise UsageError(f"model={path}: neither a model folder nor a hub model that can be "
                             f"loaded: {str(error).splitlines()[0]}") from error
    return loader


@explained
def load_hf(path, dtype=torch.float32, device="cpu"):
    """(causal LM, tokenizer) from a folder of Hugging Face files or a hub id."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    hf = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, use_safetensors=True)  # no pickle
    return hf.to(device).eval(), load_tokenizer(path)


@explained
def size_of(path):
    """(number of parameters, transformers config of the text model), without loading weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        hf = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path))
    return sum(p.numel() for p in hf.parameters()), hf.config.get_text_config()


@explained
def load_tokenizer(path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    if tokenizer.eos_token_id is None:
        raise UsageError(f"model={path}: its tokenizer has no eos_token, so no response could ever "
                         "end; set one in tokenizer_config.json")
    return tokenizer


def load_policy(path, group, temperature=1.0, trainable=True, checkpointing=False,
                float32_head=False, lora=None, compiled=False):
    """(Policy, tokenizer), sharded over the group; in float32, or in group.dtype if it is only
    read. Only the master reads the weights; the other ranks start empty and receive their shards.
    lora: (rank, alpha, seed of A) if adapters learn instead of the weights.
    UsageError at a model whose logits are more than head(hidden) (soft-capped or scaled)."""
    # small steps would be lost in bfloat16 weights, so what learns is in float32
    dtype = torch.float32 if trainable and not lora else group.dtype
    hf = None

    def prepared(model):
        model.requires_grad_(trainable)
        if lora:
            add_adapters(model, *lora)
        return Policy(model, temperature, float32_head)

    def read():
        nonlocal hf
        hf, tokenizer = load_hf(path, dtype)
        check_model(hf, path)
        return tokenizer, hf.config

    tokenizer, config = group.on_master(read)
    base = group.on_master(lambda: fingerprint_of(hf)) if lora else ""
    read_policy = prepared(hf) if group.master else None
    # one process without a group: the model that was read is the policy
    if group.mesh is None:
        shard(read_policy, group, checkpointing, compiled)
        read_policy.fingerprint = base
        return read_policy, tokenizer

    from transformers import AutoModelForCausalLM

    # ranks: shapes first, cut into shards, and only then memory for what is kept here
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config, dtype=dtype)
    policy = prepared(empty.eval())
    policy.fingerprint = base
    shard(policy, group, checkpointing, compiled)
    # memory for the shards only, filled by the broadcast below
    policy.to_empty(device=group.device)
    empty.tie_weights()  # to_empty made two tensors of a tied one
    # the master sends whole weights, and each rank keeps its shard of them
    weights = {}
    buffers = {}  # rotary frequencies, which are in no state dict
    if group.master:
        weights = read_policy.state_dict()
        buffers = dict(hf.named_buffers())
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(policy, weights, options=options)
    # to_empty left garbage in the buffers, and no state dict mends it
    for name, buffer in empty.named_buffers():
        if group.master:
            buffer.copy_(buffers[plain_name(name)])
        dist.broadcast(buffer, 0)
    return policy, tokenizer


def shard(policy, group, checkpointing, compiled=False):
    """FSDP2: a unit a decoder layer, and the root with embedding, norm and head (so a tied head
    stays with its embedding). Computation is in group.dtype (bfloat16 on GPUs); what is trained,
    its gradients' reduction and the optimizer are in float32."""
    layers = policy.hf.base_model.layers
    if compiled:
        # with gradients or without, adapters on or off, one sequence or several: each is compiled
        torch._dynamo.config.recompile_limit = 32
        for layer in layers:
            # the function and not the module: hooks of FSDP stay outside, names are as they were
            layer.forward = torch.compile(layer.forward, dynamic=True)
    # of a checkpointed layer only the input is kept; its activations are made again when needed
    if checkpointing:
        for i, layer in enumerate(layers):
            layers[i] = checkpoint_wrapper(layer, preserve_rng_state=False)
    if group.mesh is None:
        return
    precision = MixedPrecisionPolicy()
    if group.dtype != torch.float32:
        precision = MixedPrecisionPolicy(param_dtype=group.dtype, reduce_dtype=torch.float32)
    # a layer is gathered when it runs and freed after it: memory for one at a time
    for layer in layers:
        fully_shard(layer, mesh=group.mesh, mp_policy=precision)
    # PyTorch leaves the root gathered after its forward pass, for the backward pass to come: a
    # model that is only read has none that would free it
    trained = any(p.requires_grad for p in policy.parameters())
    fully_shard(policy, mesh=group.mesh, mp_policy=precision,
                reshard_after_forward=None if trained else True)


@torch.no_grad()
def check_model(hf, path):
    """UsageError unless the model has decoder layers where `shard` looks for them, and its logits
    are what `scaled_logits` makes of its hidden states."""
    if not hasattr(hf.base_model, "layers"):
        raise UsageError(f"model={path}: {type(hf).__name__} has no list `layers` of its decoder "
                         "layers: take a model of the Llama or Qwen kind, or teach model.py where "
                         "they are")
    # some models scale or cap their logits after the head, which would be missed silently
    ids = torch.arange(8)[None] % hf.config.get_text_config().vocab_size
    head = hf.get_output_embeddings()
    hidden = hf.base_model(input_ids=ids).last_hidden_state
    direct = scaled_logits(hidden, head.weight, getattr(head, "bias", None), 1.0)
    if not torch.allclose(hf(input_ids=ids).logits.float(), direct, atol=1e-3, rtol=1e-3):
        raise UsageError(f"model={path}: its logits are not output_embeddings(hidden); teach "
                         "TokenLogprobs this model's scaling first")


# ---------- export ----------

def save_hf(policy, tokenizer, path, group, note=None):
    """Write the policy as Hugging Face files (transformers and vLLM load them), and `note` as
    evaluation.json beside them. The folder appears only when complete."""
    # a collective: all ranks give their shards, the master gets the whole
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(policy, options=options)
    if group.master:
        beside = path + ".tmp"
        shutil.rmtree(beside, ignore_errors=True)
        policy.hf.save_pretrained(beside, state_dict=dict(policy.merged(weights)))
        tokenizer.save_pretrained(beside)
        if policy.adapters:
            save_adapter(policy, weights, os.path.join(beside, "adapter"))
        if note:
            with open(os.path.join(beside, "evaluation.json"), "w") as file:
                json.dump(note, file)
        # a reader sees the old folder or the new one, complete
        shutil.rmtree(path, ignore_errors=True)
        os.rename(beside, path)
    group.barrier()


def save_adapter(policy, weights, path):
    """Write the adapters alone, in the files of the package peft."""
    from safetensors.torch import save_file

    os.makedirs(path)
    tensors = {f"base_model.model.{name.removeprefix('hf.')}.weight": tensor.contiguous()
               for name, tensor in weights.items() if ".lora_" in name}
    save_file(tensors, os.path.join(path, "adapter_model.safetensors"), {"format": "pt"})
    adapter = next(iter(policy.adapters.values()))
    rank = len(adapter.lora_A)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "bias": "none",
              "lora_alpha": adapter.scale * rank, "inference_mode": True,
              "target_modules": sorted({name.split(".")[-2] for name in policy.adapters}),
              "base_model_name_or_path": policy.hf.name_or_path}
    with open(os.path.join(path, "adapter_config.json"), "w") as file:
        json.dump(config, file, indent=1)
