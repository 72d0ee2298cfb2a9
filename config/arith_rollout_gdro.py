# Rollout-GDRO on `arith`: half a minute on a CPU core; ends at mean@8 0.711, pass@8 0.906
out_dir = "out/arith_rollout_gdro"
group_memory = 32
prompt_gdro = False
rollout_gdro = True
