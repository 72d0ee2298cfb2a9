"""The plain engine: batched sampling with a key-value cache in PyTorch, for CPUs, and as what the
other engine is compared with."""
import numpy as np
import torch
from tqdm import tqdm

from pretrained import load_hf
from rollout import Engine, Rollout, stop_ids, text_of


class TorchEngine(Engine):
    """Samples on a copy of the model. Finished sequences leave the batch."""

    def __init__(self, model, device="cpu", dtype=torch.float32, max_num_seqs=256):
        self.hf, self.tokenizer = load_hf(model, dtype, device)
        self.hf.requires_grad_(False)
        self.device = device
        self.dtype = dtype
        self.max_num_seqs = max_num_seqs
        self.names = set(self.hf.state_dict())
        self.probes = sorted(self.names)
        stops = stop_ids(self.hf.generation_config, self.tokenizer)
        self.stop_ids = torch.tensor(stops, device=device)

    @torch.no_grad()
    def load(self, named_tensors):
        own = self.hf.state_dict()
        for name, tensor in named_tensors:
            if name in own:
                own[name].copy_(tensor)

    def read(self, names):
        return {name: self.hf.state_dict()[name] for name in names}

    def sleep(self):
        """Nothing to free: the copy of the model stays."""

    def generate(self, prompts, seeds, sampling, progress="generate"):
        requests = [(len(ids), i, j) for i, ids in enumerate(prompts) for j in range(len(seeds[i]))]
        requests.sort()  # similar lengths together: less padding
        rollouts = []
        with tqdm(total=len(requests), desc=progress, unit="rollout", delay=2, leave=False,
                  dynamic_ncols=True, disable=progress is None) as bar:
            for start in range(0, len(requests), self.max_num_seqs):
                batch = [(i, j) for _, i, j in requests[start : start + self.max_num_seqs]]
                rollouts += self.sample(batch, prompts, seeds, sampling)
                bar.update(len(batch))
        return sorted(rollouts, key=lambda r: (r.prompt_id, r.sample))

    @torch.no_grad()
    def sample(self, batch, prompts, seeds, sampling):
        """Rollouts of a `batch` of (prompt, index within its group), all at once."""
        logits, mask, cache = self.prefill([i for i, _ in batch], prompts)
        N, T = len(batch), sampling.max_tokens
        # one number decides one token, whatever else is in the batch
        uniform = np.stack([np.random.Generator(np.random.Philox(seeds[i][j])).random(T)
                            for i, j in batch])
        uniform = torch.from_numpy(uniform).to(self.device)  # [N, T] float64
        tokens = torch.zeros(N, T, dtype=torch.long, device=self.device)
        logprobs = torch.zeros(N, T, device=self.device)
        length = torch.full((N,), T, device=self.device)
        finished = torch.zeros(N, dtype=torch.bool, device=self.device)
        alive = torch.arange(N, device=self.device)  # the rows that are still sampled
        for t in range(T):
            token, logp = draw(logits, uniform[alive, t], sampling)
            tokens[alive, t] = token
            logprobs[alive, t] = logp
            stopped = torch.isin(token, self.stop_ids)
            if stopped.any():
                length[alive[stopped]] = t + 1
                finished[alive[stopped]] = True
                keep = (~stopped).nonzero().squeeze(-1)
                alive, token, mask = alive[keep], token[keep], mask[keep]
                cache.batch_select_indices(keep)
            if len(alive) == 0 or t == T - 1:
                break
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            position = mask.sum(-1, keepdim=True) - 1
            output = self.hf(input_ids=token[:, None], attention_mask=mask, position_ids=position,
                             past_key_values=cache)
            logits = output.logits[:, -1]
        rollouts = []
        for k, (i, j) in enumerate(batch):
            ids = tokens[k, : length[k]].tolist()
            text = text_of(self.tokenizer, ids, bool(finished[k]))
            rollouts.append(Rollout(i, j, prompts[i], ids, logprobs[k, : length[k]].tolist(),
                                    bool(finished[k]), text))
        return rollouts

    def prefill(self, index, prompts):
        """Read each prompt once, then copy it to its rollouts: `index` [N] of the prompts.
        -> logits of the first token [N, V], attention mask [N, S], key-value cache."""
        from transformers import DynamicCache

        unique = sorted(set(index))
        width = max(len(prompts[i]) for i in unique)
        padding = [width - len(prompts[i]) for i in unique]  # on the left
        ids = [[0] * pad + prompts[i] for pad, i in zip(padding, unique, strict=True)]
        mask = [[0] * pad + [1] * (width - pad) for pad in padding]
        ids = torch.tensor(ids, device=self.device)
        mask = torch.tensor(mask, device=self.device)
        cache = DynamicCache(config=self.hf.config)
        position = (mask.cumsum(-1) - 1).clamp(min=0)
        output = self.hf(input_ids=ids, attention_mask=mask, position_ids=position,
                         past_key_values=cache, logits_to_keep=1)
        row = torch.tensor([unique.index(i) for i in index], device=self.device)
        cache.batch_select_indices(row)
        return output.logits[row, -1], mask[row], cache


def draw(logits, uniform, sampling):
    """Sample one token a row by inverting the distribution function at `uniform` [N] in [0, 1).
    logits [N, V] -> token [N] and its log-probability [N] at the temperature, before any
    truncation."""
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
        dropped = torch.zeros_like(beyond).scatter(-1, order, beyond)
        probs = probs.masked_fill(dropped, 0.0)
    cdf = probs.cumsum(-1)
    token = torch.searchsorted(cdf, uniform[:, None] * cdf[:, -1:], right=True).squeeze(-1)
    token = token.clamp(max=logits.shape[-1] - 1)  # a sum may round to less than the number
    return token, logp.gather(-1, token[:, None]).squeeze(-1)
