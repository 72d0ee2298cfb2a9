"""
$ python train.py config/arith_gdro.py                                     # both adversaries, half a minute on one CPU core
$ python train.py config/arith_grpo.py --out_dir=out/faster --lr=2e-4      # a config file, then changes to it
$ python train.py config/arith_gdro.py --resume=auto                       # continue where it stopped
$ torchrun --nproc_per_node=2 train.py config/arith_gdro.py                # over ranks: GPUs, or CPU processes
$ python train.py --help                                                   # every knob
"""
# GRPO, and: (1) prompts carry an online difficulty bin; (2) Prompt-GDRO multiplies the advantages by a weight of the bin;
# (3) Rollout-GDRO moves rollouts between prompts by their bins, with the mean fixed. With both off this is plain GRPO, to the bit.
#
# Shapes: P prompts a step, N = P * n_rollouts sequences, T response tokens of a micro-batch (flat, no padding), B bins.
import dataclasses
import sys
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

import eval as evaluation
import gdro
from batch import plan_updates
from checkpoint import RunFolder
from configurator import UsageError, check_knobs, configure, refuse
from data import fingerprint, load_set, reasons
from eval import evaluate, load_eval_sets, make_engine, make_graders, table
from gates import check_agreement, check_mismatch, check_rollouts, give_up_after, untruncated
from gdro import DifficultyClassifier, PromptGDRO, RolloutGDRO, bin_means, prompt_signals
from model import full, load_policy, memory_gib, save_hf
from ranks import Group
from reward import VERDICTS, close_graders, grade, source_fingerprint
from rollout import Sampling, generate_share, seed_of
from runlog import SECRET, Clock, Stop, Tracker, peak_mib, shown, used_mib

CHOICES = evaluation.CHOICES | {"loss_agg": ("prompt", "token"), "difficulty": gdro.DIFFICULTIES, "prompt_signal": gdro.SIGNALS, "arm_signal": gdro.SIGNALS,
                          "rollout_rule": gdro.RULES, "rollout_utility": gdro.UTILITIES, "logger": ("none", "wandb", "tensorboard"),
                          "unseen": gdro.UNSEEN, "preset": ("", "paper", "reference")}
AT_LEAST = evaluation.AT_LEAST | dict.fromkeys("steps eval_every save_every samples_every prompts_per_step updates_per_step n_min prompt_weight_max".split(), 1)
AT_LEAST |= {"n_rollouts": 2, "tis_cap": 0, "keep_checkpoints": 0}  # a group of one has no advantage
WITHIN = evaluation.WITHIN | dict.fromkeys("prompt_gamma prompt_ema arm_gamma arm_ema hysteresis clip_low weight_decay".split(), (0, 1))
WITHIN |= dict.fromkeys("prompt_eta arm_eta dual_lr clip_high kl_coef".split(), (0, 100)) | dict.fromkeys("lr temperature adv_clip grad_clip".split(), (1e-12, 1e6))
WITHIN |= dict.fromkeys("n_bins history n_max".split(), (1, 1000))
# What `preset` sets, before config files and the command line. paper: as printed; reference: as the authors' launch scripts run.
PAPER = {"difficulty": "any", "unseen": "hardest", "history": 50, "prompt_signal": "surrogate", "prompt_eta": 0.65, "prompt_ema": 0.12, "prompt_normalize": False, "prompt_per_share": True,
         "rollout_rule": "exp3p", "n_min": 2, "n_max": 12, "loss_agg": "prompt", "tis_cap": 0.0}
PRESETS = {"paper": PAPER, "reference": PAPER | {"history": 100, "prompt_normalize": True, "loss_agg": "token"}}


