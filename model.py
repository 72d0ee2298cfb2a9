"""The policy: a Hugging Face causal LM that answers with the log-probabilities of given tokens, never with all its logits.
And the group of ranks it is sharded over."""
import functools
import gc
import itertools
import json
import os
import shutil
import socket
import sys
import traceback
import warnings
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.checkpoint.state_dict import (StateDictOptions, get_model_state_dict, get_state_dict, set_model_state_dict,
                                                     set_state_dict)
from torch.distributed.device_mesh import init_device_mesh
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


class Group:
    """The ranks of this run, what they run on, and the type they compute in. Under torchrun: its process group, gloo on CPUs and nccl on GPUs.
    Otherwise one rank: without a process group in float32 on a CPU, and with one elsewhere, so that one rank runs the same mixed precision as many.

    `with Group(cfg) as group:` closes it. An error on one of several ranks prints its traceback and ends the process at once: closing in
    good order would wait for ranks that wait for this one."""

    def __init__(self, cfg):
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if cfg.device == "auto" else cfg.device
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UsageError("device=cuda, but PyTorch sees no GPU: --device=cpu, or install a CUDA build of PyTorch")
        if self.device == "cpu":
            torch.set_num_threads(cfg.cpu_threads)
        by_device = "bfloat16" if self.device == "cuda" else "float32"
        self.dtype = getattr(torch, by_device if cfg.dtype == "auto" else cfg.dtype)
        self.rank, self.world, self.shards, self.mesh, self.opened = 0, 1, 1, None, False
        self.set_here = []  # environment variables of a process that stands in for torchrun
        if os.environ.get("WORLD_SIZE") == os.environ.get("LOCAL_WORLD_SIZE"):  # one host: nothing needs to listen beyond loopback
            for key, value in {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo", "VLLM_HOST_IP": "127.0.0.1"}.items():
                os.environ.setdefault(key, value)
        alone = "RANK" not in os.environ and (self.device == "cuda" or self.dtype != torch.float32)
        if alone:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                stands_for = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1",
                              "MASTER_PORT": str(free.getsockname()[1])}
            os.environ |= stands_for
            self.set_here = list(stands_for)
        if "RANK" not in os.environ:
            return
        if self.device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        if not dist.is_initialized():
            timeout = timedelta(seconds=cfg.collective_timeout)
            store, rank, world = (dist.HashStore(), 0, 1) if alone else next(dist.rendezvous("env://", timeout=timeout))
            # after a restart torchrun's store still has the dead processes' addresses: keep attempts apart
            store = dist.PrefixStore("attempt_" + os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
            dist.init_process_group("cpu:gloo,cuda:nccl" if self.device == "cuda" else "gloo", store=store, rank=rank, world_size=world, timeout=timeout)
            self.opened = True
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.shards = int(os.environ.get("LOCAL_WORLD_SIZE", self.world))
        shape, names = ((self.world,), ("shard",)) if self.shards == self.world else ((self.world // self.shards, self.shards), ("replicate", "shard"))
        self.mesh = init_device_mesh(self.device, shape, mesh_dim_names=names)  # several hosts: shard inside a host, replicate across

    @property
    def master(self):
        return self.rank == 0

    def sum(self, values):
        """Sum of a float array over the ranks, the same on every rank -> numpy float64 of the same shape."""
        total = torch.from_numpy(np.array(values, dtype=np.float64))
        if self.world > 1:
            dist.all_reduce(total)
        return total.numpy()

    def gather(self, items):
        """The lists of all ranks joined in rank order, on every rank."""
        if self.world == 1:
            return items
        lists = [None] * self.world
        dist.all_gather_object(lists, items)
        return [item for one in lists for item in one]

    def broadcast(self, value):
        """The master's value, on every rank."""
        box = [value]
        if self.world > 1:
            dist.broadcast_object_list(box, 0)
        return box[0]

    def on_master(self, do):
        """What do() returns on the master, on every rank; its UsageError too, so that no rank waits for a master that gave up."""
        result = problem = None
        if self.master:
            try:
                result = do()
            except UsageError as error:
                problem = error
        result, problem = self.broadcast((result, problem))
        if problem:
            raise problem
        return result

    def barrier(self):
        if self.world > 1:
            dist.barrier()

    def close(self):
        if self.opened:
            gc.collect()  # what still holds a communicator goes before it
            dist.destroy_process_group()
            self.opened = False
        for key in self.set_here:
            os.environ.pop(key, None)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if self.world > 1 and kind is not None and not issubclass(kind, (UsageError, KeyboardInterrupt, SystemExit)):
            print(f"error on rank {self.rank} of {self.world}:", file=sys.stderr)
            traceback.print_exception(kind, error, trace)
            sys.stderr.flush()
            os._exit(1)  # the launcher, or the closed connections, end the other ranks
        self.close()


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


FILE_BYTES = 2**32  # of all ranks' shards together, in one set of files


def checkpoint_state(policy, optimizer):
    """(state dicts of the policy and of the optimizer, or None; the tensors of both by the name that they have in a checkpoint). A tied weight comes once."""
    if optimizer and not optimizer.state:
        optimizer.zero_grad()  # PyTorch fills in the moments of an optimizer that has not stepped, but not amid gradients
    weights, moments = get_state_dict(policy, optimizer) if optimizer else (get_model_state_dict(policy), None)
    names = {name.replace("_checkpoint_wrapped_module.", "") for name, _ in policy.named_parameters()}
    assert names <= weights.keys(), f"weights without a name in the state dict: {sorted(names - weights.keys())[:3]}"
    tensors = {f"policy.{name}": tensor for name, tensor in weights.items() if name in names}
    if optimizer:
        tensors |= {f"optimizer.{name}.{key}": tensor for name, state in moments["state"].items() for key, tensor in state.items()}
    return weights, moments, tensors


def save_weights(policy, optimizer, path):
    """Write policy and optimizer into `path`/weights as safetensors, sharded where they are sharded."""
    *_, tensors = checkpoint_state(policy, optimizer)
    before = itertools.accumulate((tensor.numel() * tensor.element_size() for tensor in tensors.values()), initial=0)
    files = {name: 1 + size // FILE_BYTES for name, size in zip(tensors, before)}  # a file is held in memory while it is written
    dcp.save(tensors, storage_writer=dcp.HuggingFaceStorageWriter(os.path.join(path, "weights"), files, save_distributed=True))


def load_weights(policy, optimizer, path):
    """Read into policy and optimizer (None: only the policy), in place, what `save_weights` wrote."""
    weights, moments, tensors = checkpoint_state(policy, optimizer)
    dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(os.path.join(path, "weights")))
    if optimizer:
        moments["state"] = {name: {key: tensors[f"optimizer.{name}.{key}"] for key in state} for name, state in moments["state"].items()}
        set_state_dict(policy, optimizer, model_state_dict=weights, optim_state_dict=moments)
    else:
        set_model_state_dict(policy, weights)
