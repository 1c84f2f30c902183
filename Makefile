# Every command of the project. They need Python 3.11+ and make (GNU make 3.81 will do).
#
# PYTHON  the interpreter to use, where the first suitable one on the path is not wanted
# VENV    where the virtual environment is kept
# ARGS    passed on: make demo ARGS='--events 10', make test ARGS='-k outboxes'

PYTHON ?=
VENV ?= .venv
UV ?= uv
ARGS ?=
export PYTHON VENV UV

BIN := $(VENV)/bin
# Tests start hundreds of programs, which read the modules that the first of them compiled.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/pytest

.DEFAULT_GOAL := help
.PHONY: help demo up test test-slow test-nightly test-all-pythons bench chaos check format docs site recording screenshots dist lock clean runtime dev compared

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' Makefile

demo: runtime ## Show it at work: everything embedded, events printed as they arrive
	@$(BIN)/coursewire demo $(ARGS)

up: runtime ## Run the service; Valkey is embedded unless COURSEWIRE_REDIS_URL is set
	@$(BIN)/coursewire up $(ARGS)

test: dev ## Run the tests, all but the slow ones
	$(PYTEST) -n 2 --dist loadgroup -m "not nightly and not slow" $(ARGS)

test-slow: dev ## Run the slow tests: the whole service as real processes, browsers, chaos
	$(PYTEST) -n 2 --dist loadgroup -m "slow and not nightly" $(ARGS)

test-nightly: dev ## Run the tests that take too long for every change
	$(PYTEST) -m nightly $(ARGS)

test-all-pythons: ## Run the tests on each supported Python that is installed
	@for version in 3.11 3.12 3.13; do \
	  if python$$version -c '' 2>/dev/null; then \
	    $(MAKE) --no-print-directory test test-slow PYTHON=python$$version VENV=.venv-$$version || exit 1; \
	  else \
	    echo "python$$version is not installed: left out"; \
	  fi; \
	done

bench: compared ## Measure, beside peers and limits; ARGS='sweep --profile' chooses one
	@$(BIN)/python -m tests.bench $(ARGS)

chaos: dev ## Break everything for ten minutes, judge what arrived; ARGS='--seconds 60 --seed 7'
	@$(BIN)/python -m tests.chaos $(ARGS)

check: dev ## Check formatting, lint, types, the import rule, deployment, texts and the lock files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --explicit-package-bases deploy/*.py
	$(BIN)/lint-imports --no-logo
	$(BIN)/python deploy/locks.py check
	$(BIN)/python deploy/prose.py
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec deploy/compose.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/ci.yml
	$(BIN)/kubernetes-validate --kubernetes-version 1.32 --strict --quiet $(filter-out %/kustomization.yaml,$(wildcard deploy/kubernetes/*.yaml))
	$(BIN)/pip check

format: dev ## Format the code and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: dev ## Write anew what follows from the code: docs/openapi.json, problems.md, metrics.md, settings.md, the operations of the CLI, and the version in deploy/
	@$(BIN)/python deploy/documents.py

site: dev ## Build the documentation as a static site into site/, warnings as errors
	@$(BIN)/python deploy/site.py

recording: dev ## Record the demo in a terminal as the moving picture that the README shows
	@$(BIN)/python deploy/recording.py

screenshots: dev ## Take the pictures of the console that the docs show: drives the demo in Chromium
	@$(BIN)/python deploy/screenshots.py

dist: dev ## Build the wheel, the source archive and the SBOM of a release, the same bytes each time
	rm -rf dist
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} $(BIN)/hatchling build -d dist
	$(BIN)/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --output-reproducible \
	  -o $$(echo dist/*.tar.gz | sed 's/tar.gz$$/cdx.json/')

lock: ## Compile the lock files from pyproject.toml, with uv; ARGS=--upgrade for the newest versions
	@python=$$(deploy/environment.sh interpreter) && "$$python" deploy/locks.py compile $(ARGS)

clean: ## Remove environments and caches; the service's own data stays
	rm -rf .venv .venv-* site .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .schemathesis dist
	find service workers tests deploy -type d -name __pycache__ -prune -exec rm -rf {} +

# All are instant where nothing changed.
runtime dev:
	@deploy/environment.sh $@

# What the benchmarks compare with is installed for them alone.
compared:
	@deploy/environment.sh bench
