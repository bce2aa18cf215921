# `make demo` and `make test` need only python3, make and a C compiler; they install into .venv once.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check --no-compile --quiet -c constraints.txt

DEMO_DATA := data/synthetic
DEMO_CFG := configs/Synthetic/TimeSformer_divST_8_64.yaml

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-all test test-all check fmt clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | column -t -s '|'

setup: $(VENV)/dev  ## install everything for development into .venv

$(VENV)/base: setup.py constraints.txt
	@echo "installing the package and its requirements into $(VENV) (a few minutes, once)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PIP) -e '.[viz]'
	@touch $@

$(VENV)/dev: $(VENV)/base
	@echo "installing the development tools into $(VENV)"
	@$(PIP) -e '.[dev]'
	@touch $@
