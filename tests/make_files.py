"""Small local files for tests: a tiny Qwen3 with a byte-level tokenizer that has Qwen3's special
tokens, and made-up rows with the columns, types and oddities of the real data sets."""

import json
import os

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_qwen3(path, seed=0):
    """A random Qwen3 of 2 layers as Hugging Face files in `path` -> path."""
    import torch

    torch.manual_seed(seed)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    text = (
        "Let's think step by step and output the final answer within \\boxed{}. "
        "What is the sum of 12 and 30?"
    )
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL[1:],
    )
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(path)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    Qwen3ForCausalLM(config).save_pretrained(path)
    return str(path)


def write_jsonl(path, rows):
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return str(path)


def dapo_rows(count=12):
    """Columns of the processed English set; some prompts still with the old instruction."""
    before = (
        "Solve the following math problem step by step. The last line of your response should be "
        "of the form Answer: $Answer (without quotes) where $Answer is the answer to the problem."
        "\n\n"
    )
    after = '\n\nRemember to put your answer on its own line after "Answer:".'
    rows = []
    for i in range(count):
        question = f"What is the sum of {i} and {2 * i}?"
        row = {
            "prompt": before + question + after if i % 4 == 3 else question,
            "solution": str(3 * i),
            "data_source": "math_dapo",
            "source_prompt": [{"content": question, "role": "user"}],
            "ability": "MATH",
            "reward_model": {"ground_truth": str(3 * i), "style": "rule"},
            "extra_info": {"index": str(i)},
        }
        rows.append(row)
    return rows


def benchmark_rows():
    """name -> rows of each set, as the loaders find them."""
    gsm8k = []
    for i in (1, 2, 3):
        solution = f"She has {i},000 + 1 = <<{i}000+1={i}001>>{i},001.\n#### {i},001"
        question = f"Ann has {i},000 pens and buys 1. How many?"
        gsm8k.append({"question": question, "answer": solution})

    math500 = []
    for i in range(1, 7):
        row = {"problem": f"Simplify ${i}/4$.", "answer": rf"\frac{{{i}}}{{4}}"}
        row |= {"solution": rf"It is \boxed{{\frac{{{i}}}{{4}}}}", "unique_id": f"test/{i}"}
        row |= {"subject": ("Algebra", "Geometry")[i % 2], "level": 1 + i % 3}
        math500.append(row)

    aime24 = []
    for i in (25, 33, 204):
        row = {"id": 60 + i, "problem": f"Find the remainder {i}.", "answer": f"{i:03d}"}
        aime24.append(row | {"solution": "...", "url": "", "year": "2024"})

    olympiad = []
    for i, answer in enumerate(["$2$", r"$\frac{1}{2}$", "(0, 1)"]):
        row = {"id": i, "question": f"Determine all {i}.", "final_answer": [answer]}
        row |= {"solution": ["..."], "context": None, "is_multiple_answer": False, "unit": None}
        olympiad.append(row)

    gpqa = []
    for i in range(8):
        row = {"Question": f"Which particle {i}?", "Correct Answer": f"pion {i}"}
        row |= {"Incorrect Answer 1": "kaon", "Incorrect Answer 2": "muon\n"}
        row |= {"Incorrect Answer 3": "tau", "Subdomain": "Physics", "Record ID": f"rec{i}"}
        gpqa.append(row)

    return {
        "gsm8k_test": gsm8k,
        "gsm8k_train": gsm8k[:2],
        "math500": math500,
        "aime24": aime24,
        "aime25": [
            {"problem": f"Find the remainder {i} of 2025.", "answer": str(i), "id": str(i)}
            for i in (70, 588)
        ],
        "amc23": [
            {"id": i, "question": f"How many are {i}?", "answer": float(i), "url": ""}
            for i in (27, 4)
        ],
        "minerva": [
            {"question": "What is the flux, in erg?", "answer": "4.5e33"},
            {"question": "How many lines per millimetre?", "answer": "120"},
        ],
        "olympiad": olympiad,
        "gpqa": gpqa,
    }


def write_benchmarks(folder):
    os.makedirs(folder, exist_ok=True)
    for name, rows in benchmark_rows().items():
        write_jsonl(os.path.join(folder, name + ".jsonl"), rows)
    write_jsonl(os.path.join(folder, "dapo.jsonl"), dapo_rows())
    return str(folder)
