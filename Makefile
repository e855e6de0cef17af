# `make help` lists what there is to do. Everything runs inside .venv, which the first target that needs it sets up.

PYTHON ?= python3
TORCH ?= auto
ARGS ?=

BIN := .venv/bin
STAMP := .venv/.set-up-$(TORCH)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test slow lint bench study clean set-up fetched

help:  ## Show this list.
	@printf 'make TARGET [TORCH=auto|cpu|gpu] [PYTHON=python3.12] [ARGS="more arguments for the command"]\n\n'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP)  ## Teach the embedded model to repair code, and show what it learned. Run it again to see the result.
	$(BIN)/crrl demo $(ARGS)

test: fetched  ## The everyday test suite (under 15 minutes on two cores).
	$(BIN)/python -m pytest $(ARGS)

slow: fetched  ## The tests that take longer than the everyday suite allows.
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(STAMP)  ## ruff (rules and format), mypy --strict, and the arrows between the rooms.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: fetched  ## Every script under benchmarks/, as tables. ARGS=--quick for a short look.
	@for script in benchmarks/*.py; do printf '\n== %s\n' "$$script"; $(BIN)/python "$$script" $(ARGS) || exit 1; done

study: $(STAMP)  ## The hour-long study behind the claim in docs/results.md, every seed of it.
	$(BIN)/crrl study $(ARGS)

clean:  ## Remove .venv, build products and tool caches. Runs and the model cache stay.
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
	rm -rf src/*.egg-info

# Installed; fast when nothing changed. The stamp is named after the kind of torch, so that TORCH=gpu sets up again.
set-up: $(STAMP)
$(STAMP): pyproject.toml constraints.txt scripts/set_up.sh
	PYTHON=$(PYTHON) TORCH=$(TORCH) bash scripts/set_up.sh
	@rm -f .venv/.set-up-*
	@touch $@

# What tests need beyond the installation, fetched here so that they themselves need no network.
fetched: $(STAMP)
	@$(BIN)/python scripts/fetch_test_data.py
