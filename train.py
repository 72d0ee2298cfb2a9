"""
$ python train.py config/arith_gdro.py                      # both adversaries, on one CPU core
$ python train.py config/arith_grpo.py --lr=2e-4 --out_dir=out/faster      # a config, then changes
$ python train.py config/arith_gdro.py config/paper.py --out_dir=out/paper     # the paper's signals
$ python train.py config/arith_gdro.py --resume=auto        # continue where it stopped
$ torchrun --nproc_per_node=2 train.py config/arith_gdro.py     # over ranks: GPUs, or CPU processes
$ python train.py --help                                    # every knob
"""
# GRPO, and: (1) prompts carry an online difficulty bin; (2) Prompt-GDRO multiplies the advantages
# by a weight of the bin; (3) Rollout-GDRO moves rollouts between prompts by their bins, with the
# mean fixed; (4) earlier scores of a prompt may join its rollout group. With all off this is plain
# GRPO, to the bit.
#
# Shapes: P prompts a step, N = P * n_rollouts rollouts, T response tokens of a micro-batch (flat,
# without padding), B bins.
import sys
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

import gates
import gdro
from batch import plan_updates
from checkpoint import RunFolder
from configurator import UsageError, configure, knob, refuse
from data import fingerprint, load_set
from eval import SharedConfig, evaluate, load_eval_sets, make_engine, make_graders
from gdro import (
    DifficultyClassifier,
    PromptGDRO,
    RolloutGDRO,
    ScoreMemory,
    bin_means,
    prompt_signals,
)
from model import unsharded
from pretrained import load_policy, save_hf
from progress import log_evaluation, log_step, print_memory, print_result, print_start
from ranks import Group
from reward import VERDICTS, close_graders, grade, source_fingerprint
from rollout import Sampling, generate_share, seed_of
from runlog import LOGGERS, SECRET, Clock, Stop, Tracker, used_mib


