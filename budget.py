"""GiB that a launch needs on each GPU, phase by phase, by arithmetic: what train.py prints at its
start, and what decides how many GPUs to rent. `bench/budget.py --tracked` checks the update."""
GIB = 2**30
H100 = 79.6  # GiB that PyTorch can use of a card sold as 80 GB
H200 = 139.8  # and of one sold as 141 GB
BESIDES = 3.0  # GiB a GPU that no formula here counts: CUDA's context, NCCL's buffers, CUDA graphs
BATCHED_TOKENS = 16384  # that vLLM reads at once on a card of 70 GiB or more that is not an A100


def phases(parameters, shape, cfg, gpus):
    """GiB on each of the `gpus` of a host at the peak of each phase, `BESIDES` not included
    -> {"engine start": GiB, "generate": GiB, "update": GiB, "evaluate": GiB}.

    parameters: how many the model has; shape: its transformers config. For vLLM on GPUs with the
    computation in bfloat16. All weights of the policy, what the optimizer keeps and the reference
    are sharded over the GPUs; vLLM has a whole copy of the model on each."""
    weights = gradients = 4 * parameters / gpus  # float32
    moments = 8 * parameters / gpus
    reference = 2 * parameters / gpus if cfg.kl_coef else 0  # only read, so bfloat16 is enough
    # PyTorch keeps what the sync frees and takes vLLM's activations out of it: the larger counts
    passing = max(sync_bytes(shape), engine_bytes(shape, cfg))
    engine = 2 * parameters + cfg.kv_cache_gib * GIB + passing
    generate = weights + moments + reference + engine  # gradients are freed after the update
    update = weights + moments + reference + gradients + update_bytes(parameters, shape, cfg, gpus)
    # the optimizer makes its moments at its first step, which the engine's start does not wait for
    needed = {"engine start": weights + reference + engine, "generate": generate,
              "update": update, "evaluate": generate}  # the engine sleeps during the update
    return {phase: needed_bytes / GIB for phase, needed_bytes in needed.items()}


def fits(parameters, shape, cfg, gpus, card):
    """Whether all phases and `BESIDES` fit on `gpus` cards of `card` usable GiB in a host."""
    return max(phases(parameters, shape, cfg, gpus).values()) + BESIDES <= card


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
    on_their_way = 2 * matrix + 2 * layer + 4 * layer  # of the head, of a layer, and its reduction
    end = 2 * root + 4 * root + 4 * root / gpus  # in bfloat16, and what a reduction takes and gives
    return max(gathered + activations + on_their_way, end)


def engine_bytes(shape, cfg):
    """Bytes of vLLM's activations, the most of which its profile run at the start needs already."""
    # the residual, what is normed from it, gate and up together, and their product
    layer = 2 * BATCHED_TOKENS * (2 * shape.hidden_size + 3 * shape.intermediate_size)
    # logits in bfloat16 and float32, log-probabilities, probabilities, and the noise to sample with
    return layer + (2 + 4 * 4) * cfg.max_num_seqs * shape.vocab_size


def sync_bytes(shape):
    """Bytes that handing the largest tensor to vLLM takes: gathered in float32, and two bfloat16
    copies, since vLLM makes a layer's weights anew before it writes them over the old ones."""
    return (4 + 2 * 2) * shape.vocab_size * shape.hidden_size


def cache_bytes_a_token(shape):
    """Bytes of vLLM's key-value cache that one token takes."""
    head_dim = head_width(shape)
    return 2 * 2 * shape.num_hidden_layers * key_heads(shape) * head_dim


def head_width(shape):
    return getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads


def key_heads(shape):
    """How many heads the keys have: as many as the queries where the config does not say."""
    return getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads
