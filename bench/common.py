"""What several measurements share: random models (what a weight is does not matter to speed), a
reward that needs no sense in the responses, and peak memory."""
import hashlib


def coin(response, answer):
    """The reward: right for the answer itself, and for half of the longer responses."""
    return toss(response, answer, 2)


def uneven_coin(response, answer):
    """The reward: as `coin`, but for a half down to a sixteenth of the longer responses, by the
    answer: some prompts are harder than others, as the adversaries need it."""
    return toss(response, answer, (2, 4, 8, 16)[hashlib.sha256(answer.encode()).digest()[0] % 4])


def toss(response, answer, sides):
    if len(response) <= len(answer) + 1:
        return response == answer
    return hashlib.sha256(response.encode("utf-8", "replace")).digest()[0] % sides == 0


def random_qwen3(path, layers=4, width=128, vocabulary=2048, dtype="float32", inner=None,
                 heads=None, kv_heads=None, device="cpu"):
    """Write a Qwen3 of random weights, and a tokenizer of one token a character -> path.
    What is not given is in the ratios of Qwen3-1.7B; weights are drawn on `device`."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from worlds.make_base import make_tokenizer

    torch.manual_seed(0)
    head = min(128, max(width // 4, 32))
    heads = heads or max(width // head, 2)
    tokenizer = make_tokenizer(vocabulary)
    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=inner or 3 * width,
        num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads or heads // 2, head_dim=head, max_position_embeddings=8192,
        tie_word_embeddings=True, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id)
    with torch.device(device):
        hf = Qwen3ForCausalLM(config).to(getattr(torch, dtype))
    hf.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def peak_mib(device, reset=False):
    """Peak memory of this process in MiB since the last reset: the GPU's, or resident (Linux resets
    it on request)."""
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
