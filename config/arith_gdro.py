# Both adversaries on `arith`: half a minute on a CPU core; ends at mean@8 0.695, pass@8 0.894
out_dir = "out/arith_gdro"
group_memory = 32
prompt_gdro = True
rollout_gdro = True
