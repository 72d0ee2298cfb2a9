# Both adversaries on the embedded world
out_dir = "out/arith_gdro"
prompt_gdro = True
rollout_gdro = True
