# Rollout-GDRO on Qwen3-0.6B-Base and GSM8K: one GPU of 24 GB, some 5 hours (estimated)
out_dir = "out/one_gpu_rollout_gdro"
model = "Qwen/Qwen3-0.6B-Base"
dataset = "gsm8k"
eval_sets = "gsm8k"
steps = 240
eval_every = 60
save_every = 30
prompts_per_step = 64
n_rollouts = 8
max_prompt_len = 512
max_response_len = 1024
lr = 1e-6
kv_cache_gib = 8.0
tokens_per_micro_batch = 8192
activation_checkpointing = True
prompt_gdro = False
rollout_gdro = True
