# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
.SUFFIXES:
.DEFAULT_GOAL := help

PYTHON_TOOL := .venv/bin/python -m
RUN_STAGES  := $(PYTHON_TOOL) tools.test_runner
LAB         := $(PYTHON_TOOL) tests.lab
PLAYBOOK    := .venv/bin/ansible-playbook -i inventories/demo
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export PATH := $(CURDIR)/.venv/bin:$(PATH)

##@ The two commands

.PHONY: demo
demo: ## Build and deploy the demo fleet on this machine, and prove that it runs this commit (ARGS="-e worker_services=extractor")
	@tools/setup demo
	@$(PLAYBOOK) playbooks/deploy-workers.yml $(ARGS)

.PHONY: test
test: ## Run the ten stages of tests, lint to several hosts, for about an hour; one summary
	@tools/setup test || { printf '\n0 passed, 1 failed\n'; exit 1; }
	@$(RUN_STAGES)

##@ Several hosts, as containers on this machine

.PHONY: lab
lab: ## Start hosts with engines of their own, a registry and a Redis (HOSTS=3)
	@tools/setup lab
	@$(LAB) up --hosts $(or $(HOSTS),3)

.PHONY: lab-down
lab-down: ## Remove the lab and all it has
	@tools/setup lab
	@$(LAB) down

.PHONY: demo-lab
demo-lab: lab ## Start the lab, and deploy a small fleet to its hosts (HOSTS=3, at least 2; ARGS="--check --diff")
	@.venv/bin/ansible-playbook -i inventories/lab playbooks/deploy-workers.yml $(ARGS)

##@ Parts of it

.PHONY: setup
setup: ## Only prepare this checkout and this machine for the tests
	@tools/setup test

.PHONY: lint
lint: ## All linters (ONLY="ruff mypy" for some of them)
	@tools/setup lint
	@$(PYTHON_TOOL) tools.lint $(ONLY)

.PHONY: unit contract meta integration engine molecule multihost
unit: ## Tests of functions, without engine
contract: ## Tests that hold every side to files/guard/contract.json
meta: ## Tests about this repository
integration: ## Tests against the real Docker Engine and the real Redis
engine: ## Tests that kill the engine, with nothing beside them
molecule: ## The default molecule scenario: deploy, idempotence, assertions
multihost: ## The molecule scenario of several hosts
unit contract meta integration engine molecule multihost:
	@tools/setup test
	@$(RUN_STAGES) $@

.PHONY: test-lab
test-lab: ## Tests on several hosts, in a lab of their own
	@tools/setup test
	@$(RUN_STAGES) lab

.PHONY: test-long
test-long: ## Hours of it: what make test leaves out, as rollouts that every fault of the lab disturbs or that are ended at 2 * POINTS=10 points, and 5000 scripts of the model
	@tools/setup test
	@DRIFTGUARD_LAB_POINTS=$(or $(POINTS),10) $(RUN_STAGES) long deep faults

.PHONY: model
model: ## The role's own task files over simulated hosts, with faults anywhere (EXAMPLES=5000 for long, each time otherwise)
	@tools/setup test
	@$(if $(EXAMPLES),DRIFTGUARD_MODEL_EXAMPLES=$(EXAMPLES) $(PYTHON_TOOL) pytest -q -s --timeout=0 tests/model/test_model.py,$(RUN_STAGES) $@)

.PHONY: bench
bench: ## Measure against raw Docker Compose, a hand-written playbook, bare interpreters and bare BullMQ
	@tools/setup test
	@$(PYTHON_TOOL) pytest -q -s tests/bench

##@ Upkeep

.PHONY: clean
clean: ## Remove everything that the demo and the tests made on this machine, and only that
	@tools/python tools.clean

.PHONY: lock
lock: ## Resolve the Python packages again (UPGRADE=1 for newer ones) and write the lock files
	@tools/setup lint
	@$(PYTHON_TOOL) tools.lock $(if $(UPGRADE),--upgrade)

.PHONY: changelog
changelog: ## Write CHANGELOG.md from changelogs/fragments
	@tools/setup lint
	@antsibull-changelog lint
	@antsibull-changelog release --update-existing --refresh --reload-plugins

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
