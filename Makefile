# Two commands do everything: `make demo` and `make test`. Nothing is installed outside of .venv, nothing is left running.
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help

help: ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.ready: requirements.txt pyproject.toml deployments/setup.sh
	@sh deployments/setup.sh $(VENV)
	@touch $@

setup: $(VENV)/.ready ## a virtual environment from the lock

demo: $(VENV)/.ready ## the main job, governed, on real data; services stay up
	@$(BIN)/python -m deployments.demo

down: ## end everything that was started
	@if [ -x $(BIN)/orc ]; then $(BIN)/orc down; else echo "nothing was set up"; fi

check: $(VENV)/.ready ## the fast inner loop: style, types, layers, tests of the core
	@$(BIN)/ruff check -q .
	@$(BIN)/mypy --no-error-summary
	@PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/lint-imports --no-cache > .lint.log || (cat .lint.log; rm -f .lint.log; exit 1); rm -f .lint.log
	@$(BIN)/pytest -q -n 2 -m "not real" tests/unit tests/properties tests/contract

test: $(VENV)/.ready ## every test, also against real servers and processes
	@sh harness/fetch.sh .services
	@$(BIN)/ruff check -q .
	@$(BIN)/mypy --no-error-summary
	@PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/lint-imports --no-cache > .lint.log || (cat .lint.log; rm -f .lint.log; exit 1); rm -f .lint.log
	@$(BIN)/pytest -n 2

support: $(VENV)/.ready ## a smaller set of tests against the lowest versions of Prefect and Dask that are claimed
	@sh tests/support/run.sh .support

bench: $(VENV)/.ready ## the measurements the docs quote
	@$(BIN)/python -m bench.plan
	@$(BIN)/python -m bench.extension

docs: $(VENV)/.ready ## the documentation as a site, in build/docs
	@$(BIN)/sphinx-build -q -W -n --keep-going -b html docs build/docs
	@echo "build/docs/index.html"

.PHONY: help setup demo down check test support bench docs
