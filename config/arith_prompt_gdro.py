# Prompt-GDRO on the embedded world
out_dir = "out/arith_prompt_gdro"
prompt_gdro = True
