"""Each invariant against made-up events: silent on a right sequence, and speaking at the event that breaks it."""

from __future__ import annotations

import struct

import pytest
from court import (
    C_CODE,
    DB_STACK,
    ENTRY,
    IN_C,
    IN_GAP,
    IN_KERNEL,
    IN_USER,
    IRET,
    KERNEL_CR3,
    NMI_STACK,
    PERCPU,
    REGS,
    TASK,
    TRAMPOLINE,
    USER,
    USER_CR3,
    WHOLE_CALL,
    Court,
    FakeView,
    called,
    delivered,
    done,
    nmi,
    returned,
    saved,
    swap,
    syscall,
)

from emu.arch import Msr, Rflags
from emu.events import (
    DoubleFault,
    Frame,
    MsrWritten,
)
from emu.lab.invariants import Judge
from emu.machine.end import End, EndKind


def test_a_right_system_call_is_clean(court: Court) -> None:
    assert court.see(*WHOLE_CALL, *WHOLE_CALL) == []


# --- GS nesting -------------------------------------------------------------------------------------------------------
def test_c_with_the_users_gs_is_blamed_on_the_call(court: Court) -> None:
    assert court.see(syscall(), called(gs=(USER, PERCPU))) == [("GS nesting", ENTRY + 0x72)]


def test_swapgs_of_unknown_bases(court: Court) -> None:
    assert court.see(syscall(), swap(USER, 0x1234)) == [("GS nesting", ENTRY + 3)]


def test_swapgs_in_an_entry_that_interrupted_the_kernel(court: Court) -> None:
    court.see(*IN_C, delivered(IN_KERNEL, (PERCPU, USER)), swap(PERCPU, USER))
    assert court.only("GS nesting") == [ENTRY + 3]


def test_third_swapgs_of_one_entry(court: Court) -> None:
    court.see(syscall(), swap(USER, PERCPU), swap(PERCPU, USER), swap(USER, PERCPU))
    assert court.only("GS nesting") == [ENTRY + 3]


def test_return_to_user_mode_with_the_kernels_gs(court: Court) -> None:
    court.see(*IN_C, done(), returned(IN_USER, (PERCPU, USER)))
    assert court.only("GS nesting") == [IRET]


def test_return_to_the_gap_must_restore_the_users_gs(court: Court) -> None:
    court.see(syscall(), nmi(IN_GAP, (USER, PERCPU)), returned(IN_GAP, (PERCPU, PERCPU)))
    assert court.only("GS nesting") == [IRET]


def test_paranoid_handler_may_leave_kernel_gs_base_alone(court: Court) -> None:
    regs = NMI_STACK.high - 40 - 128
    court.view.memory[regs] = saved(IN_GAP)
    court.see(syscall(), nmi(IN_GAP, (USER, PERCPU)), called("exc_nmi", (PERCPU, PERCPU), regs=regs, sp=regs - 8))
    assert court.only("GS nesting") == []


def test_kernel_gs_base_must_be_the_users_in_an_ordinary_entry(court: Court) -> None:
    court.see(syscall(), swap(USER, PERCPU), called(gs=(PERCPU, PERCPU)))
    assert court.only("GS nesting") == [ENTRY + 0x72]


def test_arch_prctl_changes_the_users_base(court: Court) -> None:
    court.view.gs_now = (PERCPU, USER)
    written = MsrWritten(5, 0, C_CODE, Msr.KERNEL_GS_BASE, USER, 0x9000)
    assert court.see(*IN_C, written, done(), swap(PERCPU, 0x9000), returned(IN_USER, (0x9000, PERCPU))) == []


def test_wrong_base_written_to_gs_base(court: Court) -> None:
    court.see(*IN_C, MsrWritten(5, 0, C_CODE, Msr.GS_BASE, PERCPU, 0x5555))
    assert court.only("GS nesting") == [C_CODE]


def test_nothing_is_judged_before_gs_is_set(court: Court) -> None:
    court.see(swap(0, 0), called("start_kernel", (0, 0)))
    assert court.only("GS nesting") == []


