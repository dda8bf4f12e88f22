# The menu of this project: `make` or `make help` prints it.
#
#   PYTHON=...   the Python to build .venv from (3.8 to 3.11); otherwise one is looked for
#   VENV=...     where the environment goes (default .venv); CLIENTS_VENV=..., PYMC3_VENV=... those of `make clients`
#   WORKERS=...  parallel test workers (default 2)

SHELL  := /bin/bash
VENV   ?= .venv
WORKERS ?= 2
DURATIONS ?= 15
FRESH_PYTHONS ?= python3.11 python3.9
STAMP  := $(VENV)/.made
RUN    := $(VENV)/bin/python
LINTED := setup.py theano_memopt theano_memopt_ops tests benchmarks clients tools conftest.py
CLIENTS_VENV ?= .venv-clients
PYMC3_VENV   ?= .venv-pymc3
PYMC3  := pymc3==3.9.3 theano==1.0.5 arviz==0.10 'xarray<0.20' 'pandas<1.5' numpy==1.21.6 scipy==1.7.3 six==1.17.0 rich==13.9.4
KERAS  := keras==2.3.1 keras-applications==1.0.8 keras-preprocessing==1.1.2 h5py==3.11.0 pyyaml==6.0.2 \
          numpy==1.23.5 'scipy>=1.10.1,<1.12' six==1.17.0 rich==13.9.4
SOURCES := $(wildcard theano_memopt/planner/_*.c theano_memopt/planner/_*.cpp)

# Tests compile into a cache of the project's own, so they neither use nor touch the one in the user's home.
CACHE := $(CURDIR)/.theano
comma := ,
GIVEN := $(if $(THEANO_FLAGS),$(shell printf ',%s' "$$THEANO_FLAGS"))
export THEANO_FLAGS := base_compiledir=$(CACHE)$(GIVEN)

# Tests compile hundreds of small C files that begin with the same headers: those are read once, and a file that both workers need is
# compiled by one. Without optimization and what a debugger wants g++ takes half as long, and gold links in half the time; tests compare
# bits and bytes of stock and ours by the same compiler; what runs for long is compiled as users' programs are.
quickly   = base_compiledir=$(CACHE),compile.wait=1$(ONCE),gcc.cxxflags=$(1) $(CXXFLAGS) -I$(CACHE)/headers$(1)$(GIVEN)
ONCE     := $(if $(shell command -v g++),$(comma)cxx=$(CURDIR)/tools/once/g++)
export COMPILED := $(CACHE)/compiled
CXXFLAGS := -g0 -fno-math-errno -march=native$(if $(shell command -v ld.gold), -fuse-ld=gold)

# An environment that was made with another Python than the one now asked for is made again.
VERSION := -c 'import sys; print(sys.version_info[:2])'
ifneq ($(PYTHON),)
ifneq ($(shell "$(RUN)" $(VERSION) 2>/dev/null),$(shell exec 2>/dev/null; "$$(PYTHON='$(PYTHON)' sh tools/find_python.sh)" $(VERSION)))
$(STAMP): again
endif
endif

.DEFAULT_GOAL := help
.PHONY: again help venv ext lint format test test-planner test-quick nightly matrix demo clients clients-keras clients-pymc3 bench bench-arena bench-scale bench-changing bench-sizes bench-planner bench-recompute bench-recompute-planner solver results family-results readme-tables api theano-tests fresh clean clean-all

help:  ## this menu
	@grep -hE '^[a-z -]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z -]+):.*## /\1\t/' | awk -F '\t' '{ printf "  make %-15s %s\n", $$1, $$2 }'

venv: $(STAMP)  ## make .venv with everything pinned (PYTHON=python3.9 to choose)

$(STAMP): setup.py
	@set -euo pipefail; \
	python=$$(PYTHON="$(PYTHON)" sh tools/find_python.sh); \
	echo "making $(VENV) with $$python"; \
	"$$python" -m venv --clear "$(VENV)"; \
	"$(RUN)" -m pip install --quiet --disable-pip-version-check pip==25.0.1 setuptools==75.3.2 wheel==0.45.1; \
	"$(RUN)" -m pip install --quiet --disable-pip-version-check -e '.[theano,dev]'; \
	touch "$(STAMP)" "$(VENV)/.ext"

