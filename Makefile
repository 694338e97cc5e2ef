# From nothing but Python 3.11 or newer, and a network: everything is installed into .venv.

VENV := .venv
BIN := $(VENV)/bin
LOG := $(VENV)/install.log

# Each candidate is tried: a pyenv shim may exist and not run, Debian's python3 may lack ensurepip.
CANDIDATES := python3 python3.13 python3.12 python3.11 python
SUITABLE := import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(or $(shell for python in $(CANDIDATES); do \
	$$python -c '$(SUITABLE)' 2>/dev/null && echo $$python && break; done),python3)
UNSUITABLE = Python 3.11 or newer, with venv, is needed and $(PYTHON) is not that: \
	name one with PYTHON=/path/to/python3

PINS := -c constraints.txt
PIP_INSTALL = $(BIN)/python -m pip install --retries 2 $(PINS)
# pip says "connection broken" of every failure to reach an index; else its last error is the reason.
PIP_FAILURE := grep -q 'connection broken' $(LOG) && echo 'no network (no package index answers)' \
	|| grep '^ERROR' $(LOG) | tail -n 1

.PHONY: help train test test-lowest test-newest lint aot docs clean
.NOTPARALLEL: # train and test install into the same .venv

help:
	@echo 'make train   train the Flax example at constant and at stochastic depth, print one table'
	@echo 'make test    lint, types, all tests, conformance of the reference and both backends'
	@echo 'make lint    lint and types alone'
	@echo 'make test-lowest, make test-newest   conformance and fast tests, oldest and newest versions'
	@echo 'make aot     compile for TPUs and GPUs that are not there, say what became of it; takes long'
	@echo 'make docs    build the site of guides, specification and API in site/; warnings are errors'
	@echo 'make clean   remove .venv, the other environments, site and the caches'

# What the tests need holds all that the example needs.
train: $(or $(wildcard $(VENV)/test.done),$(VENV)/train.done)
	$(BIN)/python -m examples.train_flax.compare --preset few-digits --seeds 8

# At most 8 workers, since each may load both frameworks: about a gigabyte. By file, so that the
# blocks of a page and what a file compiles once stay together.
test: lint
	$(BIN)/pytest -n auto --maxprocesses 8 --dist loadfile

# The oldest versions that pyproject.toml allows (lowest.txt; Python 3.11 or 3.12), and the newest that
# there are. In environments of their own, of some gigabytes where torch is a CUDA build. Warnings
# are no errors here: old versions warn of one another.
test-lowest test-newest: test-%:
	@$(MAKE) --no-print-directory VENV=.venv-$* .venv-$*/$*.done
	.venv-$*/bin/python -m conformance
	.venv-$*/bin/pytest -n auto --maxprocesses 8 --dist loadfile -m 'not slow' -W default \
		droppath droppath_torch droppath_flax

lint: $(VENV)/test.done
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# In a .venv of its own: libtpu alone has 684 MB. AOT=--short compiles single blocks only.
aot:
	@$(MAKE) --no-print-directory VENV=.venv-aot .venv-aot/aot.done
	.venv-aot/bin/python -m conformance.aot $(AOT)

# In a .venv of its own: no framework is needed, the packages are read as text. The theme's notice of
# its end of support, in May 2027, is for whoever pins it, and is left out.
docs:
	@$(MAKE) --no-print-directory VENV=.venv-docs .venv-docs/docs.done
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --strict

OTHERS := .venv-aot .venv-docs .venv-lowest .venv-newest

clean:
	rm -rf $(VENV) $(OTHERS) site .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/train.done: EXTRAS := example
$(VENV)/test.done: EXTRAS := torch,conformance,example,dev
$(VENV)/aot.done: EXTRAS := aot
$(VENV)/docs.done: EXTRAS := docs
$(VENV)/lowest.done $(VENV)/newest.done: EXTRAS := torch,flax,conformance,dev
$(VENV)/lowest.done: PINS := -c lowest.txt
$(VENV)/lowest.done: lowest.txt
$(VENV)/newest.done: PINS :=

# While `incomplete` exists, .venv may hold half a package that pip would take for a whole one: start
# again. A .venv without it, perhaps the user's own, is added to and never removed.
$(VENV)/%.done: pyproject.toml constraints.txt
	@"$(PYTHON)" -c '$(SUITABLE)' 2>/dev/null || { echo '$(UNSUITABLE)' >&2; exit 1; }
	@[ ! -e $(VENV)/incomplete ] || rm -rf $(VENV)
	@mkdir -p $(VENV) && touch $(VENV)/incomplete && rm -f $(VENV)/*.done
	@[ -x $(BIN)/python ] || "$(PYTHON)" -m venv $(VENV)
	@echo 'Installing .[$(EXTRAS)] into $(VENV): minutes the first time, nothing the next; log: $(LOG)'
	@$(PIP_INSTALL) -e '.[$(EXTRAS)]' >$(LOG) 2>&1 || \
		{ echo "Installing failed: $$($(PIP_FAILURE)); see $(LOG)" >&2; exit 1; }
	@rm $(VENV)/incomplete && touch $@
