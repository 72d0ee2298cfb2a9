"""Claim: every config of the paper's experiment runs as it is, on a tiny model and small local
files; only sizes are changed."""

import dataclasses
import glob
import json
import os
from types import SimpleNamespace

import pytest
import torch
from make_files import dapo_rows, tiny_qwen3, write_benchmarks, write_jsonl
from processes import python

from budget import phases
from configurator import parse
from progress import print_memory
from train import Config, main

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RECIPES = sorted(glob.glob(os.path.join(ROOT, "config", "qwen3_*.py")))
ONE_GPU = sorted(glob.glob(os.path.join(ROOT, "config", "one_gpu_*.py")))
SIZES = [
    "--steps=2",
    "--prompts_per_step=8",
    "--max_prompt_len=200",
    "--max_response_len=12",
    "--tokens_per_micro_batch=1000",
    "--kv_cache_gib=0.0625",
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    write_benchmarks(folder / "problems")
    return {
        "folder": folder,
        "model": tiny_qwen3(folder / "model"),
        "dataset": write_jsonl(folder / "dapo_like.jsonl", dapo_rows(40)),
    }


def test_there_are_twelve_and_they_state_the_papers_settings():
    assert len(RECIPES) == 12
    for path in RECIPES:
        cfg, size, arm = parse(Config, [path]), *os.path.basename(path)[:-3].split("_", 2)[1:]
        assert (
            cfg.model == f"Qwen/Qwen3-{ {'1p7b': '1.7B', '4b': '4B', '8b': '8B'}[size] }-Base"
            and cfg.out_dir == "out/" + os.path.basename(path)[:-3]
        )
        assert (cfg.prompt_gdro, cfg.rollout_gdro) == {
            "grpo": (False, False),
            "prompt_gdro": (True, False),
            "rollout_gdro": (False, True),
            "gdro": (True, True),
        }[arm]
        assert (
            cfg.dataset,
            cfg.prompts_per_step,
            cfg.updates_per_step,
            cfg.steps,
            cfg.n_rollouts,
        ) == ("dapo", 256, 2, 1000, 4)
        assert (
            cfg.max_prompt_len,
            cfg.max_response_len,
            cfg.lr,
            cfg.kl_coef,
            cfg.grad_clip,
            cfg.adv_clip,
        ) == (3200, 4096, 1e-6, 0.001, 1.0, 5.0)
        assert (
            cfg.clip_low,
            cfg.clip_high,
            cfg.temperature,
            cfg.eval_samples,
            cfg.eval_temperature,
            cfg.eval_top_p,
            cfg.eval_top_k,
            cfg.eval_every,
        ) == (0.2, 0.28, 1.0, 8, 0.6, 0.8, 20, 50)
        assert (cfg.n_bins, cfg.n_min, cfg.n_max, cfg.gamma, cfg.prompt_weight_max) == (
            10,
            2,
            12,
            0.01,
            15,
        )
        first = open(path).readline()
        assert (
            first.startswith("# ")
            and "8 GPUs of 80 GB" in first
            and "hours (estimated)" in first
            and "paper" in first
        )
        assert parse(Config, [path]) == parse(
            Config,
            [
                path.replace(arm, "grpo"),
                f"--prompt_gdro={cfg.prompt_gdro}",
                f"--rollout_gdro={cfg.rollout_gdro}",
                f"--loss_agg={'prompt' if arm == 'gdro' else 'token'}",
                f"--out_dir={cfg.out_dir}",
            ],
        )


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(
            path,
            id=os.path.basename(path)[:-3],
            marks=[] if path.endswith("1p7b_gdro.py") else pytest.mark.slow,
        )
        for path in RECIPES
    ],
)
def test_two_steps_end_to_end(path, files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(files["folder"])
    main(
        [
            path,
            f"--model={files['model']}",
            f"--dataset={files['dataset']}",
            f"--out_dir={tmp_path}/run",
            *SIZES,
        ]
    )
    records = [json.loads(line) for line in open(tmp_path / "run" / "eval.jsonl")]
    assert [(r["step"], r["set"]) for r in records] == [
        (step, name)
        for step in (0, 2)
        for name in ["math500", "aime24", "aime25", "amc23", "minerva", "olympiad", "gpqa"]
    ]
    metrics = [json.loads(line) for line in open(tmp_path / "run" / "metrics.jsonl")]
    assert [m["rollouts/total"] for m in metrics] == [32, 32] and all(
        m["mismatch"] < 1e-4
        and m["verdict/right"] + m["verdict/wrong"] + m["verdict/no_answer"] == 1
        for m in metrics
    )
    sample = json.loads(open(tmp_path / "run" / "samples.jsonl").readline())
    assert sample["prompt"].endswith(
        "\nLet's think step by step and output the final answer within \\boxed{}."
    ) and sample["verdict"] in ("wrong", "no_answer")
    assert os.path.exists(tmp_path / "run" / "hf" / "model.safetensors") and os.path.exists(
        tmp_path / "run" / "best" / "model.safetensors"
    )
    printed = capsys.readouterr().out
    assert "40 problems of " in printed and "graded by math" in printed and "best:" in printed


# ---------- the configs for one GPU ----------


def test_there_are_five_for_one_gpu_and_they_differ_in_the_arm_alone():
    names = [os.path.basename(path)[:-3] for path in ONE_GPU]
    arms = {"grpo": (False, False), "prompt_gdro": (True, False), "rollout_gdro": (False, True),
            "gdro": (True, True)}
    assert names == sorted([f"one_gpu_{arm}" for arm in arms] + ["one_gpu_1p7b_lora"])
    plain = parse(Config, [f"{ROOT}/config/one_gpu_grpo.py"])
    for name, (prompt, rollout) in arms.items():
        cfg = parse(Config, [f"{ROOT}/config/one_gpu_{name}.py"])
        memory = 32 if prompt or rollout else 0
        mean = "prompt" if prompt and rollout else "token"
        assert cfg == dataclasses.replace(
            plain, prompt_gdro=prompt, rollout_gdro=rollout, group_memory=memory, loss_agg=mean,
            out_dir=f"out/one_gpu_{name}")
    lora = parse(Config, [f"{ROOT}/config/one_gpu_1p7b_lora.py"])
    assert lora.lora_rank == 32 and lora.dataset == "dapo" and plain.lora_rank == 0
    rows = {"gsm8k": 7473, "dapo": 14116}
    for cfg in (plain, lora):  # the adversaries act from the second epoch on
        assert 2 <= cfg.steps * cfg.prompts_per_step / rows[cfg.dataset] < 2.1
        assert cfg.steps % cfg.eval_every == cfg.eval_every % cfg.save_every == 0


@pytest.fixture(scope="module")
def school(files):
    """The files with 40 problems in GSM8K's columns instead of two."""
    folder = files["folder"] / "school"
    write_benchmarks(folder / "problems")
    rows = [{"question": f"Ann has {i} pens and buys {i + 2}. How many?",
             "answer": f"She has {i} + {i + 2} = <<{i}+{i + 2}={2 * i + 2}>>.\n#### {2 * i + 2}"}
            for i in range(40)]
    write_jsonl(folder / "problems" / "gsm8k_train.jsonl", rows)
    write_jsonl(folder / "problems" / "dapo.jsonl", dapo_rows(40))
    return folder


def check_one_gpu_run(out, name):
    metrics = [json.loads(line) for line in open(out / "metrics.jsonl")]
    evaluations = [json.loads(line) for line in open(out / "eval.jsonl")]
    expected = "math500" if "lora" in name else "gsm8k"
    assert [(r["step"], r["set"], r["reward"]) for r in evaluations] == [
        (step, expected, "math") for step in (0, 6)]
    assert [m["rollouts/total"] for m in metrics] == [8 * 8] * 6
    assert all(m["mismatch"] < 1e-4 for m in metrics)
    assert all(m["verdict/no_answer"] + m["verdict/wrong"] + m["verdict/right"] == 1
               for m in metrics)
    assert metrics[-1]["unseen"] == 0.0  # the second epoch: 40 problems, 8 a step
    sample = json.loads(open(out / "samples.jsonl").readline())
    assert sample["prompt"].endswith("output the final answer within \\boxed{}.")
    assert os.path.exists(out / "hf" / "model.safetensors")
    assert os.path.exists(out / "hf" / "adapter") == ("lora" in name)


SCHOOL = [*SIZES[1:], "--steps=6", "--eval_every=6", "--save_every=6", "--device=cpu"]


@pytest.mark.parametrize("path", ONE_GPU, ids=lambda path: os.path.basename(path)[:-3])
def test_a_config_for_one_gpu_runs_end_to_end(path, school, files, tmp_path, monkeypatch):
    monkeypatch.chdir(school)
    main([path, f"--model={files['model']}", f"--out_dir={tmp_path}/run", *SCHOOL])
    check_one_gpu_run(tmp_path / "run", path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one_gpu_gdro", "one_gpu_1p7b_lora"])
def test_it_does_with_the_real_vllm(name, school, files, tmp_path):
    """In a process of its own, since a process may have one vLLM."""
    pytest.importorskip("vllm")
    command = [f"{ROOT}/train.py", f"{ROOT}/config/{name}.py", "--engine=vllm"]
    done = python(*command, f"--model={files['model']}", f"--out_dir={tmp_path}/run", *SCHOOL,
                  folder=school, vllm=True)
    assert done.returncode == 0, done.stderr[-3000:]
    check_one_gpu_run(tmp_path / "run", name)


SHAPE_06B = {"vocab_size": 151_936, "hidden_size": 1024, "intermediate_size": 3072,
             "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
             "head_dim": 128, "tie_word_embeddings": True}


@pytest.mark.parametrize("gib, changes, expected", [
    (23.5, [], ""),
    (15.7, ["--kv_cache_gib=2"], ""),
    (15.7, [], "warning: about 21.0 GiB a GPU are needed (most in phase 'generate') and this "
               "one has 15.7: lower kv_cache_gib, max_num_seqs; --lora_rank=32 needs"),
    (15.7, ["--kv_cache_gib=1", "--tokens_per_micro_batch=32768"],
     "(most in phase 'update') and this one has 15.7: lower tokens_per_micro_batch, or "
     "--activation_checkpointing=true"),
])
def test_the_start_says_before_loading_what_a_small_gpu_lacks(
        gib, changes, expected, tmp_path, monkeypatch, capsys):
    """There is a config.json and nothing else: no weights, no tokenizer, and no GPU."""
    from transformers import Qwen3Config

    Qwen3Config(**SHAPE_06B, architectures=["Qwen3ForCausalLM"]).save_pretrained(tmp_path)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, gib * 2**30))
    cfg = parse(Config, [f"{ROOT}/config/one_gpu_grpo.py", f"--model={tmp_path}", *changes])
    print_memory(cfg, SimpleNamespace(device="cuda", shards=1))
    printed = capsys.readouterr().out
    assert printed.startswith("memory a GPU with 1 GPU a host, estimated, GiB: engine start ")
    assert expected in printed and ("warning" in printed) == bool(expected)


