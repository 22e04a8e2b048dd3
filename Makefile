# Every target installs what it needs into .venv first; nothing else is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
export MLFLOW_DISABLE_TELEMETRY := true
export PYTHONWARNINGS ?= ignore::FutureWarning
# columns of `dvc exp show` that hide the rest: file hashes, and the parts of the metrics
UNSHOWN := .*/.*|(baselines|diagnostics|estimators|standard_errors)\..*|verdict\.(statement|reasons)|log_likelihood\.(samples|monte_carlo_error)|(train|valid)\.(elbo|kl|reconstruction)|best_epoch|epochs_run|bits_per_dimension|kl|reconstruction|least_likely.*|Created|State|Executor

# processes of pytest: two for each core, as many tests wait for processes that they have started
TESTERS ?= $(shell $(PYTHON) -c 'import os; print(2 * len(os.sched_getaffinity(0)))' 2>/dev/null || echo 2)

.DEFAULT_GOAL := help
.PHONY: help install repro publish data compare test test-all test-faults lint format ui clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

repro: $(INSTALLED) ## Install, run the experiment in params.yaml, and print what came out
	@python -m pipeline.recover
	@python -m pipeline.check
	@dvc repro
	@python -m pipeline.publish || true
	@python -m pipeline.summary

publish: $(INSTALLED) ## Bring MLflow to what the files say; ALL=1: every state that git or the run-cache holds
	@python -m pipeline.publish $(if $(ALL),--all)

data: $(INSTALLED) ## Look at a data file, FILE=data/raw/NAME: columns, odd values, and what to put into params.yaml
	@python -m pipeline.inspect $(FILE)

compare: $(INSTALLED) ## Table of the DVC experiments: what differs, and the test figures
	@[ -t 1 ] || export COLUMNS=160; dvc exp show --no-pager --only-changed --drop '$(UNSHOWN)'

test: lint ## Install, then lint, types and tests (some minutes)
	@python -m pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder -m "not slow"

test-all: lint ## As test, and the tests that take minutes
	@python -m pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder -m "not faults"

test-faults: $(INSTALLED) ## Hurt a small experiment (an hour): FAULTS_SEED=0 FAULTS_KILLS=50 STORE=sqlite, or postgresql
	@python -m pytest -n 2 tests/faults

lint: $(INSTALLED) ## Check style and types
	@ruff check .
	@ruff format --check .
	@mypy

format: $(INSTALLED) ## Format the code
	@ruff check --fix .
	@ruff format .

ui: $(INSTALLED) ## Serve the MLflow UI on 127.0.0.1 (PORT=5000)
	@case "$$MLFLOW_TRACKING_URI" in http*) echo "MLFLOW_TRACKING_URI is a server, which has a UI of its own"; exit;; esac; \
	  echo "http://127.0.0.1:$(or $(PORT),5000) in a few seconds; Ctrl-C stops it"; \
	  export MLFLOW_BACKEND_STORE_URI="$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlflow.db}"; \
	  PYTHONWARNINGS=ignore mlflow ui --host 127.0.0.1 --port $(or $(PORT),5000)

clean: ## Remove caches and half-written outputs, and offer to remove saved states; results, data and runs stay
	@rm -rf .mypy_cache .pytest_cache .ruff_cache data/*.partial models.partial results/*.partial
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
	@[ ! -e $(INSTALLED) ] || python -m pipeline.clean $(if $(YES),--yes)

install: $(INSTALLED) ## Make .venv with the pinned packages

$(INSTALLED): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make $(or $(MAKECMDGOALS),repro) PYTHON=python3.12"; exit 1; }
	@echo "installing the pinned packages into $(VENV) (a few minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@touch $@
