# Plain GRPO on `arith`: half a minute on a CPU core; ends at mean@8 0.670, pass@8 0.884
out_dir = "out/arith_grpo"
prompt_gdro = False
rollout_gdro = False
