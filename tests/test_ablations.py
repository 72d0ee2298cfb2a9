"""Every diff of ablations/ applies, trains, and is what it says it is: the loss or the advantage of
a small batch against its formula, written out here in loops.

This file imports nothing that a diff changes: each is imported from its own copy, in a process of
its own."""
import glob
import itertools
import json
import math
import os
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from bench import arms

ROOT = arms.ROOT
NAMES = sorted(os.path.basename(path).removesuffix(".diff")
               for path in glob.glob(os.path.join(ROOT, "ablations", "*.diff")))
IDS = [0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 3, 4, 4, 4, 4, 4, 4]
SCORES = [1, 0, 0, 1, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]


def text_of(name):
    with open(arms.diff_of(name)) as file:
        return file.read()


def changed_lines(name):
    return [line for line in text_of(name).splitlines() if re.match(r"[+-](?![+-]{2} )", line)]


# ---------- what each is for; `ran` is what the run of three steps left ----------


def groups():
    """(positions, scores) of every rollout group."""
    for i in sorted(set(IDS)):
        positions = [j for j in range(len(IDS)) if IDS[j] == i]
        yield positions, [SCORES[j] for j in positions]


def advantages_are(train, formula):
    """formula(scores of the group, index in it) -> the advantage."""
    found = train.group_advantages(IDS, SCORES, 5.0)
    for positions, scores in groups():
        for i, position in enumerate(positions):
            assert found[position] == pytest.approx(formula(scores, i), abs=1e-5), (scores, i)


def mean(values):
    return sum(values) / len(values)


def grpo(scores, i):
    std = math.sqrt(mean([(r - mean(scores)) ** 2 for r in scores]))
    return (scores[i] - mean(scores)) / (std + 1e-6)


def config(train, **changes):
    return train.Config(prompts_per_step=5, updates_per_step=1, kl_coef=0.1, **changes)


def loss_is(train, formula, *more):
    """formula(log-ratios of a response, its log-probabilities, its advantage) -> the surrogate of
    each of its tokens. Loss and gradient are compared."""
    import torch

    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([3, 1, 4])
    old = -2 * torch.rand(8, generator=generator) - 0.1
    logp = (old + 0.8 * torch.randn(8, generator=generator)).requires_grad_()
    ref = old + 0.3
    advantage = torch.tensor([1.5, -0.5, -2.0])
    weight = torch.rand(8, generator=generator)
    cfg = config(train)
    loss, _ = train.grpo_loss(logp, old, ref, advantage.repeat_interleave(lengths),
                              torch.full((8,), 1.7), weight, cfg, *[lengths for _ in more])
    loss.backward()
    found, gradient = loss.item(), logp.grad.clone()
    logp.grad = None
    expected, t = 0, 0
    for length, a in zip(lengths.tolist(), advantage, strict=True):
        tokens = range(t, t + length)
        t += length
        surrogate = formula([logp[i] - old[i] for i in tokens], [logp[i] for i in tokens], a)
        for i, term in zip(tokens, surrogate, strict=True):
            kl = (ref[i] - logp[i]).exp() - (ref[i] - logp[i]) - 1
            expected = expected - weight[i] * (1.7 * term - 0.1 * kl)
    expected.backward()
    assert found == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(gradient, logp.grad, rtol=1e-4, atol=1e-6)


def dr_grpo(train, gdro, ran):
    advantages_are(train, lambda scores, i: scores[i] - mean(scores))
    weights = train.token_weights(np.array(IDS), np.arange(1, 18), config(train))
    expected = [1 / (5 * IDS.count(i) * 12) for i in IDS]  # 5 prompts, at most 12 tokens
    np.testing.assert_allclose(weights, expected)


def gspo(train, gdro, ran):
    def surrogate(log_ratios, logp, a):
        s = (sum(log_ratios) / len(log_ratios)).exp()
        return [min(s * a, s.clamp(0.8, 1.28) * a)] * len(logp)

    loss_is(train, surrogate, "lengths")