def test_c_that_cannot_run_is_blamed_on_its_call(court: Court) -> None:
    in_c = Frame(C_CODE, 0x10, 2, REGS - 8, 0x18)
    court.view.memory[REGS - 8] = (ENTRY + 0x77).to_bytes(8, "little")
    court.see(syscall(), delivered(in_c, (USER, PERCPU)))
    assert court.only("GS nesting") == court.only("page tables") == [ENTRY + 0x72]


def test_fault_of_a_gs_access_with_the_users_base(court: Court) -> None:
    court.see(syscall(), delivered(IN_GAP, (USER, PERCPU)))
    assert court.only("GS nesting") == [ENTRY]


# --- stacks -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("sp", "words"),
    [(0x7FFF_0000, "user's memory"), (TASK.low - 16, "guard page below the task"), (TRAMPOLINE.low + 64, "trampoline")],
)
def test_c_on_a_wrong_stack(court: Court, sp: int, words: str) -> None:
    court.see(syscall(), swap(USER, PERCPU), called(sp=sp))
    assert court.only("stacks") == [ENTRY + 0x72]
    assert words in court.judge.violations[0].message


def test_c_on_an_ist_stack_that_is_not_in_use(court: Court) -> None:
    court.see(syscall(), swap(USER, PERCPU), called(sp=DB_STACK.high - 64))
    assert court.only("stacks") == [ENTRY + 0x72]


def test_user_pt_regs_below_the_top(court: Court) -> None:
    court.view.memory[REGS - 16] = saved(IN_USER)
    court.see(syscall(), swap(USER, PERCPU), called(regs=REGS - 16, sp=REGS - 24))
    assert court.only("stacks") == [ENTRY + 0x72]


def test_overwritten_ist_frame_without_a_copy(court: Court) -> None:
    again = Frame(ENTRY + 0x410, 0x10, 2, NMI_STACK.high - 64, 0x18)
    court.see(syscall(), nmi(IN_GAP, (USER, PERCPU)), nmi(again, (USER, PERCPU)))
    assert court.only("stacks") == [again.ip]


def test_overwritten_ist_frame_that_was_copied(court: Court) -> None:
    again = Frame(ENTRY + 0x410, 0x10, 2, NMI_STACK.high - 64, 0x18)
    copy = struct.pack("<5Q", IN_GAP.ip, IN_GAP.cs, IN_GAP.flags, IN_GAP.sp, IN_GAP.ss)
    court.view.memory[NMI_STACK.low] = bytes(64) + copy + bytes(64)
    court.see(syscall(), nmi(IN_GAP, (USER, PERCPU)), nmi(again, (USER, PERCPU)))
    assert court.only("stacks") == []


def test_kernel_frame_pushed_to_user_memory(court: Court) -> None:
    court.see(syscall(), delivered(IN_GAP, (USER, PERCPU), frame_at=0x7FFE_FFD8))
    assert court.only("stacks") == [IN_GAP.ip]


def test_return_to_user_mode_from_the_middle_of_the_entry_stack(court: Court) -> None:
    court.see(*IN_C, done(), swap(PERCPU, USER), returned(IN_USER, frame_at=TRAMPOLINE.high - 48))
    assert court.only("stacks") == [IRET]


def test_return_to_user_mode_with_the_irq_stack_in_use(court: Court) -> None:
    court.view.irq_stack_inuse = 1
    court.see(*WHOLE_CALL)
    assert court.only("stacks") == [IRET]


# --- page tables ------------------------------------------------------------------------------------------------------
def test_c_on_the_users_page_tables(court: Court) -> None:
    court.see(syscall(), swap(USER, PERCPU), called(cr3=USER_CR3))
    assert court.only("page tables") == [ENTRY + 0x72]


def test_user_mode_on_the_kernels_page_tables(court: Court) -> None:
    court.see(*IN_C, done(), swap(PERCPU, USER), returned(IN_USER, cr3=KERNEL_CR3))
    assert court.only("page tables") == [IRET]


def test_interrupted_kernel_code_gets_its_cr3_back(court: Court) -> None:
    court.see(syscall(), nmi(IN_GAP, (USER, PERCPU)), returned(IN_GAP, cr3=KERNEL_CR3))
    assert court.only("page tables") == [IRET]


