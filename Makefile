# Each target works on a fresh machine: it makes .venv and installs what it needs.
PYTHON ?= python3
PORT ?= 8501
ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif

.PHONY: help run test lint fix bench clean

help:
	@echo "make run   start the dashboard on http://localhost:8501 (PORT=... for another)"
	@echo "make test  lint and all tests"
	@echo "make bench the engine against plain diffusers, as ratios"
	@echo "make lint  ruff, mypy and oxlint;  make fix: mend what they can;  make clean: remove .venv"

run: .venv/run.stamp
	@echo "Contact Sheet: http://localhost:$(PORT)"
	@$(BIN)/python -m streamlit run dashboard/app.py --server.port $(PORT) --server.headless true

test: export OMP_NUM_THREADS = 1
test: .venv/dev.stamp lint
	@$(BIN)/python tests/chromium.py
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/oxlint --deny-warnings

fix: .venv/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/oxlint --fix

bench: .venv/run.stamp
	$(BIN)/python -m pipelines.bench

clean:
	rm -rf .venv

.venv/bin-exists:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; this is %s" % sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	@touch $@

.venv/run.stamp: .venv/bin-exists requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/dev.stamp: .venv/bin-exists requirements.txt requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@ .venv/run.stamp
