# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

INVENTORY ?= inventories/local
ARGS ?=
VENV := $(CURDIR)/.venv
COLLECTIONS := .cache/collections/ansible_collections
HERE := $(COLLECTIONS)/bitnet/devops

export PATH := $(VENV)/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
# Asks for sudo's password only where sudo wants one.
BECOME := $(shell [ "$$(id -u)" = 0 ] || sudo -n true 2>/dev/null || echo --ask-become-pass)

.PHONY: help
help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

$(HERE):
	@mkdir -p $(dir $@) && ln -sfn $(CURDIR) $@

.PHONY: controller dev
controller: | $(HERE) ## Make the controller's environment (.venv)
	@scripts/bootstrap.sh controller
dev: | $(HERE) ## Make the environment for the tests (.venv)
	@scripts/bootstrap.sh dev

.PHONY: site build platform secrets data rollout consensus switch rollback upgrade rotate teardown
site: controller ## From an empty machine to a service that answers
build platform secrets data rollout consensus switch rollback upgrade rotate teardown: controller ## Run that playbook alone
site build platform secrets data rollout consensus switch rollback upgrade rotate teardown:
	@ansible-playbook bitnet.devops.$@ -i $(INVENTORY) $(BECOME) $(ARGS)

.PHONY: lint types sanity unit check
lint: dev
	ruff check . && ruff format --check .
	ansible-lint --offline
	antsibull-changelog lint
	reuse lint --quiet
	python tests/lint_roles.py
types: dev
	mypy
unit: dev
	OMP_NUM_THREADS=1 python -m pytest -q -n 3 -m 'not full' tests/unit files/swarm_intelligence/tests
sanity: dev
	tests/sanity.sh
check: dev ## Lint, types, unit tests, sanity, side by side (minutes)
	@$(MAKE) --no-print-directory --jobs=4 --output-sync=target lint types unit sanity

.PHONY: test test-full
test: check ## All that can fail
	tests/run.sh
test-full: test ## What takes longer, too
	tests/run.sh --full

.PHONY: lab lab-down
lab: INVENTORY = inventories/lab
lab: dev ## Three test machines as one Swarm (INVENTORY=inventories/lab-environments: as three of one node)
	@python -m tests.lab.swarm up
	@ansible-playbook bitnet.devops.platform -i $(INVENTORY) $(ARGS)
lab-down: ## Remove them
	@python3 -m tests.lab.swarm down

.PHONY: bench-api
bench-api: ## What the API and the edge add to the bare engine, after make site (ARGS: see the script)
	@benchmarks/api_overhead.sh $(ARGS)

.PHONY: bench-switch
bench-switch: dev ## Whether a switch loses a request, beside rolling updates and Traefik (ARGS: see --help)
	python -m benchmarks.switch_loss $(ARGS)

.PHONY: bench-kernels
bench-kernels: dev ## What a variant gains over the generic wheel and mainline llama.cpp, after make site (ARGS: see --help)
	PYTHONPATH=files/swarm_intelligence/src python -m benchmarks.kernels $(ARGS)

.PHONY: bench-compile
bench-compile: dev ## How long the variants take to compile: from nothing, again, after a changed line (ARGS: see --help)
	python -m benchmarks.kernels.compile $(ARGS)

.PHONY: bench-inventory
bench-inventory: dev ## What listing 10,000 hosts costs, beside a script and a static file (ARGS: see --help)
	python -m benchmarks.inventory $(ARGS)

.PHONY: bench-backups
bench-backups: dev ## What a day's backup costs beside pg_dump | gzip of the same database (ARGS: see --help)
	PYTHONPATH=files/swarm_intelligence/src:files/swarm_intelligence/tests python -m benchmarks.backups $(ARGS)

.PHONY: package
package: dev ## Build the collection's tarball
	ansible-galaxy collection build --force --output-path .cache/package .
