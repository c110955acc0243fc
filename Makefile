# The two commands a newcomer needs are `make search` and `make test`; each sets up what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: search test lint soak clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

search: $(VENV)/.installed  ## run the default search on digits
	$(BIN)/gped-search run digits_mlp

test: $(VENV)/.dev  ## the whole suite
	$(BIN)/python -m pytest

lint: $(VENV)/.dev  ## style, formatting, types, floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: $(VENV)/.dev  ## the full kill and fuzz counts
	GPED_SOAK=1 $(BIN)/python -m pytest tests/faults

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
