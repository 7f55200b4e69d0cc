# Everything that is done with a checkout. `make` or `make help` lists it.
#
# What is installed is remembered by stamp files in .venv, so that a target that finds everything
# in place starts no installer.

VENV         := .venv
BIN          := $(VENV)/bin
COMPAT       := .venv-compat

HTTP_PORT    ?= 8000
GRPC_PORT    ?= 8001
METRICS_PORT ?= 8002
MODELS       ?= run/models
ARGS         ?=

.DEFAULT_GOAL := help
.PHONY: help run test check bench bench-bentoml fmt docs clean compat

help: ## List the targets
	@echo 'Usage: make TARGET'
	@echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-10s %s\n", $$1, $$2}'
	@echo
	@echo 'Variables: HTTP_PORT=$(HTTP_PORT) GRPC_PORT=$(GRPC_PORT) METRICS_PORT=$(METRICS_PORT) MODELS=$(MODELS) ARGS= PYTHON='

run: $(VENV)/.examples ## Serve the example models; ARGS= gives options to modelport serve
	@$(BIN)/python -m examples.prepare $(MODELS)
	@exec $(BIN)/modelport serve $(MODELS) --http-port $(HTTP_PORT) --grpc-port $(GRPC_PORT) --metrics-port $(METRICS_PORT) $(ARGS)

test: $(VENV)/.test compat ## Run the tests; ARGS= gives options to pytest
	$(BIN)/python -m pytest -rs $(ARGS)

check: $(VENV)/.dev ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.test ## Measure against a bare uvicorn; ARGS='--only W1' picks
	$(BIN)/python -m benchmarks $(ARGS)

bench-bentoml: $(VENV)/.test $(COMPAT)/bentoml/.made
	$(BIN)/python -m benchmarks --only B1 $(ARGS)

fmt: $(VENV)/.dev ## Format, and mend what can be mended by machine
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.examples ## Write the generated pages of docs/reference
	$(BIN)/python -m modelport.cli.reference docs/reference
	$(BIN)/python -m modelport.protocols.ops.reference docs/reference/metrics.md
	$(BIN)/python -m modelport.wire.model_config.reference docs/reference/model-configuration.md

clean: ## Delete what these targets made
	rm -rf $(VENV) $(COMPAT) run build src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The official clients pin old libraries, so each generation lives in an environment of its own.
# Where one cannot be made, its tests are skipped and say why; everything else is tested.
compat: $(COMPAT)/current/.made $(COMPAT)/older/.made $(COMPAT)/bentoml/.made $(COMPAT)/ovms/.made

# Installed without what it asks for; the file of its environment lists that.
ALONE_bentoml := bentoml==1.4.40

$(COMPAT)/%/.made: tests/compat/%.txt | $(BIN)/python
	@echo "making $(COMPAT)/$* for the tests with official clients"
	@rm -rf $(COMPAT)/$* && mkdir -p $(COMPAT)
	@if $(BIN)/python -m venv $(COMPAT)/$* >$(COMPAT)/$*.log 2>&1 \
	  && $(COMPAT)/$*/bin/pip install --quiet --disable-pip-version-check -r $< >>$(COMPAT)/$*.log 2>&1 \
	  && { [ -z '$(ALONE_$*)' ] || $(COMPAT)/$*/bin/pip install --quiet --disable-pip-version-check --no-deps '$(ALONE_$*)' >>$(COMPAT)/$*.log 2>&1; }; \
	then touch $@; \
	else echo "not made, see $(COMPAT)/$*.log; the tests with this client will be skipped"; fi

# .venv/.examples, .venv/.test, .venv/.dev: the package with that extra is installed.
$(VENV)/.%: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

.PRECIOUS: $(VENV)/.%

$(BIN)/python:
	@python=$$($(FIND_PYTHON)) && echo "making $(VENV) with $$python" && \
	  { $$python -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; }

# The first of these that is new enough; PYTHON=/path/to/python3.12 chooses another.
define FIND_PYTHON
for name in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14 python); do \
  if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
    echo $$name; exit 0; \
  fi; \
done; \
found=$$($(or $(PYTHON),python3) --version 2>/dev/null); \
echo "error: Modelport needs Python 3.11 or newer, and $(or $(PYTHON),python3) is $${found:-not there}." >&2; \
echo "       Install a newer one, or name it: make run PYTHON=/path/to/python3.12" >&2; \
exit 1
endef