ext: $(VENV)/.ext  ## build the planner's compiled parts again after a change

$(VENV)/.ext: $(STAMP) $(SOURCES)
	@"$(RUN)" setup.py --quiet build_ext --inplace && touch "$@"

$(CACHE)/headers%/Python.h: $(STAMP) tools/precompiled_headers.sh
	@sh tools/precompiled_headers.sh "$(RUN)" "$(@D)" "$* $(CXXFLAGS)"

lint: $(STAMP)  ## ruff and mypy
	"$(RUN)" -m ruff check $(wildcard $(LINTED))
	"$(RUN)" -m ruff format --check $(wildcard $(LINTED))
	"$(RUN)" -m mypy

format: $(STAMP)  ## let ruff put the source in order
	"$(RUN)" -m ruff check --fix $(wildcard $(LINTED))
	"$(RUN)" -m ruff format $(wildcard $(LINTED))

test test-planner test-quick: export THEANO_FLAGS := $(call quickly,-O0)
nightly theano-tests bench bench-recompute: export THEANO_FLAGS := $(call quickly,-O3)

test: ext lint $(CACHE)/headers-O0/Python.h  ## venv, lint, and all tests but the nightly ones
	"$(RUN)" -m pytest -q -n $(WORKERS) --durations=$(DURATIONS)

# What needs no compiled Theano function.
test-planner: ext  ## the tests of planner, reports and command line alone: a minute
	"$(RUN)" -m pytest -q -n $(WORKERS) tests/planner tests/benchmarks tests/report tests/test_cli.py tests/test_cli_recompute.py tests/test_clients.py tests/test_docs.py \
		tests/test_files.py tests/test_layout.py theano_memopt/commands theano_memopt/report \
		theano_memopt/planner theano_memopt/options.py

test-quick: ext $(CACHE)/headers-O0/Python.h  ## the planner's tests and a part of the host's, between two edits: two minutes
	"$(RUN)" -m pytest -q -n $(WORKERS) -m "quick and not nightly"

matrix:  ## the quick tests on Python 3.8 to 3.11 with NumPy 1.21 to 1.23, and the planner alone on the newest (ROWS="3.8 newest" for some)
	@WORKERS=$(WORKERS) sh tools/matrix.sh $(ROWS)

nightly: ext $(VENV)/.solver $(CACHE)/headers-O3/Python.h  ## the tests that take long
	"$(RUN)" -m pytest -q -n $(WORKERS) -m nightly

solver: $(VENV)/.solver  ## OR-Tools into .venv, the outside judge of plans with repeats

# Without a package index the tests beside it are skipped, the benchmark leaves that table out, and the next time it is tried again.
$(VENV)/.solver: $(STAMP)
	@"$(RUN)" -m pip install --quiet --disable-pip-version-check -e '.[theano,dev,solver]' && touch "$@" || \
		echo "OR-Tools could not be installed: is a package index within reach? What needs it is left out." >&2

demo: ext  ## train real models with stock Theano and with the pass, side by side; draws out/demo.html
	@"$(RUN)" -m theano_memopt demo $(ARGS)

clients: clients-keras clients-pymc3  ## Keras models, the classic tutorials and PyMC3, stock and with the pass, compared bit for bit (ARGS=mlp for one)

clients-keras: $(CLIENTS_VENV)/.made
	@"$(CLIENTS_VENV)/bin/python" -m clients $(ARGS)

clients-pymc3: $(PYMC3_VENV)/.made
	@"$(PYMC3_VENV)/bin/python" -m clients --of pymc3 $(ARGS)

# An environment of its own: Keras 2.3.1 is the last that runs on Theano; the rest as the developer's. Linked to this source.
$(CLIENTS_VENV)/.made: setup.py
	@set -euo pipefail; \
	python=$$(PYTHON="$(PYTHON)" sh tools/find_python.sh); \
	echo "making $(CLIENTS_VENV) with $$python"; \
	"$$python" -m venv --clear "$(CLIENTS_VENV)"; \
	pip="$(CLIENTS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check"; \
	$$pip pip==25.0.1 setuptools==75.3.2 wheel==0.45.1; \
	$$pip -e '.[theano]' $(KERAS) || { echo "Keras and what it needs could not be installed into $(CLIENTS_VENV): is a package index within reach?" >&2; exit 2; }; \
	touch "$(CLIENTS_VENV)/.made"