@dataclass
class Config(SharedConfig):
    # run
    out_dir: str = knob("out/arith_grpo", resume="free")  # the run folder; one that holds another
    #   run is refused
    resume: str = knob("", resume="free")  # auto: newest checkpoint in out_dir, or a fresh start if
    #   there is none; or the path of a checkpoint
    steps: int = knob(100, 1, resume="free")  # rounds of the eight-part loop in the whole run,
    #   resumed ones included
    eval_every: int = knob(25, 1, resume="free")  # steps; also before the first, after the last
    save_every: int = knob(25, 1, resume="free")  # steps between checkpoints; also after the last
    keep_checkpoints: int = knob(2, 0, resume="free")  # the newest so many stay; 0 keeps all. The
    #   model of the best evaluation stays in best/ in any case
    samples_every: int = knob(10, 1)  # steps between those that write rollouts to samples.jsonl,
    #   and to wandb or trackio as a table
    samples: str = knob("2", resume="free")  # rollouts that such a step writes, evenly spread over
    #   it: 2 are its first and its last; or all
    logger: str = knob("none", one_of=LOGGERS, resume="free")  # gets metrics too
    # rollouts
    dataset: str = knob("arith")  # a name (arith, dapo, gsm8k, ...), owner/name of the hub, or a
    #   .jsonl, .parquet or .csv file; see data.py
    prompts_per_step: int = knob(64, 1)  # P; a multiple of updates_per_step
    n_rollouts: int = knob(4, 2)  # mean rollouts a prompt; every step generates exactly P times
    #   this; a group of one would have no advantage
    temperature: float = knob(1.0, 1e-12, 1e6)  # of training samples, which are never truncated, or
    #   the importance ratio would be wrong
    # GRPO
    lr: float = knob(2e-4, 1e-12, 1e6)  # AdamW, constant
    weight_decay: float = knob(0.0, 0, 1)  # AdamW
    updates_per_step: int = knob(2, 1)  # optimizer steps a step, each on its own prompts
    kl_coef: float = knob(0.001, 0, 100)  # beta of the KL penalty to the base model, k3 estimator;
    #   0 loads no reference
    clip_low: float = knob(0.2, 0, 1)  # the ratio counts down to 1 - clip_low
    clip_high: float = knob(0.28, 0, 100)  # and up to 1 + clip_high
    adv_clip: float = knob(5.0, 1e-12, 1e6)  # advantages are clipped to +- this
    grad_clip: float = knob(1.0, 1e-12, 1e6)  # global gradient norm
    group_memory: int = knob(0, 0, 1000)  # a prompt's last so many scores of earlier visits join
    #   its rollout group where advantages are made; 0: GRPO
    loss_agg: str = knob("token", one_of=("prompt", "token"))  # prompt: every prompt counts alike
    #   (Eq 7) | token: every token does, so that more rollouts weigh more
    tis_cap: float = knob(2.0, 0)  # cap of the importance weight trainer / engine per token; 0 is
    #   off
    tokens_per_micro_batch: int = knob(8192, resume="rounding")  # padding included; lower it when
    #   memory runs out
    compile: bool = knob(False, resume="rounding")  # torch.compile of the decoder layers: faster
    #   updates, after half a minute of compiling or more
    activation_checkpointing: bool = knob(False, resume="rounding")  # recompute activations in the
    #   backward pass: less memory, a third more compute
    # LoRA: small adapters learn instead of the weights
    lora_rank: int = knob(0, 0, 65536)  # rank of the adapters of all linear layers; 0: all weights
    #   learn
    lora_alpha: float = knob(32.0, 1e-6, 1e6)  # adapters are scaled by lora_alpha / lora_rank
    # difficulty classifier
    n_bins: int = knob(10, 1, 1000)  # equal bins of estimated pass@k; 0 is the hardest
    bin_passk: int = knob(8, 1)  # that k
    history: int = knob(8, 1, 1000)  # visits of a prompt that count; fewer follow a fast learner
    hysteresis: float = knob(0.03, 0, 1)  # a prompt changes bin only beyond the edge by this much
    unseen: str = knob("neutral", one_of=gdro.UNSEEN)  # prompts never visited: neutral: weight 1
    #   and n_rollouts | hardest: bin 0
    difficulty: str = knob("posterior", one_of=gdro.DIFFICULTIES)  # posterior: expected pass@k |
    #   any: the paper's any-of-n, which depends on n
    # Prompt-GDRO: weights
    prompt_gdro: bool = knob(False)  # on or off
    prompt_signal: str = knob("nll", one_of=gdro.SIGNALS)  # what weights follow: error | nll:
    #   - log of the success rate | score: 1 - mean score | variance | surrogate: 0 on policy
    prompt_eta: float = knob(0.5, 0, 100)  # how sharply weights follow it
    prompt_ema: float = knob(0.4, 0, 1)  # how fast a bin's average of it moves
    prompt_weight_max: float = knob(15.0, 1)  # cap of a weight
    prompt_normalize: bool = knob(True)  # weights have mean 1 before the cap; false: as in Eq 16
    prompt_per_share: bool = knob(False)  # divide a bin's signal by its share of the step
    gamma: float = knob(0.01, 0, 1)  # share of the uniform distribution in the probabilities of
    #   both adversaries (of Rollout-GDRO: under exp3p)
    # Rollout-GDRO: rollouts
    rollout_gdro: bool = knob(False)  # on or off
    rollout_rule: str = knob("price", one_of=gdro.RULES)  # price: to whom one more rollout helps
    #   most | exp3p: the paper's bandits and dynamic programme
    rollout_utility: str = knob("even", one_of=tuple(gdro.UTILITIES))  # what helps, under price
    n_min: int = knob(1, 1)  # fewest rollouts of a prompt
    n_max: int = knob(24, 1, 1000)  # most
    # Rollout-GDRO under exp3p only
    arm_signal: str = knob("surrogate", one_of=gdro.SIGNALS)  # what a bin's arms are charged
    arm_eta: float = knob(0.65, 0, 100)  # how sharply arm probabilities follow losses
    arm_ema: float = knob(0.4, 0, 1)  # how fast an arm's loss follows what it is charged

    def __post_init__(self):
        super().__post_init__()
        longest = self.max_prompt_len + self.max_response_len
        number = self.samples.isdecimal() and len(self.samples) < 10 and int(self.samples)
        if self.samples != "all" and not number:
            raise UsageError(f"samples={self.samples!r}: write a number of at least 1, or all")
        # what two knobs rule out together; bounds of one are in its line above
        exp3p = self.rollout_gdro and self.rollout_rule == "exp3p"
        if self.prompts_per_step % self.updates_per_step:
            raise UsageError(f"prompts_per_step={self.prompts_per_step} must be a multiple of "
                             f"updates_per_step={self.updates_per_step}")
        if self.rollout_gdro and not self.n_min <= self.n_rollouts <= self.n_max:
            raise UsageError(f"n_rollouts={self.n_rollouts} must lie between n_min={self.n_min} "
                             f"and n_max={self.n_max}: change one of the three")
        if longest > self.tokens_per_micro_batch:
            raise UsageError(f"tokens_per_micro_batch={self.tokens_per_micro_batch} must hold one "
                             f"sequence: at least max_prompt_len + max_response_len = {longest}")
        if exp3p and self.arm_signal == "variance" and self.n_min == 1:
            raise UsageError("arm_signal=variance needs n_min of at least 2: one rollout says "
                             "nothing about variance, so its arm would never be charged")
        if self.rollout_gdro and not exp3p and self.unseen == "hardest":
            raise UsageError("unseen=hardest has no success rate to give rollouts by: "
                             "--unseen=neutral, or --rollout_rule=exp3p")


