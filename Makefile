# The contract between people, CI and the code. `make` lists the targets.
VENV ?= .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.attribution-sweeps
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-all lint types ui format benchmarks

help: ## list the targets and the sweeps
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "sweeps (python sweeps/NAME.py --help):"
	@for file in $$(grep -l __main__ sweeps/*.py); do printf "  %-32s %s\n" $$file "$$(head -1 $$file | tr -d '"')"; done

$(READY): pyproject.toml infra/constraints.txt
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m uv --version >/dev/null 2>&1 || $(PYTHON) -m pip install --quiet uv
	$(PYTHON) -m uv pip install --quiet --python $(PYTHON) --compile-bytecode -c infra/constraints.txt -e '.[dev]'
	touch $@

demo: $(READY) ## the main sweep on the generated sample: some 4 minutes on 2 cores
	$(PYTHON) sweeps/guidance_lambda.py

test: $(READY) ## the tests, quick ones first, a file to each core
	$(PYTHON) -m pytest -m "not slow" -n auto --maxprocesses 4 --dist loadfile

test-slow: $(READY) ## the tests that kill and resume launches, start clusters, run README
	$(PYTHON) -m pytest -m slow -n 2 --dist loadfile --durations 20

test-all: test test-slow ## all tests

lint: $(READY) ## ruff: rules and format
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types: $(READY) ## mypy on the packages
	$(PYTHON) -m mypy

format: $(READY) ## mend what ruff can mend
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

benchmarks: $(READY) ## counted passes, decodes and engine overhead (minutes)
	$(PYTHON) tests/benchmarks/guided_step.py
	$(PYTHON) tests/benchmarks/few_annotations.py
	$(PYTHON) tests/benchmarks/guided_evaluation.py
	$(PYTHON) tests/benchmarks/spearman.py
	$(PYTHON) tests/benchmarks/shards.py
	$(PYTHON) tests/benchmarks/sweep_overhead.py
	$(PYTHON) tests/benchmarks/shared_maps.py --groups gradient vit
	$(PYTHON) tests/benchmarks/bagnet_dense.py --size 64
	$(PYTHON) tests/benchmarks/shared_protocols.py --actor
	$(PYTHON) tests/benchmarks/evaluation_memory.py
	$(PYTHON) tests/benchmarks/feeds.py
	$(PYTHON) tests/benchmarks/deletions.py
	$(PYTHON) tests/benchmarks/probe_packs.py --small

ui: $(READY) ## MLflow's UI on the runs of this user, on loopback
	$(PYTHON) -m mlflow ui --host 127.0.0.1 --backend-store-uri "$$($(PYTHON) -c 'from analysis.address import default_tracking_uri; print(default_tracking_uri())')"
