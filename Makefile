# On a fresh clone `make demo` or `make test` is the only command: both make .venv first.
PYTHON ?= python3
ACCELERATOR ?= cpu
BIN := .venv/bin
# Its date says when the environment was made; new requirements or another accelerator make it anew.
STAMP := .venv/installed-$(ACCELERATOR)

.PHONY: setup demo test test-slow format

setup: $(STAMP)

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	    sys.exit(0 if (3, 11) <= v <= (3, 13) else "error: Python %d.%d; needs 3.11 to 3.13, e.g. make setup PYTHON=python3.12" % v)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev,$(ACCELERATOR)]"
	@touch $@

# Four virtual devices of the CPU train a seed each: faster than one seed after the other.
demo: setup
	JAX_PLATFORMS=cpu $(BIN)/python -m experiments.degradation --dataset=digits \
	    --depths=8,20,56 --seeds=4 --config.replicas=4 --workdir=runs/demo

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/pytest -q

# The tests that are marked slow: each takes many seconds, all of them half an hour.
test-slow: setup
	$(BIN)/pytest -q -m slow

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