# ---------- the algorithm ----------

@dataclass
class Step:
    """What the eight parts of a step fill in and hand on."""
    number: int                       # steps done before it
    problems: list                    # [P]
    prompts: list                     # [P] token ids
    uids: list                        # [P]
    bins: np.ndarray                  # [P] difficulty bin; -1 for a prompt never visited
    success_rate: np.ndarray          # [P] the classifier's; NaN for a prompt never visited
    unseen: float                     # share of prompts never visited
    counts: np.ndarray                # [P] rollouts
    weights: np.ndarray               # [P] what multiplies a prompt's advantages
    rollouts: list = None             # [N] neighbours are of one prompt
    prompt_id: np.ndarray = None      # [N] the prompt of each rollout
    lengths: np.ndarray = None        # [N] response tokens
    scores: np.ndarray = None         # [N] in [0, 1]
    advantages: np.ndarray = None     # [N]
    solved: np.ndarray = None         # [P] rollouts whose score is at least cfg.solved_at
    signals: dict = None              # name -> [P] what an adversary may react to

    def seeds(self, seed):
        """One for each rollout, a list a prompt: generation is a function of run and step."""
        return [[seed_of(seed, self.number, i, j) for j in range(n)]
                for i, n in enumerate(self.counts)]

    def take(self, rollouts):
        """Keep all graded rollouts of the step, and what is known of each as an array."""
        self.rollouts = rollouts
        self.prompt_id = np.array([r.prompt_id for r in rollouts])
        self.lengths = np.array([len(r.response_ids) for r in rollouts])
        self.scores = np.array([r.score for r in rollouts])
        right = np.array([r.verdict == "right" for r in rollouts])
        self.solved = np.bincount(self.prompt_id[right], minlength=len(self.problems))

    def prompt_means(self, values):
        """Mean of one value a rollout [N] over each rollout group -> [P]."""
        return np.bincount(self.prompt_id, values, minlength=len(self.problems)) / self.counts


