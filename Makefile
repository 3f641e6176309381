# SPDX-License-Identifier: MPL-2.0
# Everything a person does with Slipway starts here; `make` alone lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

local := deploy/local
release := .build/release

.PHONY: help packages build release test unit interop demo up down status bench lint format clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

packages: ## install the Debian packages that are missing
	@$(local)/packages

build: packages ## debug build of everything, tests included
	swift build --build-tests --explicit-target-dependency-import-check error

release: packages ## release binaries, statically linked with the Swift libraries
	swift build -c release --static-swift-stdlib

test: ## everything: units, integration on real servers, real clients, killed processes
	@$(local)/run-tests all

unit: ## the Swift tests alone (real PostgreSQL and RabbitMQ are started for them)
	@$(local)/run-tests unit

interop: ## the tests that drive real, unmodified clients and kill processes, on released binaries
	@$(local)/run-tests interop

demo: packages release ## the main job, from an event to a recorded task, as a timeline
	@$(local)/suite demo

up: packages release ## start the suite and leave it running; then: source .local/env
	@$(local)/suite up

down: ## stop the suite
	@$(local)/suite down

status: ## say what is up
	@$(local)/suite status

bench: packages release ## our figures beside the peers' and the floors', as ratios of one run
	@$(local)/bench $(only)

lint: ## formatting and layering
	@swift format lint --strict -r Sources Tests services Package.swift
	@$(local)/check-layers
	@$(local)/check-settings

format: ## format the sources in place
	@swift format -i -r Sources Tests services Package.swift

clean: down ## stop the suite and remove all local state (the build folder stays)
	@$(local)/servers reset
	@rm -rf .local dist
