# Rollout-GDRO on the embedded world: half a minute on one CPU core. TODO
out_dir = "out/arith_rollout_gdro"
prompt_gdro = False
rollout_gdro = True
