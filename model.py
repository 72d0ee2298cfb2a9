"""The policy: a Hugging Face causal LM that answers with the log-probabilities of given tokens,
never with all its logits. And LoRA. pretrained.py loads, shards and exports it."""
import torch


class Policy(torch.nn.Module):
    """Wraps a Hugging Face causal LM. Everything that trains or scores tokens goes through
    `forward`, so that this module is the one place to shard: FSDP wraps the decoder layers of
    `hf.base_model`, then this module as the root."""

    block = 4096  # entries of the vocabulary whose logits exist at a time

    def __init__(self, hf, temperature=1.0, float32_head=False):
        super().__init__()
        self.hf = hf
        self.temperature = temperature
        self.float32_head = float32_head
        self.adapters = {f"{name}.weight": module for name, module in self.named_modules()
                         if isinstance(module, LoRALinear)}

    def forward(self, input_ids, response_mask):
        """Log-probability and entropy (nats) of every response token at the sampling temperature.

        input_ids [B, S] are right-padded: causal attention never looks at padding from the left, so
        no mask is needed. response_mask [B, S] is True on response tokens. -> two float32 tensors
        [T], T response tokens, row after row; entropy carries no gradient."""
        # the head is left out here: its output would be [B, S, V], gigabytes of float32
        hidden = self.hf.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
        # rows of different lengths become one list of tokens: nothing is done for padding and
        # prompts, and no sum downstream has to mask them again
        predicts = response_mask[:, 1:]  # the hidden state at t - 1 predicts token t
        hidden = hidden[:, :-1][predicts]  # [T, D]
        targets = input_ids[:, 1:][predicts]  # [T]
        head = self.hf.get_output_embeddings()
        bias = getattr(head, "bias", None)
        return TokenLogprobs.apply(hidden, head.weight, bias, targets, self.temperature,
                                   self.block, self.float32_head)

    def named_tensors(self):
        """(name, full tensor) of every weight under its Hugging Face name; tied weights come under
        each of their names, as engines want. Sharded weights are gathered one at a time: a
        collective, so every rank must run the iterator to its end."""
        # not named_parameters, which leaves a tied head out: the engine's would be stale
        yield from self.merged(self.state_dict())

    def merged(self, tensors):
        """(Hugging Face name, full tensor) of a state dict of this policy; what adapters learned is
        in the weights beside them."""
        for name, tensor in tensors.items():
            # an engine or a file gets W + scale B A as one weight, and never hears of adapters
            if name in self.adapters:
                layer = name.removesuffix("weight")
                a, b = unsharded(tensors[layer + "lora_A"]), unsharded(tensors[layer + "lora_B"])
                yield name.removeprefix("hf."), self.adapters[name].merge(unsharded(tensor), a, b)
            elif ".lora_" not in name:
                yield name.removeprefix("hf."), unsharded(tensor)

    def base(self, input_ids, response_mask):
        """As `forward`, with adapters off: the model that training began with."""
        LoRALinear.on = False
        try:
            return self(input_ids, response_mask)
        finally:
            LoRALinear.on = True


def scaled_logits(hidden, weight, bias, temperature, entries=slice(None), float32_head=False):
    """float32 logits of some `entries` of the vocabulary. Of bfloat16 inputs the matrix product is
    rounded to bfloat16 too, unless `float32_head`."""
    weight = weight[entries]
    bias = None if bias is None else bias[entries]
    if not float32_head or hidden.dtype == torch.float32:
        logits = torch.nn.functional.linear(hidden, weight, bias).float()
    elif hidden.is_cuda:  # products of bfloat16, summed and kept in float32, as vLLM's float32 head
        logits = torch.mm(hidden, weight.T, out_dtype=torch.float32)
        logits = logits if bias is None else logits + bias.float()
    else:
        bias = None if bias is None else bias.float()
        logits = torch.nn.functional.linear(hidden.float(), weight.float(), bias)
    return logits if temperature == 1 else logits.div_(temperature)


