"""From Hugging Face files to a policy on all ranks, and back: load, shard with FSDP, export."""
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
from model import Policy, add_adapters, scaled_logits

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


def fingerprint_of(hf):
    """16 hexadecimal digits that change with any weight of a model, as rounded to bfloat16."""
    digest = hashlib.sha256()
    for name, tensor in hf.state_dict().items():
        bits = tensor.to(torch.bfloat16).view(torch.int16)  # their sum is exact in any order
        digest.update(f"{name} {tuple(tensor.shape)} {bits.sum(dtype=torch.int64)}\n".encode())
    return digest.hexdigest()[:16]


def plain_name(name):
    """A weight's name without what activation checkpointing adds to it."""
    return name.replace("_checkpoint_wrapped_module.", "")


@torch.no_grad()
def check_model(hf, path):
    """UsageError unless the model has decoder layers where `shard` looks for them, and its logits
    are what `scaled_logits` makes of its hidden states."""
    if not hasattr(hf.base_model, "layers"):
        raise UsageError(f"model={path}: {type(hf).__name__} has no list `layers` of its decoder "
                         "layers: take a model of the Llama or Qwen kind, or teach pretrained.py "
                         "and model.py where they are")
    # some models scale or cap their logits after the head, which would be missed silently
    ids = torch.arange(8)[None] % hf.config.get_text_config().vocab_size
    head = hf.get_output_embeddings()
    hidden = hf.base_model(input_ids=ids).last_hidden_state
    direct = scaled_logits(hidden, head.weight, getattr(head, "bias", None), 1.0)
    if not torch.allclose(hf(input_ids=ids).logits.float(), direct, atol=1e-3, rtol=1e-3):
        raise UsageError(f"model={path}: its logits are not output_embeddings(hidden); teach "
                         "scaled_logits in model.py this model's scaling first")


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
