"""What several measurements share: random models (what a weight is does not matter to speed), and peak memory."""
from worlds.make_base import make_tokenizer


def random_qwen3(path, layers=4, width=128, vocabulary=2048, dtype="float32"):
    """Write a Qwen3 of random weights, width-to-heads ratios as in Qwen3-1.7B, and a tokenizer of one token a character -> path."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    head = min(128, max(width // 4, 32))
    heads = max(width // head, 2)
    tokenizer = make_tokenizer(vocabulary)
    config = Qwen3Config(vocab_size=vocabulary, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads // 2,
                         head_dim=head, max_position_embeddings=8192, tie_word_embeddings=True, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    Qwen3ForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def peak_mib(device, reset=False):
    """Peak memory of this process in MiB since the last reset: the GPU's, or resident (Linux resets it on request)."""
    import torch

    if reset and device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif reset:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) / 1024
