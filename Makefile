.POSIX:

# PYTHON is the interpreter the environment is made from; everything else runs from the environment.
PYTHON ?= python3
VENV = .venv
# What the quickstart imports beyond the base install.
DEMO_EXTRAS = cron,crypto,watch
BIN = $(VENV)/bin
CONSTRAINTS = requirements/constraints.txt
PIP = $(BIN)/python -m pip --disable-pip-version-check --no-input
INSTALL = $(PIP) install -q -c $(CONSTRAINTS) --build-constraint $(CONSTRAINTS)

.PHONY: help venv demo backends backends-status test test-faults soak check bench lock clean

help:
	@echo 'make demo         run the quickstart; needs no service'
	@echo 'make test         unit, conformance and type tests'
	@echo 'make test-faults  tests that kill processes, break files and links, or break drivers on purpose'
	@echo 'make soak         10 000 lives of each component and 10 minutes of load; SOAK_MINUTES and SOAK_CYCLES change that'
	@echo 'make backends     get the real services that the tests run against, as far as they are missing'
	@echo 'make backends-status  say which there are, and where they come from'
	@echo 'make check        format, lint, types, generated documents, compose file, change fragments'
	@echo 'make bench        measure, and print the numbers'
	@echo 'make venv         create or renew $(VENV) with everything a developer needs'
	@echo 'make lock         renew $(CONSTRAINTS)'
	@echo 'make clean        remove $(VENV), caches and build results'
	@echo
	@echo 'PYTHON=python3.12 make ... chooses the interpreter (3.11 or later) for a new $(VENV).'

# pip from this release on understands dependency groups and build constraints.
$(VENV)/.created:
	@sh requirements/make-venv.sh "$(PYTHON)" $(VENV)
	@$(PIP) install -q -c $(CONSTRAINTS) 'pip>=25.3'
	@touch $@

$(VENV)/.base: $(VENV)/.created pyproject.toml $(CONSTRAINTS)
	@echo 'Installing lapel into $(VENV) ...'
	@$(INSTALL) -e '.[$(DEMO_EXTRAS)]'
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	@echo 'Installing the tools of a developer into $(VENV) ...'
	@$(INSTALL) -e '.[all,testing]' --group dev
	@touch $@

venv: $(VENV)/.dev

demo: $(VENV)/.base
	@$(BIN)/python examples/quickstart/main.py

backends: $(VENV)/.dev
	@$(BIN)/python -m tests.backends install

backends-status: $(VENV)/.dev
	@$(BIN)/python -m tests.backends status

test: backends
	$(BIN)/python -m pytest --ignore=tests/faults --ignore=tests/soak --ignore=tests/benchmarks --ignore=tests/conformance/mutants

test-faults: backends
	$(BIN)/python -m pytest tests/faults tests/soak tests/conformance/mutants

soak: backends
	SOAK_CYCLES=$${SOAK_CYCLES:-10000} SOAK_MINUTES=$${SOAK_MINUTES:-10} $(BIN)/python -m pytest -s tests/soak

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy components contrib tests examples
	$(BIN)/python -m pytest -q tests/unit/test_exports.py
	$(BIN)/python -m lapel.testing.rows --check
	$(BIN)/python -m lapel.cli.docs --check
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/towncrier build --draft --version next >/dev/null

bench: $(VENV)/.dev
	$(BIN)/python tests/benchmarks/run.py

lock:
	rm -rf .lock-venv
	@sh requirements/make-venv.sh "$(PYTHON)" .lock-venv
	.lock-venv/bin/python -m pip install -q -U pip
	.lock-venv/bin/python -m pip install -q -e '.[all,testing]' --group dev
	@sh requirements/freeze.sh .lock-venv $(CONSTRAINTS)
	rm -rf .lock-venv

clean:
	rm -rf $(VENV) .lock-venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