@dataclass
class Config:
    presets = PRESETS
    # run
    preset: str = ""  # paper: its settings as printed | reference: as its authors' scripts run | empty: the defaults below; other knobs may follow
    out_dir: str = "out/arith_grpo"  # the run folder; refuses a folder that holds another run
    resume: str = ""  # auto: newest checkpoint in out_dir, or a fresh start if there is none; or the path of a checkpoint
    seed: int = 0  # every sample, permutation and bootstrap is a function of it
    steps: int = 100  # rounds of the eight-part loop in the whole run, resumed ones included
    eval_every: int = 25  # steps; also before the first and after the last
    save_every: int = 25  # steps between checkpoints; also after the last
    keep_checkpoints: int = 2  # the newest so many stay; 0 keeps all. The model of the best evaluation stays in best/ in any case
    samples_every: int = 10  # steps between two full samples written to samples.jsonl
    logger: str = "none"  # none | wandb | tensorboard, beside metrics.jsonl
    device: str = "auto"  # auto: cuda if there is one; or cpu, cuda
    dtype: str = "auto"  # of computation: auto: bfloat16 on GPUs, float32 on CPUs; weights trained and optimizer stay float32
    collective_timeout: int = 1800  # seconds that ranks wait for each other; longer than the slowest generation
    cpu_threads: int = 1  # PyTorch's threads on a CPU; small models are fastest with 1, and results depend on it in the last digits
    # data and evaluation
    dataset: str = "arith"  # a name (arith, dapo, gsm8k, ...), owner/name of the hub, or a .jsonl, .parquet or .csv file; see data.py
    eval_sets: str = "arith"  # comma-separated, like dataset; empty for none
    data_dir: str = "problems"  # where named sets are looked for before the hub, as math500.jsonl or .parquet or .csv
    template: str = "auto"  # prompt: bare | boxed: with an instruction | chat: boxed, in the model's chat format | a text with {question}; auto: bare for embedded worlds and loaders of yours, else boxed
    reward: str = "auto"  # exact | math | path.py:function; auto: exact for embedded worlds and loaders of yours, else math
    grade_workers: int = 2  # grading processes a rank, except for exact
    grade_timeout: float = 5.0  # seconds an answer may take to grade
    prompts_per_step: int = 64  # P; a multiple of updates_per_step
    max_prompt_len: int = 16  # tokens; longer prompts are left out and counted
    max_response_len: int = 12  # tokens; longer responses are cut
    eval_samples: int = 8  # responses a question; mean@n
    eval_temperature: float = 1.0  # 0 is greedy
    eval_top_p: float = 1.0  # evaluation only
    eval_top_k: int = 0  # evaluation only; 0 is off
    # model and rollouts
    model: str = "worlds/arith"  # folder of Hugging Face files or a hub id; also the frozen reference of the KL term
    engine: str = "auto"  # auto: vllm on GPUs, torch on CPUs | vllm | torch: plain PyTorch sampling
    kv_cache_gib: float = 4.0  # vllm: GiB of key-value cache a rank
    eager: bool = False  # vllm: no CUDA graphs: starts sooner, samples slower
    activation_checkpointing: bool = False  # recompute the layers' activations in the backward pass: less memory, a third more compute
    n_rollouts: int = 4  # mean rollouts a prompt; every step generates exactly P times this
    temperature: float = 1.0  # of training samples; never truncated, or the importance ratio would be wrong
    max_num_seqs: int = 256  # sequences decoded at once
    float32_head: bool = False  # logits in float32 where dtype is bfloat16, with vllm there too: a smaller mismatch, a slower head
    # GRPO
    lr: float = 5e-5  # AdamW, constant
    weight_decay: float = 0.0  # AdamW
    updates_per_step: int = 2  # optimizer steps a step, each on its own part of the prompts
    kl_coef: float = 0.001  # beta of the KL penalty to the base model, k3 estimator; 0 loads no reference
    clip_low: float = 0.2  # the ratio counts down to 1 - clip_low
    clip_high: float = 0.28  # and up to 1 + clip_high
    adv_clip: float = 5.0  # advantages are clipped to +- this
    grad_clip: float = 1.0  # global gradient norm
    loss_agg: str = "token"  # prompt: every prompt counts alike (Eq 7) | token: every token does, so more rollouts weigh more
    tis_cap: float = 2.0  # cap of the importance weight trainer / engine per token; 0 turns it off
    tokens_per_micro_batch: int = 8192  # padding included; lower it when memory runs out
    # difficulty classifier
    n_bins: int = 10  # equal bins of estimated pass@k; 0 is the hardest
    passk: int = 8  # k of pass@k, here and in evaluation
    history: int = 8  # visits of a prompt that count; shorter follows a fast learner
    hysteresis: float = 0.03  # a prompt changes bin only beyond the edge by this much
    unseen: str = "neutral"  # prompts never visited: neutral: weight 1, n_rollouts | hardest: bin 0
    difficulty: str = "posterior"  # posterior: expected pass@k | any: the paper's any-of-n, which depends on n
    # Prompt-GDRO: weights
    prompt_gdro: bool = False  # on or off
    prompt_signal: str = "error"  # error | variance | nll | surrogate (the paper's, 0 on policy)
    prompt_eta: float = 3.0  # how sharply weights follow scores
    prompt_gamma: float = 0.01  # share of the uniform distribution mixed in
    prompt_ema: float = 0.4  # how fast a bin's score follows its signal
    prompt_weight_max: float = 15.0  # cap of a weight
    prompt_normalize: bool = True  # weights have mean 1 before the cap; false: Eq 16 as printed
    prompt_per_share: bool = False  # divide a bin's signal by the bin's share of the step
    # Rollout-GDRO: rollouts
    rollout_gdro: bool = False  # on or off
    rollout_rule: str = "price"  # price: water-filling by marginal utility | exp3p: the paper's bandits and dynamic programme
    rollout_utility: str = "pass"  # of price: pass | mixed | variance (the square-root law)
    n_min: int = 1  # fewest rollouts of a prompt
    n_max: int = 24  # most
    arm_signal: str = "surrogate"  # of exp3p: what a bin's arms are charged; see prompt_signal
    arm_eta: float = 0.65  # of exp3p: how sharply arm probabilities follow losses
    arm_gamma: float = 0.01  # of exp3p: share of the uniform distribution mixed in
    arm_ema: float = 0.4  # of exp3p: how fast an arm's loss follows what it is charged
    dual_lr: float = 0.05  # of exp3p: step of the shadow price (Eq 21); without effect while every budget is met exactly, as here

    def __post_init__(self):
        check_knobs(self, CHOICES, AT_LEAST, WITHIN)
        if self.prompts_per_step % self.updates_per_step:
            raise UsageError(f"prompts_per_step={self.prompts_per_step} must be a multiple of updates_per_step={self.updates_per_step}")
        if self.rollout_gdro and not self.n_min <= self.n_rollouts <= self.n_max:
            raise UsageError(f"n_rollouts={self.n_rollouts} must lie between n_min={self.n_min} and n_max={self.n_max}: change one of the three")
        if self.max_prompt_len + self.max_response_len > self.tokens_per_micro_batch:
            raise UsageError(f"tokens_per_micro_batch={self.tokens_per_micro_batch} must hold one sequence: at least max_prompt_len + max_response_len = "
                             f"{self.max_prompt_len + self.max_response_len}")
        if self.rollout_gdro and self.rollout_rule == "exp3p" and self.arm_signal == "variance" and self.n_min == 1:
            raise UsageError("arm_signal=variance needs n_min of at least 2: one rollout says nothing about variance, so its arm would never be charged")
        if self.rollout_gdro and self.rollout_rule == "price" and self.unseen == "hardest":
            raise UsageError("unseen=hardest has no success rate to give rollouts by: --unseen=neutral, or --rollout_rule=exp3p")
        if self.passk > self.eval_samples:
            raise UsageError(f"passk={self.passk} cannot be estimated from eval_samples={self.eval_samples}: lower one or raise the other")


