# Both adversaries on the embedded world: half a minute on one CPU core. TODO
out_dir = "out/arith_gdro"
prompt_gdro = True
rollout_gdro = True
