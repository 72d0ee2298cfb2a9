# Plain GRPO on the embedded world
out_dir = "out/arith_grpo"
