# make demo    set up .venv and do the main job end to end: real requests through a pool of two workers
# make serve   serve an example at http://127.0.0.1:8000   EXAMPLE=examples/guides SERVE=sse:app picks another
# make test    the whole suite, two files at a time   TESTS="tests/test_pool.py -k lifespan" picks some, JOBS=0 one by one
# make test-core   the channel, isolation, runner, pool, state and services tests, with few dependencies
# make soak    the tests that run for minutes
# make perf    measure everything in about 13 minutes, with a report at the end   ARGS=--rigorous or --fast (see perf/README.md)
# make perf-calls, perf-servers, ...   measure that alone; "make perf-list" says what there is
# make lint    ruff and mypy --strict
# make clean   remove environments, caches and build products
#
# PYTHON=/path/to/python make ...   uses that interpreter, with an environment of its own (.venv-3.14.2).
# Without it: the newest CPython >= 3.13 that scripts/find-python finds, in .venv.
# Works with GNU make 3.81 (macOS).

PYTHON ?=
TESTS ?= tests
EXAMPLE ?= examples/demo
SERVE ?= demo_asgi:app
PYTEST_ARGS ?=
JOBS ?= 2
# Files in the order of their names: by their number of tests the longest would come last, and one process would wait.
DIST := --dist loadfile --no-loadscope-reorder
# Every worker that starts would compile anew all that it imports: it takes twice as long.
unexport PYTHONDONTWRITEBYTECODE
CORE := $(wildcard tests/test_channels*.py tests/test_isolation*.py tests/test_runner*.py tests/test_pool*.py tests/test_state*.py) \
	tests/test_services_functions.py tests/test_services_topics.py

ifeq ($(strip $(PYTHON)),)
VENV := .venv
else
TAG := $(shell scripts/find-python --tag '$(PYTHON)')
ifeq ($(TAG),)
$(error PYTHON=$(PYTHON) cannot be used)
endif
VENV := .venv-$(TAG)
endif
PY := $(VENV)/bin/python

# An environment whose interpreter has gone, or whose folder was moved, is made again.
$(shell scripts/make-env --check '$(VENV)' '$(PYTHON)')

.PHONY: demo serve test test-core core-env soak perf lint clean
.NOTPARALLEL:

demo: $(VENV)/.stamp-server
	@$(PY) examples/demo/demo.py

serve: $(VENV)/.stamp-server
	$(VENV)/bin/subpool serve $(SERVE) --pythonpath $(EXAMPLE) $(ARGS)

test: $(VENV)/.stamp-test
	$(PY) -m pytest -n $(JOBS) $(DIST) $(PYTEST_ARGS) $(TESTS)

test-core: $(VENV)/.stamp-test-core
	@test -n "$(CORE)" || { echo "no channel, isolation, runner or pool tests found" >&2; exit 1; }
	$(PY) -m pytest -n $(JOBS) $(DIST) $(PYTEST_ARGS) $(CORE)

core-env: $(VENV)/.stamp-test-core

soak: $(VENV)/.stamp-test
	$(PY) -m pytest -m soak --timeout 900 $(PYTEST_ARGS) $(TESTS)

perf: $(VENV)/.stamp-perf
	$(PY) -m perf all -o build/perf/run.json $(ARGS)
	@$(PY) -m perf report build/perf/run.json --plots build/perf -o build/perf/report.md
	@echo "build/perf/run.json is for pyperf compare_to, build/perf/report.md to be read"

perf-%: $(VENV)/.stamp-perf
	$(PY) -m perf $* $(ARGS)

lint: $(VENV)/.stamp-dev
	$(PY) -m ruff check .
	$(PY) -m mypy

# One stamp for each extra; a second run finds it newer than what it was made from, and starts at once.
$(VENV)/.stamp-base: pyproject.toml scripts/make-env
	@scripts/make-env '$(VENV)' '$(PYTHON)' ''
$(VENV)/.stamp-%: pyproject.toml scripts/make-env
	@scripts/make-env '$(VENV)' '$(PYTHON)' '$*'

clean:
	rm -rf .venv .venv-* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
