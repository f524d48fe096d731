# Every target creates what it needs: a virtual environment, the packages, the servers of the tests.
PYTHON ?= python3
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Where a machine forbids to keep what was compiled, every process of the tests compiles all anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# What is installed is compiled when it is first imported: most never is, and pip would take a minute.
PIP_INSTALL = $(BIN)/pip install --no-compile -c constraints.txt
WITHOUT_KNOWN = grep --line-buffered -vE '^Requirement already|^Looking in|^Obtaining|^  Preparing|^  Installing build'

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' || \
		{ echo "Python 3.11.4 or later is needed; set PYTHON=/path/to/python3"; exit 1; }
	@echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV)

$(VENV)/made: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing packages into $(VENV) (about 1.5 GB; a few minutes the first time)"
	@$(PIP_INSTALL) --progress-bar on -e '.[controller,worker,trainer,examples]' | $(WITHOUT_KNOWN)
	@touch $@

# All at once: what runs is a part of it. Schemathesis first, which brings a command `st` too.
$(VENV)/made-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing packages and tools into $(VENV) (about 1.5 GB; a few minutes the first time)"
	@$(PIP_INSTALL) --quiet --no-deps schemathesis
	@$(PIP_INSTALL) --progress-bar on -e '.[dev]' | $(WITHOUT_KNOWN)
	@touch $(VENV)/made $@

.PHONY: install
install: $(VENV)/made ## create .venv with everything that runs
	@# Whoever runs it may not be able to write there.
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null \
		|| echo "packages hold files for newer versions of Python, which are not compiled"

.PHONY: dev
dev: $(VENV)/made-dev ## create .venv with the tools for development as well

.PHONY: demo
demo: $(VENV)/made ## train a small model through the whole system, about five minutes
	@$(BIN)/python examples/demo.py

# A file of tests stays together, and the slow ones, which mostly wait, come first: so one process
# more than there are cores, and at most five. A process that dies ends the run: with another in its
# place xdist waits for ever.
SIDE_BY_SIDE = -n $(shell getconf _NPROCESSORS_ONLN | awk '{ print ($$1 < 5 ? $$1 + 1 : 5) }') \
	--dist loadfile --no-loadscope-reorder --max-worker-restart 0

.PHONY: test
test: $(VENV)/made-dev ## checks, then all tests side by side, at most 12 minutes
	@$(MAKE) --no-print-directory -j2 types lint-quick read-tests
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(PYTEST_ARGS)

.PHONY: coverage
coverage: $(VENV)/made-dev ## all tests with a table of what they leave out, a fifth slower
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) --cov --cov-report=term $(PYTEST_ARGS)

.PHONY: test-families
test-families: $(VENV)/made-dev ## the contract of every model family, one process, minutes
	$(BIN)/python -m pytest tests/unit/st_trainer -m families $(PYTEST_ARGS)

.PHONY: test-distributed
test-distributed: $(VENV)/made-dev ## every strategy on two processes against one, minutes; installs DeepSpeed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[deepspeed]'
	$(BIN)/python benchmarks/distributed_equal.py --json benchmarks/results/distributed.json

.PHONY: test-trackers
test-trackers: $(VENV)/made-dev ## wandb, tensorboard and mlflow for real; installs them, 100 MB
	@$(BIN)/pip install --quiet -c constraints.txt -e '.[trackers]'
	$(BIN)/python -m pytest tests/unit/st_trainer/trackers -m 'trackers or not trackers' $(PYTEST_ARGS)

.PHONY: test-faults
test-faults: $(VENV)/made-dev ## jobs through kills, freezes, broken networks and full disks, minutes
	ST_FAULT_RUNS=$${ST_FAULT_RUNS:-30} $(BIN)/python -m pytest tests/faults tests/e2e -m 'faults or not faults' $(PYTEST_ARGS)

.PHONY: test-nightly
test-nightly: $(VENV)/made-dev ## 10,000 random schedules of the queue, 2,000 of its services, 30,000 requests; an hour
	ST_API_EXAMPLES=$${ST_API_EXAMPLES:-100} ST_QUOTA_EXAMPLES=$${ST_QUOTA_EXAMPLES:-50} $(BIN)/python -m pytest \
		--hypothesis-profile=nightly tests/authorization/test_described.py \
		tests/integration/st_controller/test_quota_races.py
	cd tests && PYTHONPATH=harness ST_SCHEDULES=$${ST_SCHEDULES:-10000} ../$(BIN)/python -m simulation.nightly

