"""GiB that a launch needs on each GPU, phase by phase, by arithmetic: what train.py prints at its
start, and what decides how many GPUs to rent. `bench/budget.py --tracked` checks the update."""
GIB = 2**30
H100 = 79.6  # GiB that PyTorch can use of a card sold as 80 GB
H200 = 139.8  # and of one sold as 141 GB
CARD_24 = 22.0  # of the smallest sold as 24 GB, the L4 and the A10
CARD_16 = 15.5  # of the smallest sold as 16 GB that computes in bfloat16
BESIDES = 3.0  # GiB a GPU that no formula here counts: CUDA's context, NCCL's buffers, CUDA graphs


def phases(parameters, shape, cfg, gpus, card=H100):
    """GiB on each of the `gpus` of a host at the peak of each phase, `BESIDES` not included
    -> {"engine start": GiB, "generate": GiB, "update": GiB, "evaluate": GiB}.

    parameters: how many the model has; shape: its transformers config; card: GiB of a GPU. For vLLM
    on GPUs with the computation in bfloat16. All weights of the policy, what the optimizer keeps
    and the reference are sharded over the GPUs; vLLM has a whole copy of the model on each."""
    learns = adapter_parameters(shape, cfg.lora_rank) if cfg.lora_rank else parameters
    weights = gradients = 4 * learns / gpus  # float32
    moments = 8 * learns / gpus
    # only read, so bfloat16 is enough: the reference, or what LoRA freezes, which is its reference
    frozen = 2 * parameters / gpus if cfg.kl_coef or cfg.lora_rank else 0
    # PyTorch keeps what the sync frees and takes vLLM's activations out of it: the larger counts
    passing = max(sync_bytes(shape, cfg), engine_bytes(shape, cfg, card))
    engine = 2 * parameters + cfg.kv_cache_gib * GIB + passing
    generate = weights + moments + frozen + engine  # gradients are freed after the update
    update = weights + moments + frozen + gradients + update_bytes(parameters, shape, cfg, gpus)
    # the optimizer makes its moments at its first step, which the engine's start does not wait for
    needed = {"engine start": weights + frozen + engine, "generate": generate,
              "update": update, "evaluate": generate}  # the engine sleeps during the update
    return {phase: needed_bytes / GIB for phase, needed_bytes in needed.items()}


def fits(parameters, shape, cfg, gpus, card):
    """Whether all phases and `BESIDES` fit on `gpus` cards of `card` usable GiB in a host."""
    return max(phases(parameters, shape, cfg, gpus, card).values()) + BESIDES <= card


def shortage(needed, cfg, card):
    """What to lower where the phases `needed` do not fit a card of so many GiB -> a line, or ""."""
    phase = max(needed, key=needed.get)
    gib = needed[phase] + BESIDES
    if gib <= card:
        return ""
    knobs = "kv_cache_gib, max_num_seqs"
    if phase == "update":
        knobs = "tokens_per_micro_batch, or --activation_checkpointing=true"
    least = "" if cfg.lora_rank else "; --lora_rank=32 needs the least"
    return (f"warning: about {gib:.1f} GiB a GPU are needed (most in phase {phase!r}) and this one "
            f"has {card:.1f}: lower {knobs}{least}")


def update_bytes(parameters, shape, cfg, gpus):
    """Bytes that come and go in an update: what is gathered, activations, gradients on their way.

    There are two candidates for the peak: a layer's backward pass early on, when the checkpoints of
    almost all layers are there; and the end, when the root's gradient is reduced in float32."""
    tokens, layers = cfg.tokens_per_micro_batch, shape.num_hidden_layers
    width, inner = shape.hidden_size, shape.intermediate_size
    head_dim = head_width(shape)
    queries, keys = shape.num_attention_heads * head_dim, key_heads(shape) * head_dim
    matrix = shape.vocab_size * width  # elements of the embedding, or of the head
    root = matrix if shape.tie_word_embeddings else 2 * matrix
    layer = (parameters - root) / layers
    # bfloat16 elements a token that autograd keeps of a layer: both norms 4 times the width each
    # (a float32 copy is two), queries and keys alike and the values, the MLP 4 times its width
    kept = 8 * width + 5 * queries + 5 * keys + 4 * inner
    saved = (layers - 1) * width + kept if cfg.activation_checkpointing else layers * kept
    activations = 2 * tokens * (saved + 2 * inner)  # and the gradients of two tensors of the MLP
    gathered = 2 * (root + 2 * layer)  # the root for the whole pass, a layer, and the next one
    if cfg.lora_rank:  # what is frozen has no gradient
        return gathered + activations
    on_their_way = 2 * matrix + 2 * layer + 4 * layer  # of the head, of a layer, and its reduction
    end = 2 * root + 4 * root + 4 * root / gpus  # in bfloat16, and what a reduction takes and gives
    return max(gathered + activations + on_their_way, end)


def engine_bytes(shape, cfg, card=H100):
    """Bytes of vLLM's activations, the most of which its profile run at the start needs already."""
    # tokens that vLLM reads at once, by the size of the card; on an A100 the smaller number too
    batched = 16384 if card >= 70 else 8192
    # the residual, what is normed from it, gate and up together, and their product
    layer = 2 * batched * (2 * shape.hidden_size + 3 * shape.intermediate_size)
    # logits in bfloat16 and float32, log-probabilities, probabilities, and the noise to sample with
    return layer + (2 + 4 * 4) * cfg.max_num_seqs * shape.vocab_size


def sync_bytes(shape, cfg):
    """Bytes that handing the largest tensor to vLLM takes: gathered as it is stored, and two
    bfloat16 copies, since vLLM makes a layer's weights anew before it writes them over the old
    ones. (Linear layers, which LoRA merges in float32, are smaller than the embedding.)"""
    stored = 2 if cfg.lora_rank else 4
    return (stored + 2 * 2) * shape.vocab_size * shape.hidden_size


def adapter_parameters(shape, rank):
    """Elements of LoRA's A and B on the seven linear layers of each decoder layer."""
    width, inner, head_dim = shape.hidden_size, shape.intermediate_size, head_width(shape)
    queries, keys = shape.num_attention_heads * head_dim, key_heads(shape) * head_dim
    ends = 2 * (width + queries) + 2 * (width + keys) + 3 * (width + inner)
    return shape.num_hidden_layers * rank * ends


def cache_bytes_a_token(shape):
    """Bytes of vLLM's key-value cache that one token takes."""
    head_dim = head_width(shape)
    return 2 * 2 * shape.num_hidden_layers * key_heads(shape) * head_dim


def head_width(shape):
    return getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads


def key_heads(shape):
    """How many heads the keys have: as many as the queries where the config does not say."""
    return getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads
