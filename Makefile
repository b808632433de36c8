SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := all

GO       ?= go
# How long to fuzz each target.
FUZZTIME ?= 20s
# Which benchmarks to run, a regular expression.
BENCH    ?= .
# What bench-compare compares with.
REF      ?= main

VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BINARY   := build/smtplb
GOFILES   = find . -path ./build -prune -o -name '*.go' -print
# Everything but the tests that run the binary between real peers.
UNIT      = $$($(GO) list ./... | grep -v '^smtplb/integration')
TOOL      = $(GO) tool -modfile=tools/go.mod
LINT      = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: all build run test peers cc vet staticcheck fmt-check race integration fuzz
.PHONY: bench bench-compare fmt lint cover check clean help

all: check build ## check, then build

build: ## the static binary, build/smtplb
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o $(BINARY) .

# Not by go run: that dies of SIGTERM and leaves behind what it runs.
run: build ## the balancer in front of sample servers, to try it out
	$(GO) build -buildvcs=false -o build/demo ./examples/demo
	@exec build/demo -smtplb $(BINARY)

test: vet race integration ## all tests, after fetching what they need

peers: ## fetch the real peers of the tests, as packages, without installing them
	@integration/peers/fetch.sh

# The race detector needs cgo, and cgo a C compiler.
cc:
	@command -v "$$($(GO) env CC)" >/dev/null || { \
	    echo 'installing a C compiler for the race detector' && apt-get -qq update && \
	    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends gcc libc6-dev >/dev/null; \
	} || { echo 'install gcc and libc6-dev by hand: the race detector needs a C compiler' >&2; exit 1; }

vet:
	$(GO) vet ./...

staticcheck:
	$(TOOL) staticcheck ./...

fmt-check:
	@unformatted=$$(gofmt -l $$($(GOFILES))); \
	[ -z "$$unformatted" ] || { echo "run 'make fmt' for:" $$unformatted >&2; exit 1; }

race: cc ## unit tests with the race detector
	CGO_ENABLED=1 $(GO) test -race -shuffle=on -timeout=10m $(UNIT)

integration: peers ## the binary between real peers
	$(GO) test -shuffle=on -timeout=10m ./integration/...

fuzz: ## every fuzz target for FUZZTIME
	@targets=$$({ grep -rHoE '^func Fuzz\w+' --include='*_test.go' --exclude-dir=build . || true; } | \
	    sed -E 's|/[^/]+:func | |' | sort); \
	[ -n "$$targets" ] || { echo 'fuzz: no target found' >&2; exit 1; }; \
	while read -r dir name; do \
	    $(GO) test -run='^$$' -fuzz="^$$name\$$" -fuzztime=$(FUZZTIME) "$$dir"; \
	done <<<"$$targets"

bench: peers ## benchmarks; BENCH chooses some
	$(GO) test -run='^$$' -bench='$(BENCH)' -benchmem -timeout=30m ./...

bench-compare: ## benchmarks of this tree against those of REF
	@rm -rf build/bench && git worktree prune && git worktree add -q --detach build/bench/tree $(REF)
	@bench='$(GO) test -run=^$$ -bench=$(BENCH) -benchmem -count=6'; \
	(cd build/bench/tree && $$bench $(UNIT)) >build/bench/old.txt; \
	$$bench $(UNIT) >build/bench/new.txt
	@git worktree remove --force build/bench/tree
	$(TOOL) benchstat build/bench/old.txt build/bench/new.txt

fmt: ## format the source
	gofmt -w $$($(GOFILES))

lint: ## all linters; slow the first time, for it compiles them
	$(GO) run $(LINT) run

cover: ## coverage of the unit tests, build/cover.html
	@mkdir -p build
	$(GO) test -coverprofile=build/cover.out -coverpkg=./... $(UNIT)
	$(GO) tool cover -html=build/cover.out -o build/cover.html
	$(GO) tool cover -func=build/cover.out | tail -1

check: fmt-check vet staticcheck race ## what must be green before a commit

clean: ## remove build/, the fetched peers too
	rm -rf build

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
