PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test lint

# Restore four photographs, print PSNR and SSIM, write demo/figure.png.
demo: .venv/installed
	$(BIN)/python recipes/demo.py --out demo

test: .venv/installed
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@