@pytest.mark.parametrize("settings", ["paper", "reference"])
def test_the_papers_settings_run_and_can_be_overridden(settings, tmp_path):
    arguments = [f"config/{settings}.py", "--prompt_gdro=true", "--rollout_gdro=true",
                 "--history=7"]
    main(
        [
            *arguments,
            "--steps=3",
            "--eval_sets=",
            "--prompts_per_step=256",
            f"--out_dir={tmp_path}/run",
        ]
    )
    first, *_ = [json.loads(line) for line in open(tmp_path / "run" / "metrics.jsonl")]
    assert (
        first["bins/share"][0] == 1.0 and first["unseen"] == 1.0
    )  # never visited, and in the hardest bin all the same


def test_the_memory_arithmetic_adds_up():
    """By hand for Qwen3-8B on 8 GPUs: 14 bytes a parameter sharded, 2 not, a cache of 36 GiB, and
    the sync of a matrix of the embedding's size. The update: 4 bytes more, and the activations."""
    from bench import budget

    cfg = parse(Config, [os.path.join(ROOT, "config", "qwen3_8b_grpo.py")])
    parameters, shape = budget.parameters_of(cfg.model)
    assert parameters == 8_190_735_360
    needed = phases(parameters, shape, cfg, 8)
    matrix = 151936 * 4096
    in_bytes = parameters * (14 / 8 + 2) + 8 * matrix
    assert needed["generate"] == pytest.approx(in_bytes / 2**30 + 36)
    on_one = phases(parameters, shape, cfg, 1)["generate"]
    assert on_one - needed["generate"] == pytest.approx(parameters * 14 * 7 / 8 / 2**30)
    layer = (parameters - 2 * matrix) / 36
    activations = 2 * 16384 * (35 * 4096 + 8 * 4096 + 5 * (4096 + 1024) + 6 * 12288)
    passing = 2 * (2 * matrix + 2 * layer) + 2 * matrix + 6 * layer  # gathered; gradients
    assert needed["update"] == pytest.approx((parameters * 18 / 8 + activations + passing) / 2**30)
