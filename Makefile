# Targets for developers; users need only the README.

python := .venv/bin/python

help:  ## list the targets
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

.venv: requirements.txt requirements/dev.txt requirements/lake.txt
	python3 -m venv .venv
	$(python) -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	@touch .venv

run: .venv  ## run the daemon
	$(python) main.py

demo: .venv  ## write a fleet's files into the folder
	$(python) main.py demo

test: .venv  ## run the tests without the slow ones
	$(python) -m pytest -n 2 --dist loadscope

test-slow: .venv  ## run all tests
	$(python) -m pytest -m ""

check: .venv  ## lint and types
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy

format: .venv  ## repair what ruff can repair
	$(python) -m ruff check --fix .
	$(python) -m ruff format .

diagram: .venv  ## copy the rooms and their arrows into docs/architecture.md
	$(python) -m tests.diagram

all: check test  ## what CI asks for

.PHONY: help run demo test test-slow check format diagram all