def sample_step(number, training, classifier, cfg):
    """The prompts of step `number`, with the bins that they are in -> Step."""
    index = prompts_of_step(cfg.seed, number, cfg.prompts_per_step, len(training.problems))
    problems = [training.problems[i] for i in index]
    uids = [problem.uid for problem in problems]
    unseen = np.mean([uid not in classifier.prompts for uid in uids])
    # without adversaries all prompts have as many rollouts and the same weight
    return Step(number, problems, [training.prompt_ids[i] for i in index], uids,
                classifier.bins(uids), classifier.success_rate(uids), unseen,
                np.full(len(uids), cfg.n_rollouts), np.ones(len(uids)))


def prompts_of_step(seed, step, per_step, total):
    """Indices of the step's prompts: a fresh permutation of all `total` every epoch, read on across
    its end -> int array [P]."""
    # a function of the step alone: a resumed run needs no state of a sampler, and all ranks agree
    # without a word
    position = step * per_step + np.arange(per_step)
    orders = {epoch: np.random.default_rng([seed, int(epoch)]).permutation(total)
              for epoch in set(position // total)}
    return np.array([orders[p // total][p % total] for p in position])


def group_advantages(prompt_ids, scores, clip):
    """Scores [N] normalised inside each rollout group, population std, clipped (Eq 3) -> [N].
    A group of one, or of equals, gets 0."""
    # groups are found by the prompt's id, since they have different sizes
    _, group, count = np.unique(prompt_ids, return_inverse=True, return_counts=True)
    # `[group]` hands a value of each group back to all of its rollouts
    mean = (np.bincount(group, scores) / count)[group]
    # rounded, as the mean of equal scores may miss them by a hair, and they must be exactly 0
    centred = np.round(scores - mean, 12)
    std = np.sqrt(np.bincount(group, centred**2) / count)[group]
    return np.clip(centred / (std + 1e-6), -clip, clip)


def token_weights(prompt_ids, lengths, cfg):
    """What one response token of each rollout counts for in its update's loss -> [N]. Within an
    update they sum to 1 over all tokens. prompt: 1 / (prompts * rollouts of the prompt * tokens of
    the response), Eq 7. token: 1 / tokens."""
    prompts = cfg.prompts_per_step // cfg.updates_per_step  # of one update
    if cfg.loss_agg == "token":
        # a mean over the whole update, never over a micro-batch or a rank, whose sizes differ
        update = prompt_ids // prompts
        return 1 / np.bincount(update, lengths)[update]
    return 1 / (prompts * np.bincount(prompt_ids)[prompt_ids] * lengths)


def grpo_loss(logp, old, ref, advantage, prompt_weight, weight, cfg):
    """Clipped surrogate with KL penalty (Eqs 4-6, 16), a sum over response tokens; all inputs [T].

    old, ref: log-probabilities before the first update and under the base model. prompt_weight: the
    adversary's, on the advantage and not on the KL term. weight: what the token counts for in the
    mean over the *global* batch. -> loss, and per-token detached values."""
    ratio = (logp - old).exp()                                          # [T] 1 at the first update
    clipped = ratio.clamp(1 - cfg.clip_low, 1 + cfg.clip_high)          # [T]
    surrogate = torch.minimum(ratio * advantage, clipped * advantage)   # [T] Eq 5
    kl = (ref - logp).exp() - (ref - logp) - 1                          # [T] k3, at least 0
    loss = -(weight * (prompt_weight * surrogate - cfg.kl_coef * kl)).sum()  # [] Eqs 6, 7, 16
    values = {"token_loss": cfg.kl_coef * kl - surrogate, "kl": kl, "approx_kl": old - logp,
              "clipfrac": (clipped * advantage < ratio * advantage).float()}
    return loss, {name: value.detach() for name, value in values.items()}


@torch.no_grad()
def score_rollouts(policy, reference, updates):
    """Log-probabilities [T] of the rollouts before anything is learned from them: under the
    reference, and under the policy as it is. Those of the first update under the policy come with
    the forward pass that its loss needs anyway."""
    # planned once, so that the update sees the same padding and its first ratio is exactly 1
    for update in updates:
        for micro in update:
            micro.ref = reference(micro.input_ids, micro.mask)[0] if reference else None
    for update in updates[1:]:
        for micro in update:
            micro.old, micro.entropy = policy(micro.input_ids, micro.mask)


def update_policy(policy, optimizer, updates, step, cfg, group, gradient_gate):
    """One optimizer step for each of `updates`, lists of micro-batches -> statistics by name, the
    same on every rank."""
    tokens = int(step.lengths.sum())
    per_token = token_weights(step.prompt_id, step.lengths, cfg)  # [N]
    sums = {"loss": 0.0, "kl": 0.0, "clipfrac": 0.0, "approx_kl": 0.0}
    sequence_loss = np.zeros(len(step.rollouts))  # [N]
    grad_norms = []
    for update in updates:
        for micro in update:
            logp, token_entropy = policy(micro.input_ids, micro.mask)  # [T]
            if micro.old is None:  # the policy is still the one that sampled: the ratio is 1
                micro.old, micro.entropy = logp.detach(), token_entropy
            weight = micro.spread(per_token) * engine_weights(micro, cfg)
            ref = logp.detach() if micro.ref is None else micro.ref  # without one, the KL term is 0
            loss, values = grpo_loss(logp, micro.old, ref, micro.spread(step.advantages),
                                     micro.spread(step.weights[step.prompt_id]), weight, cfg)
            # FSDP averages gradients over ranks; the loss is a sum over the global count
            (loss * group.world).backward()
            # what the adversary is fed is without the adversary's weight, or it would chase itself
            sequence_loss[micro.index] += micro.sums(values.pop("token_loss"))
            sums["loss"] += loss.item()
            for name, value in values.items():
                sums[name] += micro.sums(value).sum() / tokens
        if not grad_norms:  # nothing is learned yet: are engine and trainer one policy?
            entropy, distance = compare_with_engine(updates, len(step.rollouts), group)
            gates.check_mismatch(distance.sum() / tokens)
        norm = unsharded(torch.nn.utils.clip_grad_norm_(policy.parameters(), cfg.grad_clip))
        grad_norms.append(norm.item())
        if gradient_gate.passes(grad_norms[-1], step):
            optimizer.step()
        optimizer.zero_grad()  # the engine generates in the memory of the gradients
    sums = group.sum_by_name(sums | {"sequence_loss": sequence_loss})
    # Eq 7: a mean over a response's tokens, then over the prompt's rollouts
    per_rollout = sums.pop("sequence_loss") / step.lengths
    return sums | {"loss": sums["loss"] / len(updates),
                   "prompt_loss": step.prompt_means(per_rollout),
                   "rollout_entropy": entropy / step.lengths, "entropy": entropy.sum() / tokens,
                   "mismatch": distance.sum() / tokens, "grad_norm": np.mean(grad_norms),
                   "skipped_updates": sum(not np.isfinite(norm) for norm in grad_norms)}


def engine_weights(micro, cfg):
    """What corrects for the engine, which sampled with probabilities that are not quite the
    trainer's: their ratio at each token, capped -> [T]."""
    if not cfg.tis_cap:
        return torch.ones_like(micro.old)
    return (micro.old - micro.engine).exp().clamp(max=cfg.tis_cap)


def compare_with_engine(updates, n_rollouts, group):
    """Entropy and |log-probability trainer - engine|, sums over each rollout's tokens -> [2, N]."""
    sums = np.zeros((2, n_rollouts))
    for update in updates:
        for micro in update:
            sums[0, micro.index] += micro.sums(micro.entropy)
            sums[1, micro.index] += micro.sums((micro.old - micro.engine).abs())
    return group.sum(sums)


def metrics_of_step(step, stats, shadow_price, n_bins):
    """One line of metrics.jsonl, but for times and memory."""
    score = step.prompt_means(step.scores)
    solved = step.solved / step.counts
    dead = step.prompt_means(step.advantages != 0) == 0  # groups of equal scores teach nothing
    # a prompt never visited is in no bin: these means leave it out, and `unseen` counts it
    seen = step.bins[step.bins >= 0]
    # the loss hovers around 0 whatever is learned, since advantages about sum to 0 in their groups:
    # score/prompt_mean shows progress, and evaluation compares runs
    metrics = {
        "step": step.number, "loss": stats["loss"], "kl": stats["kl"],
        "approx_kl": stats["approx_kl"], "clipfrac": stats["clipfrac"],
        "entropy": stats["entropy"], "mismatch": stats["mismatch"],
        "grad_norm": stats["grad_norm"], "skipped_updates": stats["skipped_updates"],
        "score/mean": step.scores.mean(), "score/prompt_mean": score.mean(),
        "solved/prompt_mean": solved.mean(), "pass_rate": (solved > 0).mean(),
        "dead_groups": dead.mean(),
        "rollouts/total": step.counts.sum(), "rollouts/min": step.counts.min(),
        "rollouts/max": step.counts.max(), "shadow_price": shadow_price,
        "response_len": step.lengths.mean(), "unseen": step.unseen,
        "truncated": np.mean([not r.finished for r in step.rollouts]),
        "bins/share": np.bincount(seen, minlength=n_bins) / len(step.problems),
    }
    # where rewards are lost: no answer found, an answer not in time, or a wrong one
    for verdict in VERDICTS:
        metrics[f"verdict/{verdict}"] = np.mean([r.verdict == verdict for r in step.rollouts])
    per_prompt = {"weight": step.weights, "rollouts": step.counts, "score": score,
                  "solved": solved}
    per_prompt |= {f"signal_{name}": values for name, values in step.signals.items()}
    for name, values in per_prompt.items():
        metrics[f"bins/{name}"] = bin_means(values, step.bins, n_bins)
    return metrics


# ---------- the run ----------

def train(cfg, stop, group, tracker):
    """Run the whole experiment -> the run folder's evaluation records, and which was the best.
    UsageError: the config or an input is wrong and says how."""
    # three copies of the model: what learns, the frozen one of the KL term, the engine's
    group.on_master(print_memory, cfg, group)
    policy, tokenizer = load_learner(cfg, group)
    training, eval_sets, graders = load_data(cfg, tokenizer, group)
    reference = load_reference(cfg, group, policy)
    engine = make_engine(cfg, group)
    optimizer = make_optimizer(policy, cfg, group)
    state = make_controllers(cfg)  # all that the loop keeps, but the weights
    classifier = state["classifier"]
    score_memory = state["score_memory"]
    prompt_gdro = state.get("prompt_gdro")  # None: off
    rollout_gdro = state.get("rollout_gdro")
    # nothing is written before all inputs were found good
    run = RunFolder(cfg, group, fingerprints(cfg, training, eval_sets, policy))
    start = run.load(policy, optimizer, state) if run.checkpoint else 0
    run.begin(start, cfg.steps)
    tracker.start()
    if group.master:
        print_start(cfg, training, eval_sets, policy, group, run.checkpoint, start)
    gradient_gate = gates.GradientGate(run, most=3)
    success_watch = gates.SuccessWatch(group)
    sampling = gates.check_untruncated(Sampling(cfg.max_response_len, cfg.temperature))
    vocabulary = policy.hf.config.get_text_config().vocab_size

    # evaluation also chooses the model that is kept in best/
    def evaluate_now(done):
        engine.sync(policy.named_tensors())
        results = evaluate(cfg, engine, graders, eval_sets, group)
        engine.sleep()
        score = log_evaluation(done, results, run, tracker)
        if done and results and group.on_master(lambda: score > run.best()["score"]):
            save_hf(policy, tokenizer, run.path("best"), group, {"step": done, "score": score})

    evaluated = any(record["step"] == start for record in run.read("eval.jsonl"))
    if start in (0, cfg.steps) and eval_sets and not evaluated:
        evaluate_now(start)
    stop.listen()
    bar = tqdm(range(start, cfg.steps), initial=start, total=cfg.steps, unit="step",
               dynamic_ncols=True, disable=not group.master)
    for number in bar:
        clock = Clock()
        # ---------- 1 sample: the step's prompts, and the bin each is in ----------
        step = sample_step(number, training, classifier, cfg)

        # ---------- 2 allocate: rollouts of each prompt, P * n_rollouts in all ----------
        if rollout_gdro:
            step.counts = rollout_gdro.allocate(step.bins, step.success_rate)

        # ---------- 3 generate: with the policy as it is now ----------
        gates.check_agreement(group, number, step.uids, step.counts)
        engine.sync(policy.named_tensors())
        clock.lap("sync")
        rollouts = generate_share(engine, step.prompts, step.seeds(cfg.seed), sampling, group)
        memory = used_mib(group, "generate")
        engine.sleep()
        clock.lap("generate")

        # ---------- 4 grade: a rank its own, as soon as it has them; then all ranks hold all ------
        grade(graders[training.reward], rollouts, step.problems)
        step.take(group.gather(rollouts))
        gates.check_rollouts(step.rollouts, cfg.max_response_len, vocabulary)
        clock.lap("grade")

        # ---------- 5 advantages: inside each rollout group; the adversary's weight of its bin ----
        ids, scores = score_memory.join(step.uids, step.prompt_id, step.scores)
        step.advantages = group_advantages(ids, scores, cfg.adv_clip)[: len(step.scores)]
        if prompt_gdro:
            step.weights = prompt_gdro.weights(step.bins, step.success_rate)

        # ---------- 6 update: old log-probabilities, then an optimizer step for some prompts each -
        updates = plan_updates(step.rollouts, cfg.prompts_per_step, cfg.updates_per_step,
                               cfg.tokens_per_micro_batch, group.device, group.rank, group.world)
        score_rollouts(policy, reference, updates)
        clock.lap("logprobs")
        stats = update_policy(policy, optimizer, updates, step, cfg, group, gradient_gate)
        memory |= used_mib(group, "update")
        clock.lap("update")

        # ---------- 7 feed back: outcomes to the classifier and both adversaries ----------
        classifier.observe(step.uids, step.solved, step.counts)
        step.signals = prompt_signals(step.solved, step.counts, classifier.success_rate(step.uids),
                                      stats["prompt_loss"], step.prompt_means(step.scores))
        if prompt_gdro:
            prompt_gdro.update(step.bins, step.signals[cfg.prompt_signal])
        if rollout_gdro:
            rollout_gdro.update(step.bins, step.counts, step.signals[cfg.arm_signal])
        success_watch.see(step)
        clock.lap("feedback")

        # ---------- 8 log, evaluate, checkpoint ----------
        price = rollout_gdro.price if rollout_gdro else 0.0
        metrics = metrics_of_step(step, stats, price, cfg.n_bins)
        log_step(step, metrics, clock, memory, run, tracker, bar, cfg)
        # a signal reaches one rank first; all must stop after the same step
        asked = group.sum([stop.asked])[0] > 0
        done = number + 1
        if done % cfg.eval_every == 0 or done == cfg.steps:
            evaluate_now(done)
        if done % cfg.save_every == 0 or done == cfg.steps or asked:
            run.save(done, policy, optimizer, state, cfg.keep_checkpoints)
        if asked and done < cfg.steps:
            bar.close()
            raise KeyboardInterrupt(f"saved after {done} steps; the same command with "
                                    "--resume=auto continues")
    bar.close()
    save_hf(policy, tokenizer, run.path("hf"), group)
    return run.read("eval.jsonl"), run.best()


def load_learner(cfg, group):
    """(policy, tokenizer): what learns, all weights or adapters."""
    lora = (cfg.lora_rank, cfg.lora_alpha, cfg.seed) if cfg.lora_rank else None
    return load_policy(cfg.model, group, cfg.temperature, True, cfg.activation_checkpointing,
                       cfg.float32_head, lora, cfg.compile)


def make_optimizer(policy, cfg, group):
    learns = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(learns, lr=cfg.lr, weight_decay=cfg.weight_decay,
                             fused=group.device == "cuda")


def load_reference(cfg, group, policy):
    """The frozen base model of the KL term; None where that term is off."""
    if not cfg.kl_coef:
        return None
    if cfg.lora_rank:  # no second copy
        return policy.base
    return load_policy(cfg.model, group, cfg.temperature, trainable=False,
                       float32_head=cfg.float32_head, compiled=cfg.compile)[0]


def load_data(cfg, tokenizer, group):
    """(training set, evaluation sets by name, graders by name). Each grader has scored a right and
    a wrong answer to a real problem as it should."""
    # the master reads, so that all ranks have the same rows in the same order
    training = group.on_master(load_set, cfg.dataset, "train", cfg, tokenizer)
    if len(training.problems) < cfg.prompts_per_step:
        raise UsageError(f"dataset={cfg.dataset} has {len(training.problems)} usable problems, "
                         f"fewer than prompts_per_step={cfg.prompts_per_step}: lower it")
    eval_sets = load_eval_sets(cfg, tokenizer, group)
    sets = [training, *eval_sets.values()]
    graders = make_graders(cfg, [data.reward for data in sets])
    for data in sets:
        first = data.problems[0]
        graders[data.reward].canary(first.answer, first.prompt)
    return training, eval_sets, graders


def make_controllers(cfg):
    """The classifier, the memory of scores, and the adversaries that are on, by name."""
    # numpy on every rank, fed the same numbers: nothing of them is ever sent
    made = {"classifier": DifficultyClassifier(cfg.n_bins, cfg.bin_passk, cfg.history,
                                               cfg.hysteresis, cfg.difficulty, cfg.unseen),
            "score_memory": ScoreMemory(cfg.group_memory)}
    if cfg.prompt_gdro:
        made["prompt_gdro"] = PromptGDRO(
            cfg.n_bins, cfg.prompt_eta, cfg.gamma, cfg.prompt_ema, cfg.prompt_weight_max,
            cfg.prompt_normalize, cfg.prompt_per_share)
    if cfg.rollout_gdro:
        made["rollout_gdro"] = RolloutGDRO(
            cfg.n_bins, cfg.n_rollouts, cfg.n_min, cfg.n_max, cfg.rollout_rule,
            cfg.rollout_utility, cfg.arm_eta, cfg.gamma, cfg.arm_ema)
    return made


def fingerprints(cfg, training, eval_sets, policy):
    """What besides the knobs decides the result: of a resumed run it must be the same."""
    # contents and not names: a file may have changed since the run began
    found = {"reward function": source_fingerprint(cfg.reward),
             "training set": fingerprint(training.problems)}
    if cfg.lora_rank:  # a checkpoint has the adapters alone
        found["base model"] = policy.fingerprint
    for name, data in eval_sets.items():
        found[f"evaluation set {SECRET.sub('***', name)}"] = fingerprint(data.problems)
    return found


def main(argv=None):
    cfg = configure(Config, sys.argv[1:] if argv is None else argv, __doc__)
    stop = Stop()
    try:
        with Group(cfg) as group, Tracker(cfg, group) as tracker:
            # grading processes end first, also when this process is about to end at once
            try:
                records, best = train(cfg, stop, group, tracker)
            finally:
                close_graders()
            if group.master:
                print_result(cfg, records, best)
    except UsageError as error:
        refuse(error)
    except KeyboardInterrupt as stopped:
        at_once = "stopped at once; --resume=auto continues from the newest checkpoint, if any"
        print(f"\n{stopped or at_once}", file=sys.stderr)
        sys.exit(stop.status)
    finally:
        stop.restore()


if __name__ == "__main__":
    main()
