"""Each invariant against made-up events: silent on a right sequence, and speaking at the event that breaks it."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import pytest

from emu.arch import Msr, Rflags
from emu.events import (
    CCalled,
    CReturned,
    Delivered,
    DoubleFault,
    EventType,
    Frame,
    GsSwapped,
    MsrWritten,
    Returned,
    SystemCall,
)
from emu.lab.invariants import Judge
from emu.lab.view import PT_REGS_SIZE, View
from emu.machine.end import End, EndKind
from kernel_stubs.boot import StackRange

PERCPU, USER = 0xFFFF_8880_0010_0000, 0x7000
ENTRY, C_CODE, IRET = 0xFFFF_FFFF_8100_0000, 0xFFFF_FFFF_8100_3000, 0xFFFF_FFFF_8100_0153
TASK = StackRange("task", 0xFFFF_C900_0000_0000, 0xFFFF_C900_0000_4000)
TRAMPOLINE = StackRange("entry", 0xFFFF_FE00_0000_2000, 0xFFFF_FE00_0000_3000)
NMI_STACK = StackRange("IST2 NMI", 0xFFFF_FE00_0000_9000, 0xFFFF_FE00_0000_B000)
DB_STACK = StackRange("IST3 DB", 0xFFFF_FE00_0000_C000, 0xFFFF_FE00_0000_E000)
REGS = TASK.high - PT_REGS_SIZE
KERNEL_CR3, USER_CR3 = 0x10000, 0x11000
IN_USER, IN_GAP = Frame(0x400007, 0x33, 0x202, 0x7FFF_0000, 0x2B), Frame(ENTRY, 0x10, 0x2, 0x7FFF_0000, 0x18)
IN_KERNEL = Frame(ENTRY + 0x20, 0x10, 0x2, TASK.high - 40, 0x18)
GPRS = ((1 << 64) - 1, *range(0x101, 0x110))
"""RAX is negative, so that it may be the orig_ax of a system call and of an exception alike."""


class FakeView(View):
    """A View whose machine is a table."""

    def __init__(self) -> None:
        symbols = {"entry_SYSCALL_64": ENTRY, "__entry_text_start": ENTRY, "repeat_nmi": ENTRY + 0x800}
        self.image = SimpleNamespace(symbols=symbols)  # type: ignore[assignment]
        self.memory: dict[int, bytes] = {}
        self.cr3_now, self.cr2_now, self.flags_if, self.work, self.irq_stack_inuse = USER_CR3, 0, False, 0, 0
        self.gs_now = (USER, PERCPU)
        self.gprs = GPRS

    def where(self, address: int) -> str:
        return f"{address:#x}"

    symbol = where

    def disassemble(self, address: int) -> str:
        return "iretq" if address == IRET else "movq %rsp, %gs:0x14"

    def percpu_base(self, cpu: int) -> int:
        return PERCPU

    def raw_registers(self, cpu: int) -> bytes:
        return struct.pack("<16Q", *self.gprs)

    def cr2(self, cpu: int) -> int:
        return self.cr2_now

    def cr3(self, cpu: int) -> int:
        return self.cr3_now

    def smap(self, cpu: int) -> bool:
        return True

    def interrupts_enabled(self, cpu: int) -> bool:
        return self.flags_if

    def stacks(self, cpu: int) -> tuple[StackRange, ...]:  # type: ignore[override]
        return TASK, TRAMPOLINE, NMI_STACK, DB_STACK

    def top_of_stack(self, cpu: int) -> int:
        return TASK.high

    def percpu_word(self, cpu: int, field: str) -> int:
        return self.irq_stack_inuse

    def work_flags(self, cpu: int) -> int:
        return self.work

    def tss_sp0(self, cpu: int) -> int:
        return TRAMPOLINE.high

    def read_kernel(self, address: int, size: int) -> bytes | None:
        return self.memory.get(address, bytes(size))

    def pt_regs_argument(self, name: str) -> int | None:
        return None if name == "start_kernel" else 0

    def call_site(self, return_to: int) -> int | None:
        return return_to - 5

    def in_c(self, address: int) -> bool:
        return C_CODE <= address < C_CODE + 0x1000

    def registers(self, cpu: int) -> dict[str, int]:
        return {"rax": 1}

    def core(self, cpu: int) -> object:  # type: ignore[override]
        return SimpleNamespace(clock=9, cpu=SimpleNamespace(gs_base=self.gs_now[0], kernel_gs_base=self.gs_now[1]))


def saved(frame: Frame, **changed: int) -> bytes:
    """A pt_regs of GPRS and a frame."""
    ax, cx, dx, bx, _, bp, si, di, *high = GPRS
    names = ("r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di", "orig_ax")
    values = (*high[:3:-1], bp, bx, *high[3::-1], ax, cx, dx, si, di, ax)
    table = dict(zip(names, values, strict=True)) | {n: getattr(frame, n) for n in ("ip", "cs", "flags", "sp", "ss")}
    return struct.pack("<21Q", *(table | changed).values())


def syscall(gs: tuple[int, int] = (USER, PERCPU)) -> SystemCall:
    return SystemCall(1, 0, IN_USER.ip - 2, 39, IN_USER.ip, IN_USER.flags, IN_USER.sp, ENTRY, *gs)


def delivered(frame: Frame, gs: tuple[int, int], **changed: object) -> Delivered:
    fields = {"vector": 14, "type": EventType.HWEXC, "error_code": 0, "ist": 0, "cr2": 0, "injected": False} | changed
    top = {2: NMI_STACK.high, 3: DB_STACK.high}.get(int(str(fields["ist"])), TRAMPOLINE.high)
    return Delivered(
        2, 0, frame.ip, fields["vector"], fields["type"], fields["error_code"], frame,  # type: ignore[arg-type]
        int(str(fields.get("frame_at", top - 40))), int(str(fields["ist"])), ENTRY + 0x400, *gs,
        int(str(fields["cr2"])), bool(fields["injected"]),
    )  # fmt: skip


def nmi(frame: Frame, gs: tuple[int, int], cr2: int = 0) -> Delivered:
    return delivered(frame, gs, vector=2, type=EventType.NMI, error_code=None, ist=2, cr2=cr2)


def swap(*gs: int) -> GsSwapped:
    return GsSwapped(3, 0, ENTRY + 3, *gs)


def called(name: str = "do_syscall_64", gs: tuple[int, int] = (PERCPU, USER), **changed: int) -> CCalled:
    f = {"regs": REGS, "sp": REGS - 8, "flags": 2, "cr3": KERNEL_CR3} | changed
    return CCalled(4, 0, C_CODE, name, (f["regs"],), f["sp"], ENTRY + 0x77, 0, f["flags"], *gs, f["cr3"])


def done(name: str = "do_syscall_64", value: int | None = None) -> CReturned:
    return CReturned(5, 0, C_CODE + 1, name, value)


def returned(frame: Frame, gs: tuple[int, int] = (USER, PERCPU), **changed: object) -> Returned:
    f = {"by": "iretq", "frame_at": TRAMPOLINE.high - 40, "cr3": USER_CR3} | changed
    return Returned(6, 0, IRET, str(f["by"]), frame, int(str(f["frame_at"])), *gs, int(str(f["cr3"])))


class Court:
    """A judge with a made-up machine."""

    def __init__(self) -> None:
        self.view = FakeView()
        self.judge = Judge(self.view, "entry64 run case.toml")

    def see(self, *events: object) -> list[tuple[str, int]]:
        """(invariant, instruction) of the violations after these events."""
        for event in events:
            self.judge(event)  # type: ignore[arg-type]
        return [(violation.invariant, violation.ip) for violation in self.judge.violations]

    def only(self, name: str) -> list[int]:
        """Instructions of one invariant's violations."""
        return [v.ip for v in self.judge.violations if v.invariant == name]


@pytest.fixture
def court() -> Court:
    found = Court()
    found.view.memory[REGS] = saved(IN_USER)
    return found


IN_C = (syscall(), swap(USER, PERCPU), called())
WHOLE_CALL = (*IN_C, done(), swap(PERCPU, USER), returned(IN_USER))


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


# --- frames -----------------------------------------------------------------------------------------------------------
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
