# `make run` and `make test` install what they need; `make help` lists the rest.
PYTHON ?= python3
PYTEST_FLAGS ?=
# Most tests wait for processes. Tests of one file share a hub, so they run in the same worker.
PARALLEL ?= -n 3 --dist loadfile

SHELL := bash
# With -p, Bash takes no start file, function or CDPATH from the environment.
.SHELLFLAGS := -peuo pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME BASH_ENV ENV

TOOLS := .tools
# A program that runs the real OpenTofu with stand-in providers. It is not part of this repository.
GPUDEV_TOFU ?= $(realpath ../shared/tofu/tofu-offline)
BIN := .venv/bin
HARNESS := PYTHONPATH=tests/cluster $(BIN)/python -m harness
YARN := $(BIN)/node $(TOOLS)/node/node_modules/@yarnpkg/cli-dist/bin/yarn.js
# The files in the wheel. Users' servers run from the wheel, so they cannot change this folder.
SOURCES := $(shell find gpudev_lib spawner -type f -not -path '*/.*' -not -name '*.pyc')

.PHONY: help setup install run test test-e2e test-browser test-dynamodb prepare-infra test-infra prepare-cluster test-cluster \
	test-whole test-faults mutate check docs format types lock bench clean

help: ## list the targets
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## install everything into .tools, .venv and .venv-server (quick if nothing has changed)
	@mkdir -p $(TOOLS)
	@flock $(TOOLS)/lock $(MAKE) install

install: $(TOOLS)/system.stamp $(TOOLS)/venv.stamp $(TOOLS)/server.stamp $(TOOLS)/node.stamp
	@:

run: setup ## run hub, reservation service and servers on this machine, in the foreground (GITHUB=fake: log in with a fake GitHub)
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

test-whole: ## test whole installations on that Kubernetes: install, use, upgrade, remove
test-faults: ## test failures of every part on that Kubernetes
test-whole test-faults: prepare-cluster $(TOOLS)/dynamodb.stamp
	$(HARNESS) run -- $(BIN)/pytest $(PYTEST_FLAGS) tests/cluster/$(@:test-%=%)

test-dynamodb: setup $(TOOLS)/dynamodb.stamp ## test the DynamoDB store, and the service on it, with DynamoDB Local (needs Java)
	$(BIN)/pytest $(PARALLEL) -m dynamodb $(PYTEST_FLAGS)

prepare-infra: ## install what checks infra/aws; takes minutes the first time
	@mkdir -p $(TOOLS)
	@flock $(TOOLS)/lock $(MAKE) $(TOOLS)/venv.stamp $(TOOLS)/infra.stamp $(TOOLS)/dynamodb.stamp

test-infra: prepare-infra ## check infra/aws: format, types, plans, planted mistakes; needs OpenTofu (GPUDEV_TOFU)
	@[ -n '$(GPUDEV_TOFU)' ] || echo 'make test-infra: GPUDEV_TOFU names no OpenTofu, so infra/aws is NOT planned' >&2
	GPUDEV_TOFU='$(GPUDEV_TOFU)' $(BIN)/pytest $(PARALLEL) $(PYTEST_FLAGS) tests/infra

check: setup ## check style, spelling, types, imports, unused code and shell scripts, without running anything
	$(BIN)/ruff check && $(BIN)/ruff format --check
	$(BIN)/codespell && $(BIN)/mypy
	$(BIN)/lint-imports && $(BIN)/vulture
	tools/check-shell

docs: setup ## build the documentation site into dist/docs; a broken link or any other warning is an error
	$(BIN)/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going -b html -c docs . dist/docs

format: $(TOOLS)/yarn.stamp ## format Python and the page scripts
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(YARN) format --write

types: $(TOOLS)/yarn.stamp ## check types and format of the page scripts
	$(YARN) tsc
	$(YARN) format --check

bench: setup ## run the benchmarks of docs/benchmarks.md
	for part in plan handover submissions release spawn usage; do $(BIN)/python -m benchmarks.$$part; done

mutate: setup $(TOOLS)/mutation.stamp ## change MODULE in every small way, and print the changes that no test in TESTS notices
	tools/mutate $(MODULE) $(TESTS)

lock: $(TOOLS)/uv.stamp ## update the lock files; versions stay unless LOCK_FLAGS=--upgrade
	TOOLS='$(TOOLS)' bash -p tools/lock

clean: ## remove installed and cached files; the state of hubs is in another folder and stays
	rm -rf $(TOOLS) .venv .venv-* .yarn node_modules dist .hypothesis .{import_linter,mypy,pytest,ruff}_cache

# tools/install installs each part. These rules say what each part depends on.
$(TOOLS)/%.stamp:
	@TOOLS='$(TOOLS)' PYTHON='$(PYTHON)' bash -p tools/install $*
$(TOOLS)/system.stamp: tools/system-packages tools/debian-packages
$(TOOLS)/uv.stamp: requirements/uv.txt | $(TOOLS)/system.stamp
$(TOOLS)/tests.stamp: tools/debian-packages
$(TOOLS)/dynamodb.stamp: tests/support/dynamodb/pom.xml tools/debian-packages
$(TOOLS)/venv.stamp: $(TOOLS)/uv.stamp pyproject.toml requirements/dev.txt
$(TOOLS)/server-base.stamp: $(TOOLS)/uv.stamp requirements/server.txt
$(TOOLS)/server.stamp: $(TOOLS)/server-base.stamp $(TOOLS)/venv.stamp $(SOURCES)
$(TOOLS)/node.stamp: $(TOOLS)/venv.stamp requirements/node/package.json requirements/node/package-lock.json tools/proxy-command
$(TOOLS)/yarn.stamp: package.json yarn.lock .yarnrc.yml | setup
