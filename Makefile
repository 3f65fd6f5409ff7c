# `make` lists the targets. Everything runs from a virtual environment in $(VENV), which the
# targets build when they need it and leave alone while the requirement files stay the same.
#
# pip follows the machine's own configuration. On Linux, PyPI's torch is the (large) CUDA build;
# for the CPU build: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make quickstart

VENV ?= .venv
# The interpreter that builds the environment: the first of these that can.
PYTHON ?= $(shell for python in python3.11 python3; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& echo $$python && break; done)
# HUB=1 makes the quickstart fetch its model and data from the Hugging Face Hub.
HUB ?= 0
ifeq ($(HUB),1)
QUICKSTART := quickstart_hub
SENTENCES := \
	"A tender, beautifully acted film that stayed with me for days." \
	"Two hours of my life I will never get back: wooden acting and no plot." \
	"The first half drags, but the ending makes up for it."
else
QUICKSTART := quickstart
SENTENCES :=
endif
# What `make demo` shows: an output_dir, a Hub id or pypi:PACKAGE.
MODEL ?= outputs/quickstart
# Parallel test processes, of which some wait for others; and anything else for pytest: make test-quick PYTEST_ARGS="-k metrics"
TEST_WORKERS ?= 3
# Of the places where `make faults` puts a fault, each n-th is tried.
EVERY ?= 1
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal $(PYTEST_ARGS)
BENCHMARKS := $(sort $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py)))

# Builds the environment unless a working one is there, then installs requirements file $(1), and this
# project in a form that follows its source.
define install
@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	test -n "$(PYTHON)" || { \
		echo "No Python 3.11 or newer that can build a virtual environment; name one: make PYTHON=..." >&2; \
		exit 1; }; \
	echo "Building $(VENV) with $(PYTHON)"; \
	$(PYTHON) -m venv $(VENV); }
$(BIN)/python -m pip install -c constraints.txt -r $(1) -e .
endef

# Runs the quick tests in environment $(1), with the versions that uv's strategy $(2) chooses.
define tested_with
$(PYTHON) -m venv --clear $(1)
$(1)/bin/python -m pip install uv
$(1)/bin/uv pip install --python $(1)/bin/python --resolution $(2) -r requirements-dev.txt -e .
$(1)/bin/python -m pytest -n $(TEST_WORKERS) --dist worksteal -m "not slow and not night" $(PYTEST_ARGS)
endef

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help venv venv-deploy venv-dev venv-locked lock quickstart demo test test-quick coverage night mutants test-oldest test-newest fuzz faults lint format-check typecheck import-check format bench bench-quick docs docs-site clean

help: ## list the targets
	@awk 'BEGIN { FS = ":[^#]*## " } /^[a-z-]+:[^#]*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(VENV)/.installed ## build the environment that training needs

venv-deploy: $(VENV)/.installed-deploy ## build the environment that export and the demo page need

venv-dev: $(VENV)/.installed-dev ## build the environment that tests and linters need

venv-locked: ## build $(VENV) from requirements.lock, whose packages have hashes
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --no-deps -e .

lock: venv-dev ## write requirements.lock, with the versions of constraints.txt and the hashes that PyPI states
	$(BIN)/uv pip compile requirements-dev.txt requirements-docs.txt -c constraints.txt -o requirements.lock \
		--universal --python-version 3.11.7 --generate-hashes --no-annotate --no-config \
		--default-index https://pypi.org/simple --custom-compile-command "make lock" --quiet

$(VENV)/.installed: requirements.txt constraints.txt pyproject.toml
	$(call install,requirements.txt)
	@touch $@

$(VENV)/.installed-deploy: requirements-deploy.txt requirements.txt constraints.txt pyproject.toml
	$(call install,requirements-deploy.txt)
	@touch $(VENV)/.installed $@

$(VENV)/.installed-dev: requirements-dev.txt requirements-docs.txt requirements-deploy.txt requirements.txt constraints.txt pyproject.toml
	$(call install,requirements-dev.txt)
	@touch $(VENV)/.installed $(VENV)/.installed-deploy $@

quickstart: venv ## train a small classifier and try it (HUB=1: a model and reviews from the Hub)
	$(BIN)/python run_classification.py recipes/$(QUICKSTART).yaml
	$(BIN)/python examples/classify_sentences.py outputs/$(QUICKSTART) $(SENTENCES)

demo: venv-deploy ## open a page to try a trained model (MODEL=outputs/quickstart)
	$(BIN)/python -m bertcls_hf.demo $(MODEL)

test: venv-dev ## run the whole suite, but for what `make night` runs
	$(PYTEST) -m "not night"

test-quick: venv-dev ## run the quick tests only
	$(PYTEST) -m "not slow and not night"

coverage: venv-dev ## run the whole suite and report which branches it covers (half as long again)
	$(PYTEST) --cov --cov-report=term

test-oldest: ## run the quick tests with the oldest packages that the requirement files admit, in $(VENV)-oldest
	$(call tested_with,$(VENV)-oldest,lowest-direct)

test-newest: ## run the quick tests with the newest packages that they admit, in $(VENV)-newest
	$(call tested_with,$(VENV)-newest,highest)

night: venv-dev ## run what is left out of `make test`, then fuzz, then faults at every fifth place (hours)
	$(PYTEST) -m night
	$(MAKE) fuzz
	$(MAKE) faults EVERY=5

mutants: venv-dev ## change the code at random places, and count of how many changes the tests take notice (hours)
	$(BIN)/python tools/mutants.py

fuzz: venv-dev ## let commands read ten thousand broken files, and runs come in any order
	$(PYTEST) tests/faults/test_fuzzing.py tests/faults/test_any_order_of_runs.py --hypothesis-profile night

faults: venv-dev ## kill small runs, fill their disks and damage their files, at every place (an hour; EVERY=5: some)
	$(BIN)/python -m tests.faults.campaign --every $(EVERY)

lint: format-check typecheck import-check ## check style, types and the directions of imports, changing nothing

format-check: venv-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

typecheck: venv-dev
	$(BIN)/mypy

import-check: venv-dev
	$(BIN)/lint-imports

format: venv-dev ## rewrite the code in the project's style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: venv-deploy ## run every script in benchmarks/
	@set -e; for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script; done

bench-quick: venv-deploy ## the speed benchmarks in small: some minutes, rough figures
	$(BIN)/python benchmarks/startup.py --rounds 1
	$(BIN)/python benchmarks/boost.py --rows 32 --rounds 1 --max_seq_length 128 --feature_rows 1000 --epochs 1
	$(BIN)/python benchmarks/finetuning.py --rows 320 --updates 1 --rounds 1 --max_seq_length 128
	$(BIN)/python benchmarks/padding_free.py --batches 1 --rounds 1 --max_seq_length 64
	$(BIN)/python benchmarks/predict.py --graphs --rows 24 --rounds 1 --max_seq_length 128
	$(BIN)/python benchmarks/latency.py --rows 10 --max_seq_length 128
	$(BIN)/python benchmarks/scaling.py --only estimate

docs: venv ## regenerate the option tables in docs/options.md
	$(BIN)/python -m bertcls_hf.config.document_options

docs-site: $(VENV)/.installed-docs ## build the documentation as a site, in site/
	$(BIN)/mkdocs build --strict

$(VENV)/.installed-docs: requirements-docs.txt constraints.txt
	$(call install,requirements-docs.txt)
	@touch $@

clean: ## remove caches and build products (not outputs/, not the environment)
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage* build dist *.egg-info
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -exec rm -rf {} +
