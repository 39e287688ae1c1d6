# `make help` lists the targets. On a machine without a GPU, a smaller torch installs with
#     PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make setup

PYTHON ?= python3
PORT ?= 5000
CHROMIUM ?= chromium
BIN := .venv/bin
READY := .venv/.ready
RIVAL := .venv-multivae

export DVC_NO_ANALYTICS := 1
export GOMP_SPINCOUNT ?= 10000
export MLFLOW_DISABLE_TELEMETRY := true
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo screenshot test test-slow ui lint bench bench-multivae bench-densities bench-augmentation bench-metrics bench-missing examples zoo clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## .venv with the locked dependencies (PYTHON=python3.12 picks an interpreter)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make setup PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY) ## run the whole pipeline on real digits; minutes, and seconds the second time
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro
	@echo "The report: $(CURDIR)/results/report.html"

screenshot: ## the top of results/report.html as docs/report.png (CHROMIUM=google-chrome picks another browser)
	profile=$$(mktemp -d) && $(CHROMIUM) --headless --no-sandbox --disable-gpu --no-first-run --hide-scrollbars --log-level=3 \
		--disable-background-networking --disable-component-update --disable-sync --user-data-dir=$$profile \
		--window-size=1200,1400 --screenshot=$(CURDIR)/docs/report.png file://$(CURDIR)/results/report.html && rm -r $$profile

# Files in their order: xdist would begin with those of most tests, and end with one of few that takes two minutes.
test: $(READY) ## the tests, a process a core, with coverage of the three packages
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --cov --cov-report=term -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-slow: $(READY) ## the tests that take minutes or data of their own
	$(BIN)/python -m pytest -m slow

ui: $(READY) ## MLflow's page of all runs on http://127.0.0.1:5000 (PORT=5001 picks another)
	$(BIN)/mlflow ui --host 127.0.0.1 --port $(PORT) \
		--backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlflow.db}"

lint: $(READY) ## style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(READY) ## a training step over the bare network passes that it needs
	$(BIN)/python benchmarks/step.py

bench-multivae: $(RIVAL)/.ready ## the speed of training beside that of the library MultiVae, in an environment of its own
	$(RIVAL)/bin/python benchmarks/against_multivae.py

# What MultiVae declares and training does not import (imageio, torchmetrics, a backport of dataclasses) stays away.
# torchvision comes without its dependencies too: any build of it will do for the torch at hand.
$(RIVAL)/.ready: constraints.txt
	@echo "Installing into $(RIVAL): torch, normflows, this package, and multivae 1.0.3 with pythae, torchvision and what they import"
	$(PYTHON) -m venv $(RIVAL)
	$(RIVAL)/bin/python -m pip install --quiet -c constraints.txt \
		torch normflows cloudpickle matplotlib nltk numpy pandas pillow pydantic scikit-learn scipy tqdm
	$(RIVAL)/bin/python -m pip install --quiet --no-deps multivae==1.0.3 pythae==0.1.2 torchvision==0.28.0 -e .
	@touch $@

bench-densities: $(READY) ## densities against each other and against the mixture that libraries fit, as docs/densities.md
	$(BIN)/python benchmarks/densities.py

bench-augmentation: $(READY) ## what synthetic rows add to few real ones, for hours; docs/augmentation.md (SEEDS=5 takes more seeds)
	$(BIN)/python benchmarks/augmentation.py --seeds $(or $(SEEDS),3)

bench-metrics: $(READY) ## time and memory of all fidelity metrics, 10,000 × 10,000 samples of 128 features
	$(BIN)/python benchmarks/metrics.py

bench-missing: $(READY) ## training where half of all modalities are missing, as docs/imputation.md
	$(BIN)/python benchmarks/missing.py

examples: $(READY) ## the worked examples, with the figures and numbers of docs/examples; digits needs make demo
	for name in breast_cancer brain_mri omics image_text digits; do $(BIN)/python docs/examples/$$name.py || exit 1; done

zoo: $(READY) ## train and score every model with one budget, for hours; docs/zoo.md (SEEDS=3 repeats each)
	$(BIN)/python benchmarks/zoo.py --seeds $(or $(SEEDS),1)

clean: ## remove caches and checkpoints, not the results
	rm -rf .postprior .coverage .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find stage1_vae stage2_latent pipelines tests -name __pycache__ -type d -prune -exec rm -rf {} +
