# `make help` lists the targets. On a machine without a GPU, this installs a smaller torch:
#     PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make setup

PYTHON ?= python3
PORT ?= 5000
CHROMIUM ?= chromium
BIN := .venv/bin
READY := .venv/.ready
RIVAL := .venv-multivae
SDV := .venv-sdv
SCVI := .venv-scvi
RELEASE := .venv-release
PAGES := .venv/.docs

export DVC_NO_ANALYTICS := 1
export GOMP_SPINCOUNT ?= 10000
export MLFLOW_DISABLE_TELEMETRY := true
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Every stage and many tests start a process: they share the compiled modules, also where the environment forbids to keep them.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: $(shell grep -oE '^[a-z-]+:' $(MAKEFILE_LIST) | tr -d :)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## create .venv with the locked dependencies (PYTHON=python3.12 selects an interpreter)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make setup PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY) ## run the whole pipeline on real digits; this takes minutes, and seconds if repeated
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro
	@echo "The report: $(CURDIR)/results/report.html"

screenshot: $(READY) ## save the top of results/report.html, and its samples, for the README (CHROMIUM=google-chrome selects a browser)
	$(BIN)/python docs/samples.py
	profile=$$(mktemp -d) && $(CHROMIUM) --headless --no-sandbox --disable-gpu --no-first-run --hide-scrollbars --log-level=3 \
		--disable-background-networking --disable-component-update --disable-sync --user-data-dir=$$profile \
		--window-size=1200,1400 --screenshot=$(CURDIR)/docs/report.png file://$(CURDIR)/results/report.html && rm -r $$profile

pictures: $(READY) ## take the pictures of docs/experiments.md again from a project with experiments (PROJECT=folder)
	$(BIN)/python docs/pictures.py $(or $(PROJECT),.)

# Files run in the order of tests/conftest.py, the longest first: xdist would start with the files of most tests.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(READY) ## run the tests on up to four cores
	$(TEST)

coverage: $(READY) ## the same, and measure the code coverage, which takes longer
	$(TEST) --cov --cov-report=term

test-slow: $(READY) $(PAGES) ## run the tests that take minutes or need more data
	$(BIN)/python -m pytest -m slow

test-faults: $(READY) ## kill stages and dvc at 200 random moments, and run every stage on broken disks (KILLS=50 kills less)
	POSTPRIOR_KILLS=$(or $(KILLS),200) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s -m "slow or not slow" tests/faults

ui: $(READY) ## show all runs in MLflow on http://127.0.0.1:5000 (PORT=5001 selects another port)
	$(BIN)/mlflow ui --host 127.0.0.1 --port $(PORT) \
		--backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlflow.db}"

lint: $(READY) ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(READY) ## time a training step against the network passes that it needs
	$(BIN)/python benchmarks/step.py

test-multivae: $(RIVAL)/.ready ## compare the adapters with the models of the libraries MultiVae and Pythae, in a separate environment
	$(RIVAL)/bin/python -m pytest -q -m slow tests/stage1_vae/test_multivae.py tests/stage1_vae/test_pythae.py

test-scvi: $(SCVI)/.ready ## compare the adapter with the models of scvi-tools, in a separate environment
	$(SCVI)/bin/python -m pytest -q -m slow tests/stage1_vae/test_scvi.py

$(SCVI)/.ready: constraints.txt
	@echo "Installing into $(SCVI): this package, pytest, and scvi-tools with what it imports"
	$(PYTHON) -m venv $(SCVI)
	$(SCVI)/bin/python -m pip install --quiet -c constraints.txt -e '.[dev]' scvi-tools==1.4.2 mudata
	@touch $@

bench-adapted: $(RIVAL)/.ready ## compare joint samples of models of MultiVae: its samplers and ours; docs/adapted.md (SEEDS=3 runs more seeds)
	$(RIVAL)/bin/python benchmarks/adapted.py --seeds $(or $(SEEDS),1)

bench-multivae: $(RIVAL)/.ready ## compare the training speed with the library MultiVae, in a separate environment
	$(RIVAL)/bin/python benchmarks/against_multivae.py

# Dependencies of MultiVae that training does not import (imageio, torchmetrics, a backport of dataclasses) are left out.
# torchvision is installed without its dependencies too: any build of it works with the installed torch.
$(RIVAL)/.ready: constraints.txt
	@echo "Installing into $(RIVAL): this package, pytest, and multivae 1.0.3 with pythae, torchvision and what they import"
	$(PYTHON) -m venv $(RIVAL)
	$(RIVAL)/bin/python -m pip install --quiet -c constraints.txt -e '.[dev]' cloudpickle matplotlib nltk pandas tqdm
	$(RIVAL)/bin/python -m pip install --quiet --no-deps multivae==1.0.3 pythae==0.1.2 torchvision==0.28.0
	@touch $@

