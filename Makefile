# make run: set up, then the default search.  make test: set up, then all tests.
# make quick: the fast tests.  make lint: ruff and mypy.
# Two files of tests at a time: many tests wait for NNI or SSH.
# make run CPU=1: a PyTorch for the CPU only, a fifth of the download (430 MB of 2.2 GB).  Other flags for pip: PIP_FLAGS="..."
PYTHON ?= python3
PIP_FLAGS ?=
BIN = .venv/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check
TONIC = tonic==1.7.0  # without what it asks for; requirements.txt has what it needs
ifdef CPU
CPU_TORCH = --extra-index-url https://download.pytorch.org/whl/cpu
endif

.PHONY: run test quick lint clean

run: .venv/ready
	$(BIN)/python nni_main.py

test: .venv/ready-to-test
	$(BIN)/python -m pytest -n 2 --dist loadfile

quick: .venv/ready-to-test
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

lint: .venv/ready-to-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/ready: requirements.txt
	@echo "Setting up .venv, once: NNI, PyTorch, snnTorch and what they need: 2.2 GB to download, 2 GB of them for GPUs."
	@echo "Without a GPU 430 MB do: press Ctrl-C and type make run CPU=1. Nothing outside this folder is changed."
	$(PYTHON) -m venv .venv
	$(PIP) install $(CPU_TORCH) $(PIP_FLAGS) -r requirements.txt
	$(PIP) install --quiet $(PIP_FLAGS) --no-deps $(TONIC)
	touch $@

.venv/ready-to-test: .venv/ready requirements-test.txt
	$(PIP) install --quiet $(PIP_FLAGS) -r requirements-test.txt
	$(PIP) install --quiet $(PIP_FLAGS) --no-deps norse==1.1.0  # alone: what it asks for would replace torch
	touch $@

clean:
	rm -rf .venv
