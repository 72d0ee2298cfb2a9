"""Rollouts: the record, what an engine that samples them must provide (engines/ has two), and how
they are dealt to ranks.

Rollout counts are ragged by nature: prompt i gets len(seeds[i]) rollouts, each a pure function of
(weights, prompt, seed), whatever else is in the batch."""
import hashlib
from dataclasses import dataclass, field

from gates import SyncGate


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
