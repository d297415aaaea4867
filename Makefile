# Two commands do everything on a fresh machine: `make run` and `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
UV_VERSION := 0.13.8
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
PORT ?= 3000
# Least share of the package's lines and branches, in percent, that all tests together reach.
COVERED := 90
export VIRTUAL_ENV := $(abspath $(VENV))
export UV_LINK_MODE := copy
# tests/setup.sh puts a Node.js there on machines that have none.
export PATH := $(PATH):$(abspath .cache/node/bin)
# Each of many processes would compile the tests anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test test-fast lint format bench soak ui lock docs release clean

help: ## Show what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/ -/'

# --- set-up: each stamp is older than what it depends on exactly when the step must run again ------------------

$(UV):
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV)/run.stamp: $(UV) pyproject.toml requirements/run.txt hatch_build.py $(shell find frontend clients/typescript/src -type f -not -path '*/node_modules/*' 2>/dev/null)
	$(UV) pip install --quiet --compile-bytecode --require-hashes -r requirements/run.txt
	$(UV) pip install --quiet --no-deps --reinstall-package llama-async-proxy --editable .
	@$(BIN)/python -m compileall -q src
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp requirements/dev.txt
	$(UV) pip install --quiet --compile-bytecode --require-hashes -r requirements/dev.txt
	@touch $@

# --- everyday -----------------------------------------------------------------------------------------------

run: $(VENV)/run.stamp ## Install, make a demo model when there is none, serve on http://127.0.0.1:3000
	@$(BIN)/llama-async-proxy demo --if-empty --data-dir .data
	$(BIN)/llama-async-proxy serve --data-dir .data --port $(PORT)

test: $(VENV)/dev.stamp ## Install everything the tests need, then run every test
	@tests/setup.sh
	@$(MAKE) --no-print-directory lint
	@$(BIN)/coverage erase
	@$(MAKE) --no-print-directory test-fast COVERAGE="--cov --cov-report="
	$(BIN)/python -m pytest -m "engine or browser or node" --cov --cov-report= --cov-append
	$(BIN)/coverage report --fail-under=$(COVERED)

test-fast: $(VENV)/dev.stamp ## Tests without engine, browser and Node
	$(BIN)/python -m pytest --numprocesses=4 --dist=worksteal $(COVERAGE) -m "not engine and not browser and not node"

lint: $(VENV)/dev.stamp ## ruff and mypy strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/dev.stamp ## Let ruff format and fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/dev.stamp ## Run every benchmark script
	@for script in $(filter-out bench/soak.py,$(wildcard bench/*.py)); do echo "== $$script"; $(BIN)/python $$script; done

soak: $(VENV)/dev.stamp ## Run the service under load for minutes and show that nothing is left behind
	$(BIN)/python bench/soak.py

ui: $(VENV)/run.stamp ## Development server of the web UI on http://127.0.0.1:5173, against a service on port 3000
	cd frontend && npm ci --ignore-scripts --no-audit --no-fund && npm run dev

lock: $(UV) ## Re-make the locked requirements from pyproject.toml
	$(UV) pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 pyproject.toml -o requirements/run.txt
	$(UV) pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 --group dev -c requirements/run.txt -o requirements/dev.txt

docs: $(VENV)/dev.stamp ## Rewrite what follows from the code: pages of docs/, shapes of the clients
	$(BIN)/python docs/generate.py
	$(BIN)/python clients/generate.py

release: $(VENV)/dev.stamp ## Check, test and build a release; says each step, publishes nothing
	packaging/release.sh

clean: ## Remove what the other targets made, except .data
	rm -rf $(VENV) .cache src/llama_async_proxy/web frontend/node_modules
