# Both adversaries on the embedded world: half a minute on one CPU core; ends at mean@8 0.536, pass@8 0.866
out_dir = "out/arith_gdro"
prompt_gdro = True
rollout_gdro = True
