"""Made-up machines and events for the tests of invariants, and a judge of them."""

from __future__ import annotations

import struct
from types import SimpleNamespace

from emu.events import (
    CCalled,
    CReturned,
    Delivered,
    EventType,
    Frame,
    GsSwapped,
    Returned,
    SystemCall,
)
from emu.lab.invariants import Judge
from emu.lab.view import PT_REGS_SIZE, View
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
    return CCalled(4, 0, C_CODE, name, (f["regs"], 0), f["sp"], ENTRY + 0x77, 0, f["flags"], *gs, f["cr3"])


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


def court() -> Court:
    """A court whose task has pt_regs of user mode."""
    found = Court()
    found.view.memory[REGS] = saved(IN_USER)
    return found


IN_C = (syscall(), swap(USER, PERCPU), called())
WHOLE_CALL = (*IN_C, done(), swap(PERCPU, USER), returned(IN_USER))
