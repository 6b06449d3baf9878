# Needs only make and Python 3.10 or newer. `make` alone lists the targets.

PYTHON ?= python3
RUN_DIR ?= runs/quickstart
GIN_FILES ?= gin/quickstart.gin
JOBS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BACKENDS := .venv-backends
CODE := $(wildcard nos_tf launch benchmarks tests setup.py)
TYPED := $(wildcard nos_tf launch benchmarks)

# One thread a process: the tests run one process a core, and a reward is reproducible only at one thread.
ONE_THREAD := TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 OMP_NUM_THREADS=1 TF_CPP_MIN_LOG_LEVEL=2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help search test test-backends drill lint format clean $(VENV)

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s  %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

search: $(STAMP)  ## run a real, small search on real images; resumes RUN_DIR if it exists
	$(BIN)/python launch/search.py --gin_files $(GIN_FILES) --run_dir $(RUN_DIR)

test: lint  ## lint, types, doctests and tests (PYTEST_ARGS='-m "not slow"' for the quick ones)
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

test-backends: $(BACKENDS)/.installed  ## the tests on JAX and PyTorch, in .venv-backends (a few minutes, 4 GB)
	$(ONE_THREAD) NOS_TF_BACKENDS=required $(BACKENDS)/bin/python -m pytest $(PYTEST_ARGS) tests/optimizers/test_backends.py tests/optimizers/test_export_torch.py tests/optimizers/test_export_optax.py tests/benchmarks/test_accelerator.py

DRILL_DIR ?= $(shell mktemp -d)
drill: $(STAMP)  ## six kinds of Keras model as scripts, killed and taken up, as notebooks; a bench and a suite killed; the longest tests (an hour)
	$(ONE_THREAD) $(BIN)/python -m pytest -m drill tests
	$(BIN)/python tests/drills/own_models.py --folder $(DRILL_DIR)
	$(BIN)/python tests/drills/killed.py --folder $(DRILL_DIR)-killed

lint: $(STAMP)  ## ruff and mypy, nothing is changed
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy $(TYPED)

format: $(STAMP)  ## let ruff mend what it can
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

clean:  ## remove .venv, .venv-backends and every cache; runs/ is kept
	rm -rf $(VENV) $(BACKENDS) build nos_tf.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(CODE) -type d -name __pycache__ -prune -exec rm -rf {} +

$(VENV): $(STAMP)

# The stamp is written last: an installation that broke off leaves none, and is made again from nothing.
$(STAMP): requirements.txt setup.py
$(BACKENDS)/.installed: requirements.txt requirements-backends.txt setup.py
$(STAMP) $(BACKENDS)/.installed:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null || { echo "nos_tf needs Python 3.10 to 3.13, and '$(PYTHON)' is not: name one, for example make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "'$(PYTHON)' has no venv module: install it (Debian, Ubuntu: apt install python3-venv), then make $(MAKECMDGOALS)" >&2; exit 1; }
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check $(addprefix -r ,$(filter %.txt,$^))
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

# A stamp can outlive what it promises (an interpreter that was upgraded away, a folder that was moved): look each time.
define look
ifneq ($(wildcard $(1)/.installed),)
ifneq ($$(shell $(1)/bin/python -c 'import importlib.util as u; print(all(map(u.find_spec, "$(2)".split())))' 2>/dev/null),True)
.PHONY: $(1)/.installed
endif
endif
endef
$(eval $(call look,$(VENV),tensorflow jinja2 pytest nbclient nos_tf))
$(eval $(call look,$(BACKENDS),tensorflow jax optax torch pytest nos_tf))
