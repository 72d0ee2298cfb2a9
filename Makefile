PYTHON ?= python3
PY := .venv/bin/python

.PHONY: demo test
demo: .venv/installed  # train with both adversaries on two CPU cores, then draw the figures; stop it and run it again: it continues
	$(PY) train.py config/arith_gdro.py --resume=auto
	$(PY) plot.py out/arith_gdro

test: .venv/installed
	$(PY) -m pytest -q

.venv/installed: pyproject.toml
	$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('Python 3.11 or newer is needed: make PYTHON=python3.12 ...')"
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --editable '.[test]'
	touch $@
