# Rollout-GDRO on the embedded world
out_dir = "out/arith_rollout_gdro"
rollout_gdro = True