def cispo(train, gdro, ran):
    loss_is(train, lambda log_ratios, logp, a: [
        min(r.exp().item(), 1.28) * a * x for r, x in zip(log_ratios, logp, strict=True)])


def rloo(train, gdro, ran):
    advantages_are(train, lambda scores, i: 0 if len(scores) == 1 else
                   scores[i] - mean(scores[:i] + scores[i + 1 :]))


def overlong(train, gdro, ran):
    # soft overlong punishment, Eq 13 of DAPO, halved: limit 100, interval 20
    for length, punishment in ((1, 0), (80, 0), (85, 0.25), (90, 0.5), (100, 1)):
        assert train.overlong_penalty(np.array([length]), 100) == punishment / 2
    step = ran["step"]
    expected = step.scores - train.overlong_penalty(step.lengths, 6)
    assert (expected < step.scores).any()
    np.testing.assert_allclose(
        step.advantages, train.group_advantages(step.prompt_id, expected, 5.0))


def short_right(train, gdro, ran):
    lengths = [5, 9, 3, 7, 20, 4, 4, 2, 4, 6, 1, 2, 2, 2, 2, 2, 2]
    verdicts = ["right" if score else "wrong" for score in SCORES]
    step = SimpleNamespace(
        prompt_id=np.array(IDS), lengths=np.array(lengths), scores=np.array(SCORES, float),
        rollouts=[SimpleNamespace(verdict=v) for v in verdicts],
        solved=np.bincount(IDS, SCORES))
    found = train.shortened(step)
    for positions, scores in groups():
        right = [lengths[p] for p, score in zip(positions, scores, strict=True) if score]
        for p, score in zip(positions, scores, strict=True):
            if not score:
                assert found[p] == 0
                continue
            std = math.sqrt(mean([(n - mean(right)) ** 2 for n in right]))
            z = (lengths[p] - mean(right)) / (std + 1e-6)
            assert found[p] == pytest.approx(1 - 0.2 / (1 + math.exp(-z)))


def maxrl(train, gdro, ran):
    advantages_are(train, lambda scores, i: (scores[i] - mean(scores)) / mean(scores)
                   if any(scores) else 0)


def pkpo(train, gdro, ran):
    def marginal(scores, i):
        k = min(len(scores), 4)
        others = scores[:i] + scores[i + 1 :]
        rests = list(itertools.combinations(others, k - 1))
        return k * mean([max([scores[i], *rest]) - max(rest, default=0) for rest in rests])

    advantages_are(train, marginal)


def f_grpo(train, gdro, ran):
    advantages_are(train, lambda scores, i: grpo(scores, i) * (1 - mean(scores)) ** 0.5)


def entropy_signal(train, gdro, ran):
    assert train.Config().prompt_gdro and train.Config().prompt_signal in gdro.SIGNALS
    step, stats = ran["step"], ran["stats"]
    for i in range(len(step.problems)):
        entropies = [e for e, j in zip(stats["rollout_entropy"], step.prompt_id, strict=True)
                     if i == j]
        assert ran["signal"][i] == pytest.approx(mean(entropies))
    assert ran["signal"].std() > 0


def hora(train, gdro, ran):
    player = gdro.RolloutGDRO(n_mean=5, n_min=1, n_max=16)
    posterior = np.array([[0.5, 8.5], [4.5, 4.5], [1.5, 3.5], [7.5, 0.5], [0.5, 0.5]])
    counts = [1] * 4
    for _ in range(4 * 4):  # one at a time, to whom it is likeliest to be the first right one
        gains = []
        for (a, b), n in zip(posterior, counts, strict=False):
            wrong = math.prod((b + j) / (a + b + j) for j in range(n))
            gains.append(wrong * a / (a + b + n) * (n < 16))
        counts[gains.index(max(gains))] += 1
    found = player.allocate(np.array([0, 5, 2, 9, -1]), posterior)
    assert found.tolist() == [*counts, 5]  # a prompt without a bin gets the mean
    assert len(set(ran["step"].counts)) > 1, "nothing moved in the run"


