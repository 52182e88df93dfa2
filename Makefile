# Every verb sets up what it needs: Python 3.11+ and make are enough.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUNS   := $(VENV)/.runs
STAMP  := $(VENV)/.installed
NATIVE := $(VENV)/.native

# Where this is set, each of the many processes that tests start compiles the whole package again.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help docs screenshots native demo bench bench-peers torture torture-fleet simulate mutants test nightly unit lint rust types spelling format coverage site lock vulnerabilities up down clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# The virtual environment follows pyproject.toml: a change there installs again. Who only runs it needs no tools for tests.
$(RUNS): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "cdc-publisher needs Python 3.11 or newer; run make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[local]'
	@touch $@

$(STAMP): $(RUNS)
	$(BIN)/pip install --quiet --editable '.[local,dev]'
	@touch $@

# Built where there is a Rust toolchain that is new enough. Without one everything works, and what tests it is skipped.
RUST := rustc --version 2>/dev/null | awk '{ split($$2, v, "."); exit !(v[1] > 1 || v[2] >= 88) } END { if (!NR) exit 1 }'
NO_RUST := echo "no Rust 1.88 or newer: without the native accelerator"

$(NATIVE): $(STAMP) $(wildcard native/src/*.rs native/src/*/*.rs native/Cargo.* native/pyproject.toml)
	@if $(RUST); then \
	  echo "building the native accelerator"; $(BIN)/pip install --quiet --force-reinstall --no-deps ./native; \
	else $(NO_RUST); fi
	@touch $@

native: $(NATIVE) ## the native accelerator, where cargo is there to build it

demo: $(RUNS) ## a shop's orders from transaction to decoded Kafka record
	$(BIN)/cdc-publisher demo

bench: $(NATIVE) ## speed, latency, memory beside the ceiling, 20 minutes; WHAT="throughput --events 200000"
	@$(BIN)/python -c 'import matplotlib' 2>/dev/null || $(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks $(or $(WHAT),all)

bench-peers: $(NATIVE) ## other programs beside the publisher, an hour; WHAT="--events 200000 --peer debezium --peer native"
	@$(BIN)/python -c 'import matplotlib, mq_bridge' 2>/dev/null || $(BIN)/pip install --quiet --editable '.[bench,peers]'
	$(BIN)/python -m benchmarks peers $(WHAT)

torture: $(STAMP) ## real faults for MINUTES=5 or CAMPAIGN=crashes, with GUARANTEE=, SOURCE=polling, SEED=n, POSTGRES=15
	$(BIN)/python -m tests.torture --minutes $(or $(MINUTES),5) --postgres $(or $(POSTGRES),18) --source $(or $(SOURCE),slot) \
	  --campaign $(or $(CAMPAIGN),faults) --guarantee $(or $(GUARANTEE),at-least-once) $(if $(SEED),--seed $(SEED))

torture-fleet: $(STAMP) ## instances of a fleet under load and FAULTS=60 real faults, with GUARANTEE=, SEED=n
	$(BIN)/python -m tests.torture.fleet --faults $(or $(FAULTS),60) --guarantee $(or $(GUARANTEE),exactly-once) \
	  $(if $(SEED),--seed $(SEED))

simulate: $(STAMP) ## crash schedules, and SEEDS=20000 random worlds in virtual time; SEED=n shows one
	$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),20000))

mutants: $(STAMP) ## deliberate defects, each of which the simulation or its unit tests must find
	$(BIN)/python -m tests.mutants

# Workers share the servers and mostly wait. Whole files, the slow ones first: fixtures of a module start servers.
ALL = -n $(or $(WORKERS),4) --dist loadfile --no-loadscope-reorder tests/acceptance tests/integration tests/unit

test: $(NATIVE) ## every test, on real servers; some of them with WHAT=tests/acceptance, or by WORKERS=6
	$(BIN)/pytest --durations=10 $(or $(WHAT),$(ALL))

nightly: export CDC_TEST_NIGHTLY := 1
nightly: $(NATIVE) ## tests with ten times the examples on every PostgreSQL found, mutants, simulation, torture; hours
	$(BIN)/pytest --durations=10 $(ALL)
	$(MAKE) mutants simulate torture
	$(MAKE) torture CAMPAIGN=crashes GUARANTEE=exactly-once
	$(MAKE) torture SOURCE=polling GUARANTEE=exactly-once
	$(if $(wildcard /usr/lib/postgresql/15/bin/postgres),$(MAKE) torture POSTGRES=15)

unit: $(NATIVE) ## the tests that need no server
	$(BIN)/pytest -n 2 --dist loadfile tests/unit

# Property tests repeat the same lines thousands of times: tracing them takes long and finds little.
coverage: $(NATIVE) ## lines and branches of cdc/ that unit tests run, also in subprocesses; WHAT= for other tests
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m "not hypothesis" $(or $(WHAT),tests/unit)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: $(STAMP) ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

rust: $(STAMP) ## style, lints and tests of the native accelerator itself
	@if $(RUST); then cd native && export PYO3_PYTHON=$(CURDIR)/$(BIN)/python && cargo fmt --check && \
	  cargo clippy --quiet --all-features --all-targets -- -D warnings && cargo test --quiet; else $(NO_RUST); fi

spelling: $(STAMP) ## common misspellings
	$(BIN)/codespell

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy

format: $(STAMP) ## rewrite the code in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP) ## write again what is made of definitions: references of settings and commands, the manual page
	$(BIN)/python -m cdc.cli.manual

site: $(STAMP) ## the documentation as a site, in site/; a broken link is an error
	@$(BIN)/python -c 'import material, mkdocstrings' 2>/dev/null || $(BIN)/pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

screenshots: $(NATIVE) ## the pictures of docs/images, by headless Chromium, 3 minutes; WHAT="demo status-watch"
	$(BIN)/python -m tests.screenshots $(WHAT)

up: $(RUNS) ## PostgreSQL and Kafka on this machine
	$(BIN)/cdc-publisher local up

down: $(RUNS) ## stop them
	$(BIN)/cdc-publisher local down

lock: $(STAMP) ## docker/requirements.txt: what the image holds, by version and hash
	$(BIN)/uv pip compile --quiet pyproject.toml --extra registry --extra otel --generate-hashes --no-emit-index-url \
	  --python-version 3.12 --python-platform linux --custom-compile-command "make lock" $(UPGRADE) \
	  --output-file docker/requirements.txt

vulnerabilities: $(STAMP) ## whether any is known of what the image holds
	$(BIN)/python -m tests.vulnerabilities docker/requirements.txt

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis site
