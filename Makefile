# Everything goes into .venv and node_modules. `make demo` installs what the demo needs, all other targets the test tools too.
PYTHON ?= python3
ADAPTER ?= asyncio
PORT ?= 6217
BIN := .venv/bin
READY := .venv/.ready
PEERS := benchmarks/peers/node_modules/.ready
# What the demo needs: the package and the runtime of --adapter. Where the test tools are installed there is nothing to add.
DEMO_READY := $(if $(wildcard $(READY)),$(READY),.venv/.ready-$(ADAPTER))
SOURCES_OF_SETUP := pyproject.toml setup.py package.json package-lock.json scripts/setup scripts/build-assets.js
# The layers without sockets, which their tests have to cover to the last branch.
PURE := tests/core tests/protocol tests/server tests/backplane
# What else needs neither a service nor a browser, nor more than one runtime.
ONE_RUNTIME := tests/test_*.py tests/adapters/test_runtime.py tests/adapters/test_adapter_*.py tests/contract tests/dashboard tests/notifier

.DEFAULT_GOAL := help
.PHONY: help setup demo test equipment pure test-fast check format matrix simulate soak fuzz bench bench-quick bench-nodes bench-micro hostile peers clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(READY)  ## Install the package and the test tools into .venv and node_modules

$(READY): $(SOURCES_OF_SETUP)
	PYTHON=$(PYTHON) scripts/setup test
	touch $@

.venv/.ready-%: $(SOURCES_OF_SETUP)
	PYTHON=$(PYTHON) scripts/setup $(filter-out asyncio,$*)
	touch $@

demo: $(DEMO_READY)  ## Run the dashboard with a simulated pipeline (ADAPTER=asyncio PORT=6217)
	$(BIN)/automoderate demo --adapter $(ADAPTER) --port $(PORT)

test: $(READY)  ## Run every test; installs services, a compiler and Chromium with apt where they are missing
	$(MAKE) --no-print-directory -j 2 equipment pure  # one downloads while the other works
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(addprefix --ignore=,$(PURE))

# What `make test` needs beyond $(READY). The servers in JavaScript need the compiler that comes with the services.
equipment:
	scripts/install-browser
	scripts/install-services
	$(MAKE) --no-print-directory $(PEERS)

pure: $(READY)  ## Run the tests of the layers without sockets, which have to cover every branch
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 2 --dist loadfile $(PURE)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --include='automoderate/core/*,automoderate/protocol/*,automoderate/server/*,automoderate/backplane/memory.py' \
		--fail-under=100 --skip-covered --show-missing

test-fast: $(READY)  ## Run the tests of the pure layers and of one runtime, in two minutes (ADAPTER=asyncio)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile $(PURE) $(ONE_RUNTIME) --one-runtime --adapter $(ADAPTER)

check: $(READY)  ## Lint, types, import rules, generated pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/state_picture.py --check
	$(BIN)/python scripts/api_page.py --check
	$(BIN)/python scripts/contract_documents.py --check
	$(BIN)/python -m pytest -q tests/test_imports.py

format: $(READY)  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

matrix: $(READY)  ## Write docs/test-matrix.md: what passes on which adapter
	PYTHONPATH=scripts $(BIN)/python -m pytest -q -p test_matrix --matrix docs/test-matrix.md \
		tests/adapters tests/contract tests/integrations

simulate: $(READY)  ## Run the seeded simulation longer (SEEDS=1000)
	$(BIN)/python -m pytest -q tests/core/test_members_at_random.py tests/server/test_simulation.py --seeds $(or $(SEEDS),1000)

soak: $(READY)  ## Break a Redis and two nodes under 200 clients, and see what they miss (SECONDS=600 SEED=17)
	scripts/install-services
	$(BIN)/python -m pytest -q -s tests/soak/test_soak.py --soak-seconds $(or $(SECONDS),600) $(if $(SEED),--soak-seed $(SEED))

fuzz: $(READY)  ## Feed the server bytes that a coverage-guided fuzzer makes up (MINUTES=60 SEED=17)
	$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/pip install --quiet --editable '.[fuzz]'
	$(BIN)/python scripts/fuzz.py --minutes $(or $(MINUTES),60) $(if $(SEED),--seed $(SEED))

bench: $(READY) peers  ## Measure fan-out against other servers, within 20 minutes (JSON=FILE PLOT=DIR)
	$(BIN)/python -m benchmarks.fanout $(if $(JSON),--json $(JSON)) $(if $(PLOT),--plot $(PLOT))

bench-quick: $(READY) peers  ## The same with fewer members, within 90 seconds
	$(BIN)/python -m benchmarks.fanout --quick $(if $(JSON),--json $(JSON)) $(if $(PLOT),--plot $(PLOT))

bench-nodes: $(READY)  ## Measure one and two nodes that share a Redis (JSON=FILE)
	$(BIN)/python -m benchmarks.nodes $(if $(JSON),--json $(JSON))

bench-micro: $(READY)  ## Time the layers without sockets
	$(BIN)/python -m benchmarks.micro --fast

hostile: $(READY) peers  ## Write docs/hostile.md: what other clients wait for while somebody is hostile (JSON=FILE)
	$(BIN)/python -m benchmarks.hostile --page docs/hostile.md $(if $(JSON),--json $(JSON))

$(PEERS): benchmarks/peers/package-lock.json scripts/install-peers
	scripts/install-peers
	touch $@

# Where they cannot be installed, for want of a compiler for their add-ons perhaps, they are left out of the figures.
peers:
	-@$(MAKE) --no-print-directory $(PEERS)

clean:  ## Remove what was installed and built
	rm -rf .venv node_modules benchmarks/peers/node_modules build dist *.egg-info automoderate/dashboard/static/vendor
