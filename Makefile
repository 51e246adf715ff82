# Longshore: one command per thing. `make` alone lists them; what is behind each is a script or module that runs by itself too.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# Where no bytecode is wanted beside its source it is kept elsewhere: each command starts in a third of a second less.
ifdef PYTHONDONTWRITEBYTECODE
unexport PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX ?= $(CURDIR)/build/compiled
endif

PY := .venv/bin/python
SEEDS ?= 200
QUICK_SEEDS ?= 6
SECONDS_EACH ?= 60
CUTS ?= 2000
# A worker of tests for each core, and four at least: many of them wait for processes.
JOBS ?= $(shell n=$$(nproc); echo $$(( n > 4 ? n : 4 )))
KILLS ?= 100
ARGS ?=

# Modules that write a document from their own table when run; a test of each fails when the document is out of date.
GENERATORS := protocols.lifecycle protocols.policies deploy.contracts deploy.dashboards tests.sim.document

.PHONY: help demo setup setup-run system test worlds quick sim fuzz chaos real storage bench lint fmt lock audit docs clean

help: ## this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup-run ## the main job: hub, three edges, real orders, a cut, a report (ARGS="--once --report FILE", "--records FILE")
	@$(PY) -m deploy.demo $(ARGS)

setup: ## .venv with exactly the locked versions, tools for development included; does nothing when nothing changed
	@deploy/dev/setup.sh dev

setup-run:
	@deploy/dev/setup.sh run

system:
	@deploy/dev/install-system.sh

test: setup system ## everything: lint, types, simulation (SEEDS=200), unit, conformance, storage and scenario tests
	@$(MAKE) -j2 --output-sync=line lint build/tests-compiled worlds
	@$(PY) -m pytest -n $(JOBS) --dist worksteal $(ARGS)

worlds:
	@$(PY) -m tests.sim --seeds $(SEEDS)

# Each worker would compile all tests for itself, at the same time. And a test that cannot be read is named before the worlds are played.
build/tests-compiled: $(shell find tests -name '*.py' 2>/dev/null)
	@mkdir -p build
	@$(PY) -m pytest --collect-only -q >$@.log 2>&1 || { tail -n 40 $@.log; exit 1; }
	@touch $@

quick: setup ## unit tests and a smoke of the simulation, under 30 s
	@HYPOTHESIS_PROFILE=quick $(PY) -m pytest -q -n $(JOBS) tests/unit -m "not slow" $(ARGS)
	@$(PY) -m tests.sim --seeds $(QUICK_SEEDS)

sim: setup ## the simulated world, SEEDS=n fortnights of 8 edges and others, on all cores (ARGS="--seed N" replays one)
	@$(PY) -m tests.sim $(if $(ARGS),$(ARGS),--seeds $(SEEDS))

chaos: setup system ## real processes killed behind lines that lie, KILLS=n (ARGS="--engine mosquitto --seed 7", "--replay JOURNAL", "--sweep 1")
	@$(PY) -m tests.chaos --kills $(KILLS) $(ARGS)

real: setup system ## Mosquitto, Kafka, PostgreSQL, natively: suites, scenarios, a kill test, KILLS=n (ARGS="--down 300", "--only kills --seed 7", "--replay JOURNAL")
	@$(PY) -m tests.real $(if $(filter file,$(origin KILLS)),,--kills $(KILLS)) $(ARGS)

storage: setup ## cuts the power at every point of input and output, and at CUTS=n random ones (ARGS="--seed N", "--controls")
	@$(PY) -m tests.storage $(if $(ARGS),$(ARGS),--cuts $(CUTS))

fuzz: setup ## every decoder of outside bytes, SECONDS_EACH=n (60) each, guided by coverage; crashers are kept (ARGS="frame" names targets)
	@$(PY) -m tests.fuzz --seconds $(SECONDS_EACH) $(ARGS)

bench: setup ## the benchmarks, each beside its peer in the same run (ARGS passed on)
	@$(PY) -m deploy.bench $(ARGS)

lint: setup ## ruff (rules and format) and mypy
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

fmt: setup ## format, and mend what ruff can mend by itself
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

lock: setup ## resolve the newest allowed versions into the two lock files, with hashes
	@deploy/dev/lock.sh

audit: setup ## known vulnerabilities of the locked versions; says loudly when the advisory service is out of reach
	@$(PY) deploy/dev/audit.py requirements-dev.lock

docs: setup ## write the generated parts of the documents anew
	@for module in $(GENERATORS); do $(PY) -m $$module; done

clean: ## remove .venv, caches and outputs (no data directories)
	@rm -rf .venv build dist out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
