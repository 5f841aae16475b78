"""Random code never breaks the machine, and never leaves a CPU in a state that does not exist."""

import pytest
from bare import bare

from emu.arch import Cr4
from fuzz import sandbox
from fuzz.invariant import violations

SEEDS = 300
EACH = 25


@pytest.mark.parametrize("first", range(0, SEEDS, EACH))
def test_random_code_ends_in_a_result_and_a_possible_state(first):
    found = {seed: sandbox.attempt(seed)[1] for seed in range(first, first + EACH)}
    assert {seed: wrong for seed, wrong in found.items() if wrong} == {}


def test_a_seed_ends_alike_every_time():
    assert [sandbox.attempt(seed) for seed in range(5)] == [sandbox.attempt(seed) for seed in range(5)]


def test_a_cpu_that_has_just_started_is_possible():
    for user in (False, True):
        assert list(violations(bare("nop", user=user).core)) == []


def _cpl(cpu):
    cpu.state.hflags |= 3


def _stack(cpu):
    cpu.load_stack_segment(0x2B, 0xCFF300)


def _flags(cpu):
    cpu.state.eflags = 0x8002


def _address(cpu):
    cpu.ip = 0x1234_0000_0000_0000


def _base(cpu):
    cpu.gs_base = 1 << 63


def _paging(cpu):
    cpu.state.cr[0] &= ~(1 << 31)


def _extensions(cpu):
    cpu.state.cr[4] &= ~int(Cr4.PAE)


def _mode(cpu):
    cpu.state.efer &= ~(1 << 10)


def _debug(cpu):
    cpu.state.dr[7] = 0


def _exception(cpu):
    cpu.state.old_exception = 13


@pytest.mark.parametrize(
    "spoil", [_cpl, _stack, _flags, _address, _base, _paging, _extensions, _mode, _debug, _exception]
)
def test_the_invariant_notices_an_impossible_state(spoil):
    core = bare("nop").core
    spoil(core.cpu)
    assert list(violations(core))
