# Both adversaries on `arith`: half a minute on a CPU core; ends at mean@8 0.699, pass@8 0.900
out_dir = "out/arith_gdro"
group_memory = 32
loss_agg = "prompt"
prompt_gdro = True
rollout_gdro = True
