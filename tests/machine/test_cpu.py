"""The engine wrapper: exact counts, stops, and a clear refusal of an engine that it does not know."""

import os
import signal

import pytest
from bare import CODE, HANDLERS, KERNEL, USER, bare
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.errors import EngineError
from emu.events import Delivered
from emu.machine import code_hooks, engine
from emu.machine.end import EndKind
from emu.machine.keyboard import handle_interrupts, keyboard
from emu.machine.profile import Profile
from emu.machine.registers import RAX, RCX
from emu.machine.stop import StopKind

LOOP = "movl $1000, %ecx\n1: incq %rax\n nop\n decl %ecx\n jnz 1b\n hlt"


@given(st.lists(st.integers(1, 97), min_size=1, max_size=30))
@settings(max_examples=30, deadline=None)
def test_runs_of_any_lengths_retire_exactly_what_was_asked(lengths):
    it = bare(LOOP)
    total = 0
    for length in lengths:
        it.run(length)
        total += length
        assert it.core.clock == total
        # 1 MOV, then 4 instructions a round: RAX counts the rounds begun.
        assert it.core.cpu.register(RAX) == (total - 1 + 3) // 4


def test_a_warm_loop_still_stops_at_the_count():
    it = bare("1: jmp 1b")
    for n in range(1, 50):
        assert it.run(10_000).kind is EndKind.LIMIT
        assert it.core.clock == n * 10_000


def test_each_iteration_of_rep_is_an_instruction_boundary():
    it = bare(f"movabsq ${KERNEL + 0x150000}, %rdi\n movl $50, %ecx\n rep stosb\n hlt")
    it.run(2 + 20)
    assert it.core.cpu.register(RCX) == 30
    assert it.core.cpu.ip == CODE + it.code.statements[2].address - CODE


def test_stops_forgotten_where_their_code_cannot_be_fetched_leave_nothing_behind():
    it = bare("xorl %ecx, %ecx\n nop\n nop\n divl %ecx", user=True)
    it.machine.memory.write(HANDLERS - KERNEL, bytes.fromhex("90 90 f7f1"))  # of #DE: NOP, NOP, DIV again
    it.core.set_breakpoints({USER, USER + 2, USER + 3})
    while it.core.advance(4).kind is EndKind.BREAKPOINT:
        pass
    assert (it.core.clock, it.core.cpu.cpl) == (4, 0)
    it.core.set_breakpoints(set())  # SMEP: the engine has page faults of its own while it looks for them
    it.run(3)
    assert [event.vector for event in it.of(Delivered)] == [0, 0]
    assert it.core.cpu.cr2 == 0
    assert not it.core.halted


def test_breakpoint_stops_before_its_instruction_and_once_a_visit():
    it = bare(LOOP)
    target = it.code.instructions()[2].address
    it.core.set_breakpoints({target})
    hits = 0
    while it.core.advance(100_000).kind is EndKind.BREAKPOINT:
        hits += 1
        assert it.core.cpu.ip == target
        assert it.core.clock == 2 + 4 * (hits - 1)
    assert hits == 1000
    assert it.core.halted


def test_breakpoints_may_come_and_go_in_translated_code():
    it = bare(LOOP)
    it.run(400)
    first, second = (it.code.instructions()[n].address for n in (1, 3))
    it.core.set_breakpoints({first})
    assert it.run(50).ip == first
    it.core.set_breakpoints({second})
    assert it.run(50).ip == second
    it.core.set_breakpoints(set())
    assert it.run(50).kind is EndKind.LIMIT


def test_flags_survive_being_read_and_written_back():
    it = bare("movl $5, %eax\n subl $6, %eax\n std\n hlt")
    it.run(3)
    flags = it.core.cpu.flags
    assert flags & 0xCD5 == 0x495  # CF PF AF SF DF
    it.core.cpu.flags = flags
    it.run(1)
    assert it.core.cpu.flags == flags


def test_error_code_is_that_of_the_fault():
    it = bare("nop\n movq 0x12345678, %rax")
    stop = it.core.cpu.run(10)
    assert (stop.kind, stop.vector, stop.error_code, stop.retired) == (StopKind.FAULT, 14, 0, 1)


