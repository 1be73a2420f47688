# Needs python3 (3.11 to 3.13) and make; everything else goes into .venv. See tools/bootstrap.py.
# Another Python: make clean, then make PYTHON=python3.13 test.
PYTHON ?= python3
PYTEST_ARGS ?=
BENCH_ARGS ?=

VENV := .venv/bin
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory

.DEFAULT_GOAL := help
.PHONY: help demo test torture check lint lock docs bench bench-quick clean env-run env-test

help: ## this list
	@echo "make <what>, where <what> is one of"
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '  %-11s %s\n' "$$name" "$$text"; done

demo: env-run ## set up, then run a whole campaign against the sandbox: nothing leaves this machine
	@$(VENV)/python tools/demo.py

test: env-test ## set up, then run the tests (PYTEST_ARGS="-k pace" for some of them)
	@$(VENV)/python -m pytest $(PYTEST_ARGS)

torture: env-test ## the long tests: kills, drains, races, hostile disks (TORTURE_SEED=7 as a failure named it, TORTURE_KILLS=50)
	@seed=$${TORTURE_SEED:-$$(date +%s)}; echo "TORTURE_SEED=$$seed"; \
	TORTURE=full TORTURE_SEED=$$seed $(VENV)/python -m pytest -s tests/torture $(PYTEST_ARGS)

check: lint test ## lint, then test: what must pass before a change goes in

lint: env-test ## ruff and mypy
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/mypy

lock: ## pin the dependencies of pyproject.toml anew (LOCK_ARGS="--upgrade" for the newest versions)
	@PYTHON="$(PYTHON)" tools/lock.sh $(LOCK_ARGS)

docs: env-run ## write docs/campaign-file.md anew from the program's own models
	@$(VENV)/python tools/docs.py

bench: env-test ## measure everything beside its peers, write benchmarks/results/ and docs/performance.md (BENCH_ARGS="--rounds 2")
	@$(VENV)/python -m benchmarks all $(BENCH_ARGS); code=$$?; $(VENV)/python -m benchmarks docs && exit $$code

bench-quick: env-test ## the same in small, on the terminal only: under two minutes
	@$(VENV)/python -m benchmarks all --quick $(BENCH_ARGS)

clean: ## remove .venv and caches; reports/ stays, for its ledger knows who was sent what
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

env-run:
	@$(PYTHON) tools/bootstrap.py run

env-test:
	@$(PYTHON) tools/bootstrap.py test
