PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
DATA ?= sample
CONFIG ?= configs/partA/sample.yaml
NAME := $(notdir $(DATA))-$(shell date +%Y%m%d-%H%M%S)
# A file's tests share what they have trained, so they stay in one process. Many wait for programs: three fill two cores.
PYTEST := -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

.PHONY: help train reproduce test test-fast test-oldest coverage app lint bench
.DEFAULT_GOAL := help

help:  ## say what can be made
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | awk -F '\t' '{printf "make %-12s %s\n", $$1, $$2}'

$(INSTALLED): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("error: Python 3.10 or newer is needed, this is " + sys.version.split()[0] + "; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@

train: $(INSTALLED)  ## set up, train on the sample data, test the best checkpoint (DATA=…, CONFIG=… for others)
	$(RUN) partA/train.py --config $(CONFIG) --data $(DATA) --name $(NAME)
	$(RUN) -m naturalist evaluate runs/$(NAME)
	@echo "Look at runs/$(NAME)/evaluation/test/predictions.png. Next, your own photographs: make train DATA=FOLDER CONFIG=configs/partA/default.yaml"

reproduce: $(INSTALLED)  ## do all of it (audit, sweep, train, test, explain, fine-tune, compare, report), or go on with it (DATA=…)
	$(RUN) -m naturalist reproduce --data $(DATA)

test: $(INSTALLED)  ## set up and run the tests
	$(RUN) $(PYTEST)

test-fast: $(INSTALLED)  ## run the tests that start no programs, train nothing to its end and make no whole page
	$(RUN) $(PYTEST) -m "not slow"

test-oldest:  ## run the tests with the oldest versions allowed (make test-oldest PYTHON=python3.10)
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=.venv-oldest .venv-oldest/bin/uv pip install --quiet --resolution lowest-direct --editable '.[onnx,app,test]'
	.venv-oldest/bin/python $(PYTEST)

coverage: $(INSTALLED)  ## run the tests and say which lines they leave out; fails under 90 %
	$(RUN) -m coverage erase
	$(RUN) -m coverage run $(PYTEST)
	$(RUN) -m coverage combine --quiet
	$(RUN) -m coverage report

app: $(INSTALLED)  ## add what the local page (python -m naturalist serve RUN) needs
	$(RUN) -m pip install --quiet --disable-pip-version-check --requirement requirements-app.txt

lint: $(INSTALLED)  ## check style, format, types, and which room imports which
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check --quiet .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports --no-logo

bench: $(INSTALLED)  ## measure everything against the usual way, for an hour; nothing else should run (ROWS=… for some)
	$(RUN) -m benchmarks $(if $(ROWS),--only $(ROWS))