class TokenLogprobs(torch.autograd.Function):
    """Log-probability and entropy (nats) of `targets` [T] under
    softmax((hidden [T, D] @ weight [V, D].T + bias) / temperature) -> two float32 [T].

    Logits exist for `block` entries of the vocabulary at a time: dropped in the forward pass, made
    again in the backward pass and turned into their gradient in place."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, temperature, block, float32_head=False):
        # logits of 16,384 tokens over 151,936 entries would take 9.3 GiB in float32
        # Three sums over the vocabulary are enough. With Z = sum of exp(logit), a log-probability
        # is logit(target) - log Z, and the entropy is log Z - E[logit].
        # They are made in one pass over the blocks, relative to the highest logit so far: exp of a
        # logit alone would overflow.
        top = hidden.new_full((len(hidden),), -torch.inf, dtype=torch.float32)
        total = torch.zeros_like(top)     # sum of exp(logit - top)
        expected = torch.zeros_like(top)  # sum of exp(logit - top) * logit
        target_logit = torch.zeros_like(top)
        for entries, inside, column in blocks(len(weight), targets, block):
            logits = scaled_logits(hidden, weight, bias, temperature, entries, float32_head)
            found = logits.gather(-1, column).squeeze(-1)
            target_logit = torch.where(inside, found, target_logit)
            before, top = top, torch.maximum(top, logits.amax(-1))
            shrink = (before - top).exp()  # what was summed is relative to a lower top
            p = (logits - top[:, None]).exp_()  # [T, block]
            total = total * shrink + p.sum(-1)
            expected = expected * shrink + logits.mul_(p).sum(-1)  # in place: no third such tensor
            del logits, p  # before the next block's
        logz = top + total.log()
        entropy = logz - expected / total
        ctx.save_for_backward(hidden, weight, bias, targets, logz)
        ctx.temperature, ctx.block, ctx.float32_head = temperature, block, float32_head
        ctx.mark_non_differentiable(entropy)
        return (target_logit - top) - total.log(), entropy

    @staticmethod
    def backward(ctx, grad, _):
        # no logits were kept: making them again is one matrix product more, four instead of three
        hidden, weight, bias, targets, logz = ctx.saved_tensors
        _, weight_learns, bias_learns, *_ = ctx.needs_input_grad
        grad = grad / ctx.temperature
        # many small terms: too many for a sum in bfloat16
        d_hidden = torch.zeros_like(hidden, dtype=torch.float32)
        d_weight = torch.empty_like(weight) if weight_learns else None
        d_bias = torch.empty_like(bias) if bias_learns else None
        for entries, inside, column in blocks(len(weight), targets, ctx.block):
            d_logits = scaled_logits(hidden, weight, bias, ctx.temperature, entries,
                                     ctx.float32_head)
            # the gradient of a log-probability by the logits is one-hot - p: p is made in place
            # from the logits, and 1 is added at the target
            d_logits.sub_(logz[:, None]).exp_().mul_(-grad[:, None])
            d_logits.scatter_add_(-1, column, (grad * inside)[:, None])
            d_logits = d_logits.to(hidden.dtype)
            d_hidden += d_logits @ weight[entries]
            if weight_learns:
                torch.mm(d_logits.T, hidden, out=d_weight[entries])
            if bias_learns:
                d_bias[entries] = d_logits.sum(0)
            del d_logits
        return d_hidden.to(hidden.dtype), d_weight, d_bias, None, None, None, None


def blocks(vocabulary, targets, block):
    """Cut the vocabulary -> for each block its slice, whether it holds a row's target [T], and at
    which column [T, 1] (any column where it does not)."""
    for start in range(0, vocabulary, block):
        end = min(start + block, vocabulary)
        inside = (targets >= start) & (targets < end)
        yield slice(start, end), inside, (targets - start).clamp(0, end - start - 1)[:, None]


def unsharded(tensor):
    """The whole of a sharded tensor; any other tensor as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


# ---------- LoRA ----------

class LoRALinear(torch.nn.Module):
    """W x + scale B A x in the place of a linear layer (arXiv 2106.09685): W [out, in] stays as it
    was, A [rank, in] and B [out, rank] learn. B is 0 at first: training begins at W x."""

    on = True  # False: W x

    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias  # under the names that they had
        self.scale = alpha / rank
        # in float32, where small steps are not lost; W may be in bfloat16
        like = {"device": linear.weight.device, "dtype": torch.float32}
        self.lora_A = torch.nn.Parameter(torch.zeros(rank, linear.in_features, **like))
        self.lora_B = torch.nn.Parameter(torch.zeros(linear.out_features, rank, **like))

    def forward(self, x):
        linear = torch.nn.functional.linear
        y = linear(x, self.weight, self.bias)
        return y + self.scale * linear(linear(x, self.lora_A), self.lora_B) if self.on else y

    def merge(self, weight, a, b):
        """The weight of one linear layer that does what W, A and B do."""
        return (weight.float() + self.scale * (b @ a)).to(weight.dtype)


def add_adapters(hf, rank, alpha, seed):
    """Freeze a model, and put LoRA on every linear layer of its decoder."""
    hf.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for parent in list(hf.base_model.layers.modules()):
        for name, linear in list(parent.named_children()):
            if isinstance(linear, torch.nn.Linear):
                adapter = LoRALinear(linear, rank, alpha)
                setattr(parent, name, adapter)
                if not linear.weight.is_meta:  # other ranks receive the master's
                    bound = linear.in_features**-0.5
                    torch.nn.init.uniform_(adapter.lora_A, -bound, bound, generator)
