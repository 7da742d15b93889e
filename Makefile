# make run    sets up what the simulation needs (no torch, no ray) and compares the policies on the shipped workload
# make test   sets everything up and runs all tests, the notebook included
.PHONY: run test test-fast lint docs bench bench-peers clean
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
SETUP := pyproject.toml setup.py constraints.txt
SHOWN := seer,explore-finish,rubberband,sha-fixed,sha-fixed-naive,hyperband-fixed,asha-fixed-naive,sha-elastic:gpus_per_trial=4
export MPLBACKEND = Agg
# Tests start hundreds of Python processes: none should compile again what the first has compiled.
unexport PYTHONDONTWRITEBYTECODE
# COVERAGE='--cov=elastune --cov-report=term:skip-covered' prints what the tests do not reach.
COVERAGE :=

run: $(VENV)/.ready-run
	$(BIN)/elastune compare experiments/catalog/tight.yaml --policies $(SHOWN) --seeds 20 -o results/tight

test: $(VENV)/.ready-test
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder  # in order: long files are first, every other of them waits

# For daily work: no real workers, no training, nothing that is marked slow, a few cases of what is marked many, fewer examples.
test-fast: $(VENV)/.ready-test
	$(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/bridge --ignore tests/workloads \
		-m 'not benchmark and not slow' --few-cases --hypothesis-profile fast $(COVERAGE)

docs: $(VENV)/.ready-docs
	$(BIN)/mkdocs build

lint: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

bench: $(VENV)/.ready-test
	$(BIN)/python -m pytest -m benchmark -s -n 0

# Other simulators on the same work, each in an environment of its own. Syne Tune takes minutes.
bench-peers: $(VENV)/.ready-test $(VENV)/peers/mfhpo/.ready $(VENV)/peers/synetune/.ready
	$(BIN)/python -m pytest -m benchmark -s -n 0 tests/benchmarks/test_peers.py

$(VENV)/peers/mfhpo/.ready: PACKAGES := mfhpo-simulator==1.4.6
$(VENV)/peers/synetune/.ready: PACKAGES := syne-tune==0.16.0 huggingface_hub
$(VENV)/peers/%/.ready:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check --quiet install $(PACKAGES)
	touch $@

clean:
	rm -rf $(VENV) .links build dist results *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: set-up is done once, and again only when the project file or the constraints change.
$(VENV)/.ready-run: $(SETUP)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt --editable .
	touch $@

$(VENV)/.ready-test: $(SETUP) $(VENV)/.ready-run
	$(PIP) install --constraint constraints.txt --editable '.[bridge,notebooks,dev]'
	touch $@

$(VENV)/.ready-docs: $(SETUP) $(VENV)/.ready-run
	$(PIP) install --constraint constraints.txt --editable '.[docs]'
	touch $@
