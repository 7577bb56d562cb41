# make train   sets up and runs the main job on the built-in data set
# make test    sets up and runs the tests
# make test-cluster  runs the tests on real Ray clusters, with the extra [cluster]
# make test-matrix   runs the tests with TensorFlow 2.18 to 2.21, in separate environments
#   (MATRIX=all: the whole suite; MATRIX_ROWS="2.20:3.13": other pairs; MATRIX_DIR: where)
# make choose-tests  chooses the tests that make test runs, by coverage per second
# make coverage  runs the tests and prints the coverage of lines and branches per room
#
# `make INSTALLER=uv test` installs in a fraction of pip's time. uv reads neither pip.conf nor PIP_
# variables: a custom index has to be set in UV_DEFAULT_INDEX.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLER ?= pip
INSTALL_uv = $(BIN)/python -m uv pip install --quiet --python $(BIN)/python
INSTALL_pip = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
INSTALL = $(INSTALL_$(INSTALLER)) -c constraints.txt
DIGITS := $(BIN)/python -m pipelines.train --backbone mobilenetv2 --resume

MATRIX ?= core
MATRIX_DIR ?= .venvs

# Modules are compiled once, on first import; this requires writing bytecode.
unexport PYTHONDONTWRITEBYTECODE
export UV_HTTP_TIMEOUT ?= 300

# Tracing uses only one core: a process for each core halves the time.
PYTEST := $(BIN)/python -m pytest
PROCESSES := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: train test test-slow test-cluster coverage test-matrix choose-tests check benchmarks docs tutorials release-check clean

train: $(VENV)/.ready
	$(DIGITS) --recipe digits_standard --output saved_models/digits-standard
	$(DIGITS) --reference saved_models/digits-standard --output saved_models/digits-nsl

test: $(VENV)/.ready-test
	$(PYTEST) $(PROCESSES)

test-slow: $(VENV)/.ready-test
	$(INSTALL) -e ".[tutorials]"
	$(PYTEST) -m slow

# Commands started by tests are measured too (setup.cfg, [coverage:run]).
coverage: $(VENV)/.ready-dev
	rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/python -m coverage run -m pytest $(PROCESSES)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python .ci/rooms.py

# Updates tests/slow.txt: the tests that `make test` leaves to `make test-slow`.
choose-tests: $(VENV)/.ready-dev
	rm -rf build/coverage && mkdir -p build/coverage
	PYTHONPATH=.ci $(BIN)/python -m coverage run -m pytest -p choose_tests --all-listed $(PROCESSES)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python .ci/choose_tests.py

# Ray clusters of several nodes on this machine, whose nodes are killed; a real PostgreSQL if there
# is one.
test-cluster: $(VENV)/.ready-test
	$(INSTALL) -c constraints-cluster.txt -e ".[cluster]" "psycopg[binary]"
	$(PYTEST) -m slow tests/cluster tests/serving/test_on_ray.py

test-matrix:
	@MATRIX="$(MATRIX)" MATRIX_ROWS="$(MATRIX_ROWS)" MATRIX_DIR="$(MATRIX_DIR)" .ci/matrix

check: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

benchmarks: $(VENV)/.ready
	$(BIN)/python -m benchmarks.data
	$(BIN)/python -m benchmarks.training

# An old pip backtracks for minutes over these dependencies, so it is updated first.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(INSTALL_pip) --upgrade $(if $(filter pip,$(INSTALLER)),"pip>=24","uv>=0.8")

$(VENV)/.ready: setup.cfg constraints.txt | $(BIN)/python
	$(INSTALL) -e .
	touch $@

$(VENV)/.ready-test: setup.cfg constraints.txt | $(BIN)/python
	$(INSTALL) -e ".[test]"
	touch $@ $(VENV)/.ready

$(VENV)/.ready-dev: setup.cfg constraints.txt | $(BIN)/python
	$(INSTALL) -e ".[test,dev]"
	touch $@ $(VENV)/.ready $(VENV)/.ready-test

# The site, in build/site: fails on a broken link or an undocumented name.
docs: $(VENV)/.ready-docs
	$(BIN)/mkdocs build --strict

# Runs the tutorials and stores their output; look at the figures before committing.
tutorials: $(VENV)/.ready-test
	$(INSTALL) -e ".[tutorials]"
	$(BIN)/python docs/tutorials/run.py

# Builds sdist and wheel, installs the wheel in an empty environment, and runs the main job there,
# away from the sources.
release-check: $(VENV)/.ready-dev
	rm -rf dist build/release && mkdir -p build/release
	$(BIN)/python -m build --outdir dist .
	$(PYTHON) -m venv build/release/venv
	build/release/venv/bin/python -m pip install --quiet --upgrade "pip>=24"
	build/release/venv/bin/python -m pip install --quiet -c constraints.txt dist/*.whl
	cd build/release && venv/bin/tfrobust-train --backbone mobilenetv2 --epochs 12 --sweep none \
	    --no-figures --output run
	test -f build/release/run/evaluation.json && test -d build/release/run/1

$(VENV)/.ready-docs: setup.cfg constraints.txt | $(BIN)/python
	$(INSTALL) -e ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
