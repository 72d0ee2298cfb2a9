"""The plain engine: batched sampling with a key-value cache in PyTorch, for CPUs and as the measure of the other."""
import numpy as np
import torch
from tqdm import tqdm

from model import load_hf
from rollout import Engine, Rollout, stop_ids, text_of


class TorchEngine(Engine):
    """Batched sampling with a key-value cache in plain PyTorch, on a copy of the model. Finished sequences leave the batch."""

    def __init__(self, model, device="cpu", dtype=torch.float32, max_num_seqs=256):
        self.hf, self.tokenizer = load_hf(model, dtype, device)
        self.hf.requires_grad_(False)
        self.device, self.dtype, self.max_num_seqs = device, dtype, max_num_seqs
        self.names = set(self.hf.state_dict())
        self.probes = sorted(self.names)[:: max(len(self.names) // 4, 1)]
        self.stop_ids = torch.tensor(stop_ids(self.hf.generation_config, self.tokenizer), device=device)

    def load(self, named_tensors):
        mine = self.hf.state_dict()
        with torch.no_grad():
            for name, tensor in named_tensors:
                if name in mine:
                    mine[name].copy_(tensor)

    def read(self, names):
        return {name: self.hf.state_dict()[name] for name in names}

    def sleep(self):
        """Nothing to free: the copy of the model stays."""

    def generate(self, prompts, seeds, sampling, progress="generate"):
        """prompts: token ids of each prompt; seeds: for each prompt a list with one seed a rollout -> list of Rollout, prompt after
        prompt, `prompt_id` its position. `progress` names a bar that shows where this takes longer than two seconds."""
        requests = [(len(ids), i, j) for i, ids in enumerate(prompts) for j in range(len(seeds[i]))]
        requests.sort()  # similar lengths together: less padding
        rollouts = []
        with tqdm(total=len(requests), desc=progress, unit="rollout", delay=2, leave=False, dynamic_ncols=True, disable=progress is None) as bar:
            for start in range(0, len(requests), self.max_num_seqs):
                batch = [(i, j) for _, i, j in requests[start : start + self.max_num_seqs]]
                rollouts += self._generate(batch, prompts, seeds, sampling)
                bar.update(len(batch))
        return sorted(rollouts, key=lambda r: (r.prompt_id, r.sample))

    @torch.no_grad()
    def _generate(self, batch, prompts, seeds, sampling):
        from transformers import DynamicCache

        unique = sorted({i for i, _ in batch})  # each prompt is read once, then copied to its rollouts
        width = max(len(prompts[i]) for i in unique)
        ids = torch.tensor([[0] * (width - len(prompts[i])) + prompts[i] for i in unique], device=self.device)  # left padding
        mask = torch.tensor([[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in unique], device=self.device)
        cache = DynamicCache(config=self.hf.config)
        position = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = self.hf(input_ids=ids, attention_mask=mask, position_ids=position, past_key_values=cache, logits_to_keep=1).logits
        row = torch.tensor([unique.index(i) for i, _ in batch], device=self.device)
        cache.batch_select_indices(row)
        logits, mask = logits[row, -1], mask[row]

        N, T = len(batch), sampling.max_tokens
        uniform = np.stack([np.random.Generator(np.random.Philox(seeds[i][j])).random(T) for i, j in batch])
        uniform = torch.from_numpy(uniform).to(self.device)  # [N, T] float64: one number decides one token
        tokens = torch.zeros(N, T, dtype=torch.long, device=self.device)
        logprobs, length = torch.zeros(N, T, device=self.device), torch.full((N,), T, device=self.device)
        finished, alive = torch.zeros(N, dtype=torch.bool, device=self.device), torch.arange(N, device=self.device)
        for t in range(T):
            token, logp = draw(logits, uniform[alive, t], sampling)
            tokens[alive, t], logprobs[alive, t] = token, logp
            stopped = torch.isin(token, self.stop_ids)
            if stopped.any():
                length[alive[stopped]], finished[alive[stopped]] = t + 1, True
                keep = (~stopped).nonzero().squeeze(-1)
                alive, token, mask = alive[keep], token[keep], mask[keep]
                cache.batch_select_indices(keep)
            if len(alive) == 0 or t == T - 1:
                break
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            position = mask.sum(-1, keepdim=True) - 1
            logits = self.hf(input_ids=token[:, None], attention_mask=mask, position_ids=position, past_key_values=cache).logits[:, -1]

        rollouts = []
        for k, (i, j) in enumerate(batch):
            ids = tokens[k, : length[k]].tolist()
            text = text_of(self.tokenizer, ids, bool(finished[k]))
            rollouts.append(Rollout(i, j, prompts[i], ids, logprobs[k, : length[k]].tolist(), bool(finished[k]), text))
        return rollouts


def draw(logits, uniform, sampling):
    """Sample one token a row by inverting the distribution function at `uniform` [N] in [0, 1). logits [N, V].
    -> token [N] and its log-probability [N] at the temperature, before any truncation."""
    if sampling.temperature == 0:
        token = logits.argmax(-1)
        return token, logits.float().log_softmax(-1).gather(-1, token[:, None]).squeeze(-1)
    logp = (logits.float() / sampling.temperature).log_softmax(-1)  # [N, V]
    probs = logp.double().exp()
    if sampling.top_k > 0:
        smallest = probs.topk(min(sampling.top_k, probs.shape[-1])).values[:, -1:]
        probs = probs.where(probs >= smallest, 0.0)
        probs = probs / probs.sum(-1, keepdim=True)
    if sampling.top_p < 1:  # keep the fewest most likely tokens that reach top_p together
        ranked, order = probs.sort(dim=-1, descending=True)
        beyond = ranked.cumsum(-1) - ranked >= sampling.top_p
        probs = probs.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), 0.0)
    cdf = probs.cumsum(-1)
    token = torch.searchsorted(cdf, (uniform[:, None] * cdf[:, -1:]), right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
    return token, logp.gather(-1, token[:, None]).squeeze(-1)
