"""
Makes the base policies of the embedded worlds: tiny Qwen3s, pretrained on demonstrations that go
wrong, in some kinds of problems more than in others.
$ python worlds/make_base.py             # minutes; writes worlds/arith/, prints the success rates
$ python worlds/make_base.py chains      # or orders
$ python worlds/make_base.py chains_wide # twice as wide, four times the parameters; not kept here
"""
import json
import os
import re
import sys

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from data import DATASETS
from engines.torch_engine import TorchEngine
from rollout import Sampling, seed_of
from worlds.problems import ARITH
from worlds.skills import CHAINS, ORDERS

SEED, BATCH, LR = 1, 256, 2e-3  # of the pretraining
SAMPLES = 256  # a prompt, to measure the success rates
FOLDER = os.path.dirname(os.path.abspath(__file__))
WIDE = "_wide"  # behind the name of a world
WORLDS = {"arith": ARITH, "chains": CHAINS, "orders": ORDERS}


def make_tokenizer(size=0, world=ARITH):
    """One token a symbol, filled up to `size` tokens."""
    vocab = ["<pad>", "<eos>", "=", *world.tokens]
    vocab += [f"<{i}>" for i in range(len(vocab), size)]
    ids = {token: i for i, token in enumerate(vocab)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<pad>"))
    # the name of a skill, as Ab, is one token, and so is any other character
    names = [re.escape(token) for token in world.tokens if len(token) > 1]
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("|".join([*names, "."])), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", model_max_length=64)


def batch_of(rng, world, tokenizer, numbers, held_out):
    """A demonstration for each of `numbers`, which say of what kind
    -> ids [count, T], labels [count, T] (-100 outside the response), weights [count, T]."""
    ids = []
    labels = []
    weights = []
    for number in numbers:
        prompt, response, weight = world.demonstration(rng, number, held_out)
        prompt_ids = tokenizer(prompt)["input_ids"]
        response_ids = tokenizer(response)["input_ids"] + [tokenizer.eos_token_id]
        ids.append(torch.tensor(prompt_ids + response_ids))
        labels.append(torch.tensor([-100] * len(prompt_ids) + response_ids))
        weights.append(torch.tensor([0.0] * len(prompt_ids) + weight.tolist()))
    pad = torch.nn.utils.rnn.pad_sequence
    return (pad(ids, batch_first=True, padding_value=tokenizer.pad_token_id),
            pad(labels, batch_first=True, padding_value=-100), pad(weights, batch_first=True))


def success_rates(samples, name="arith"):
    """Share of right responses of the saved base policy on the evaluation prompts of each group.
    """
    engine = TorchEngine(os.path.join(FOLDER, name), max_num_seqs=1024)
    held_out = DATASETS[name.removesuffix(WIDE)]("eval")
    prompts = [engine.tokenizer(p.prompt)["input_ids"] for p in held_out]
    seeds = [[seed_of("base", p.uid, j) for j in range(samples)] for p in held_out]
    right = {problem.group: [] for problem in held_out}
    for rollout in engine.generate(prompts, seeds, Sampling(max_tokens=12)):
        problem = held_out[rollout.prompt_id]
        right[problem.group].append(rollout.text == problem.answer)
    return {group: float(np.mean(outcomes)) for group, outcomes in right.items()}


def pretrain(world, held_out, out, wider=1):
    """A tiny Qwen3 that learned the demonstrations of `world`, none of which has a prompt of
    `held_out`; it and its tokenizer as files in the folder `out`. It is `wider` times as wide."""
    torch.set_num_threads(1)  # the same weights on every machine of a kind
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    tokenizer = make_tokenizer(world=world)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=64 * wider, intermediate_size=192 * wider,
        num_hidden_layers=3, num_attention_heads=4 * wider, num_key_value_heads=2 * wider,
        head_dim=32, max_position_embeddings=64, tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None)
    model = Qwen3ForCausalLM(config)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LR, total_steps=world.steps, pct_start=0.05)
    for step in range(world.steps):
        # All kinds in turn; at first only some, from which copying and adding are learned sooner.
        stride = world.stride if step < world.steps / 4 else 1
        numbers = range(stride * BATCH * step, stride * BATCH * (step + 1), stride)
        ids, labels, weights = batch_of(rng, world, tokenizer, numbers, held_out)
        # No attention mask: padding is on the right, where a causal model never looks.
        logits = model(input_ids=ids).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), labels[:, 1:], reduction="none")  # 0 where the label is -100
        loss = (losses * weights[:, 1:]).sum() / (labels >= 0).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), world.grad_clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == world.steps - 1:
            print(f"step {step:4d}  loss {loss.item():.4f}", flush=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def main():
    name = sys.argv[1] if len(sys.argv) > 1 else "arith"
    out = os.path.join(FOLDER, name)
    world = name.removesuffix(WIDE)
    held_out = {p.prompt for split in ("train", "eval") for p in DATASETS[world](split)}
    pretrain(WORLDS[world], held_out, out, wider=2 if name.endswith(WIDE) else 1)
    rates = success_rates(SAMPLES, name)
    print(f"success rates, {SAMPLES} samples a prompt:", rates)
    with open(os.path.join(out, "success_rates.json"), "w") as file:
        json.dump({"seed": SEED, "samples": SAMPLES, "success_rates": rates}, file, indent=1)


if __name__ == "__main__":
    main()
