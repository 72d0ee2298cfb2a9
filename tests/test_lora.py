"""Claims about LoRA, which is written by hand in model.py."""
import json
import os
import shutil

import pytest
import torch
from processes import torchrun
from safetensors import safe_open
from test_ranks import assert_close
from test_train import TINY, metrics_of, run

from batch import pad_batch
from bench.common import random_qwen3
from engines.torch_engine import TorchEngine
from engines.vllm_engine import checkpoint_names
from eval import main as evaluate
from gates import check_mismatch
from model import LoRALinear
from pretrained import load_hf, load_policy, save_hf
from ranks import Group
from rollout import Sampling
from train import Config, main, make_optimizer

LORA = ["--lora_rank=4", "--lora_alpha=8", "--lr=1e-3"]


def with_adapters(model="worlds/arith", rank=4, learned=0.0):
    """A policy with adapters of which B is random instead of 0, `learned` in size."""
    policy, _ = load_policy(model, Group(Config()), lora=(rank, 8.0, 0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for adapter in policy.adapters.values():
            adapter.lora_B.normal_(0, learned, generator=generator)
    return policy


@pytest.fixture(scope="module")
def batch(engine, prompts):
    return pad_batch(engine.generate(prompts, [[1, 2]] * len(prompts), Sampling(9)))


def logprobs(policy, batch):
    with torch.no_grad():
        return policy(*batch)[0]


# ---------- what it computes ----------


def test_training_begins_exactly_at_the_base_model(policy, batch):
    lora = with_adapters()
    assert torch.equal(logprobs(lora, batch), logprobs(policy, batch))
    assert all(torch.equal(tensor, dict(policy.named_tensors())[name])
               for name, tensor in lora.named_tensors())
    # on all seven linear layers of each decoder layer, and on nothing else
    layers = lora.hf.config.num_hidden_layers
    assert len(lora.adapters) == 7 * layers
    assert all(".layers." in name for name in lora.adapters)
    learns = {name for name, p in lora.named_parameters() if p.requires_grad}
    assert len(learns) == 14 * layers and all(".lora_" in name for name in learns)
    assert all(p.dtype == torch.float32 for p in lora.parameters() if p.requires_grad)
    other = load_policy("worlds/arith", Group(Config()), lora=(4, 8.0, 1))[0]
    first = next(iter(lora.adapters))
    assert not torch.equal(lora.adapters[first].lora_A, other.adapters[first].lora_A)  # the seed


def test_with_adapters_off_it_is_the_base_model_whatever_they_have_learned(policy, batch):
    lora = with_adapters(learned=0.1)
    base = logprobs(policy, batch)
    assert (logprobs(lora, batch) - base).abs().max() > 0.1
    with torch.no_grad():
        assert torch.equal(lora.base(*batch)[0], base)
    assert (logprobs(lora, batch) - base).abs().max() > 0.1  # and they are on again


def test_merged_weights_do_what_the_adapters_do(batch):
    lora = with_adapters(learned=0.1)
    merged, _ = load_policy("worlds/arith", Group(Config()))
    merged.hf.load_state_dict(dict(lora.named_tensors()))
    torch.testing.assert_close(logprobs(merged, batch), logprobs(lora, batch), rtol=0, atol=2e-5)
    # by the formula, for a weight that is not square
    name, adapter = next((n, a) for n, a in lora.adapters.items() if "down_proj" in n)
    by_hand = adapter.weight + 8 / 4 * adapter.lora_B @ adapter.lora_A
    torch.testing.assert_close(dict(lora.named_tensors())[name.removeprefix("hf.")], by_hand)


def test_the_gradient_is_that_of_the_formula(batch):
    """dW is the gradient of the merged weight: dA = scale B^T dW, dB = scale dW A^T."""
    lora = with_adapters(learned=0.1)
    merged, _ = load_policy("worlds/arith", Group(Config()))
    merged.hf.load_state_dict(dict(lora.named_tensors()))
    for policy in (lora, merged):
        policy(*batch)[0].sum().backward()
    for name, adapter in lora.adapters.items():
        dW = merged.get_parameter(name).grad
        assert adapter.weight.grad is None
        torch.testing.assert_close(adapter.lora_A.grad, 2 * adapter.lora_B.T @ dW,
                                   rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(adapter.lora_B.grad, 2 * dW @ adapter.lora_A.T,
                                   rtol=1e-3, atol=1e-3)


def test_full_rank_reaches_what_training_the_same_layers_reaches(tmp_path):
    """One layer, next-token loss on a fixed text, to the end: LoRA of full rank can be any change
    of its weights, so its lowest loss is theirs."""
    path = random_qwen3(tmp_path / "model", layers=1, width=32, vocabulary=64, inner=48)
    hf, _ = load_hf(str(path))
    with torch.no_grad():
        hf.get_input_embeddings().weight.mul_(10)  # or frozen logits could never be far apart
    hf.save_pretrained(path)
    ids = torch.randint(3, 64, (4, 24), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids, dtype=torch.bool)

    def lowest_loss(lora, steps=800):
        policy, _ = load_policy(str(path), Group(Config()), lora=lora)
        if lora is None:
            for name, p in policy.named_parameters():
                p.requires_grad_("_proj." in name)
        optimizer = make_optimizer(policy, Config(lr=1e-2), Group(Config()))
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
            loss = -policy(ids, mask)[0].mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    full = lowest_loss(None)
    assert full < 0.5
    assert lowest_loss((64, 64.0, 0)) == pytest.approx(full, abs=0.01)
    assert lowest_loss((2, 2.0, 0)) > full + 1  # more than a low rank can do


# ---------- the engine ----------


def test_a_stale_adapter_is_seen_by_the_sync_gate(monkeypatch):
    """In every layer, since every merged weight is read back."""
    lora = with_adapters(learned=0.1)
    engine = TorchEngine("worlds/arith")
    load = engine.load
    base = load_hf("worlds/arith")[0].state_dict()
    for name in list(lora.adapters)[::5]:
        stale = name.removeprefix("hf.")
        held = base[stale]
        monkeypatch.setattr(engine, "load", lambda tensors, stale=stale, held=held: load(
            [(n, held if n == stale else t) for n, t in tensors]))
        with pytest.raises(RuntimeError, match=f"other values of {stale}"):
            engine.sync(lora.named_tensors())
    monkeypatch.undo()
    engine.sync(lora.named_tensors())


def test_weights_sent_without_their_adapters_are_seen_by_the_parity_gate(prompts):
    lora = with_adapters(learned=0.2)
    engine = TorchEngine("worlds/arith")

    def mismatch():
        rollouts = engine.generate(prompts, [[1, 2]] * len(prompts), Sampling(9))
        engine_logprobs = torch.tensor([x for r in rollouts for x in r.engine_logprobs])
        return (logprobs(lora, pad_batch(rollouts)) - engine_logprobs).abs().mean().item()

    engine.sync(lora.named_tensors())
    assert mismatch() < 1e-5
    base, _ = load_policy("worlds/arith", Group(Config()))
    engine.sync(base.named_tensors())
    with pytest.raises(RuntimeError, match="weights are stale"):
        check_mismatch(mismatch())


def test_of_layers_that_vllm_fuses_the_beginning_is_read():
    """q, k and v in one parameter, gate and up in another; repacked ones cannot be read."""
    model = torch.nn.Module()
    model.packed_modules_mapping = {"qkv_proj": ["q_proj", "k_proj", "v_proj"],
                                    "gate_up_proj": ["gate_proj", "up_proj"]}
    shapes = {"a.qkv_proj.weight": 12, "a.o_proj.weight": 4, "m.gate_up_proj.weight": 0}
    model.named_parameters = lambda remove_duplicate: [
        (name, torch.ones(size)) for name, size in shapes.items()]
    names, held_as = checkpoint_names(model)
    assert names == {"a.q_proj.weight", "a.k_proj.weight", "a.v_proj.weight", "a.o_proj.weight",
                     "m.gate_proj.weight", "m.up_proj.weight"}
    assert held_as == {"a.q_proj.weight": "a.qkv_proj.weight", "a.o_proj.weight": "a.o_proj.weight"}


# ---------- files ----------


def test_exports_load_in_transformers_and_peft_with_the_same_logits(tmp_path):
    peft = pytest.importorskip("peft")
    lora = with_adapters(learned=0.1)
    _, tokenizer = load_hf("worlds/arith")
    save_hf(lora, tokenizer, str(tmp_path / "hf"), Group(Config()))
    ids = torch.arange(12)[None] % 13
    with torch.no_grad():
        own = lora.hf(ids).logits
        whole = load_hf(str(tmp_path / "hf"))[0](ids).logits
        base = load_hf("worlds/arith")[0]
        adapted = peft.PeftModel.from_pretrained(base, str(tmp_path / "hf" / "adapter"))(ids).logits
    torch.testing.assert_close(whole, own, rtol=0, atol=1e-4)
    torch.testing.assert_close(adapted, own, rtol=0, atol=1e-5)
    assert (own - load_hf("worlds/arith")[0](ids).logits).abs().max() > 0.1
    config = json.loads((tmp_path / "hf" / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "worlds/arith"


def test_a_checkpoint_holds_the_adapters_alone_and_evaluates_like_the_export(tmp_path):
    run(tmp_path / "run", *LORA, steps=2)
    checkpoint = tmp_path / "run" / "ckpt" / "step_000002"
    [file] = (checkpoint / "weights").iterdir()
    with safe_open(file, "pt") as tensors:
        assert all(".lora_" in name for name in tensors.keys())  # noqa: SIM118 - not a dict
        assert any(name.startswith("optimizer.") for name in tensors.keys())  # noqa: SIM118
    assert file.stat().st_size < 0.5 * os.path.getsize("worlds/arith/model.safetensors") * 3
    settings = ["--eval_samples=2", "--eval_passk=2"]
    of_checkpoint = evaluate([f"--model={checkpoint}", *settings])["arith"]
    of_export = evaluate([f"--model={tmp_path}/run/hf", *settings])["arith"]
    assert of_checkpoint["right"] == of_export["right"]
    assert of_export["right"] != evaluate(settings)["arith"]["right"]


def test_a_checkpoint_of_another_base_model_is_refused(tmp_path, capsys):
    model = shutil.copytree("worlds/arith", tmp_path / "model")
    knobs = [f"--model={model}", *LORA]
    run(tmp_path / "run", *knobs, steps=1)
    hf, tokenizer = load_hf(str(model))
    with torch.no_grad():
        hf.model.norm.weight[0] += 0.01
    hf.save_pretrained(model)
    with pytest.raises(SystemExit):
        run(tmp_path / "run", *knobs, "--resume=auto", steps=2)
    assert "begun with another base model than there is now" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluate([f"--model={tmp_path}/run/ckpt/step_000001"])
    assert "holds adapters for another model" in capsys.readouterr().err


# ---------- whole runs ----------


def test_a_resumed_run_goes_on_to_the_digit_and_leaves_the_base_alone(tmp_path):
    gdro = ["--prompt_gdro=true", "--rollout_gdro=true", *LORA]
    whole = run(tmp_path / "whole", *gdro, "--save_every=3", steps=6)
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    again = run(tmp_path / "again", *gdro, "--save_every=3", steps=6,
                tiny=[*TINY, f"--resume={tmp_path}/again/ckpt/step_000003"])
    assert again == whole
    assert whole[0]["kl"] >= 0 and whole[-1]["kl"] > 0 and whole[-1]["mismatch"] < 1e-4
    base, trained = (load_hf(path)[0].state_dict() for path in
                     ("worlds/arith", f"{tmp_path}/whole/hf"))
    for name, tensor in base.items():
        linear = ".layers." in name and "norm" not in name
        assert torch.equal(tensor, trained[name]) != linear, name


def test_the_reference_is_the_base_model(tmp_path, monkeypatch):
    """The KL term is the one against a second copy of the model, to the digit."""
    import train

    own = run(tmp_path / "own", *LORA, "--kl_coef=0.1", steps=3)
    copy = load_policy("worlds/arith", Group(Config()), trainable=False)[0]
    monkeypatch.setattr(train, "load_reference", lambda cfg, group, policy: copy)
    assert run(tmp_path / "copy", *LORA, "--kl_coef=0.1", steps=3) == own


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "vllm"])
def test_sixteen_steps_of_the_demo_learn_on_one_rank_and_on_two(tmp_path, engine):
    if engine == "vllm":
        pytest.importorskip("vllm")
    knobs = ["config/arith_gdro.py", "--lora_rank=8", "--lr=1e-3", "--steps=16", "--eval_every=16",
             "--save_every=8", "--device=cpu", f"--engine={engine}", "--kv_cache_gib=0.0625"]
    for ranks in (1, 2):
        if ranks == 1 and engine == "torch":  # without FSDP
            main([*knobs, f"--out_dir={tmp_path}/1"])
        else:
            torchrun(ranks, "train.py", *knobs, f"--out_dir={tmp_path}/{ranks}",
                     vllm=engine == "vllm")
        with open(tmp_path / f"{ranks}" / "eval.jsonl") as file:
            first, last = map(json.loads, file)
        assert last["mean@8"] > 1.5 * first["mean@8/interval"][1]
        metrics = metrics_of(tmp_path / f"{ranks}")
        assert max(m["mismatch"] for m in metrics) < 1e-4 and len(metrics) == 16
    if engine == "vllm":  # two ranks of it sample other batches: nothing to compare
        return
    assert_close(metrics_of(tmp_path / "1"), metrics_of(tmp_path / "2"))
    # on another number of ranks
    out = tmp_path / "moved"
    shutil.copytree(tmp_path / "2", out)
    main([*knobs, f"--out_dir={out}", f"--resume={out}/ckpt/step_000008"])
    assert_close(metrics_of(out)[:9], metrics_of(tmp_path / "2")[:9])
    assert len(metrics_of(out)) == 16


@pytest.mark.slow
def test_in_bfloat16_the_base_is_bfloat16_and_the_adapters_are_not(tmp_path):
    """As on a GPU: FSDP computes in bfloat16."""
    cfg = Config(dtype="bfloat16", device="cpu")
    with Group(cfg) as group:
        policy, tokenizer = load_policy("worlds/arith", group, lora=(4, 8.0, 0))
        kinds = {p.requires_grad: p.dtype for p in policy.parameters()}
        assert kinds == {True: torch.float32, False: torch.bfloat16}
        assert all(t.dtype == torch.bfloat16 for _, t in policy.named_tensors())
    main(["config/arith_gdro.py", "--lora_rank=8", "--lr=1e-3", "--dtype=bfloat16", "--steps=16",
          "--eval_every=16", "--device=cpu", f"--out_dir={tmp_path}/run"])
    assert max(m["mismatch"] for m in metrics_of(tmp_path / "run")) < 0.05
    with open(tmp_path / "run" / "eval.jsonl") as file:
        first, last = map(json.loads, file)
    assert last["mean@8"] > 1.5 * first["mean@8/interval"][1]


def test_there_is_an_adapter_for_biases_too():
    linear = torch.nn.Linear(3, 2)
    adapter = LoRALinear(linear, 1, 1.0)
    x = torch.ones(3)
    assert torch.equal(adapter(x), linear(x)) and adapter.bias is linear.bias