def group_advantages(prompt_ids, rewards, clip):
    """Rewards [N] normalised inside each rollout group, population std, clipped (Eq 3) -> [N]. A group of one, or of equals, gets 0."""
    rewards = np.asarray(rewards, float)
    _, group, count = np.unique(prompt_ids, return_inverse=True, return_counts=True)
    centred = rewards - (np.bincount(group, rewards) / count)[group]
    std = np.sqrt(np.bincount(group, centred**2) / count)[group]
    return np.clip(centred / (std + 1e-6), -clip, clip)


def grpo_loss(logp, old, ref, advantage, prompt_weight, weight, cfg):
    """Clipped surrogate with KL penalty (Eqs 4-6, 16), a sum over response tokens; all inputs [T].

    old, ref: log-probabilities before the first update and under the base model. prompt_weight: the adversary's, on the advantage and
    not on the KL term. weight: what the token counts for in the mean over the *global* batch. -> loss, and per-token detached values."""
    ratio = (logp - old).exp()                                                                # [T] 1 at the first update
    clipped = ratio.clamp(1 - cfg.clip_low, 1 + cfg.clip_high)                                # [T]
    surrogate = torch.minimum(ratio * advantage, clipped * advantage)                         # [T] Eq 5
    kl = (ref - logp).exp() - (ref - logp) - 1                                                # [T] k3, at least 0
    loss = -(weight * (prompt_weight * surrogate - cfg.kl_coef * kl)).sum()                   # []  Eqs 6, 7, 16
    stats = {"token_loss": cfg.kl_coef * kl - surrogate, "kl": kl, "clipfrac": (clipped * advantage < ratio * advantage).float(), "approx_kl": old - logp}
    return loss, {name: value.detach() for name, value in stats.items()}