@pytest.mark.parametrize("nxe", [True, False])
def test_an_instruction_whose_successor_cannot_be_fetched_still_retires(nxe):
    it = bare("nop\n jmp *%rax", profile=Profile(smep=nxe, smap=False))
    if not nxe:
        it.core.cpu.set_efer(0x501)
    it.core.cpu.set_register(RAX, 0x900000)
    assert it.run(2).kind is EndKind.LIMIT
    assert (it.core.clock, it.core.cpu.ip, it.core.cpu.cr2) == (2, 0x900000, 0)  # no fault yet
    it.run()
    (fault,) = it.of(Delivered)
    assert (fault.vector, fault.clock, fault.ip, fault.cr2) == (14, 2, 0x900000, 0x900000)


def test_an_engine_with_another_layout_is_refused_with_its_version(monkeypatch):
    monkeypatch.setattr(engine, "COUNTER_OFFSET", engine.COUNTER_OFFSET + 16)
    engine.probe.cache_clear()
    with pytest.raises(EngineError, match=r"unicorn \d.*instruction counter.*pip install unicorn"):
        engine.probe()
    monkeypatch.undo()
    engine.probe.cache_clear()
    engine.probe()


def test_a_code_hook_list_at_another_place_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    code_hooks.probe.cache_clear()
    monkeypatch.setattr(code_hooks, "_CODE_HOOKS_OFFSET", 880 + 48)  # the list of another kind of hook
    with pytest.raises(EngineError, match=r"unicorn \d.*list of code hooks.*pip install unicorn"):
        code_hooks.probe()
    monkeypatch.undo()
    code_hooks.probe.cache_clear()
    code_hooks.probe()


@pytest.fixture
def interrupts():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    handle_interrupts()
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_inside_a_callback_of_the_engine_ends_the_run(interrupts):
    it = bare(LOOP)
    seen = []

    def press(address: int) -> None:
        seen.append(address)
        if len(seen) == 100:
            os.kill(os.getpid(), signal.SIGINT)

    it.core.cpu.trace(press)
    with pytest.raises(KeyboardInterrupt):
        it.run(4000)
    assert len(seen) == 100  # and at once
    it.core.cpu.trace(None)
    assert not keyboard.pressed
    assert it.run(1000).kind is EndKind.LIMIT  # the next run is one like any other


def test_an_interrupt_at_rest_is_raised_where_it_comes(interrupts):
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_process_that_ignores_interrupts_goes_on_ignoring_them():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    handle_interrupts()
    assert signal.signal(signal.SIGINT, before) is signal.SIG_IGN


def test_stops_in_ranges_that_meet_are_passed_like_others():
    it = bare("nop\n nop\n nop\n nop\n nop\n hlt")
    cpu = it.core.cpu
    cpu.stop_at([CODE + 1, CODE + 3], (CODE + 1, CODE + 3))
    cpu.stop_at([CODE, CODE + 2], (CODE, CODE + 2))
    cpu.stop_at([CODE + 4], (CODE + 2, CODE + 4))
    seen = [(stop.kind, stop.ip - CODE) for stop in (cpu.run(9, step_over=True) for _ in range(5))]
    assert seen == [*((StopKind.BREAK, n) for n in (1, 2, 3, 4)), (StopKind.HALT, 6)]


def test_a_snapshot_with_breakpoints_is_good_until_others_are_loaded():
    it = bare("movq %rax, %dr0\n movl $1, %ecx\n movq %rcx, %dr7\n nop\n movq %rdx, %dr7\n nop\n hlt")
    it.machine.observe_instructions(it.code.instructions())
    it.run(1)
    before = it.machine.snapshot()
    it.run(2)
    enabled = it.machine.snapshot()
    it.run(1)
    assert it.machine.can_restore(enabled)
    it.run(1)
    assert not it.machine.can_restore(enabled)
    assert it.machine.can_restore(before)
    it.machine.restore(before)
    it.run(2)
    assert not it.machine.can_restore(enabled)
