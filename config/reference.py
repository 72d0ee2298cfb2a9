# The settings of the launch scripts of the paper's authors, to be given after another config
difficulty = "any"
unseen = "hardest"
history = 100
prompt_signal = "surrogate"
prompt_eta = 0.65
prompt_ema = 0.12
prompt_normalize = True
prompt_per_share = True
rollout_rule = "exp3p"
n_min = 2
n_max = 12
loss_agg = "token"
tis_cap = 0.0
group_memory = 0
