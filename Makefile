# The two commands a newcomer needs are `make search` and `make test`; each sets up what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: search test test-processors coverage golden lint soak dist clean

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

test: $(VENV)/.dev  ## the whole suite, a process a core
	$(BIN)/python -m pytest -n auto --dist loadfile

# The same products round otherwise on each processor: older ones are imitated by what this one may use.
AVX2 := ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2
SSE41 := ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default MKL_ENABLE_INSTRUCTIONS=SSE4_2
NUMERICAL := $(wildcard $(addprefix tests/,contracts data distill evaluate golden models old posterior statistical stream targets))

test-processors: $(VENV)/.dev  ## the numerical tests, rounded as three kinds of processor do
	env $(AVX2) $(BIN)/python -m pytest $(NUMERICAL)
	env $(SSE41) $(BIN)/python -m pytest $(NUMERICAL)
	$(BIN)/python -m pytest $(NUMERICAL)

coverage: $(VENV)/.dev  ## the whole suite; which lines of the package no test runs
	$(BIN)/python -m pytest -q --cov --cov-report=term
	rm -f .coverage .coverage.*

golden: $(VENV)/.dev  ## keep this platform's figures of digits_sgld anew; say why in the commit
	$(BIN)/python -m tests.golden.digits

lint: $(VENV)/.dev  ## style, formatting, types, floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: $(VENV)/.dev  ## the full counts of kills, damaged files, injected bugs and strangers' sets; the slow cases
	GPED_SOAK=1 $(BIN)/python -m pytest -m soak
	GPED_SOAK=1 $(BIN)/python -m pytest -m "not soak" tests/faults tests/postgresql tests/posterior/test_selftest.py tests/posterior/test_selftest_bugs.py \
		tests/statistical/test_coverage.py tests/strangers tests/distill/test_phases_training.py

dist: $(VENV)/.dev  ## wheel and sdist in dist/, and a search with the wheel away from this checkout
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m pytest tests/wheel

clean:
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
