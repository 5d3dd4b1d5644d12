# `make` lists the targets. Each makes its own environment first; when nothing has changed that takes no time.
FULL = .ci/environment full
LOCAL = .ci/environment local
BIN = .venv/bin

.DEFAULT_GOAL := help
.PHONY: help sync run demo test check bench lock

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' Makefile

sync: ## make or update .venv, with the tools of the tests
	@exec $(FULL)

run: ## run the whole platform here until Ctrl-C (options: make run ARGS="--http-port 0")
	@exec $(LOCAL) $(BIN)/posthouse local $(ARGS)

demo: ## one mail through the whole platform, in a minute, told as a timeline
	@exec $(LOCAL) $(BIN)/posthouse demo $(ARGS)

test: check ## everything that must pass before a change lands
	$(FULL) $(BIN)/pytest -q -n 2 tests/unit tests/integration
	# What the database does, on the oldest Postgres as well; the plans of a million rows are for the newest.
	POSTHOUSE_TEST_POSTGRES=16 $(FULL) $(BIN)/pytest -q -n 2 tests/integration/shared/db --ignore=tests/integration/shared/db/test_queue_cost.py
	$(FULL) $(BIN)/pytest -q tests/e2e

check: ## style, types, import contracts, generated documents, architecture
	$(FULL) $(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m posthouse.docs --check
	$(BIN)/pytest -q tests/architecture

bench: ## the benchmarks
	@echo "posthouse: there are no benchmarks in this version yet" >&2; exit 2

# requirements.lock and deploy/requirements/*.lock: versions and hashes, no addresses. uv.lock names the index it was made
# with, so git ignores it.
EXPORT = export -q --no-emit-workspace --no-header --format requirements-txt
lock: ## write the locks anew from the members' pyproject.toml
	@.ci/environment uv sh -ec '\
	"$$UV" lock -q; \
	"$$UV" $(EXPORT) --all-packages --all-groups --all-extras -o requirements.lock >/dev/null; \
	for service in api delivery hooks dsn-ingest; do \
	    "$$UV" $(EXPORT) --package posthouse-$$service --no-dev -o deploy/requirements/$$service.lock >/dev/null; \
	done; \
	"$$UV" $(EXPORT) --package posthouse --no-dev -o deploy/requirements/cli.lock >/dev/null; \
	"$$UV" $(EXPORT) --package posthouse --extra local --no-dev -o deploy/requirements/local.lock >/dev/null; \
	echo "uv-build>=0.9,<1" | "$$UV" pip compile -q --generate-hashes --no-header --no-annotate - -o deploy/requirements/build.lock'
