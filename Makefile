# `make help` lists the targets. CUDA=12 sets up for older drivers; PYTHON=… picks the interpreter.
SHELL := /bin/sh
.DEFAULT_GOAL := help
CUDA ?= 13
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-cuda$(CUDA)
LOCKS := requirements/cuda$(CUDA).txt requirements/dev.txt requirements/no-deps.txt requirements/no-deps-dev.txt
# Each worker takes whole files, so that fixtures of a module are made once, and one thread for arithmetic.
WORKERS ?= 2
PARALLEL := OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder
UV := $(BIN)/uv pip compile --config-file uv.toml --universal --python-version 3.10 --no-header --no-annotate -q
# The first of these that runs and is supported.
FIND_PYTHON := for p in $(PYTHON) python3.11 python3.12 python3.10 python3; do \
	if $$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then echo $$p; break; fi; done

.PHONY: help setup demo test test-fast test-learning test-heavy test-browser test-cluster test-image test-image-short lint format lock clean

help:  ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## Make .venv and install the pinned dependencies.

$(READY): $(LOCKS) setup.cfg
	@python=$$($(FIND_PYTHON)); \
	if [ -z "$$python" ]; then echo "make setup: needs Python 3.10, 3.11 or 3.12 on PATH (or PYTHON=/path/to/it)" >&2; exit 1; fi; \
	[ -x $(BIN)/python ] || { echo "making $(VENV) with $$($$python --version)"; $$python -m venv $(VENV); } || \
	{ rm -rf $(VENV); echo "make setup: this Python has no venv module: install it (Debian: python3-venv)" >&2; exit 1; }
ifeq ($(CUDA),12)
	@$(BIN)/python -c 'import torch' 2>/dev/null || \
	{ echo "make setup CUDA=12: first install a CUDA 12 build of torch 2.13 into $(VENV), see docs/install.md" >&2; exit 1; }
	$(BIN)/pip install -q --disable-pip-version-check -r requirements/cuda12.txt
else
	$(BIN)/pip install -q --disable-pip-version-check -r requirements/dev.txt
endif
	$(BIN)/pip install -q --disable-pip-version-check --no-deps -r requirements/no-deps.txt -r requirements/no-deps-dev.txt
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup  ## The whole pipeline on sample videos: demo-output/report.html.
	$(BIN)/marlin demo

test: setup  ## All tests that need nothing outside the clone (30 to 40 minutes on 2 cores).
	$(PARALLEL) -m "not heavy and not learning and not browser and not cluster and not image"

test-fast: setup  ## Unit tests only (about five minutes on 2 cores).
	$(PARALLEL) -m "not slow and not heavy and not learning and not browser and not cluster and not image"

test-learning: setup  ## A small training that learns, and broken ones that must not (four minutes on 2 cores).
	$(BIN)/pytest -q -s -m learning

test-heavy: setup  ## Twenty kills of preprocessing, ViT-L against the published one, a compiled run (20 minutes).
	$(BIN)/pytest -q -m "heavy and not image"

test-browser: setup  ## The report in headless Chromium (needs chromium on PATH).
	$(BIN)/pytest -q -m browser

test-cluster: setup  ## marlin submit on a real SLURM of two nodes (as root, with slurm-wlm and munge).
	$(BIN)/pytest -q -m cluster

test-image: setup  ## Build the cpu image, run the demo in it, alone and with S3 and MLflow (as root; docs/images.md).
	$(BIN)/pytest -q -m image

test-image-short: setup  ## The same without the demo.
	$(BIN)/pytest -q -m "image and not heavy"

lint: setup  ## Style and strict types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini tests/*.py tests/*/

format: setup  ## Apply the style.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: setup  ## Resolve requirements/*.txt anew from setup.cfg.
	$(BIN)/pip install -q uv
	cd requirements && ../$(UV) ../setup.cfg --extra cuda13 -U -o cuda13.txt
	cd requirements && ../$(UV) ../setup.cfg --extra cuda13 --extra dev -c cuda13.txt -o dev.txt
	cd requirements && ../$(UV) ../setup.cfg --extra cuda12 -c cuda13.txt --no-emit-package torch -o cuda12.txt

clean:  ## Remove the environment and the demo's output.
	rm -rf $(VENV) demo-output
