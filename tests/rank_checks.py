"""What several ranks compute, for test_ranks.py to compare with one process. Started by torchrun:
rank_checks.py CHECK OUT.pt"""

import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import numpy as np
import torch

import batch
import eval as evaluation
import train
from batch import plan_updates
from engines.vllm_engine import VLLMEngine
from gates import check_agreement
from model import unsharded
from pretrained import load_policy, plain_name, save_hf
from ranks import Group
from rollout import Rollout, Sampling
from train import Config, group_advantages, grpo_loss, token_weights
from worlds.problems import arith


def resident(group):
    """Whether every weight is a shard after a forward pass without a backward pass, in a model that
    is only read and in one that is trained."""
    found = {}
    for name, trainable in (("reference", False), ("policy", True)):
        policy, _ = load_policy("worlds/arith", group, trainable=trainable)
        found[name + " dtype"] = next(policy.parameters()).dtype
        with torch.no_grad():
            policy(torch.arange(10)[None], torch.tensor([[False] * 4 + [True] * 6]))
        found[name] = all(hasattr(p, "full_tensor") for p in policy.parameters())
    return found


def broken():
    """A whole run in which rank 1 raises amid its third update, where closing the process group
    would wait for ranks that wait for this one, as NCCL does."""
    calls, loss = [], train.grpo_loss

    def raises(*arguments):
        calls.append(1)
        if os.environ["RANK"] == "1" and len(calls) == 3:
            torch.distributed.destroy_process_group = lambda: time.sleep(600)
            raise RuntimeError("planted amid an update")
        return loss(*arguments)

    train.grpo_loss = raises
    train.main(
        ["--prompts_per_step=16", "--eval_sets=", "--steps=4", f"--out_dir={sys.argv[2]}.run"]
    )


def gradient(group, model=""):
    """Loss and gradient of one update on eight rollouts of two prompts, cut as group.world and
    `batch.plan_micro_batches` say."""
    model = model or os.environ.get("MODELS", "worlds/arith")
    rng = np.random.default_rng(0)
    rollouts = [
        Rollout(
            i // 4,
            i % 4,
            [13, 3, 4, 5, 2],
            rng.integers(3, 13, 1 + i).tolist(),
            [-1.0] * (1 + i),
            True,
            "",
            score=float(i % 2 == 0),
        )
        for i in range(8)
    ]
    cfg = Config(prompts_per_step=2, updates_per_step=1, kl_coef=0.1, tokens_per_micro_batch=30)
    ids, lengths = (
        np.array([r.prompt_id for r in rollouts]),
        np.array([len(r.response_ids) for r in rollouts]),
    )
    advantages, per_token = (
        group_advantages(ids, [r.score for r in rollouts], 5.0),
        token_weights(ids, lengths, cfg),
    )
    policy, _ = load_policy(model, group, checkpointing=group.world > 1)
    [micros] = plan_updates(
        rollouts, 2, 1, cfg.tokens_per_micro_batch, "cpu", group.rank, group.world
    )
    total, statistics = 0.0, np.zeros(8)
    for micro in micros:
        with torch.no_grad():
            old = policy(micro.input_ids, micro.mask)[0] + 0.1
        logp, _ = policy(micro.input_ids, micro.mask)
        loss, stats = grpo_loss(
            logp,
            old,
            old - 0.2,
            micro.spread(advantages),
            micro.spread(np.ones(8)),
            micro.spread(per_token),
            cfg,
        )
        (loss * group.world).backward()
        total += loss.item()
        statistics[micro.index] += micro.sums(stats["token_loss"])
    gradients = {
        plain_name(name): unsharded(p.grad)
        for name, p in policy.named_parameters()
    }
    norm = unsharded(torch.nn.utils.clip_grad_norm_(policy.parameters(), 1e9)).item()
    return {
        "loss": group.sum([total])[0],
        "statistics": group.sum(statistics),
        "gradients": gradients,
        "norm": norm,
        "micros": len(micros),
        "mesh": tuple(group.mesh.shape) if group.mesh else (),
        "own": [sum(len(m.index) for m in micros if not m.idle)],
    }


