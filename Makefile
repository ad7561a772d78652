# Everything runs in an environment that these commands make themselves; only Python and make are needed.
#   make demo                     a song, its two tracks as checked WAV files, and their stems
#   make demo CALLBACK=yes        a job of another system, its callback, and the DAG run that stores its file
#   make test                     lint, types and tests
#   make test AIRFLOW=2.11.2      the same on another Airflow
#   make e2e                      the quick start in a browser; SCREENSHOTS=docs/img keeps its pictures there
#   make docs                     the documentation as a site, in build/site
#   make release-check            build both archives in build/release, and check them and the changelog
#   make mutation                 change the core in hundreds of ways; do the tests notice?
#   make matrix                   the wheel beside every supported Airflow, on the oldest and the newest Python
#   make bench                    speed beside the peers, an hour; QUICK=yes for three minutes
#   make triggerer-soak           a real triggerer with 1,000 waiting sensors, and killed half way
#   make crash-test               kill Airflow's processes everywhere; is anything paid twice or lost?
#   make crash-test AIRFLOW=2.11.2  kill tasks where nothing is remembered, and count what is paid twice
#   make cluster                  kill the parts of a cluster one by one; CUT=yes for one row, LEDGER=yes with a ledger
AIRFLOW ?= 3.3.2
PYTHON ?= python3

VENV := .venv$(if $(filter-out 3.3.2,$(AIRFLOW)),-$(AIRFLOW))
BIN := $(VENV)/bin
# The versions that were tested together. Other Airflows get what pip finds, without an S3 to test against: pip would
# search for minutes.
CONSTRAINTS := $(wildcard constraints/airflow-$(AIRFLOW).txt)
EXTRA := $(if $(CONSTRAINTS),dev-s3,dev)
READY := $(VENV)/ready

.PHONY: help demo test lint types unit wire airflow e2e docs release-check mutation matrix crash-test cluster \
        bench triggerer-soak clean

help:
	@sed -n 's/^#   //p' Makefile

$(READY): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; say which with PYTHON=..." if sys.version_info < (3, 11) else 0)'
	@echo "Making $(VENV) with Airflow $(AIRFLOW); this takes a few minutes the first time."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRA)]' 'apache-airflow==$(AIRFLOW)' $(CONSTRAINTS:%=--constraint %)
	@touch $@

demo: $(READY)
	$(BIN)/python $(if $(CALLBACK),-m tests.system.callback_demo,scripts/demo.py)

test: lint types unit wire airflow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/zizmor --offline --quiet .github

# Types are checked against the newest Airflow only: the older ones are less typed.
types: $(READY)
ifeq ($(AIRFLOW),3.3.2)
	$(BIN)/mypy
endif

# Most of the time of these tests is waiting, so more processes than cores help.
unit wire airflow: $(READY)
	$(BIN)/python -m pytest -n 4 tests/$@

e2e: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[e2e]' $(CONSTRAINTS:%=--constraint %)
	$(BIN)/python -m pytest tests/e2e

docs: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]' $(CONSTRAINTS:%=--constraint %)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "The site is in build/site; open build/site/index.html."

# RELEASE=yes: the changelog's newest entry has to be this version, with a date.
release-check: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'build>=1.2' 'check-wheel-contents>=0.6' 'twine>=6.1'
	$(BIN)/python scripts/changelog_check.py $(if $(RELEASE),--release)
	rm -rf build/release
	$(BIN)/python -m build --outdir build/release
	$(BIN)/twine check --strict build/release/*
	$(BIN)/check-wheel-contents build/release/*.whl

# The rest is too slow for every commit.
mutation: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'mutmut>=3.8,<4'
	rm -rf mutants
	$(BIN)/mutmut run
	$(BIN)/mutmut results
	$(BIN)/mutmut export-cicd-stats
	@$(BIN)/python -c "$$NOTICED"

# Fails below 96 %. mutmut says the change of a mutant: .venv/bin/mutmut show NAME
define NOTICED
import json, sys
found = json.load(open("mutants/mutmut-cicd-stats.json"))
share = (found["killed"] + found["timeout"]) / found["total"]
print(found, f"noticed: {share:.1%}")
sys.exit(share < 0.96)
endef
export NOTICED

crash-test: $(READY)
	$(BIN)/python -m tests.system.crash_$(if $(filter 2.%,$(AIRFLOW)),unremembered,test)
	$(BIN)/python -m tests.system.crash_batch --items 2000

# Installs PostgreSQL and Redis from the distribution's packages if they are missing.
cluster: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cluster]' $(CONSTRAINTS:%=--constraint %)
	$(BIN)/python -m tests.system.cluster_test $(if $(CUT),--only 'after the note') $(if $(LEDGER),--ledger)

matrix: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'nox[uv]>=2025.2'
	$(BIN)/nox

bench: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]' $(CONSTRAINTS:%=--constraint %)
	$(BIN)/python -m benchmarks.parsing
	$(BIN)/python -m benchmarks.download $(if $(QUICK),--quick)
	$(BIN)/python -m benchmarks.batch $(if $(QUICK),--items 200 --scale 0.05)
	$(BIN)/python -m benchmarks.mapped $(if $(QUICK),--mapped 20 --items 200)
	$(BIN)/python -m benchmarks.waiting $(if $(QUICK),--quick)

triggerer-soak: $(READY)
	$(BIN)/python -m tests.system.triggerer_soak

clean:
	rm -rf .venv* .demo .crash .cluster .nox .soak .bench mutants build dist