def masked_is(train, gdro, ran):
    import torch

    from batch import MicroBatch
    from rollout import Rollout

    distances = [[0.1, 0.2], [0.5, 0.3], [-0.4, -0.4, 0.05], [-0.2, 0.3], [-0.3, -0.2, -0.1]]
    rollouts = [Rollout(0, i, [1], [2] * len(d), [-1.0] * len(d), True, "")
                for i, d in enumerate(distances)]
    micro = MicroBatch(range(5), rollouts, "cpu")
    micro.old = torch.tensor([-1 + x for d in distances for x in d])
    expected = []
    for d in distances:
        ratio = math.exp(sum(d))
        expected += [ratio if 0.5 <= ratio <= 2 else 0.0] * len(d)
    np.testing.assert_allclose(train.engine_weights(micro, config(train)), expected, rtol=1e-5)
    assert expected.count(0.0) == 5


CHECKS = {"dr_grpo": dr_grpo, "gspo": gspo, "cispo": cispo, "rloo": rloo, "overlong": overlong,
          "short_right": short_right, "maxrl": maxrl, "pkpo": pkpo, "f_grpo": f_grpo,
          "entropy_signal": entropy_signal, "hora": hora, "masked_is": masked_is}


# ---------- in a process of its own ----------


def train_and_check(name, checkout, folder):
    """Three steps of the embedded world, 32 problems that every step visits, then its check."""
    sys.path.insert(0, checkout)
    os.chdir(checkout)
    sys.stdout = sys.stderr = open(os.path.join(folder, "log"), "w")  # noqa: SIM115 - until the end
    import gdro
    import train
    from worlds.problems import arith

    assert train.__file__.startswith(checkout)
    with open(os.path.join(folder, "set.jsonl"), "w") as file:
        for problem in arith("train")[:32]:
            file.write(json.dumps({"prompt": problem.prompt, "answer": problem.answer}) + "\n")
    ran = {}
    update_policy, update = train.update_policy, gdro.PromptGDRO.update

    def watch_update(policy, optimizer, updates, step, *rest):
        ran["step"], ran["stats"] = step, update_policy(policy, optimizer, updates, step, *rest)
        return ran["stats"]

    def watch_signal(self, bins, signal):
        ran["signal"] = signal
        return update(self, bins, signal)

    train.update_policy, gdro.PromptGDRO.update = watch_update, watch_signal
    # responses of arith are five or six tokens with the stop token
    train.main([f"--dataset={folder}/set.jsonl", "--eval_sets=", "--template=bare",
                "--reward=exact", "--prompts_per_step=32", "--steps=3", "--device=cpu",
                "--max_response_len=6", "--lr=1e-3", f"--out_dir={folder}/run"])
    with open(os.path.join(folder, "run", "metrics.jsonl")) as file:
        metrics = [json.loads(line) for line in file]
    assert len(metrics) == 3
    for m in metrics:
        assert math.isfinite(m["loss"]) and m["grad_norm"] > 0 and m["skipped_updates"] == 0
        assert m["rollouts/total"] == 32 * 4
    CHECKS[name](train, gdro, ran)
    return [m["loss"] for m in metrics]


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(1, arms.clean_process(), max_tasks_per_child=1) as pool:
        yield pool


@pytest.mark.parametrize("name", NAMES)
def test_it_applies_trains_and_is_what_it_says(name, pool, tmp_path):
    checkout = arms.ablated(name, str(tmp_path / "checkout"))
    assert len(pool.submit(train_and_check, name, checkout, str(tmp_path)).result()) == 3


# ---------- the folder ----------


