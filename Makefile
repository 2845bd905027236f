# Hearth: every command sets up what it needs (tools/setup) and then does its work.

MINUTES ?= 30
BENCH ?=
MUTANTS ?=
SECONDS ?= 60
PREFIX ?= /usr/local
SOURCES := Sources Tests Package.swift

.PHONY: help run test bench demo-vllm soak fuzz mutants format lint setup clean library install \
	uninstall

help:
	@echo "make run      build, then a guided demonstration: device, store, kill, reopen (3 min)"
	@echo "make test     everything that must hold, 40 to 45 minutes on 2 cores"
	@echo "make bench    the rows of the budget against fio; BENCH='--quick --row get-64k'"
	@echo "make demo-vllm vLLM with Hearth off, on, and with its own connector (needs PyPI)"
	@echo "make soak     random seeds until MINUTES=$(MINUTES) are over; the sums go into docs/SOAK.md"
	@echo "make fuzz     structures and messages mutated by libFuzzer, SECONDS=$(SECONDS)"
	@echo "make mutants  seeded bugs against a share of make test: how many are caught (about an hour)"
	@echo "make install  libhearth.so, hearth.h, hearth.pc, and the program hearth with manual pages"
	@echo "              and shell completions, into PREFIX=$(PREFIX); make uninstall"
	@echo "make format   format the Swift sources; make lint only looks"
	@echo "make setup    install what is missing; make clean removes what was built"

setup:
	@tools/setup

run: setup
	tools/release hearth-bench
	bench/demo

test: setup
	@tools/test

bench: setup
	tools/release hearth-bench
	bench/rows $(BENCH)

demo-vllm: setup
	bench/demo-vllm

soak: setup
	tools/release hearth-torture
	tools/soak $(MINUTES)

fuzz: setup
	tools/fuzz $(SECONDS)

mutants: setup
	@tools/mutants $(MUTANTS)

library: setup
	@tools/library

install: setup
	@tools/install $(PREFIX)

uninstall:
	@tools/install $(PREFIX) --remove

format:
	swift format --in-place --recursive $(SOURCES)

lint:
	swift format lint --strict --recursive $(SOURCES)

clean:
	rm -rf .build .build-*
