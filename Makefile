# Everything goes into .venv and node_modules; `make demo` and `make test` need nothing but Python 3.11+, Node and make.
PYTHON ?= python3
ADAPTER ?= asyncio
PORT ?= 6217
BIN := .venv/bin
READY := .venv/.ready
# The layers without sockets, which their tests have to cover to the last branch.
PURE := tests/core tests/protocol tests/server tests/backplane

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format matrix simulate soak bench bench-quick bench-nodes bench-micro clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(READY)  ## Install everything into .venv and node_modules

$(READY): pyproject.toml package.json package-lock.json scripts/setup
	PYTHON=$(PYTHON) scripts/setup
	touch $@

demo: $(READY)  ## Run the dashboard with a simulated pipeline (ADAPTER=asyncio PORT=6217)
	$(BIN)/automoderate demo --adapter $(ADAPTER) --port $(PORT)

test: $(READY)  ## Run every test, in a real browser too
	scripts/install-browser
	scripts/install-services
	$(BIN)/coverage run -m pytest $(PURE)
	$(BIN)/coverage report --include='automoderate/core/*,automoderate/protocol/*,automoderate/server.py,automoderate/backplane/memory.py' \
		--fail-under=100 --skip-covered --show-missing
	$(BIN)/python -m pytest -n 2 --dist loadfile $(addprefix --ignore=,$(PURE))

check: $(READY)  ## Lint, types, import rules, generated pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	scripts/typecheck
	$(BIN)/python scripts/state_picture.py --check
	$(BIN)/python -m pytest -q tests/test_imports.py

format: $(READY)  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

matrix: $(READY)  ## Write docs/test-matrix.md: what passes on which adapter
	PYTHONPATH=scripts $(BIN)/python -m pytest -q -p test_matrix --matrix docs/test-matrix.md \
		tests/adapters tests/contract tests/mounted tests/attach

simulate: $(READY)  ## Run the seeded simulation longer (SEEDS=1000)
	$(BIN)/python -m pytest -q tests/server/test_simulation.py --seeds $(or $(SEEDS),1000)

soak: $(READY)  ## Break a Redis and two nodes under 200 clients, and see what they miss (SECONDS=600 SEED=17)
	scripts/install-services
	$(BIN)/python -m pytest -q -s tests/soak/test_soak.py --soak-seconds $(or $(SECONDS),600) $(if $(SEED),--soak-seed $(SEED))

bench: $(READY) benchmarks/peers/node_modules  ## Measure fan-out against other servers, within 20 minutes (JSON=FILE PLOT=DIR)
	$(BIN)/python -m benchmarks.fanout $(if $(JSON),--json $(JSON)) $(if $(PLOT),--plot $(PLOT))

bench-quick: $(READY) benchmarks/peers/node_modules  ## The same with fewer members, within 90 seconds
	$(BIN)/python -m benchmarks.fanout --quick $(if $(JSON),--json $(JSON)) $(if $(PLOT),--plot $(PLOT))

bench-nodes: $(READY)  ## Measure one and two nodes that share a Redis (JSON=FILE)
	$(BIN)/python -m benchmarks.nodes $(if $(JSON),--json $(JSON))

bench-micro: $(READY)  ## Time the layers without sockets
	$(BIN)/python -m benchmarks.micro --fast

# Node's server, which is measured too. Without it, or without the compiler that its add-ons may need, it is left out.
benchmarks/peers/node_modules: benchmarks/peers/package-lock.json
	-npm ci --silent --prefix benchmarks/peers
	mkdir -p $@
	touch $@

clean:  ## Remove what was installed and built
	rm -rf .venv node_modules benchmarks/peers/node_modules build dist *.egg-info automoderate/dashboard/static/vendor
