# Two commands from a fresh clone: `make bench` measures this machine and opens a report, `make test` tests everything.
# Needs Python 3.11 or later with venv, make and git. Everything is installed into .venv; repeating a step costs nothing.
PYTHON ?= python3
BENCH_FLAGS ?= --quick
PYTEST_FLAGS ?=
VENV := .venv
INSTALLED := $(VENV)/.installed
RUNTIME_SOURCES := $(shell find browser -type f -not -path '*/node_modules/*' 2>/dev/null)

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help bench test check docs lock browsers clean

help: ## Say what each command does (this text)
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  make %-9s %s\n", $$1, $$2}'
	@echo
	@echo "  make bench BENCH_FLAGS=''          measures in full, with longer series (the default is --quick)"
	@echo "  make test PYTEST_FLAGS='tests/web' passes options to pytest"

bench: $(INSTALLED) ## Install what is missing, measure this machine, write the report
	@$(VENV)/bin/python -m ipfs_accelerate_py.web.install || echo "Going on with the browsers that are there."
	$(VENV)/bin/ipfs-accelerate bench $(BENCH_FLAGS)

test: check browsers ## Install what is missing, check the code, run all tests (CPU only, with real browsers)
	$(VENV)/bin/python -m pytest $(PYTEST_FLAGS)

check: $(INSTALLED) ## Lint, formatting and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(INSTALLED) ## Write the compatibility matrix of the documentation anew, from data/reference
	$(VENV)/bin/ipfs-accelerate matrix --reference only --format markdown --output docs/matrix.md

browsers: $(INSTALLED) ## Install the browsers to measure in: Chromium, Firefox and a Chromium with WebNN
	@$(VENV)/bin/python -m ipfs_accelerate_py.web.install

lock: $(INSTALLED) ## Write requirements.lock anew, with the newest versions that fit
	$(VENV)/bin/python tools/lock.py

clean: ## Remove the environment and what was built; results and browsers stay
	rm -rf $(VENV) dist browser/node_modules src/ipfs_accelerate_py/web/static .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch comes first, by itself: where pip finds a CPU build of the locked version, that is taken.
$(INSTALLED): pyproject.toml requirements.lock hatch_build.py $(RUNTIME_SOURCES) | $(VENV)/bin/pip
	$(VENV)/bin/python -m pip install "$$(grep '^torch==' requirements.lock)"
	$(VENV)/bin/python -m pip install -c requirements.lock -e '.[all,dev]'
	@touch $@

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed; $(PYTHON) is older or missing. Name another one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python's venv module is missing. Run: sudo apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
