"""The invariant `frames` against made-up events: pt_regs on the way in, registers and frame on the way out."""

from __future__ import annotations

import pytest
from court import (
    ENTRY,
    GPRS,
    IN_C,
    IN_GAP,
    IN_USER,
    IRET,
    PERCPU,
    REGS,
    TASK,
    TRAMPOLINE,
    USER,
    WHOLE_CALL,
    Court,
    called,
    delivered,
    done,
    nmi,
    returned,
    saved,
    swap,
    syscall,
)
from court import court as new_court

from emu.events import (
    Frame,
)


@pytest.fixture
def court() -> Court:
    return new_court()


def test_pt_regs_that_are_not_what_was_interrupted(court: Court) -> None:
    court.view.memory[REGS] = saved(IN_USER, r8=0)
    court.see(*IN_C)
    assert court.only("frames") == [ENTRY + 0x72]


def test_return_restores_what_c_left(court: Court) -> None:
    court.see(*IN_C)
    signal = Frame(0x500000, 0x33, 0x202, 0x7FFE_0000, 0x2B)
    court.view.memory[REGS] = saved(signal)
    assert court.see(done(), swap(PERCPU, USER), returned(signal)) == []


def test_return_that_ignores_what_c_left(court: Court) -> None:
    court.see(*IN_C)
    court.view.memory[REGS] = saved(Frame(0x500000, 0x33, 0x202, 0x7FFE_0000, 0x2B))
    court.see(done(), swap(PERCPU, USER), returned(IN_USER))
    assert court.only("frames") == [IRET]


def test_register_lost_on_the_way_out(court: Court) -> None:
    court.see(*IN_C, done(), swap(PERCPU, USER))
    court.view.gprs = (*GPRS[:15], 0)
    court.see(returned(IN_USER))
    assert court.only("frames") == [IRET]


def test_what_the_laboratory_changed_is_not_compared(court: Court) -> None:
    court.see(*IN_C, done(), swap(PERCPU, USER))
    court.judge.disturbed(0)
    court.view.gprs = (*GPRS[:15], 0)
    court.see(returned(IN_USER))
    assert court.only("frames") == []


def test_pt_regs_made_by_fixup_bad_iret_are_the_new_truth(court: Court) -> None:
    trampoline, at_iret = TRAMPOLINE.high - 300, Frame(IRET, 0x10, 2, TRAMPOLINE.high - 40, 0x18)
    court.view.memory |= {trampoline: saved(at_iret), REGS: saved(IN_USER)}
    court.see(*WHOLE_CALL[:-1], delivered(at_iret, (USER, PERCPU), vector=13), swap(USER, PERCPU))
    court.see(called("fixup_bad_iret", regs=trampoline, sp=TASK.high - 256), done("fixup_bad_iret", REGS))
    court.see(called("exc_general_protection"), done("exc_general_protection"), swap(PERCPU, USER), returned(IN_USER))
    assert court.judge.violations == []


@pytest.mark.parametrize(
    ("cs", "sp", "found"),
    [(0x23, 0xFFFF_F000, []), (0x23, 0xFFFF_E000, [IRET]), (0x33, 0xFFFF_F000, [IRET])],
    ids=["esp", "another esp", "64-bit code"],
)
def test_iretq_to_32_bit_code_leaves_esp(court: Court, cs: int, sp: int, found: list[int]) -> None:
    court.see(*IN_C)
    court.view.memory[REGS] = saved(Frame(IN_USER.ip, cs, IN_USER.flags, 0x7FFF_FFFF_F000, IN_USER.ss))
    court.see(done(), swap(PERCPU, USER), returned(Frame(IN_USER.ip, cs, IN_USER.flags, sp, IN_USER.ss)))
    assert court.only("frames") == found


def test_return_to_kernel_code_without_c_restores_the_interrupted_frame(court: Court) -> None:
    court.see(syscall(), nmi(IN_GAP, (USER, PERCPU)), returned(Frame(ENTRY, 0x10, 0x402, IN_GAP.sp, 0x18)))
    assert court.only("frames") == [IRET]
