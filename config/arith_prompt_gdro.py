# Prompt-GDRO on the embedded world: half a minute on one CPU core. TODO
out_dir = "out/arith_prompt_gdro"
prompt_gdro = True
rollout_gdro = False