bench-scvi: $(SCVI)/.ready ## compare imputed proteins with those of TOTALVI of scvi-tools, in a separate environment; docs/adapted.md
	$(SCVI)/bin/python benchmarks/proteins.py

bench-densities: $(READY) ## compare the densities with each other and with the mixtures of other libraries; docs/densities.md
	$(BIN)/python benchmarks/densities.py

bench-augmentation: $(READY) ## measure what synthetic rows add to few real rows; takes hours; docs/augmentation.md (SEEDS=5 runs more seeds)
	$(BIN)/python benchmarks/augmentation.py --seeds $(or $(SEEDS),3)

bench-metrics: $(READY) ## measure time and memory of all fidelity metrics on 10,000 × 10,000 samples of 128 features
	$(BIN)/python benchmarks/metrics.py

bench-gpu: $(READY) ## check and measure an accelerator in at most six minutes; docs/speed.md (DEVICE=cuda)
	$(BIN)/python benchmarks/gpu.py --device $(or $(DEVICE),cuda)
	$(BIN)/python benchmarks/gpu_page.py

bench-imputation: $(READY) ## impute hidden values of the tables of bench-tables, which runs first; docs/imputation.md (SEEDS="0 1 2" runs more seeds)
	$(BIN)/python benchmarks/imputation.py --seeds $(or $(SEEDS),0)

bench-missing: $(READY) ## train with half of all modalities missing; docs/imputation.md
	$(BIN)/python benchmarks/missing.py

bench-profiles: $(READY) ## run the pipeline in both profiles and compare their times and scores; docs/evaluation.md
	$(BIN)/python benchmarks/profiles.py

bench-quality: $(READY) ## compare samples of pairs of a model and a density with real rows; docs/quality.md (SEEDS=3 runs more seeds)
	$(BIN)/python benchmarks/quality.py --seeds $(or $(SEEDS),1)

bench-ranks: $(READY) ## compare two ranks with two independent processes, in training and generation; docs/scale.md
	$(BIN)/python benchmarks/ranks.py

bench-reproduction: $(RIVAL)/.ready ## the papers' comparison of five models, by postprior and MultiVae; docs/reproduction.md (SEEDS=3 runs more seeds)
	$(RIVAL)/bin/python benchmarks/reproduction.py --seeds $(or $(SEEDS),1)

bench-tables: $(READY) $(SDV)/.ready ## compare synthetic tables with those of SDV; docs/evaluation.md (SEEDS=3 runs more seeds, OURS=--ours only our side)
	$(BIN)/python benchmarks/tables.py --seeds $(or $(SEEDS),1) $(OURS)

# SDV needs another pandas than this package, and is under the Business Source License.
$(SDV)/.ready: constraints.txt
	@echo "Installing into $(SDV): SDV with SDMetrics, CTGAN, torch and scikit-learn"
	$(PYTHON) -m venv $(SDV)
	$(SDV)/bin/python -m pip install --quiet sdv==1.38.5 'pandas<3' $$(grep -E '^(torch|scikit-learn)==' constraints.txt)
	@touch $@

examples: $(READY) ## run the examples that write the figures and numbers of docs/examples; the digits example needs the results of make demo
	for name in breast_cancer brain_mri omics image_text digits; do $(BIN)/python docs/examples/$$name.py || exit 1; done

docs: $(PAGES) ## build the documentation in docs/_build/html; notebooks that have not changed are not executed again (make clean: they are)
	$(BIN)/python -m sphinx -b html -W --keep-going -q docs docs/_build/html
	@echo "The documentation: $(CURDIR)/docs/_build/html/index.html"

$(PAGES): $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	@touch $@

zoo: $(READY) ## train and score every model with the same budget; takes hours; docs/zoo.md (SEEDS=3 runs more seeds)
	$(BIN)/python benchmarks/zoo.py --seeds $(or $(SEEDS),1)

release: $(RELEASE)/.ready ## build what would be uploaded, the wheel and the source distribution, in dist/, and check its metadata
	rm -rf build dist
	$(RELEASE)/bin/python -m build
	$(RELEASE)/bin/twine check --strict dist/*

$(RELEASE)/.ready:
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet build twine
	@touch $@

clean: ## remove caches and checkpoints, but not the results
	rm -rf .postprior .coverage .mypy_cache .pytest_cache .ruff_cache build dist docs/_build *.egg-info
	find stage1_vae stage2_latent pipelines tests -name __pycache__ -type d -prune -exec rm -rf {} +
