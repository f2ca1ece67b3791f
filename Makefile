# `make demo` and `make test` need only python3 (3.11 or later), pip and make.
PYTHON ?= python3
VENV ?= .venv
DEMO_DIR ?= out/demo
WORKERS ?= 2
BIN := $(VENV)/bin

# XLA takes its buffers anew at every step; in pages of 2 MiB they cost the kernel half the time.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: demo test fast lint setup clean

demo: $(VENV)/.runtime
	$(BIN)/jaxmodpo demo --output-dir $(DEMO_DIR)

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

fast: $(VENV)/.test
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

setup: $(VENV)/.test

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

# Python compiles what it imports; compiling whole wheels takes as long again as installing them.
$(VENV)/.runtime: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --no-compile --editable .
	touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --no-compile --editable '.[test]'
	touch $@ $(VENV)/.runtime

clean:
	rm -rf $(VENV) out
