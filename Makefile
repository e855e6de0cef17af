# `make help` lists what there is to do. Everything runs inside .venv, which the first target that needs it sets up.

PYTHON ?= python3
TORCH ?= auto
ARGS ?=

# Of the claim and the study; records of other settings are kept for the seeds before, and never overwritten.
SEEDS ?= 6 7 8
UNITS ?= tests-only tests-and-gain similarity-only

BIN := .venv/bin
STAMP := .venv/.set-up-$(TORCH)

# runs/cpu-hour-0:sft,runs/cpu-hour-1:sft, and so on
comma := ,
empty :=
each_seed = $(subst $(empty) $(empty),$(comma),$(foreach seed,$(SEEDS),runs/cpu-hour-$(seed):$(1)))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test slow lint bench study claim clean set-up fetched

help:  ## Show this list.
	@printf 'make TARGET [TORCH=auto|cpu|gpu] [PYTHON=python3.12] [ARGS="more arguments for the command"]\n\n'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP)  ## Teach the embedded model to repair code, and show what it learned. Run it again to see the result.
	$(BIN)/crrl demo $(ARGS)

test: fetched  ## The everyday test suite (under 15 minutes on two cores).
	$(BIN)/python -m pytest $(ARGS)

slow: fetched  ## The tests that take longer than the everyday suite allows.
	$(BIN)/python -m pip install -qq --constraint constraints.txt --editable '.[deepspeed,ray]'
	$(BIN)/python scripts/install_agents.py
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(STAMP)  ## ruff (rules and format), mypy --strict, and the arrows between the rooms.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: fetched  ## Every script under benchmarks/, as tables. ARGS=--quick for a short look.
	@for script in benchmarks/*.py; do printf '\n== %s\n' "$$script"; $(BIN)/python "$$script" $(ARGS) || exit 1; done

claim: $(STAMP)  ## The claim behind the README: base, SFT, GRPO and a control of equal time, for every seed (hours).
	base=; for seed in $(SEEDS); do \
	  $(BIN)/crrl demo recipe=cpu-hour seed=$$seed run=runs/cpu-hour-$$seed $$base $(ARGS) || exit 1; \
	  base="--base-of runs/cpu-hour-$$seed"; done
	$(BIN)/crrl compare $(call each_seed,sft) $(call each_seed,grpo)
	$(BIN)/crrl compare $(call each_seed,control) $(call each_seed,grpo)

study: claim  ## The study behind docs/results.md: which reward teaches repair? From the claim's warm starts, every seed (hours).
	for seed in $(SEEDS); do for unit in $(UNITS); do \
	  $(BIN)/crrl demo recipe=study/$$unit seed=$$seed run=runs/study-$$unit-$$seed \
	    --warm-start-of runs/cpu-hour-$$seed $(ARGS) || exit 1; done; done
	$(BIN)/python scripts/keep_result.py $(foreach seed,$(SEEDS),runs/cpu-hour-$(seed)) \
	  $(foreach unit,$(UNITS),$(foreach seed,$(SEEDS),runs/study-$(unit)-$(seed)))

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
