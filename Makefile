# `make demo` and `make test` need only python3 (3.11 or later), pip and make.
PYTHON ?= python3
VENV ?= .venv
DEMO_DIR ?= out/demo
# Three for two cores: some tests wait.
WORKERS ?= 3
BIN := $(VENV)/bin

# XLA takes its buffers anew at every step; in pages of 2 MiB they cost the kernel half the time.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: help demo test suite fast lint setup docs map clean

help:  ## say what each target does
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' $(MAKEFILE_LIST) | sed 's/^\([a-z]*\): /  make \1\t/'

demo: $(VENV)/.runtime  ## the whole experiment in a small synthetic world, about 6 minutes of one core
	$(BIN)/jaxmodpo demo --output-dir $(DEMO_DIR)

test: $(VENV)/.test  ## linters, type checks and all tests
	$(MAKE) --jobs 2 lint suite

suite: $(VENV)/.test
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

fast: $(VENV)/.test  ## the tests that neither train a model nor take more than a second or two each
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

lint: $(VENV)/.test  ## linters and type checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python

# Migrations run where alembic calls them, and cannot be imported.
docs: $(VENV)/.runtime  ## pages of the library's functions, from their docstrings, in out/api
	$(BIN)/pip install --quiet --no-compile --editable '.[docs]'
	JAX_PLATFORMS=cpu $(BIN)/python -W "ignore:Error parsing type annotation" -m pdoc --docformat google --math --output-directory out/api \
		jaxmodpo '!jaxmodpo.study.app.migrations'

map:  ## every file of the package, with the sentence in which it says what it is
	@for file in $$(find jaxmodpo -name '*.py' | sort | xargs grep -l '^"""'); do \
		sed -n '1s/^"""//; s/"""$$/\n/; /^$$/q; p' $$file | tr '\n' ' ' | sed "s|^|$$file: |; s/ *$$//"; \
		echo; \
	done

setup: $(VENV)/.test  ## make .venv with everything that the tests need

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

clean:  ## remove .venv and out
	rm -rf $(VENV) out
