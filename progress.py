"""What a run says while it goes: the start, every step, every evaluation, the result."""
import dataclasses

import numpy as np
import torch
from tqdm import tqdm

from budget import BESIDES, GIB, H100, phases, shortage
from data import reasons
from eval import partly_scored, table
from pretrained import size_of
from runlog import peak_mib, without_secrets


def log_evaluation(done, results, run, tracker):
    """Write an evaluation down -> its score, by which the best model is chosen: mean@n, averaged
    over the sets (NaN without sets)."""
    scores = []
    for name, result in results.items():
        run.append("eval.jsonl", {"step": done, "set": name} | result)
        keys = ["mean@", "pass@", "worst_group/"] + ["score"] * partly_scored(result)
        shown = {key: value for key, value in result.items() if np.ndim(value) == 0
                 and key.startswith(tuple(keys))}
        scores.append(next(value for key, value in shown.items() if key.startswith("mean@")))
        tracker.log(done, {f"eval/{name}/{key}": value for key, value in shown.items()})
        if run.group.master:
            numbers = "  ".join(f"{key} {value:.3f}" for key, value in shown.items())
            tqdm.write(f"step {done}: {name}  {numbers}")
    return float(np.mean(scores)) if scores else float("nan")


def chosen(total, samples):
    """Indices of the rollouts to write down: `samples` of the step's `total`, spread evenly from
    the first to the last; or all."""
    count = total if samples == "all" else min(int(samples), total)
    return np.linspace(0, total - 1, count).round().astype(int)


def sample_of(step, i):
    """Rollout `i` of a step, as a record to read."""
    r = step.rollouts[i]
    p = r.prompt_id
    problem = step.problems[p]
    return {"step": step.number, "uid": problem.uid, "prompt": problem.prompt, "response": r.text,
            "answer": problem.answer, "score": r.score, "verdict": r.verdict,
            "advantage": step.advantages[i], "finished": r.finished, "bin": step.bins[p],
            "weight": step.weights[p], "rollouts": step.counts[p]}


def log_step(step, metrics, clock, memory, run, tracker, bar, cfg):
    """Write a step down: metrics, every cfg.samples_every steps cfg.samples rollouts, the bar."""
    seconds = clock.seconds()
    seconds["time/tokens_per_s"] = int(step.lengths.sum()) / seconds["time/step"]
    peak = {"mem/peak_mib": peak_mib(memory)}
    run.append("metrics.jsonl", metrics | seconds | memory | peak)
    scalars = {name: value for name, value in metrics.items()
               if np.ndim(value) == 0 and name != "step"}
    tracker.log(step.number, scalars | seconds)
    if step.number % cfg.samples_every == 0:
        records = [sample_of(step, i) for i in chosen(len(step.rollouts), cfg.samples)]
        run.extend("samples.jsonl", records)
        tracker.table(step.number, records)
    bar.set_postfix_str(f"score {metrics['score/prompt_mean']:.3f}  "
                        f"pass rate {metrics['pass_rate']:.2f}  "
                        f"rollouts {step.counts.min()}-{step.counts.max()}  "
                        f"{seconds['time/tokens_per_s']:,.0f} tokens/s", refresh=False)


def print_start(cfg, training, eval_sets, policy, group, checkpoint, start):
    """What runs, on what, from where, and the arithmetic of a step as an identity."""
    knobs = without_secrets(cfg)
    changed = [f"{f.name}={knobs[f.name]!r}" for f in dataclasses.fields(cfg)
               if getattr(cfg, f.name) != f.default]
    print(f"knobs that differ from their defaults (all are in {cfg.out_dir}/config.json): "
          + ", ".join(changed))
    size = sum(p.numel() for p in policy.parameters())
    learn = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    ranks = f"{group.world} {group.device} rank{'s' * (group.world > 1)}"
    of_them = f", of which {learn:,} learn" if learn < size else ""
    print(f"model: {size:,} parameters{of_them}, over {ranks}")
    sets = [("training", cfg.dataset, training)]
    sets += [("evaluation", name, data) for name, data in eval_sets.items()]
    for use, name, data in sets:
        left_out = f" (left out: {reasons(data.left_out)})" if data.left_out else ""
        print(f"{use}: {len(data.problems):,} problems of {name}, graded by {data.reward}"
              + left_out)
    print(f"first prompt: {training.problems[0].prompt!r}")
    P, n, u = cfg.prompts_per_step, cfg.n_rollouts, cfg.updates_per_step
    between = f"{cfg.n_min} to {cfg.n_max} each, " if cfg.rollout_gdro else ""
    epochs = cfg.steps * P / len(training.problems)
    print(f"step: {P} prompts x {n} rollouts ({between}mean exact) = {P * n} sequences = {u} "
          f"updates of {P // u} prompts, over {ranks}; "
          f"{cfg.steps} steps = {epochs:.1f} epochs = {cfg.steps * P * n:,} rollouts")
    if (cfg.prompt_gdro or cfg.rollout_gdro) and epochs <= 1 and cfg.unseen == "neutral":
        print("note: this is less than an epoch, so no prompt comes twice, none ever has a bin, "
              "and the adversaries do nothing: more steps or fewer problems")
    if checkpoint:
        print(f"resumed from {checkpoint}: {start} steps done")
    if start >= cfg.steps:
        print(f"nothing to do: {cfg.out_dir} has its {cfg.steps} steps; raise --steps to go on, or "
              "delete the folder to start afresh")


def print_memory(cfg, group):
    """What each phase needs on a GPU, before anything is loaded; a warning where there is less."""
    size, shape = size_of(cfg.model)
    card = H100
    if group.device == "cuda":
        card = torch.cuda.mem_get_info()[1] / GIB
    elif size < 1e8:
        return
    for gpus in sorted({1, 8, group.shards}):
        needed = phases(size, shape, cfg, gpus, card)
        listed = ", ".join(f"{phase} {gib:.0f}" for phase, gib in needed.items())
        on = f"with {gpus} GPU{'s' * (gpus > 1)} a host"
        print(f"memory a GPU {on}, estimated, GiB: {listed} (and {BESIDES:g} besides)")
    if group.device == "cuda":
        short = shortage(phases(size, shape, cfg, group.shards, card), cfg, card)
        if short:
            print(short)


def print_result(cfg, records, best):
    """Before and after, for every evaluation set."""
    for name in dict.fromkeys(record["set"] for record in records):
        of_set = [record for record in records if record["set"] == name]
        first, last = of_set[0], of_set[-1]
        print(f"\n{name}, {last['questions']} questions x {cfg.eval_samples} samples, "
              "95 % intervals over questions")
        print("\n".join(table({f"step {r['step']}": r for r in (first, last)})))
    if best["step"]:
        print(f"\nbest: {cfg.out_dir}/best, of step {best['step']}", end="")
    print(f"\nmodel: {cfg.out_dir}/hf    log: {cfg.out_dir}/metrics.jsonl    "
          f"figures: python plot.py {cfg.out_dir}")