@pytest.mark.parametrize("name", NAMES)
def test_a_diff_is_small_applies_and_says_what_it_is(name, tmp_path):
    what, paper, expect = text_of(name).splitlines()[:3]
    assert what.startswith("What: ") and paper.startswith("Paper: ")
    assert expect.startswith("Expect: ")
    assert 0 < len(changed_lines(name)) <= 15
    assert 1 <= len(re.findall(r"^diff --git ", text_of(name), re.M)) <= 2
    checkout = arms.ablated(name, str(tmp_path / "checkout"))
    lint = [sys.executable, "-m", "ruff", "check", "--quiet", "--config",
            os.path.join(ROOT, "pyproject.toml"), *glob.glob(os.path.join(checkout, "*.py")),
            *glob.glob(os.path.join(checkout, "engines", "*.py"))]
    done = subprocess.run(lint, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def row_of(name):
    """Its row in the table of docs/ablations.md."""
    what, paper, _ = (line.split(": ", 1)[1] for line in text_of(name).splitlines()[:3])
    files = re.findall(r"^diff --git a/(\S+)", text_of(name), re.M)
    return f"| `{name}` | {what} | {len(changed_lines(name))} | {', '.join(files)} | {paper} |"


def test_the_page_lists_every_diff():
    with open(os.path.join(ROOT, "docs", "ablations.md")) as file:
        rows = [line for line in file.read().splitlines() if line.startswith("| `")]
    assert rows == [row_of(name) for name in NAMES]


@pytest.mark.slow
def test_the_commands_of_the_page_lead_from_an_idea_to_a_curve(tmp_path):
    """In a clone of this checkout, as they are; but where all of the runs would take minutes, they
    are fewer and short."""
    checkout = tmp_path / "checkout"
    subprocess.run(["git", "clone", "-q", ROOT, checkout], check=True)
    with open(os.path.join(ROOT, "docs", "ablations.md")) as file:
        page = file.read()
    combining, idea = (block for block in re.findall(r"```\n(.*?)```", page, re.S)
                       if "git " in block)
    short = "--seeds=2 --steps=2 --eval_every=2 --prompts_per_step=16"
    for command in (combining + idea).strip().splitlines():
        command = command.split(" #")[0]
        done = subprocess.run(
            command.replace("--seeds=5", short), shell=True, cwd=checkout, text=True,
            capture_output=True,
            env=os.environ | {"PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"})
        assert done.returncode == 0, (command, done.stderr)
        if "--seeds=5" in command:
            assert re.search(r"^\| right_only +\| 2 ", done.stdout, re.M), done.stdout
    assert (checkout / "out" / "right_only.png").stat().st_size > 10_000
    clean = ["git", "status", "--porcelain", "--untracked-files=no"]
    assert not subprocess.run(clean, cwd=checkout, capture_output=True).stdout


def test_every_diff_has_a_check_and_the_folder_stays_small():
    assert sorted(CHECKS) == NAMES
    assert sum(text_of(name).count("\n") for name in NAMES) < 400


@pytest.mark.parametrize("name", NAMES)
def test_the_core_without_the_diff_fails_its_check(name):
    import gdro
    import train

    step = SimpleNamespace(counts=[4], scores=np.ones(1), lengths=np.ones(1), problems=[0],
                           prompt_id=[0], advantages=np.ones(1))
    ran = {"step": step, "stats": {"rollout_entropy": [1.0]}, "signal": np.ones(1)}
    with pytest.raises((AssertionError, AttributeError, TypeError, ValueError)):
        CHECKS[name](train, gdro, ran)


def test_a_diff_that_no_longer_applies_is_named(tmp_path, monkeypatch):
    broken = tmp_path / "ablations" / "broken.diff"
    broken.parent.mkdir()
    broken.write_text(text_of("maxrl").replace("np.sqrt(np.bincount", "np.sqrt(np.bincounts"))
    monkeypatch.setattr(arms, "diff_of", lambda name: str(broken))
    with pytest.raises(RuntimeError, match=r"broken\.diff does not apply: error: patch failed"):
        arms.ablated("broken", str(tmp_path / "checkout"))