.PHONY: lint
lint: types lint-quick ## ruff, mypy, import contracts, generated docs

.PHONY: types
types: $(VENV)/made-dev
	$(BIN)/mypy

.PHONY: lint-quick
lint-quick: $(VENV)/made-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

# Files of tests that cannot be read are told at once; pytest keeps the others as it rewrites them,
# which each of the processes side by side would do again.
.PHONY: read-tests
read-tests: $(VENV)/made-dev
	@said=$$($(BIN)/python -m pytest --collect-only -qq 2>&1) || { echo "$$said"; exit 1; }

.PHONY: format
format: $(VENV)/made-dev ## rewrite code and generated docs as the checks want them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python docs/generate.py

.PHONY: bench
bench: $(VENV)/made-dev ## measure; prints tables, writes benchmarks/results/ (six minutes)
	$(BIN)/python benchmarks/startup.py --json benchmarks/results/startup.json
	$(BIN)/python benchmarks/skeleton.py --json benchmarks/results/skeleton.json
	$(BIN)/python benchmarks/loop_overhead.py --json benchmarks/results/loop_overhead.json
	$(BIN)/python benchmarks/trainer_speed.py --json benchmarks/results/trainer_speed.json
	$(BIN)/python benchmarks/caching.py --json benchmarks/results/caching.json

.PHONY: bench-memory
bench-memory: $(VENV)/made-dev ## measure what plans foretell against what runs hold; minutes; installs DeepSpeed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[deepspeed]'
	$(BIN)/python benchmarks/memory_plan.py --json benchmarks/results/memory_plan.json
	$(BIN)/python benchmarks/shared_plan.py --json benchmarks/results/shared_plan.json

QUEUE_BENCHMARKS := scheduler_core fairness submit dispatch_latency throughput recovery deep_reads
.PHONY: bench-queue
bench-queue: $(VENV)/made-dev ## measure the queue, shorter runs; half an hour
	@for name in $(QUEUE_BENCHMARKS); do \
		$(BIN)/python benchmarks/$$name.py --quick --json benchmarks/results/$$name.json \
			|| missed="$$missed $$name"; \
	done; test -z "$$missed" || { echo "goals missed:$$missed"; exit 1; }

.PHONY: bench-workers
bench-workers: $(VENV)/made-dev ## measure idle workers, uploads and 200 runs of the fault campaign; 40 minutes
	$(BIN)/python benchmarks/worker_streams.py --json benchmarks/results/worker_streams.json
	$(BIN)/python benchmarks/log_ingest.py --json benchmarks/results/log_ingest.json
	$(BIN)/python benchmarks/vanish.py --json benchmarks/results/vanish.json
	$(BIN)/python benchmarks/fault_campaign.py --json benchmarks/results/fault_campaign.json
	$(BIN)/python benchmarks/policy_overhead.py --json benchmarks/results/policy_overhead.json
	$(BIN)/python benchmarks/footprint.py --json benchmarks/results/footprint.json
	$(BIN)/python benchmarks/artifact_throughput.py --json benchmarks/results/artifact_throughput.json

.PHONY: bench-data
bench-data: $(VENV)/made-dev ## measure the index of 10,000,000 samples, and a bucket; ten minutes, 3 GB of disk
	$(BIN)/python benchmarks/data_index.py --json benchmarks/results/data_index.json
	$(BIN)/python benchmarks/bucket_data.py --json benchmarks/results/bucket_data.json

.PHONY: image-worker
image-worker: ## build the worker's image with podman or docker; EXTRAS=worker,trainer,cuda for NVIDIA
	@engine=$$(command -v podman || command -v docker) \
		|| { echo "neither podman nor docker is at hand: install one of them"; exit 1; }; \
	$$engine build -f deploy/worker/Containerfile $(if $(EXTRAS),--build-arg EXTRAS=$(EXTRAS)) -t st-worker .

.PHONY: clean
clean: ## remove the environment, caches and the data of the demo
	rm -rf $(VENV) .st .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage* build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