# PyMC3 3.9.3 wants an older NumPy and SciPy than Keras, and a Python that has wheels of them.
$(PYMC3_VENV)/.made: setup.py
	@set -euo pipefail; \
	python=$$(PYTHON=python3.9 sh tools/find_python.sh 2>/dev/null || PYTHON=python3.8 sh tools/find_python.sh); \
	echo "making $(PYMC3_VENV) with $$python"; \
	"$$python" -m venv --clear "$(PYMC3_VENV)"; \
	pip="$(PYMC3_VENV)/bin/python -m pip install --quiet --disable-pip-version-check"; \
	$$pip pip==25.0.1 setuptools==75.3.2 wheel==0.45.1; \
	$$pip -e ".[theano]" $(PYMC3) || \
		{ echo "PyMC3 and what it needs could not be installed into $(PYMC3_VENV): is a package index within reach?" >&2; exit 2; }; \
	touch "$(PYMC3_VENV)/.made"

bench: ext $(CACHE)/headers-O3/Python.h  ## peak, reserved bytes, time per call, compile time on real models: tables and out/bench/*.csv (ten minutes once its C code is compiled)
	"$(RUN)" -m benchmarks.models $(ARGS)

bench-arena: ext  ## every way to keep intermediates beside each other, over several processes (half an hour)
	"$(RUN)" -m benchmarks.arena $(ARGS)

bench-scale: ext  ## what the pass costs and gains on graphs of 1,000 to 22,000 nodes
	"$(RUN)" -m benchmarks.scale $(ARGS)

bench-changing: ext  ## shapes that never come again: processor time beside stock, call by call in turns (a minute)
	"$(RUN)" -m benchmarks.changing_shapes $(ARGS)

bench-sizes: ext  ## how far an order carries: its peak at other sizes beside the best there (a minute)
	"$(RUN)" -m benchmarks.sizes $(ARGS)

readme-tables:  ## put the tables of the last `make bench` and `make bench-scale` into README and docs/benchmarks.md
	"$(RUN)" -m benchmarks.readme $(ARGS)

bench-planner: ext  ## the planner on real, random and hard graphs: tables and out/*.csv (ARGS=--quick for some minutes)
	"$(RUN)" -m benchmarks.planner $(ARGS)

results: ext  ## write what the planner finds on the kept graphs to benchmarks/results.json, which tests compare with, and into docs
	"$(RUN)" -m benchmarks.results
	"$(RUN)" -m benchmarks.readme --kept

family-results: ext  ## the planner on the harder families, 10 s of the processor for each graph that is not proven sooner (four minutes), and the table in docs (ARGS=peer for the peer)
	"$(RUN)" -m benchmarks.family_results $(if $(ARGS),$(ARGS),now)
	"$(RUN)" -m benchmarks.readme --kept

api: $(STAMP)  ## make docs/api.md from the docstrings
	"$(RUN)" -m tools.api

bench-recompute-planner: ext  ## plans with repeats: real, small, harder programs; tables and out/recompute/*.csv (ARGS=--quick; beside a constraint solver after `make solver`)
	"$(RUN)" -m benchmarks.recompute $(ARGS)

bench-recompute: ext $(CACHE)/headers-O3/Python.h  ## results that run again on Theano: peaks, times, bits, and how well costs are estimated; tables and out/repeats/*.csv
	"$(RUN)" -m benchmarks.repeats $(ARGS)

theano-tests: ext $(CACHE)/headers-O3/Python.h  ## Theano's own tests, stock and with the pass on, and the difference
	"$(RUN)" -m tests.theano.upstream $(ARGS)

fresh:  ## make demo and make test from a clean checkout with empty home and caches (FRESH_PYTHONS="python3.11 python3.9")
	@sh tools/fresh.sh $(FRESH_PYTHONS)

clean:  ## remove caches and build products
	rm -rf build dist out .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find theano_memopt tests benchmarks clients -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f theano_memopt/planner/*.so

clean-all: clean  ## also the environments and the compile cache
	rm -rf "$(VENV)" "$(CLIENTS_VENV)" "$(PYMC3_VENV)" .matrix .theano
