# Every target can be run again: it does only what is left to do.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PLAYBOOK := .venv/bin/ansible-playbook

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: ## what the playbooks need: .venv and the collections this one stands on
	@scripts/setup

.PHONY: setup-test
setup-test: ## and what the tests need
	@scripts/setup --test

.PHONY: up
up: setup ## the embedded environment: PostgreSQL binaries, the inventory database
	@scripts/embedded-state >/dev/null
	@scripts/embedded-start
	@$(PLAYBOOK) playbooks/inventory_db.yml

.PHONY: demo
demo: up ## a tenant's database from nothing, and how to go on
	@.venv/bin/python scripts/demo

.PHONY: test
test: setup-test ## everything; ends with "N passed, N failed"
	@scripts/find-postgres >/dev/null
	@.venv/bin/python scripts/test

.PHONY: test-quick
test-quick: setup-test ## lint and unit tests
	@.venv/bin/python scripts/test lint unit

.PHONY: lint
lint: setup-test ## ansible-lint (production), yamllint, ruff, mypy, docs, changelog
	@scripts/lint

.PHONY: sanity
sanity: setup-test ## ansible-test sanity
	@scripts/sanity

.PHONY: unit
unit: setup-test ## pure Python
	@.venv/bin/pytest tests/unit

.PHONY: integration
integration: setup-test ## on real PostgreSQL, 15 and 18
	@.venv/bin/python scripts/test integration

.PHONY: molecule
molecule: setup-test ## the scenarios of molecule/
	@.venv/bin/python scripts/test molecule

.PHONY: swarm
swarm: setup-test ## on a real Swarm of three nodes with CephFS, made for it; needs root
	@.venv/bin/python scripts/test swarm

.PHONY: faults
faults: setup-test ## on the same, with nodes and storage that break; needs root
	@.venv/bin/python scripts/test faults

.PHONY: both-ends
both-ends: setup-test ## the other end's ansible-core, and the built tarball
	@scripts/both-ends

.PHONY: bench
bench: setup-test ## measurements; the table that the docs show
	@.venv/bin/python tests/bench/run.py

.PHONY: site
site: setup-test ## the documentation, in .build/site/html
	@scripts/site

.PHONY: execution-environment
execution-environment: setup-test ## the build context of AWX's container, and its image where an engine is
	@scripts/execution-environment

.PHONY: build
build: setup ## the tarball, in .build/dist
	@scripts/build

.PHONY: down
down: ## stop the embedded servers, keep their data
	@scripts/embedded-stop

.PHONY: clean
clean: ## stop the embedded servers and remove their data
	@scripts/embedded-stop --remove

.PHONY: distclean
distclean: clean ## and remove all that was fetched or built
	@[ "$$(id -u)" -ne 0 ] || python3 tests/swarm_bed purge
	@rm -rf .venv .venv-new .build .cache .ansible .hypothesis .mypy_cache .pytest_cache .ruff_cache results
