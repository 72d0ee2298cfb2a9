"""
Makes the base policy of the world `steps`: a tiny Qwen3 with a byte-level tokenizer, pretrained on
written solutions that follow decoys (steps.py).
$ python worlds/make_steps.py           # 10 minutes on a core; writes worlds/steps/
$ python worlds/make_steps.py measure   # only measures it again
"""
import functools
import json
import os
import sys

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from data import TEMPLATES
from engines.torch_engine import TorchEngine
from reward import Grader
from rollout import Sampling, seed_of
from worlds.steps import COUNT, FRAMES, LONGEST, demonstration, draw, ending, prompt_of, step, steps

SEED, STEPS, BATCH, CHUNK, LR = 1, 1800, 64, 32, 3e-3  # of the pretraining
SAMPLES = 256  # a prompt, to measure the success rates
OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "steps")
# A line break begins a piece that runs to the end of the line: the template's instruction, the same
# under every question, becomes one token. Digits are a token each, and words never join: what a
# step says does not change how the text before it is cut.
PIECES = Regex(r"\n[^\n]*|[0-9]| ?\\[a-z]+\{| ?[A-Za-z]+|[^\sA-Za-z0-9]+ ?|\s")


def templated(prompt):
    return TEMPLATES["boxed"].replace("{question}", prompt)


def make_tokenizer():
    """Byte-level BPE, trained on solutions by all rules."""
    rng = np.random.default_rng(SEED)
    texts = []
    for i in range(300 * COUNT):
        skills, digits = draw(rng, i % COUNT)
        texts += [templated(prompt_of(skills, digits)), ending(rng, "0")[:40]]
        texts += [step(skill, digits, rule)[0] for skill in skills for rule in range(6)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(PIECES, "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=1024, min_frequency=20, special_tokens=["<pad>", "<eos>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", model_max_length=256)


def encoder(tokenizer):
    """text -> token ids; remembers, since a step's text comes again and again."""
    @functools.cache
    def encode(text):
        return tokenizer.backend_tokenizer.encode(text).ids
    return encode


def batch(rng, encode, eos, count, held_out):
    """`count` demonstrations, families in equal parts -> a list of (ids, weights), short ones
    first; a weight is 0 in the prompt."""
    rows = []
    while len(rows) < count:
        skills, digits = draw(rng, len(rows) % COUNT)
        prompt = prompt_of(skills, digits)
        if prompt in held_out:
            continue
        before = encode(templated(prompt))
        ids, weights = demonstration(rng, skills, digits, encode)
        ids, weights = (ids + [eos])[:LONGEST], (weights + [1.0])[:LONGEST]
        rows.append((torch.tensor(before + ids), torch.tensor([0.0] * len(before) + weights)))
    return sorted(rows, key=lambda row: len(row[0]))


def backward(model, rows):
    """Adds the gradient of the weighted loss, a mean over all tokens of responses -> the loss."""
    tokens = sum((weights > 0).sum() for _, weights in rows)
    total = 0.0
    pad = functools.partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
    for start in range(0, len(rows), CHUNK):  # of similar lengths: little padding
        ids, weights = map(pad, zip(*rows[start : start + CHUNK], strict=True))
        # No attention mask: padding is on the right, where a causal model never looks.
        logits = model(input_ids=ids).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        loss = (losses * weights[:, 1:].flatten()).sum() / tokens
        loss.backward()
        total += loss.item()
    return total


def measure(samples):
    """What the saved base policy does on the evaluation prompts -> shares and lengths, and the
    success rate of each family."""
    engine = TorchEngine(OUT, max_num_seqs=1024)
    held_out = steps("eval")
    prompts = [engine.tokenizer(templated(p.prompt))["input_ids"] for p in held_out]
    seeds = [[seed_of("base", p.uid, j) for j in range(samples)] for p in held_out]
    rollouts = engine.generate(prompts, seeds, Sampling(max_tokens=LONGEST))
    grader = Grader("math")
    grades = grader.grade([r.text for r in rollouts],
                          [held_out[r.prompt_id].answer for r in rollouts])
    grader.close()
    right = {frame: [] for frame in FRAMES}
    for rollout, grade in zip(rollouts, grades, strict=True):
        right[held_out[rollout.prompt_id].group].append(grade.verdict == "right")
    lengths = [len(r.response_ids) for r in rollouts]
    return {
        "no_answer": np.mean([grade.verdict == "no_answer" for grade in grades]),
        "truncated": np.mean([not r.finished for r in rollouts]),
        "entropy": -np.mean([x for r in rollouts for x in r.engine_logprobs]),  # of a token
        "length": np.mean(lengths),
        "length_percentiles": {
            str(share): np.percentile(lengths, share) for share in (0, 5, 25, 50, 75, 95, 100)},
        "success_rates": {name: np.mean(outcomes) for name, outcomes in right.items()}}


def pretrain(model, tokenizer):
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LR, total_steps=STEPS, pct_start=0.05)
    rng = np.random.default_rng(SEED)
    encode = encoder(tokenizer)
    held_out = {p.prompt for split in ("train", "eval") for p in steps(split)}
    for number in range(STEPS):
        rows = batch(rng, encode, tokenizer.eos_token_id, BATCH, held_out)
        loss = backward(model, rows)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if number % 100 == 0 or number == STEPS - 1:
            print(f"step {number:4d}  loss {loss:.4f}", flush=True)


def main():
    torch.set_num_threads(1)  # the same weights on every machine of a kind
    torch.manual_seed(SEED)
    if "measure" not in sys.argv:
        tokenizer = make_tokenizer()
        model = Qwen3ForCausalLM(Qwen3Config(
            vocab_size=len(tokenizer), hidden_size=112, intermediate_size=288, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=1, head_dim=32, max_position_embeddings=256,
            tie_word_embeddings=True, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id, bos_token_id=None))
        print(f"{len(tokenizer)} tokens, {sum(p.numel() for p in model.parameters()):,} parameters")
        pretrain(model, tokenizer)
        model.save_pretrained(OUT)
        tokenizer.save_pretrained(OUT)
    measured = measure(SAMPLES)
    print(f"{SAMPLES} samples a prompt:", json.dumps(measured, indent=1))
    with open(os.path.join(OUT, "success_rates.json"), "w") as file:
        json.dump({"seed": SEED, "samples": SAMPLES} | measured, file, indent=1)


if __name__ == "__main__":
    main()
