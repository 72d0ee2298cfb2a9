# Prompt-GDRO on `arith`: half a minute on a CPU core; ends at mean@8 0.693, pass@8 0.897
out_dir = "out/arith_prompt_gdro"
group_memory = 32
prompt_gdro = True
rollout_gdro = False