# --- flags ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("flag", [Rflags.IF, Rflags.DF, Rflags.NT, Rflags.TF, Rflags.AC], ids=lambda flag: flag.name)
def test_flag_that_must_be_clear_in_c(court: Court, flag: Rflags) -> None:
    court.see(syscall(), swap(USER, PERCPU), called(flags=2 | int(flag)))
    assert court.only("flags") == [ENTRY + 0x72]


def test_c_returns_with_interrupts_on(court: Court) -> None:
    court.see(*IN_C)
    court.view.flags_if = True
    court.see(done())
    assert court.only("flags") == [C_CODE + 1]


def test_swapgs_with_interrupts_on(court: Court) -> None:
    court.see(*IN_C, done())
    court.view.flags_if = True
    court.see(swap(PERCPU, USER))
    assert court.only("flags") == [ENTRY + 3]


# --- NMI, work, progress ----------------------------------------------------------------------------------------------
def test_nmi_before_iretq(court: Court) -> None:
    court.see(syscall(), nmi(IN_GAP, (USER, PERCPU)), nmi(IN_GAP, (USER, PERCPU)))
    assert court.only("NMI") == [IN_GAP.ip]


def test_iretq_that_faults_unblocks_nmis(court: Court) -> None:
    at_iret = Frame(IRET, 0x10, 2, NMI_STACK.high - 80, 0x18)
    fault = delivered(at_iret, (USER, PERCPU), vector=13)
    court.see(syscall(), nmi(IN_GAP, (USER, PERCPU)), fault, nmi(IN_GAP, (USER, PERCPU)))
    assert court.only("NMI") == []


def test_nmi_that_changes_cr2(court: Court) -> None:
    court.view.cr2_now = 0x2000
    court.see(syscall(), nmi(IN_GAP, (USER, PERCPU), cr2=0x1000), returned(IN_GAP))
    assert court.only("NMI") == [IRET]


def test_work_left_at_the_way_out(court: Court) -> None:
    court.view.work = 1 << 2
    court.see(*WHOLE_CALL)
    assert court.only("work") == [IRET]


def test_work_that_came_after_the_last_test_is_not_judged(court: Court) -> None:
    court.see(*IN_C, done())
    court.view.work = 1 << 2
    court.see(swap(PERCPU, USER), returned(IN_USER))
    assert court.only("work") == []


def test_double_fault(court: Court) -> None:
    assert court.see(DoubleFault(7, 0, ENTRY, 14, 14)) == [("progress", ENTRY)]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (EndKind.SHUTDOWN, "triple-fault"),
        (EndKind.CRASHED, "oops"),
        (EndKind.LIMIT, "budget"),
        (EndKind.HALTED, "halt"),
    ],
    ids=str,
)
def test_bad_ends_count_unless_expected(kind: EndKind, name: str) -> None:
    end = End(kind, ENTRY, "text")
    assert [v.invariant for v in Judge(FakeView()).finish(end)] == ["progress"]
    assert Judge(FakeView(), allowed=frozenset({name})).finish(end) == []


def test_a_finished_program_is_progress(court: Court) -> None:
    assert court.judge.finish(End(EndKind.FINISHED, ENTRY)) == []


# --- reports and snapshots --------------------------------------------------------------------------------------------
def test_violation_names_chain_and_reproduction(court: Court) -> None:
    court.see(syscall(), nmi(IN_GAP, (USER, PERCPU)), returned(IN_GAP, (PERCPU, USER)))
    violation = court.judge.violations[0]
    assert violation.chain == ("SYSCALL 39 (getpid) from user 0x400005", f"NMI at {ENTRY:#x}")
    assert violation.lines()[-1] == "  reproduce: entry64 run case.toml"
    assert violation.as_dict()["registers"] == {"rax": "0x1"}


def test_load_goes_back_and_forgets_violations(court: Court) -> None:
    court.see(*IN_C)
    state = court.judge.save()
    court.see(swap(1, 2), returned(IN_USER, (1, 2)))
    assert court.judge.violations
    court.judge.load(state)
    assert court.see(done(), swap(PERCPU, USER), returned(IN_USER)) == []
