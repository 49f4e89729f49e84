# Everything a developer types. Each target sets up what it needs, and is quick the second time.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install --require-hashes --no-build-isolation
# Tests on all cores; those of the whole product one by one, for each of them keeps all cores busy by itself.
QUICK := $(BIN)/python -m pytest -n auto --dist worksteal -m "not e2e"
WHOLE := $(BIN)/python -m pytest -m e2e
SHELL := /bin/sh

.DEFAULT_GOAL := help
.PHONY: help run test check format bench reliability lock packages venv clean

help:           ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.runtime           ## set up, and start the gateway on loopback with its embedded default
	@exec $(BIN)/gatepost run

test: packages $(VENV)/.dev     ## everything: format, lint, types, all tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(QUICK)
	$(WHOLE)

check: $(VENV)/.dev             ## what you run before each commit: format, lint, types, floors, quick tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(QUICK) --ignore=tests/peers --ignore=tests/fuzz

format: $(VENV)/.dev            ## put the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: packages $(VENV)/.dev    ## measure speed and memory, beside Postfix (BENCH="--quick --json FILE")
	$(BIN)/python -m tests.bench $(BENCH)

reliability: packages $(VENV)/.dev  ## break it in every way we know, and write down what was found (RELIABILITY=--quick)
	$(BIN)/python -m tests.reliability --write $(RELIABILITY)

packages:                       ## the Debian packages that the tests drive: installs them when root
	@tests/install-packages tests/packages.debian

clean:                          ## forget the environment (data under ./var stays)
	rm -rf $(VENV)

# The environment. Each stamp is older than the lock it was made from only when the lock has changed.

venv: $(VENV)/.runtime

$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "gatepost needs Python 3.11 or newer: install one and run 'make PYTHON=/path/to/python3 ...'" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv; \
	  else echo "python3 cannot make environments: ask root to 'apt-get install python3-venv'" >&2; exit 1; fi
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.build: requirements-build.lock $(VENV)/.venv
	$(PIP) -r requirements-build.lock
	@touch $@

$(VENV)/.runtime: requirements.lock pyproject.toml $(VENV)/.build
	$(PIP) -r requirements.lock
	@$(BIN)/python -m pip --quiet --disable-pip-version-check install --no-build-isolation --no-deps --no-index --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	$(PIP) -r requirements-dev.lock
	@touch $@

# The locks: made from pyproject.toml, with the registry's hashes and without any address or folder of this machine.

COMPILE := env -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL PIP_CONFIG_FILE=/dev/null $(BIN)/pip-compile --quiet --no-config \
  --generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-options $(LOCK_ARGS)
GROUP := $(BIN)/python -c 'import sys, tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"][sys.argv[1]], sep="\n")'

lock:                           ## renew the locks after a change of dependencies (LOCK_ARGS=--upgrade: newest of all)
	@test -x $(BIN)/pip-compile || $(MAKE) $(VENV)/.dev
	$(GROUP) build | $(COMPILE) --output-file requirements-build.lock -
	$(COMPILE) --output-file requirements.lock pyproject.toml
	$(GROUP) dev | $(COMPILE) -c requirements.lock -c requirements-build.lock --output-file requirements-dev.lock -
	sed -i 's/-r -$$/pyproject.toml/' requirements-build.lock requirements-dev.lock
	@! grep -nE '://|^-|find-links|index-url' requirements*.lock || { echo "an address stands in a lock" >&2; exit 1; }