def token_weights(prompt_ids, lengths, cfg):
    """What one response token of each rollout counts for in its update's loss -> [N]. Within an update they sum to 1 over all tokens.
    prompt: 1 / (prompts * rollouts of the prompt * tokens of the response), Eq 7. token: 1 / tokens."""
    part = cfg.prompts_per_step // cfg.updates_per_step
    if cfg.loss_agg == "token":
        return 1 / np.bincount(prompt_ids // part, lengths)[prompt_ids // part]
    return 1 / (part * np.bincount(prompt_ids)[prompt_ids] * lengths)


def prompts_of_step(seed, step, per_step, total):
    """Indices of the step's prompts: a fresh permutation of all `total` every epoch, read on across its end -> int array [P]."""
    position = step * per_step + np.arange(per_step)
    orders = {epoch: np.random.default_rng([seed, int(epoch)]).permutation(total) for epoch in set(position // total)}
    return np.array([orders[p // total][p % total] for p in position])


def print_start(cfg, training, eval_sets, policy, group):
    if not group.master:
        return
    changed = {f.name: shown(cfg)[f.name] for f in dataclasses.fields(cfg) if getattr(cfg, f.name) != f.default}
    print(f"knobs that differ from their defaults (all are in {cfg.out_dir}/config.json): " + ", ".join(f"{k}={v!r}" for k, v in changed.items()))
    if cfg.preset:
        print(f"preset {cfg.preset}: " + ", ".join(f"{k}={v!r}" + (f" (here {getattr(cfg, k)!r})" if getattr(cfg, k) != v else "") for k, v in PRESETS[cfg.preset].items()))
    size = sum(p.numel() for p in policy.parameters())
    print(f"model: {size:,} parameters over {group.world} {group.device} rank{'s' * (group.world > 1)}")
    if group.device == "cuda" or size > 1e8:
        needs = ", ".join(f"{gpus} GPU{'s' * (gpus > 1)} a host {generate:.0f} / {update:.0f} GiB" for gpus in sorted({1, 8, group.shards})
                          for generate, update in [memory_gib(size, policy.hf.config.get_text_config(), cfg, gpus)])
        print(f"memory a GPU, estimated, generate / update: {needs} (of 80 GB: 74 GiB)")
    for use, name, data in (("training", cfg.dataset, training), *(("evaluation", name, data) for name, data in eval_sets.items())):
        print(f"{use}: {len(data.problems):,} problems of {name}, graded by {data.reward}" + (f" (left out: {reasons(data.left_out)})" if data.left_out else ""))
    print(f"first prompt: {training.problems[0].prompt!r}")
    P, n, u = cfg.prompts_per_step, cfg.n_rollouts, cfg.updates_per_step
    spread = f"{cfg.n_min} to {cfg.n_max} each, " if cfg.rollout_gdro else ""
    print(f"step: {P} prompts x {n} rollouts ({spread}mean exact) = {P * n} sequences = {u} updates of {P // u} prompts, over {group.world} rank{'s' * (group.world > 1)}; "
          f"{cfg.steps} steps = {cfg.steps * P / len(training.problems):.1f} epochs = {cfg.steps * P * n:,} rollouts")
    if (cfg.prompt_gdro or cfg.rollout_gdro) and cfg.steps * P <= len(training.problems) and cfg.unseen == "neutral":
        print("note: this is less than an epoch, so no prompt comes twice, none ever has a bin, and the adversaries do nothing: more steps or fewer problems")


def train(cfg, stop, group):
    """Run the whole experiment -> the run folder's evaluation records, and which was the best. UsageError: the config or an input is wrong and says how."""
    policy, tokenizer = load_policy(cfg.model, group, cfg.temperature, True, cfg.activation_checkpointing, cfg.float32_head)
    training = group.on_master(lambda: load_set(cfg.dataset, "train", cfg, tokenizer))
    problems, prompt_ids = training.problems, training.prompt_ids
    if len(problems) < cfg.prompts_per_step:
        raise UsageError(f"dataset={cfg.dataset} has {len(problems)} usable problems, fewer than prompts_per_step={cfg.prompts_per_step}: lower it")
    eval_sets = load_eval_sets(cfg, tokenizer, group)
    graders = make_graders(cfg, [data.reward for data in (training, *eval_sets.values())])
    for data in (training, *eval_sets.values()):
        graders[data.reward].canary(data.problems[0].answer)
    grader = graders[training.reward]
    reference = load_policy(cfg.model, group, cfg.temperature, trainable=False, float32_head=cfg.float32_head)[0] if cfg.kl_coef else None
    engine = make_engine(cfg, group)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay, fused=group.device == "cuda")
    classifier = DifficultyClassifier(cfg.n_bins, cfg.passk, cfg.history, cfg.hysteresis, cfg.difficulty, cfg.unseen)
    parts = {"classifier": classifier}  # all loop state but the weights: saved and restored together
    if cfg.prompt_gdro:
        prompt_adversary = parts["prompt_gdro"] = PromptGDRO(cfg.n_bins, cfg.prompt_eta, cfg.prompt_gamma, cfg.prompt_ema, cfg.prompt_weight_max,
                                                             cfg.prompt_normalize, cfg.prompt_per_share)
    if cfg.rollout_gdro:
        rollout_adversary = parts["rollout_gdro"] = RolloutGDRO(cfg.n_bins, cfg.n_rollouts, cfg.n_min, cfg.n_max, cfg.rollout_rule, cfg.rollout_utility,
                                                                cfg.arm_eta, cfg.arm_gamma, cfg.arm_ema, cfg.dual_lr)
    tracker, run = Tracker(cfg, group), RunFolder(cfg, group, {"reward function": source_fingerprint(cfg.reward), "training set": fingerprint(training.problems)} |
                                                {f"evaluation set {SECRET.sub('***', name)}": fingerprint(data.problems) for name, data in eval_sets.items()})
    start = run.load(policy, optimizer, parts) if run.checkpoint else 0
    run.begin(start, cfg.steps)
    tracker.start()
    print_start(cfg, training, eval_sets, policy, group)
    if run.checkpoint and group.master:
        print(f"resumed from {run.checkpoint}: {start} steps done")

    def evaluate_now(step):
        engine.sync(policy.named_tensors())
        results = evaluate(cfg, engine, graders, eval_sets, group)
        for name, result in results.items():
            run.append("eval.jsonl", {"step": step, "set": name} | result)
            scores = {key: value for key, value in result.items() if key.startswith(("mean@", "pass@", "worst_group/")) and np.ndim(value) == 0}
            tracker.log(step, {f"eval/{name}/{key}": value for key, value in scores.items()})
            if group.master:
                tqdm.write(f"step {step}: {name}  " + "  ".join(f"{key} {value:.3f}" for key, value in scores.items()))
        engine.sleep()
        score = score_of(results.values())
        if step and results and group.on_master(lambda: score > run.best()["score"]):
            save_hf(policy, tokenizer, run.path("best"), group, {"step": step, "score": score})

    if start in (0, cfg.steps) and eval_sets and not any(r["step"] == start for r in run.read("eval.jsonl")):
        evaluate_now(start)
    if start >= cfg.steps and group.master:
        print(f"nothing to do: {cfg.out_dir} has its {cfg.steps} steps; raise --steps to go on, or delete the folder to start afresh")
    P, hopeless, broken = cfg.prompts_per_step, 0, 0
    stop.listen()
    bar = tqdm(range(start, cfg.steps), initial=start, total=cfg.steps, unit="step", dynamic_ncols=True, disable=not group.master)
    for step in bar:
        clock = Clock()
        # ---------- 1 sample: the step's prompts, and the bin each is in ----------
        index = prompts_of_step(cfg.seed, step, P, len(problems))
        batch = [problems[i] for i in index]
        uids = [p.uid for p in batch]
        bins, success_rate = classifier.bins(uids), classifier.success_rate(uids)  # [P], fixed for the step
        unseen = np.mean([uid not in classifier.row for uid in uids])

        # ---------- 2 allocate: rollouts of each prompt, P * n_rollouts in all ----------
        counts = rollout_adversary.allocate(bins, success_rate) if cfg.rollout_gdro else np.full(P, cfg.n_rollouts)

        # ---------- 3 generate: with the policy as it is now ----------
        check_agreement(group, step, uids, counts)
        engine.sync(policy.named_tensors())
        clock.lap("sync")
        seeds = [[seed_of(cfg.seed, step, i, j) for j in range(n)] for i, n in enumerate(counts)]
        sampling = untruncated(Sampling(cfg.max_response_len, cfg.temperature))
        rollouts = generate_share(engine, [prompt_ids[i] for i in index], seeds, sampling, group)
        memory = used_mib(group, "generate")
        engine.sleep()
        clock.lap("generate")

        # ---------- 4 grade: every rank its own, as soon as it has them; then all ranks hold all ----------
        grade(grader, rollouts, batch)
        rollouts = group.gather(rollouts)
        check_rollouts(rollouts, cfg.max_response_len, policy.hf.config.get_text_config().vocab_size)
        rewards = np.array([r.reward for r in rollouts])  # [N]
        clock.lap("grade")

        # ---------- 5 advantages: inside each rollout group; the adversary's weight of its bin ----------
        prompt_id = np.array([r.prompt_id for r in rollouts])  # [N]
        lengths = np.array([len(r.response_ids) for r in rollouts])  # [N]
        advantages = group_advantages(prompt_id, rewards, cfg.adv_clip)  # [N]
        weights = prompt_adversary.weights(bins, success_rate) if cfg.prompt_gdro else np.ones(P)  # [P]

        # ---------- 6 update: old log-probabilities, then one optimizer step a part of the prompts ----------
        updates = plan_updates(rollouts, P, cfg.updates_per_step, cfg.tokens_per_micro_batch, group.device, group.rank, group.world)
        micros = [micro for update in updates for micro in update]
        with torch.no_grad():
            for micro in micros:
                micro.ref = reference(micro.input_ids, micro.mask)[0] if reference else None  # [T]
            for micro in micros[len(updates[0]) :]:  # those of the first update come with its own forward pass
                micro.old, micro.entropy = policy(micro.input_ids, micro.mask)  # [T]
        clock.lap("logprobs")
        tokens, per_token = int(lengths.sum()), token_weights(prompt_id, lengths, cfg)  # [N]
        totals, sequence_loss, grad_norms = {"loss": 0.0, "kl": 0.0, "clipfrac": 0.0, "approx_kl": 0.0}, np.zeros(len(rollouts)), []
        for update in updates:
            optimizer.zero_grad()
            for micro in update:
                logp, token_entropy = policy(micro.input_ids, micro.mask)  # [T]
                if update is updates[0]:  # the policy is still the one that sampled: the ratio is exactly 1
                    micro.old, micro.entropy = logp.detach(), token_entropy
                weight = micro.spread(per_token)
                if cfg.tis_cap:
                    weight = weight * (micro.old - micro.engine).exp().clamp(max=cfg.tis_cap)
                ref = logp.detach() if micro.ref is None else micro.ref  # without a reference the KL term is 0
                loss, stats = grpo_loss(logp, micro.old, ref, micro.spread(advantages),
                                        micro.spread(weights[prompt_id]), weight, cfg)
                (loss * group.world).backward()  # FSDP averages over ranks: undone here, the sum stays one over the global count
                sequence_loss[micro.index] += micro.sums(stats.pop("token_loss"))  # without the adversary's weight: it is what the adversary is fed
                totals["loss"] += loss.item()
                for name, value in stats.items():
                    totals[name] += micro.sums(value).sum() / tokens
            if update is updates[0]:
                apart = sum(micro.sums((micro.old - micro.engine).abs()).sum() for micro in micros)
                entropy, mismatch = group.sum([sum(micro.sums(micro.entropy).sum() for micro in micros), apart]) / tokens
                check_mismatch(mismatch)
            grad_norms.append(full(torch.nn.utils.clip_grad_norm_(policy.parameters(), cfg.grad_clip)).item())
            if np.isfinite(grad_norms[-1]):
                optimizer.step()
                broken = 0
            else:  # the same on every rank: the norm is global
                broken += 1
                batch_of_step = [(uids[r.prompt_id], r.text, r.reward, advantages[i], weights[r.prompt_id]) for i, r in enumerate(rollouts)]
                give_up_after(3, broken, step, grad_norms[-1], run, batch_of_step)
        optimizer.zero_grad()  # the engine generates in their place
        memory |= used_mib(group, "update")
        *reduced, asked = group.sum([*totals.values(), *sequence_loss, stop.asked])  # the step's statistics, all at once
        totals, sequence_loss = dict(zip(totals, reduced)), np.array(reduced[len(totals) :])
        clock.lap("update")

        # ---------- 7 feed back: outcomes to the classifier and both adversaries ----------
        correct = np.bincount(prompt_id, [r.verdict == "right" for r in rollouts], minlength=P)  # [P]
        prompt_loss = np.bincount(prompt_id, sequence_loss / lengths, minlength=P) / counts  # [P] Eq 7
        classifier.observe(uids, correct, counts)
        signals = prompt_signals(correct, counts, classifier.success_rate(uids), prompt_loss)
        if cfg.prompt_gdro:
            prompt_adversary.update(bins, signals[cfg.prompt_signal])
        if cfg.rollout_gdro:
            rollout_adversary.update(bins, counts, signals[cfg.arm_signal])

        # ---------- 8 log, evaluate, checkpoint ----------
        clock.lap("feedback")
        by_bin = {"bins/weight": weights, "bins/rollouts": counts, "bins/reward": np.bincount(prompt_id, rewards, minlength=P) / counts}
        by_bin |= {f"bins/signal_{name}": value for name, value in signals.items()}
        metrics = {
            "step": step, "reward/mean": rewards.mean(), "reward/prompt_mean": by_bin["bins/reward"].mean(), "pass_rate": (correct > 0).mean(),
            "rollouts/total": counts.sum(), "rollouts/min": counts.min(), "rollouts/max": counts.max(),
            "loss": totals["loss"] / len(updates), "kl": totals["kl"], "approx_kl": totals["approx_kl"], "clipfrac": totals["clipfrac"],
            "entropy": entropy, "grad_norm": np.mean(grad_norms), "skipped_updates": sum(not np.isfinite(g) for g in grad_norms), "mismatch": mismatch,
            "dead_groups": ((correct == 0) | (correct == counts)).mean(), "shadow_price": rollout_adversary.price if cfg.rollout_gdro else 0.0,
            "response_len": lengths.mean(), "truncated": np.mean([not r.finished for r in rollouts]), "unseen": unseen,
            "bins/share": np.bincount(bins[bins >= 0], minlength=cfg.n_bins) / P,
        }
        metrics |= {f"verdict/{verdict}": np.mean([r.verdict == verdict for r in rollouts]) for verdict in VERDICTS}
        metrics |= {name: bin_means(value, bins, cfg.n_bins) for name, value in by_bin.items()}
        seconds = clock.seconds()
        seconds["time/tokens_per_s"] = tokens / seconds["time/step"]
        run.append("metrics.jsonl", metrics | seconds | memory | {"mem/peak_mib": peak_mib(memory)})
        tracker.log(step, {k: v for k, v in metrics.items() if np.ndim(v) == 0} | seconds)
        if step % cfg.samples_every == 0:
            for i in (0, len(rollouts) - 1):
                r = rollouts[i]
                run.append("samples.jsonl", {"step": step, "uid": uids[r.prompt_id], "prompt": batch[r.prompt_id].prompt, "response": r.text, "answer":
                           batch[r.prompt_id].answer, "reward": r.reward, "verdict": r.verdict, "advantage": advantages[i], "finished": r.finished, "bin": bins[r.prompt_id]})
        hopeless = hopeless + 1 if correct.sum() == 0 else 0
        if hopeless == 5 and group.master:
            tqdm.write("warning: no rollout was right in five steps, so every advantage is 0 and nothing is learned: look at samples.jsonl")
        bar.set_postfix_str(f"reward {metrics['reward/prompt_mean']:+.3f}  pass rate {metrics['pass_rate']:.2f}  rollouts {counts.min()}-{counts.max()}  "
                            f"{seconds['time/tokens_per_s']:,.0f} tokens/s", refresh=False)
        done = step + 1
        if done % cfg.eval_every == 0 or done == cfg.steps:
            evaluate_now(done)
        if done % cfg.save_every == 0 or done == cfg.steps or asked:
            run.save(done, policy, optimizer, parts, cfg.keep_checkpoints)
        if asked and done < cfg.steps:
            bar.close()
            raise KeyboardInterrupt(f"saved after {done} steps; the same command with --resume=auto continues")
    bar.close()
    save_hf(policy, tokenizer, run.path("hf"), group)
    return run.read("eval.jsonl"), run.best()


def score_of(results):
    """What makes an evaluation the best: mean@n, averaged over the sets -> float (NaN without sets)."""
    return float(np.mean([next(value for key, value in r.items() if key.startswith("mean@")) for r in results])) if results else float("nan")


def print_result(cfg, records, best):
    """Before and after, for every evaluation set."""
    for name in dict.fromkeys(r["set"] for r in records):
        of_set = [r for r in records if r["set"] == name]
        first, last = of_set[0], of_set[-1]
        print(f"\n{name}, {last['questions']} questions x {cfg.eval_samples} samples, 95 % intervals over questions")
        print("\n".join(table({f"step {first['step']}": first, f"step {last['step']}": last})))
    if best["step"]:
        print(f"\nbest: {cfg.out_dir}/best, of step {best['step']}", end="")
    print(f"\nmodel: {cfg.out_dir}/hf    log: {cfg.out_dir}/metrics.jsonl    figures: python plot.py {cfg.out_dir}")


def main(argv=None):
    cfg, stop = configure(Config, sys.argv[1:] if argv is None else argv, __doc__), Stop()
    try:
        with Group(cfg) as group:
            try:
                records, best = train(cfg, stop, group)
            finally:
                close_graders()
            if group.master:
                print_result(cfg, records, best)
    except UsageError as error:
        refuse(error)
    except KeyboardInterrupt as stopped:
        print(f"\n{stopped or 'stopped at once; --resume=auto continues from the newest checkpoint, if there is one'}", file=sys.stderr)
        sys.exit(stop.status)
    finally:
        stop.restore()


if __name__ == "__main__":
    main()
