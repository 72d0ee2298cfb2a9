# The settings that the paper prints, to be given after another config
difficulty = "any"
unseen = "hardest"
history = 50
prompt_signal = "surrogate"
prompt_eta = 0.65
prompt_ema = 0.12
prompt_normalize = False
prompt_per_share = True
rollout_rule = "exp3p"
n_min = 2
n_max = 12
loss_agg = "prompt"
tis_cap = 0.0
group_memory = 0
