# What a developer does with featurehub; `make` alone lists it.

PYTHON ?= python3
BIN := .venv/bin
RUN := .venv/.requirements.stamp
DEV := .venv/.requirements-dev.stamp
SPARK := .venv/.requirements-spark.stamp
FEAST := .venv-feast/.requirements.stamp
# As many processes as there are cores, each with a home, a Redis and a database of its own; a file's tests stay together.
SIDE_BY_SIDE := --numprocesses auto --dist loadfile
CODE := engine catalog ingestion serving featurehub tests benchmarks examples manage.py

.DEFAULT_GOAL := help
.PHONY: help run test soak check format openapi screens vendor bench spark feast clean
# A recipe that fails leaves no half-made target behind.
.DELETE_ON_ERROR:

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(RUN) ## the whole hub on this machine, from nothing: database, Redis, demo data, web, worker, beat
	@exec $(BIN)/python -m featurehub.embedded

test: $(DEV) ## every test; those of the database once more on PostgreSQL, where it is installed
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ARGS)
	@$(BIN)/python -m tests.postgresql $(SIDE_BY_SIDE) $(ARGS)

soak: $(DEV) ## the long tests: kills, load, fuzz, ten million rows
	@exec $(BIN)/python -m pytest -m soak --timeout 7200 $(ARGS)

check: $(DEV) ## format, lint, types, migrations up to date
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/python manage.py makemigrations --check --dry-run

format: $(DEV) ## write the code as `make check` wants it
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

openapi: $(RUN) ## write docs/openapi.json, the API described; a test compares it with the code
	@$(BIN)/python manage.py spectacular --validate --fail-on-warn --format openapi-json --file docs/openapi.json

screens: $(DEV) ## write docs/screens/, a picture of each page (needs Chromium)
	@exec $(BIN)/python -m tests.browser.shoot $(ARGS)

vendor: $(DEV) ## fetch the JavaScript and CSS of others anew, at the versions of tests/browser/vendored.py (needs npm)
	@$(BIN)/python -m tests.browser.vendored

bench: $(DEV) ## the benchmarks, beside the limit and Feast
	@$(MAKE) --silent $(FEAST) || true  # without it the table says that it is not there
	@exec $(BIN)/python -m benchmarks $(ARGS)

spark: $(SPARK) ## what work on a Spark cluster needs beside Java 17 (450 MB); its tests are skipped without

feast: $(FEAST) ## Feast in .venv-feast: its client reads from the hub in a test, its server is what `make bench` measures

clean: ## remove what tools cached; .venv and .featurehub stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis staticfiles
	find engine catalog ingestion serving featurehub tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "featurehub needs Python 3.11 or newer; say which: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv

$(RUN): requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(DEV): requirements-dev.txt $(RUN)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(SPARK): requirements-spark.txt $(RUN)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-spark.txt
	@touch $@

$(FEAST): requirements-feast.txt | $(BIN)/python
	$(BIN)/python -m venv .venv-feast
	.venv-feast/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-feast.txt
	@touch $@
