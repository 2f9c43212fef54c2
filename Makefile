# `make` alone shows what there is. Everything lands in .venv and .venv-reference; a second run installs nothing.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
REFERENCE := .venv-reference
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
unexport PYTHONDONTWRITEBYTECODE  # else whatever is started compiles the package again, a second each
export CELERY_REFERENCE_PYTHON := $(abspath $(REFERENCE))/bin/python

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/package.stamp ## Start a worker on the embedded broker, call the example project, stop: under a minute
	@$(BIN)/python scripts/demo.py

.PHONY: test
test: $(VENV)/dev.stamp $(REFERENCE)/stamp redis rabbitmq ## Install what is missing, then lint, types and every test on real servers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@# On one core the types; on the other the tests are compiled, once for all processes that will run them.
	$(BIN)/pytest --collect-only -qqq $(TESTS) >/dev/null 2>&1 & $(BIN)/mypy; typed=$$?; wait; exit $$typed
	$(BIN)/pytest -n $(WORKERS) --dist loadgroup $(TESTS)

.PHONY: quick
quick: $(VENV)/dev.stamp ## The tests that need neither a server, nor a process, nor a tenth of a second each: under 20 s
	@# Two processes, each with a fixed half: what xdist costs is a third of it all. What one says is shown at its end.
	@said=$$(mktemp); trap 'rm -f $$said' EXIT; $(QUICK) $(HALF) >$$said 2>&1 & half=$$!; trap "kill $$half" INT TERM; \
		$(QUICK) $(addprefix --ignore=,$(HALF)); status=$$?; wait $$half || status=$$?; cat $$said; exit $$status

.PHONY: chaos
chaos: $(VENV)/dev.stamp redis rabbitmq ## Kills, cuts and restarts at full size, with a ledger of what was lost: forty minutes
	CHAOS=1 $(BIN)/pytest -v tests/chaos tests/adapters/test_results_under_load.py tests/process/test_flows_survive.py \
		tests/process/test_delayed.py tests/process/test_deaths.py tests/process/test_worker_rabbit.py

.PHONY: fuzz
fuzz: $(VENV)/dev.stamp redis ## 100,000 messages that are nearly right, 20,000 random canvases, properties of all kinds; writes benchmarks/fuzz.txt
	@set -o pipefail; FUZZ=1 $(BIN)/pytest -q -s $(FUZZED) | grep --line-buffered -a -E '^\.*[0-9]+ fuzzed|^E |passed|failed' \
		| sed -u 's/^\.*//' | tee benchmarks/fuzz.txt
	FUZZ=1 $(BIN)/pytest -q -n auto --dist loadgroup -m "hypothesis and not server and not process" tests

.PHONY: check
check: $(VENV)/dev.stamp ## Lint and types only: ruff, mypy, pyright
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest tests/typing

.PHONY: bench
bench: $(VENV)/dev.stamp $(REFERENCE)/stamp redis ## Measure against Celery 5.7 and Huey in turn; writes benchmarks/RESULTS.md
	@scripts/need cc build-essential
	$(BIN)/python -m benchmarks

.PHONY: docs
docs: $(VENV)/dev.stamp ## Build the documentation into site/
	$(BIN)/python scripts/compat.py render --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

.PHONY: clean
clean: ## Remove the environments and everything that was built
	rm -rf $(VENV) $(REFERENCE) build dist site .tmp .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Most of the tests that take long wait for something: two processes more than there are cores keep these busy.
WORKERS = $(shell echo $$(( $$(nproc) + 2 )))

# Tests that `make quick` runs, in memory where the system has a folder for that: most files are there for a moment.
QUICK = $(if $(wildcard /dev/shm/.),TMPDIR=/dev/shm) $(BIN)/pytest -q -o tmp_path_retention_policy=failed \
	--hypothesis-profile=quick -m "not server and not process and not slow"
# About one half of them, by time. The other is all the rest.
HALF := tests/compat tests/model

# Tests that `make fuzz` runs.
FUZZED := tests/flow/test_hostile_messages.py tests/flow/test_canvases_distributed.py -k 'fuzzed or canvases_distributed'

# What the targets stand on ----------------------------------------------------------------------------------------

.PHONY: redis
redis:
	@scripts/need redis-server redis-server

.PHONY: rabbitmq
rabbitmq:
	@scripts/need rabbitmq-server rabbitmq-server

$(VENV)/bin/python $(REFERENCE)/bin/python:
	scripts/venv $(patsubst %/bin/python,%,$@)

$(VENV)/package.stamp: pyproject.toml README.md | $(VENV)/bin/python
	$(BIN)/python -m pip install -qq --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/package.stamp
	$(BIN)/python -m pip install -qq --group dev
	@touch $@

.PHONY: $(REFERENCE)
$(REFERENCE): $(REFERENCE)/stamp

# The real Celery bears the same import name, so it lives in an environment of its own: for wire tests and benchmarks.
$(REFERENCE)/stamp: Makefile | $(REFERENCE)/bin/python
	$(REFERENCE)/bin/python -m pip install -qq 'celery[redis]==5.7.*' huey hiredis
	@touch $@
