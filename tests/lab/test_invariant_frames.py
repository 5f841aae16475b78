"""The invariant `frames` against made-up events: pt_regs on the way in, registers and frame on the way out."""

from __future__ import annotations

import pytest
from court import (
    DB_STACK,
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

from emu.events import Frame
from emu.lab.view import PT_REGS_SIZE


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


def test_pt_regs_made_by_fixup_bad_iret_are_the_new_truth(court: Court) -> None:
    trampoline, at_iret = TRAMPOLINE.high - 300, Frame(IRET, 0x10, 2, TRAMPOLINE.high - 40, 0x18)
    court.view.memory |= {trampoline: saved(at_iret), REGS: saved(IN_USER)}
    court.see(*WHOLE_CALL[:-1], delivered(at_iret, (USER, PERCPU), vector=13), swap(USER, PERCPU))
    court.see(called("fixup_bad_iret", regs=trampoline, sp=TASK.high - 256), done("fixup_bad_iret", REGS))
    court.see(called("exc_general_protection"), done("exc_general_protection"), swap(PERCPU, USER), returned(IN_USER))
    assert court.judge.violations == []


ESPFIX, GP_STUB = 0xFFFF_FF00_0000_0018, ENTRY + 0x900
WORDS_AT = TRAMPOLINE.high - 40


def refused_on_the_espfix_stack(court: Court, moved: Frame) -> None:
    """IRETQ faults there: #DF, whose C goes on at #GP's entry, with the words of `moved` on the trampoline stack."""
    iret = Frame(IRET, 0x10, 2, ESPFIX, 0x18)
    court.see(*IN_C, done(), swap(PERCPU, USER), delivered(iret, (USER, PERCPU), vector=8, ist=3), swap(USER, PERCPU))
    regs, goes_on = DB_STACK.high - PT_REGS_SIZE, Frame(GP_STUB, 0x10, 2, WORDS_AT - 8, 0x18)
    court.view.memory[regs] = saved(iret)
    court.see(called("exc_double_fault", regs=regs, sp=regs - 8))
    court.view.memory |= {regs: saved(goes_on), WORDS_AT: saved(moved)[-40:]}
    court.see(done("exc_double_fault"), swap(PERCPU, USER), returned(goes_on, frame_at=DB_STACK.high - 40))
    court.see(swap(USER, PERCPU))


BAD_CS = Frame(IN_USER.ip, 0x63, IN_USER.flags, IN_USER.sp, IN_USER.ss)


def test_words_that_exc_double_fault_moves_off_the_espfix_stack_are_the_new_truth(court: Court) -> None:
    refused_on_the_espfix_stack(court, BAD_CS)
    court.view.memory[REGS] = saved(BAD_CS)
    court.see(called("exc_general_protection"), done("exc_general_protection"))
    assert court.judge.violations == []


def test_other_words_than_exc_double_fault_has_moved_are_noticed(court: Court) -> None:
    refused_on_the_espfix_stack(court, BAD_CS)
    court.view.memory[REGS] = saved(IN_USER)
    court.see(called("exc_general_protection"))
    assert ["cs is 0x33, was 0x63" in violation.message for violation in court.judge.violations] == [True]


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
