# `make demo` and `make test` need only python3 (3.11 or later), make and a C compiler; they install into .venv once.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP_OPTIONS := --disable-pip-version-check --quiet -c constraints.txt
PIP := $(PY) -m pip install $(PIP_OPTIONS)
TIMESFORMER := $(VENV)/bin/timesformer

DATA := data/synthetic
RUNS := runs/synthetic

TEST_PROCESSES ?= 2  # a test takes up to 2 GiB and, now and then, two cores

LOWEST := .venv-lowest
LOWEST_PYTHON ?= python3.10  # the oldest that setup.py allows

# For benchmarks/gpu_check.sh, on a GPU machine without internet.
WHEELS := .wheels
WHEELS_MIB := 60
GPU_PYTHON ?= 3.12
# pip takes these word for word: a wheel for manylinux_2_17 isn't found under manylinux_2_28.
GPU_PLATFORMS := $(foreach p,_2_28 _2_27 _2_26 _2_24 _2_17 2014 _2_12 2010 _2_5 1,\
	--platform manylinux$(p)_x86_64)

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-all test test-all test-faults test-lowest check fmt dist package gpu-wheels clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/'

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

demo: $(VENV)/base  ## make videos, train divided attention on them, test it, draw its predictions
	$(TIMESFORMER) make-synthetic --output $(DATA)
	$(TIMESFORMER) run --cfg Synthetic/TimeSformer_divST_8_64
	$(TIMESFORMER) plot-predictions \
		--results $(RUNS)/divided/scores.npz --output $(RUNS)/divided/predictions.png
	@$(TIMESFORMER) compare-runs $(RUNS)/divided
	@echo
	@echo "In $(RUNS)/divided: predictions.png (look at it), scores.npz, checkpoints/, run.log,"
	@echo "stats.jsonl and tensorboard/ ($(VENV)/bin/tensorboard --logdir $(RUNS) shows the curves)."

demo-all: demo  ## the demo for three attention schemes, and a table of them
	$(TIMESFORMER) run --cfg Synthetic/TimeSformer_jointST_8_64
	$(TIMESFORMER) run --cfg Synthetic/TimeSformer_spaceOnly_8_64
	@$(TIMESFORMER) compare-runs $(RUNS)/divided $(RUNS)/joint $(RUNS)/space

test: $(VENV)/dev  ## the tests, a few minutes
	$(PY) -m pytest -n $(TEST_PROCESSES)

test-all: $(VENV)/dev  ## every test
	$(PY) -m pytest -m ''

# A tenth of it, in minutes: make test-faults FAULTS_SCALE=0.1. A busy machine: FAULTS_PATIENCE=3.
test-faults: $(VENV)/dev  ## the fault campaigns (kills, full disks, damage) in full, an hour
	$(PY) -m pytest -m '' tests/faults

test-lowest:  ## the tests with the oldest versions that setup.py allows, in $(LOWEST)
	@test -x $(LOWEST)/bin/python || $(LOWEST_PYTHON) -m venv $(LOWEST)
	@echo "installing constraints-lowest.txt into $(LOWEST) (minutes, once)"
	@$(LOWEST)/bin/python -m pip install --disable-pip-version-check --quiet \
		-c constraints-lowest.txt -e '.[test]'
	$(LOWEST)/bin/python -m pytest -n $(TEST_PROCESSES)

check: $(VENV)/dev  ## what CI and pre-commit check: lint, format, types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

fmt: $(VENV)/dev  ## mend lint and format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

gpu-wheels:  ## fill .wheels with what benchmarks/gpu_check.sh installs where there is no internet
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@rm -rf $(WHEELS)
	@$(PY) -m pip download $(PIP_OPTIONS) --no-deps --only-binary=:all: -d $(WHEELS) \
		--python-version $(GPU_PYTHON) --implementation cp $(GPU_PLATFORMS) \
		-r benchmarks/gpu_wheels.txt
	@# Pure Python; their authors publish no wheels.
	@$(PY) -m pip wheel $(PIP_OPTIONS) --no-deps -w $(WHEELS) fvcore iopath
	@bytes=$$(cat $(WHEELS)/*.whl | wc -c); \
	echo "$(WHEELS): $$(ls $(WHEELS)/*.whl | wc -l) wheels for Python $(GPU_PYTHON)," \
		"$$((bytes / 1048576)).$$((bytes % 1048576 * 10 / 1048576)) MiB of $(WHEELS_MIB) MiB allowed"; \
	test $$bytes -le $$(($(WHEELS_MIB) * 1048576)) || { echo "too large: leave something out of" \
		"benchmarks/gpu_wheels.txt (transformers is the first that the check can do without)"; \
		exit 1; } >&2

dist: $(VENV)/dev  ## build sdist and wheel into dist/
	$(PY) -m build --no-isolation --outdir dist

package: $(VENV)/dev  ## build the package, install it elsewhere, run every command there
	$(PY) tests/packaging/check_package.py

clean:  ## remove the environment and caches; data and runs stay
	rm -rf $(VENV) $(LOWEST) .pytest_cache .mypy_cache .ruff_cache *.egg-info build dist
