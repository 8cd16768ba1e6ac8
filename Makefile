# Two commands for a newcomer: `make run` and `make test`. Nothing needs to be typed before them.
# Everything that is built lies in .venv, var and caches below this folder; `make clean` removes it.

PYTHON ?= python3
VENV   ?= .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip install --quiet --disable-pip-version-check
PORT   ?= 8000
APP    ?= asgi

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help:            ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

# A stamp stands for what is in the environment. An environment without its first stamp was left unfinished
# and is made anew; the stamp of a group of packages is made anew when pyproject changes.
$(VENV)/made.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    "Python 3.11 or newer is needed, and $(PYTHON) is %d.%d: say make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv --clear --upgrade-deps $(VENV)
	@touch $@

$(VENV)/run.stamp: pyproject.toml $(VENV)/made.stamp
	$(PIP) -e '.[examples]'
	@touch $@

$(VENV)/%.stamp: pyproject.toml $(VENV)/made.stamp
	$(PIP) -e '.[examples]' --group $*
	@touch $@

run: $(VENV)/run.stamp            ## start the example backend and say what to try
	$(PY) -m examples.backend --demo --app $(APP) --port $(PORT)

run-real: $(VENV)/real.stamp      ## the same on PostgreSQL, Redis, an S3 and a mail server, with 2 workers
	$(PY) -m examples.backend --demo --real --app $(APP) --workers 2 --port $(PORT)

test: $(VENV)/test.stamp          ## every test, with branch coverage held at 100 %
	$(PY) -m tests.run

test-all:        ## the tests on every interpreter from 3.11 up that this machine has
	$(PYTHON) tests/interpreters.py

check: $(VENV)/dev.stamp          ## linters and type checkers
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pyright --pythonpath $(PY)

format: $(VENV)/dev.stamp         ## lay the code out
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

model: $(VENV)/test.stamp         ## check the breaker under every interleaving of 4 callers; needs spin and gcc
	RESILIENCE_NOTHING_SKIPPED=1 $(PY) -m tests.run tests/models

bench: $(VENV)/bench.stamp        ## measure, and print the table that docs/benchmarks.md keeps
	$(PY) -m benchmarks

experiments: $(VENV)/test.stamp   ## run the experiments behind the defaults, and draw what docs/experiments.md shows
	$(PY) -m experiments

clean:           ## remove whatever was built here
	rm -rf $(VENV) .venvs var build dist htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help run run-real test test-all check format model bench experiments clean
