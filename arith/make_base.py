"""
Makes the base policy of the embedded world: a tiny Qwen3, pretrained on demonstrations that slip, one family more than another.
$ python arith/make_base.py             # minutes; writes arith/base/ and prints the success rates
"""
import json
import os
import sys

import numpy as np
import torch

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from data import FAMILIES, arith, arith_digits, arith_trace
from rollout import Sampling, TorchEngine, seed_of

SEED, STEPS, BATCH, LR, SAMPLES = 1, 1500, 256, 2e-3, 256
OUT = os.path.join(ROOT, "arith", "base")


def make_tokenizer(size=0):
    """One token a character, filled up to `size` tokens."""
    vocab = ["<pad>", "<eos>", "="] + list("0123456789") + [f.letter for f in FAMILIES]
    vocab += [f"<{i}>" for i in range(len(vocab), size)]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocab)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")  # one token a character
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", model_max_length=64)


def demonstrations(rng, tokenizer, count, held_out):
    """`count` slipping demonstrations, families in equal parts -> ids [count, T], labels [count, T] (-100 outside the response)."""
    ids, labels = [], []
    while len(ids) < count:
        family, digits = FAMILIES[len(ids) % len(FAMILIES)], arith_digits(rng)
        prompt = family.letter + "".join(map(str, digits)) + "="
        if prompt in held_out:
            continue
        prompt, trace = tokenizer(prompt)["input_ids"], tokenizer(arith_trace(family, digits, rng))["input_ids"]
        ids.append(torch.tensor(prompt + trace + [tokenizer.eos_token_id]))
        labels.append(torch.tensor([-100] * len(prompt) + trace + [tokenizer.eos_token_id]))
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(ids, batch_first=True, padding_value=tokenizer.pad_token_id), pad(labels, batch_first=True, padding_value=-100)


def success_rates(samples):
    """Share of right responses of the saved base policy on the evaluation prompts of each family."""
    engine, problems = TorchEngine(OUT, max_num_seqs=1024), arith("eval")
    seeds = [[seed_of("base", p.uid, j) for j in range(samples)] for p in problems]
    rollouts = engine.generate([engine.tokenizer(p.prompt)["input_ids"] for p in problems], seeds, Sampling(max_tokens=12))
    right = {f.letter: [] for f in FAMILIES}
    for r in rollouts:
        right[problems[r.prompt_id].group].append(r.text == problems[r.prompt_id].answer)
    return {letter: float(np.mean(x)) for letter, x in right.items()}


def main():
    torch.set_num_threads(1)  # the same weights on every machine of a kind
    torch.manual_seed(SEED)
    rng, tokenizer = np.random.default_rng(SEED), make_tokenizer()
    config = Qwen3Config(vocab_size=len(tokenizer), hidden_size=64, intermediate_size=192, num_hidden_layers=3, num_attention_heads=4,
                         num_key_value_heads=2, head_dim=32, max_position_embeddings=64, tie_word_embeddings=True,
                         eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None)
    model = Qwen3ForCausalLM(config)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=STEPS, pct_start=0.05)
    held_out = {p.prompt for split in ("train", "eval") for p in arith(split)}
    for step in range(STEPS):
        ids, labels = demonstrations(rng, tokenizer, BATCH, held_out)
        loss = model(input_ids=ids, labels=labels).loss  # right padding: a causal model never looks at it
        loss.backward()
        optimizer.step(), schedule.step(), optimizer.zero_grad()
        if step % 100 == 0 or step == STEPS - 1:
            print(f"step {step:4d}  loss {loss.item():.4f}", flush=True)
    model.save_pretrained(OUT)
    tokenizer.save_pretrained(OUT)
    rates = success_rates(SAMPLES)
    print(f"success rates, {SAMPLES} samples a prompt:", rates)
    with open(os.path.join(OUT, "success_rates.json"), "w") as file:
        json.dump({"seed": SEED, "samples": SAMPLES, "success_rates": rates}, file, indent=1)


if __name__ == "__main__":
    main()
