# Two commands for everyone:  make demo   and   make test.  Each makes its own .venv and installs what it needs.
# For developers: make check (format, lint, types, tests), make format, make clean.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
WHEEL := build/wheel
WHEEL_PIP := $(WHEEL)/venv/bin/python -m pip --disable-pip-version-check
SHIPPED := test_datasets.py test_demo.py test_embedding.py test_public_names.py server/test_routes.py
SPREAD := -n auto --maxprocesses 4 --dist loadfile

.PHONY: demo test check format lint types tests wheel-tests bench clean

demo: $(VENV)/.demo
	$(BIN)/vecdb demo

test: check wheel-tests

check: lint types tests

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

# mypy cannot see through the package map of pyproject.toml, so it looks at an ordinary install.
types: $(VENV)/.dev
	rm -rf build/typed build/lib
	$(PIP) install --quiet --no-deps --no-build-isolation --target build/typed .
	rm -rf build/lib
	cd build/typed && MYPYPATH=. ../../$(BIN)/mypy --config-file ../../pyproject.toml -p vecdb

tests: $(VENV)/.dev
	$(BIN)/python -m pytest $(SPREAD)

# The wheel in an environment of its own, from another directory: first with no extra, then the tests that read what it ships.
wheel-tests: $(VENV)/.dev
	rm -rf $(WHEEL) build/lib
	$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir $(WHEEL) .
	rm -rf build/lib
	$(PYTHON) -m venv $(WHEEL)/venv
	$(WHEEL_PIP) install --quiet $(WHEEL)/vecdb-*.whl
	mkdir -p $(WHEEL)/elsewhere
	cd $(WHEEL)/elsewhere && ../venv/bin/python ../../../tests/wheel_check.py ../vecdb-*.whl
	$(WHEEL_PIP) install --quiet "$$(echo $(WHEEL)/vecdb-*.whl)[all]" pytest hypothesis pytest-xdist
	cd $(WHEEL)/elsewhere && ../venv/bin/python -m pytest -c ../../../pyproject.toml --rootdir=../../.. $(SPREAD) \
		$(addprefix ../../../tests/,$(SHIPPED))

bench: $(VENV)/.bench
	$(BIN)/python -m bench db

clean:
	rm -rf $(VENV) build *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'vecdb needs Python 3.11 or newer; run: make PYTHON=python3.11 …')"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --quiet --editable '.[embed,eval]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --quiet 'setuptools>=77' wheel
	$(PIP) install --quiet --editable '.[dev]'
	@touch $@

$(VENV)/.bench: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --quiet --editable '.[bench]'
	@touch $@
