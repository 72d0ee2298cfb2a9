# eval.py: the benchmarks of the paper as it samples; on 8 GPUs at 1.7B 15 minutes (estimated)
eval_sets = "math500,aime24,aime25,amc23,minerva,olympiad,gpqa"
max_prompt_len = 3200
max_response_len = 4096
eval_samples = 8
eval_passk = 8
eval_temperature = 0.6
eval_top_p = 0.8
eval_top_k = 20
kv_cache_gib = 24.0
