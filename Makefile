PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
DATA ?= sample
CONFIG ?= configs/partA/sample.yaml
NAME := $(notdir $(DATA))-$(shell date +%Y%m%d-%H%M%S)

.PHONY: help train test app lint bench
.DEFAULT_GOAL := help

help:  ## say what can be made
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | awk -F '\t' '{printf "make %-8s %s\n", $$1, $$2}'

$(INSTALLED): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("error: Python 3.10 or newer is needed, this is " + sys.version.split()[0] + "; name one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@

train: $(INSTALLED)  ## set up, train on the sample data, test the best checkpoint (DATA=…, CONFIG=… for others)
	$(RUN) partA/train.py --config $(CONFIG) --data $(DATA) --name $(NAME)
	$(RUN) -m naturalist evaluate runs/$(NAME)
	@echo "Look at runs/$(NAME)/evaluation/test/predictions.png. Next, your own photographs: make train DATA=FOLDER CONFIG=configs/partA/default.yaml"

test: $(INSTALLED)  ## set up and run the tests
	$(RUN) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

app: $(INSTALLED)  ## add what the local page (python -m naturalist serve RUN) needs
	$(RUN) -m pip install --quiet --disable-pip-version-check --requirement requirements-app.txt

lint: $(INSTALLED)  ## check the style
	$(RUN) -m ruff check .

bench: $(INSTALLED)  ## measure the input pipeline against the usual loop
	$(RUN) -m benchmarks.input
