# Two commands for a newcomer: `make demo` and `make test`. Both make .venv by themselves.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.installed
BIN := $(VENV)/bin

.PHONY: demo test test-long lint bench clean

demo: $(READY)
	$(BIN)/policyloop demo --out demo $(ARGS)

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

test-long: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "long or not long" --timeout 1800 $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python bench/simulator.py
	$(BIN)/python bench/driver.py

# torch first and alone: later steps must not replace the version that is pinned.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,sim,data,dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
