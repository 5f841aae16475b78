# make run      install into .venv and run the tour
# make test     the tests
# make lint     ruff and mypy --strict
# make check    the regression: all scenarios and their sweeps
# make check-full     every event at every boundary of every scenario, write docs/full-sweep.md: 20 minutes on 2 cores
# make check-depth2   every event within an NMI at every boundary of both images' entries and exits: minutes
# make image    build the kernel images as ELF files in build/
# make conformance   ask Bochs and QEMU again, write tests/conformance/records, print the table
# make mutate   break the entry code of both images in every known way, write docs/mutation.md: minutes
# make matrix   every C program of the tests, in both kernels, under interrupts, NMIs, on 2 CPUs: minutes
# make fuzz     2,000 seeds of random system calls in both kernels, by all three ways in: minutes; FIRST=, LAST=
# make bench-memory   memory of sweeps of up to CASES=1000000 cases: minutes
# make bench    speed, beside the engine's own limit; writes build/bench.json

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run test lint check check-full check-depth2 image conformance mutate matrix fuzz bench bench-memory clean

run: $(STAMP)
	@$(BIN)/entry64 tour

test: $(STAMP)
	@$(BIN)/python -m pytest -q -n auto $(TESTS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: $(STAMP)
	@$(BIN)/entry64 check

# Fails if anything is found that is not known; the page is written all the same.
check-full: SHELL = /bin/bash
check-full: $(STAMP)
	@mkdir -p build
	@set -o pipefail; status=0; \
	$(BIN)/entry64 check --full --db build/check-full.db | tee build/check-full.txt || status=$$?; \
	$(BIN)/python -m emu.lab.check.record build/check-full.txt >docs/full-sweep.md; exit $$status

check-depth2: $(STAMP)
	@$(BIN)/entry64 check scenarios/depth2

image: $(STAMP)
	@mkdir -p build
	$(BIN)/entry64 image linux-6 --elf build/linux-6.elf
	$(BIN)/entry64 image linux-2.6 --elf build/linux-2.6.elf

# Needs the Debian packages bochs, bochsbios, vgabios, qemu-system-x86 and binutils; about two minutes.
conformance: $(STAMP)
	@PYTHONPATH=tests $(BIN)/python -m conformance $(GROUPS)

# Fails if anything survives that must not; the page is written all the same.
mutate: $(STAMP)
	@mkdir -p build
	@status=0; for kernel in linux-6 linux-2.6; do \
		$(BIN)/entry64 mutate $$kernel $(MUTATE) --json >build/mutate-$$kernel.json || status=$$?; done; \
	$(BIN)/python -m emu.lab.mutate.record build/mutate-linux-6.json build/mutate-linux-2.6.json >docs/mutation.md; \
	exit $$status

matrix: $(STAMP)
	@ENTRY64_MATRIX=all $(BIN)/python -m pytest -q -n auto tests/kernel/test_program_matrix.py tests/kernel/test_busybox.py

fuzz: $(STAMP)
	@PYTHONPATH=tests $(BIN)/python -m calls $(or $(FIRST),0) $(or $(LAST),2000)

bench: $(STAMP)
	@mkdir -p build
	@$(BIN)/python -m emu.lab.speed build/bench.json

bench-memory: $(STAMP)
	@$(BIN)/python tests/bench/sweep_memory.py $(CASES)

clean:
	rm -rf build $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(STAMP): pyproject.toml
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@
