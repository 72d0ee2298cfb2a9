"""
The numbers of docs/one_step.md: the last of 25 steps of the demo, for three of its prompts.
$ python bench/one_step.py             # print the page with its tables made anew, in half a minute
$ python bench/one_step.py --write     # write it
"""
import contextlib
import functools
import inspect
import os
import re
import sys
import tempfile

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import gdro
import train

PAGE = os.path.join(ROOT, "docs", "one_step.md")

SHOWN = 12  # rollouts of a prompt in a table


def watch(owner, name, note):
    """Call note(result, arguments by name) after every call of owner.name, which stays as it is."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def noted(*arguments, **keywords):
        result = original(*arguments, **keywords)
        note(result, inspect.signature(original).bind(*arguments, **keywords).arguments)
        return result

    setattr(owner, name, noted)


def watch_step(step):
    """Note in the dict `step` what functions of train.py and gdro.py are given and return. The
    first note of a step forgets the step before."""
    def allocated(counts, given):
        rates = given["self"].rates(given["bins"], given["success_rate"])
        step.clear()
        step.update(counts=counts, bins=given["bins"], rates=rates, rollout_gdro=given["self"],
                    losses=[])

    def lost(_, given):
        step["cfg"] = given.pop("cfg")
        step["losses"].append({name: tensor.detach().numpy() for name, tensor in given.items()})

    watch(gdro.RolloutGDRO, "allocate", allocated)
    watch(gdro.PromptGDRO, "weights", lambda weights, given: step.update(
        weights=weights, score=given["self"].score.copy()))
    watch(train, "grade", lambda _, given: step.update(given))
    watch(gdro.ScoreMemory, "join", lambda joined, _: step.update(joined=joined))
    watch(train, "group_advantages", lambda advantages, _: step.update(advantages=advantages))
    watch(train, "grpo_loss", lost)
    watch(gdro.DifficultyClassifier, "observe", lambda _, given: step.update(
        bins_after=given["self"].bins(given["uids"]),
        rate_after=given["self"].success_rate(given["uids"])))
    watch(gdro.PromptGDRO, "update", lambda _, given: step.update(
        score_after=given["self"].score.copy()))


def choose(step, right):
    """-> {"easy": ..., "fair": ..., "hopeless": ...}, indices of three prompts of the step."""
    counts, rates = step["counts"], step["rates"]
    mixed = (right > 0) & (right < counts)
    mixed[: len(counts) // 2] = False  # of the second update, where ratios have moved
    return {"easy": np.argmax(np.where(right == counts, rates, -1)),
            "fair": np.argmax(np.where(mixed, counts, -1)),
            "hopeless": np.argmin(np.where(right == 0, rates, 2))}


def table(*rows):
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def loss_of(rollout, step):
    """A table with the terms of the loss, a row a token. The tokens of the rollout are found among
    all by their log-probabilities: `old`, the trainer's, are the engine's but for rounding."""
    engine = np.array(rollout.engine_logprobs)
    t = next({name: values[start : start + len(engine)] for name, values in given.items()}
             for given in step["losses"] for start in range(len(given["old"]) - len(engine) + 1)
             if np.abs(given["old"][start : start + len(engine)] - engine).max() < 1e-4)
    cfg = step["cfg"]
    ratio = np.exp(t["logp"] - t["old"])
    clipped = np.clip(ratio, 1 - cfg.clip_low, 1 + cfg.clip_high)
    surrogate = np.minimum(ratio * t["advantage"], clipped * t["advantage"])
    kl = np.exp(t["ref"] - t["logp"]) - (t["ref"] - t["logp"]) - 1
    loss = -t["weight"] * (t["prompt_weight"] * surrogate - cfg.kl_coef * kl)
    tokens = [f"`{character}`" for character in rollout.text] + ["stop"] * rollout.finished
    return table(("token", "log pi_old", "ratio", "min term", "w", "KL", "c", "loss"), *[
        (token, f"{t['old'][i]:.3f}", f"{ratio[i]:.3f}", f"{surrogate[i]:+.3f}",
         f"{t['prompt_weight'][i]:.3f}", f"{kl[i]:.3f}", f"{t['weight'][i]:.6f}",
         f"{loss[i]:+.6f}") for i, token in enumerate(tokens)],
        ("sum", *[""] * 6, f"{loss.sum():+.6f}"))


def tables(step):
    """name -> markdown of every table of the page."""
    counts, rates, bins, problems = (step[k] for k in ("counts", "rates", "bins", "problems"))
    prompt_id = np.array([r.prompt_id for r in step["rollouts"]])
    right = np.bincount(prompt_id, [r.verdict == "right" for r in step["rollouts"]], len(counts))
    chosen = choose(step, right)
    made = {"prompts": table(("", "prompt", "right response", "bin", "p of the bin"), *[
        (name, f"`{problems[i].prompt}`", f"`{problems[i].answer}`", bins[i], f"{rates[i]:.3f}")
        for name, i in chosen.items()])}

    def gain(i, n):
        given = ", given" if n < counts[i] else ""
        return f"{step['rollout_gdro'].gain(rates[i], n):.4f}{given}"

    most = max(counts[i] for i in chosen.values())
    made["gains"] = table(("rollout", *chosen), *[
        (n + 1, *[gain(i, n) for i in chosen.values()]) for n in range(most + 1)])
    ids, scores = step["joined"]
    group = {name: scores[ids == i] for name, i in chosen.items()}  # earlier scores come last
    made["group"] = table(("", "right now", "right before", "mean", "deviation"), *[
        (name, f"{right[i]:.0f} of {counts[i]}",
         f"{group[name][counts[i]:].sum():.0f} of {len(group[name]) - counts[i]}",
         f"{group[name].mean():.3f}", f"{group[name].std():.3f}") for name, i in chosen.items()])
    for name, i in chosen.items():
        rows = [(f"`{r.text}`", f"{r.score:.0f}", f"{advantage:+.3f}", f"{step['weights'][i]:.3f}")
                for r, advantage in zip(step["rollouts"], step["advantages"], strict=False)
                if r.prompt_id == i]
        more = [(f"and {len(rows) - SHOWN} more", "", "", "")] if len(rows) > SHOWN else []
        made[name] = table(("response", "score", "advantage A", "weight w"), *rows[:SHOWN], *more)
    for verdict in ("right", "wrong"):
        made[verdict] = loss_of(next(r for r in step["rollouts"] if r.verdict == verdict
                                     and r.prompt_id == chosen["fair"]), step)
    score = [f"{s:.3f}" if np.isfinite(s) else "none" for s in step["score"]]
    rate = step["rate_after"]
    head = ("", "rate", "- log rate", "bin", "bin after", "S(bin)", "S(bin) after")
    made["after"] = table(head, *[
        (name, f"{rate[i]:.3f}", f"{-np.log(rate[i]):.3f}", bins[i], step["bins_after"][i],
         score[bins[i]], f"{step['score_after'][bins[i]]:.3f}") for name, i in chosen.items()])
    return made


def filled(table, found):
    """A place of the page with its table in it."""
    return f"{found[1]}{table}\n{found[2]}"


def main():
    step = {}
    watch_step(step)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        train.main([os.path.join(ROOT, "config", "arith_gdro.py"), "--steps=25", "--device=cpu",
                    "--eval_sets=", "--save_every=1000", f"--out_dir={folder}/run"])
    with open(PAGE) as file:
        page = file.read()
    for name, made in tables(step).items():
        between = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.S)
        assert between.search(page), f"{PAGE} has no place for the table {name!r}"
        page = between.sub(functools.partial(filled, made), page)
    if "--write" in sys.argv[1:]:
        with open(PAGE, "w") as file:
            file.write(page)
    else:
        print(page, end="")


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
