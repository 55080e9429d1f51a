# make run: set up, then the default search.  make test: set up, then all tests.
# Two files of tests at a time: many tests wait for NNI or SSH.
# A CPU-only torch: make run PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PYTHON ?= python3
PIP_FLAGS ?=
BIN = .venv/bin

.PHONY: run test lint clean

run: .venv/ready
	$(BIN)/python nni_main.py

test: .venv/ready-to-test
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/ready-to-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/ready: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -r requirements.txt
	touch $@

.venv/ready-to-test: .venv/ready requirements-test.txt
	$(BIN)/python -m pip install --quiet -r requirements-test.txt
	$(BIN)/python -m pip install --quiet --no-deps norse==1.1.0  # alone: what it asks for would replace torch
	touch $@

clean:
	rm -rf .venv
