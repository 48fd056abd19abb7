# One command each; `make help` lists them. Needs Python ≥ 3.11 and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CONSOLE := services/console/dist/index.html
DIST ?= dist
# Without compiled modules on disk every process of the tests would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup run demo-loop console test-console up test test-faults e2e-cluster test-fast lint format types imports generate check-generated check bench wheels constraints clean \
	images compose-env compose-up compose-demo compose-down test-compose test-chart

help: ## List every target
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create .venv with everything, pinned (quick the second time)

$(STAMP): constraints.txt pyproject.toml hatch_build.py
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Penstock needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv hatchling editables setuptools wheel
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --no-build-isolation --constraint constraints.txt \
		--group dev --group examples --editable .
	@touch $@

run: $(STAMP) ## Run the example training pipeline on real data to its end
	@$(BIN)/penstock run examples/training

demo-loop: $(STAMP) ## Play the loop: an endpoint drifts, is retrained and promoted by events alone
	@$(BIN)/python examples/retraining/demo.py

console: $(CONSOLE) ## Build the web console (needs Node 20.19 or newer), once

$(CONSOLE): services/console/package-lock.json services/console/package.json services/console/index.html proto/openapi.json \
		$(wildcard services/console/src/*.ts* services/console/src/*/*.ts* services/console/src/*/*.css)
	@cd services/console && npm ci --silent --no-audit --no-fund && npm run --silent types && npm run --silent build

test-console: $(STAMP) $(CONSOLE) ## Test the web console in Chromium, where that is installed
	@cd services/console && npm run --silent test && npm run --silent test:pages

up: $(STAMP) ## Start the platform and keep it
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory console || echo "The web console could not be built; the platform starts without it."; fi
	@$(BIN)/penstock up

test: $(STAMP) ## Set everything up and run the tests, but those of faults
	@$(BIN)/python -m pytest -n auto --durations=20 --ignore=tests/faults

test-faults: $(STAMP) ## Tests that kill servers and damage their files, again and again
	@$(BIN)/python -m pytest -n auto --durations=10 tests/faults

e2e-cluster: $(STAMP) ## Tests with steps in pods, on the cluster of KUBECONFIG (see tests/cluster)
	@$(BIN)/python -m pytest -n 4 --dist loadfile --durations=10 tests/cluster --ignore=tests/cluster/test_cluster_faults.py
	@$(BIN)/python -m pytest tests/cluster/test_cluster_faults.py

test-fast: $(STAMP) ## Unit and contract tests only
	@$(BIN)/python -m pytest -n logical tests/unit tests/contract tests/architecture

lint: $(STAMP) ## Check style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(STAMP) ## Put the code in its format
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

types: $(STAMP) ## Check types (pyright, strict)
	@$(BIN)/pyright

imports: $(STAMP) ## Check that imports run downwards only
	@$(BIN)/lint-imports

generate: $(STAMP) ## Write proto/ from the contracts
	@$(BIN)/python -m penstock_gateway.describe.generate proto

check-generated: generate ## Fail when proto/ is not what the contracts say
	@git diff --exit-code --stat -- proto && test -z "$$(git ls-files --others --exclude-standard -- proto)" \
		|| { echo "proto/ differs from the contracts: run 'make generate' and commit."; exit 1; }

check: lint types imports check-generated ## Style, types, imports, generated files

bench: $(STAMP) ## Measure speed and size; prints a table and JSON
	@$(BIN)/python tests/bench/end_to_end.py
	@$(BIN)/python tests/bench/core.py
	@$(BIN)/python tests/bench/scheduler.py
	@$(BIN)/python tests/bench/mapped.py
	@$(BIN)/python tests/bench/gateway.py
	@$(BIN)/python tests/bench/whole_platform.py
	@$(BIN)/python tests/bench/low_latency.py
	@$(BIN)/python tests/bench/triggers.py
	@$(BIN)/python tests/bench/artifacts.py
	@$(BIN)/python tests/bench/tracking.py

wheels: $(STAMP) ## Build the wheels of penstock and penstock-platform into dist/
	@rm -f $(DIST)/penstock*.whl
	@if [ -f $(CONSOLE) ]; then rm -rf services/gateway/penstock_gateway/console/dist && cp -r services/console/dist services/gateway/penstock_gateway/console/dist; fi
	@for name in penstock penstock-platform; do \
		(cd distributions/$$name && $(abspath $(BIN))/python -m hatchling build -t wheel -d $(abspath $(DIST))) || exit 1; \
	done

compose-env: .env ## Create .env with random secrets for docker-compose.yml, once

.env: | $(STAMP)
	@umask 077 && $(BIN)/python deploy/compose/env.py > .env.part && mv .env.part .env

images: .env ## Build the images of docker-compose.yml
	@docker compose --profile client build

compose-up: .env ## Start every service in a container of its own, and wait until all are ready
	@docker compose up --detach --build --wait

compose-demo: compose-up ## Run the training example on these services
	@docker compose run --rm --build client penstock run training

compose-down: ## Stop these services; `docker compose down --volumes` also deletes their data
	@docker compose down

test-compose: $(STAMP) ## Test the images and docker-compose.yml on a Docker engine of its own (root)
	@$(BIN)/python -m pytest -m containers tests/compose

test-chart: $(STAMP) ## Test the Helm chart on the cluster of KUBECONFIG, see tests/chart
	@$(BIN)/python -m pytest -m containers tests/chart

constraints: ## Write constraints.txt with the newest versions that fit
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv; }
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
		--no-emit-find-links --group client --group platform --group dev --group examples --output-file constraints.txt

clean: ## Remove the environment and local state
	rm -rf $(VENV) .penstock
