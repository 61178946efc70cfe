PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo docs lint results test

# Restore four photographs, print PSNR and SSIM, write demo/figure.png.
demo: .venv/installed
	$(BIN)/python recipes/demo.py --out demo

test: .venv/installed
	$(BIN)/python -m pytest -n auto --dist loadfile

# The figures of README and docs that take minutes, again; of the others the date and commit.
results: .venv/installed
	$(BIN)/python recipes/results.py

# The site, docs/_build/html/index.html; links that lead nowhere are errors.
docs: .venv/installed
	rm -rf docs/reference
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html docs docs/_build/html

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@
