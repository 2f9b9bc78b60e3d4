# Doors for developers; each target says what it does. Users need only the README.

python := .venv/bin/python

help:  ## tell what there is
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

.venv: requirements.txt requirements-dev.txt
	python3 -m venv .venv
	$(python) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch .venv

run: .venv  ## watch the folder and load
	$(python) main.py

demo: .venv  ## write a fleet's files into the folder
	$(python) main.py demo

test: .venv  ## run the tests, but the slow ones
	$(python) -m pytest

test-slow: .venv  ## run the slow tests too
	$(python) -m pytest -m "slow or not slow"

check: .venv  ## lint and types
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy

format: .venv  ## mend what ruff can mend
	$(python) -m ruff check --fix .
	$(python) -m ruff format .

all: check test  ## what CI asks for

.PHONY: help run demo test test-slow check format all
