# Plain GRPO on the embedded world: half a minute on one CPU core. TODO
out_dir = "out/arith_grpo"
prompt_gdro = False
rollout_gdro = False
