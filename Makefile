# Each target works from a fresh clone: .venv is made on first need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-docker lint bench docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(STAMP)          ## environment, server, train, convert, deploy, SELECT, promote, roll back
	$(BIN)/dbscore demo

test: $(STAMP)          ## the whole suite, against a real PostgreSQL with PL/Python
	$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

test-docker: $(STAMP)   ## the image, and the tests against it: PostgreSQL 17, Python 3.13
	$(BIN)/python tests/docker $(PYTEST_ARGS)

lint: $(STAMP)          ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)         ## dbscore beside its alternatives, one run, ratios
	$(BIN)/python -m benchmarks

docs: $(STAMP)          ## the reference pages, made from the code
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