def uneven(group):
    batch.plan_micro_batches = lambda lengths, budget, world: [[0, 1, 2], [6], [7], [3, 4, 5]]
    result = gradient(group)
    return result | {"own": group.gather(result["own"])}


def disagree(group):
    check_agreement(group, 3, ["a", "b"], [4, 4])
    try:
        check_agreement(group, 3, ["a", "b"], [4, 4] if group.rank == 0 else [5, 3])
    except RuntimeError as error:
        return {"error": str(error)}


def listening(group):
    """Addresses on which any rank's process listens, as /proc writes them."""
    with open("/proc/net/tcp") as four, open("/proc/net/tcp6") as six:
        sockets = {
            line.split()[9]: line.split()[1].split(":")[0]
            for line in four.readlines()[1:] + six.readlines()[1:]
            if line.split()[3] == "0A"
        }
    links = [
        os.readlink(f"/proc/self/fd/{number}")
        for number in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{number}")
    ]
    return {
        "addresses": group.gather([sockets[link[8:-1]] for link in links if link[8:-1] in sockets]),
        "interface": os.environ.get("GLOO_SOCKET_IFNAME"),
    }


def export(group):
    """Sharded start, names and export of the models in MODELS."""
    found = {}
    for path in os.environ["MODELS"].split(","):
        policy, tokenizer = load_policy(path, group, checkpointing=True)
        ids = torch.arange(10)[None] % 100
        mask = torch.tensor([[False] * 4 + [True] * 6])
        with torch.no_grad():
            logp, _ = policy(ids, mask)
        found[path] = {
            "names": [(name, tuple(tensor.shape)) for name, tensor in policy.named_tensors()],
            "logp": logp,
            "sharded": all(hasattr(p, "full_tensor") for p in policy.parameters()),
        }
        save_hf(policy, tokenizer, path + "_exported", group)
    return found


def sync(group):
    """The sync gate on each rank's vLLM, with the sharded policy of the folder MODELS -> the names
    that arrived."""
    engine = evaluation.make_engine(
        Config(model=os.environ["MODELS"], engine="vllm", kv_cache_gib=0.0625), group
    )
    policy, _ = load_policy(os.environ["MODELS"], group)
    engine.sync(policy.named_tensors())
    return sorted(engine.names)


def crowded(group):
    """vLLM on the folder MODELS with a cache too small for all that it is given at once."""
    engine = VLLMEngine(
        os.environ["MODELS"],
        max_num_seqs=16,
        max_model_len=400,
        kv_cache_gib=float(os.environ["CACHE_GIB"]),
    )
    engine.stop_ids = []
    engine.generate(
        [[13, 3, 4, 5, 2]] * 16, [[i] for i in range(16)], Sampling(350), "generate"
    )


def greedy(group):
    """prompt -> greedy response ids of vLLM on the folder MODELS, loaded from its files."""
    engine = evaluation.make_engine(
        Config(model=os.environ["MODELS"], engine="vllm", kv_cache_gib=0.0625), group
    )
    texts = [p.prompt for p in arith("eval")[::40]]
    rollouts = engine.generate(
        [engine.tokenizer(text)["input_ids"] for text in texts],
        [[0]] * len(texts),
        Sampling(12, temperature=0),
    )
    return {text: r.response_ids for text, r in zip(texts, rollouts, strict=True)}


if __name__ == "__main__":
    if "PER_HOST" in os.environ:  # as if the ranks were on several hosts
        os.environ["LOCAL_WORLD_SIZE"] = os.environ["PER_HOST"]
    if sys.argv[1] == "train":
        sys.exit(train.main(sys.argv[2:]))
    if sys.argv[1] == "broken":
        sys.exit(broken())
    group = Group(Config(collective_timeout=60, dtype=os.environ.get("DTYPE", "auto")))
    checks = {
        "gradient": gradient,
        "uneven": uneven,
        "disagree": disagree,
        "listening": listening,
        "export": export,
        "greedy": greedy,
        "sync": sync,
        "resident": resident,
        "crowded": crowded,
    }
    result = checks[sys.argv[1]](group)
    if group.rank == group.world - 1:
        torch.save(result, sys.argv[2])
    group.close()
