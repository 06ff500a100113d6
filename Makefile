# Two commands for users: `make demo` and `make test`. Everything they need is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := unweave tests tools benchmarks

.PHONY: demo test check soak docs bench map clean

demo: .venv/.installed
	$(BIN)/unweave train demo --out runs/demo --overwrite

test: check
	$(BIN)/python -m pytest -m "not slow" --numprocesses auto --maxprocesses 8 --dist loadfile

check: .venv/.installed-test
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

soak: .venv/.installed-test
	$(BIN)/python -m pytest -m slow

docs: .venv/.installed-docs
	$(BIN)/python tools/make_map.py
	$(BIN)/python tools/make_reference.py
	$(BIN)/python tools/make_tables.py
	$(BIN)/python tools/make_schemas.py
	$(BIN)/mkdocs build --strict --quiet

bench: .venv/.installed-test
	$(BIN)/python benchmarks/density.py
	$(BIN)/python -m benchmarks.step

.venv/bin/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "unweave needs Python 3.11 or newer, this is " + sys.version'
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/.installed-test: .venv/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

.venv/.installed-docs: .venv/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

clean:
	rm -rf .venv runs site
