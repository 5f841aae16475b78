"""What observers are told: one record a kind of event.

`clock` is the number of instructions this CPU has retired; `cpu` its index; `ip` the address of the instruction that
the event belongs to (the interrupted one for a delivery). Event types of a delivery are FRED's names, as in
arch/x86/include/asm/fred.h.
"""

from __future__ import annotations

from enum import Enum

from emu.record import record


class EventType(Enum):
    """Why the IDT was used (FRED event types; SDM 10.2 of the FRED specification)."""

    EXTINT = "EXTINT"
    NMI = "NMI"
    HWEXC = "HWEXC"
    SWINT = "SWINT"
    PRIV_SWEXC = "PRIV_SWEXC"
    SWEXC = "SWEXC"


@record
class Frame:
    """The five words of an interrupt frame, as pushed or as IRETQ restores them."""

    ip: int
    cs: int
    flags: int
    sp: int
    ss: int

    @property
    def cpl(self) -> int:
        """Privilege level of the code that the frame belongs to."""
        return self.cs & 3


@record
class Event:
    """Base: when, on which CPU, at which instruction."""

    clock: int
    cpu: int
    ip: int


@record
class Executed(Event):
    """A run of instructions retired, in order; only when tracing is on. `clock` is that of the first one.

    `registers`, when asked for, has one row an instruction (state before it): rax rcx rdx rbx rsp rbp rsi rdi r8..r15.
    `stacks` and `gs` give RSP and GS_BASE before each instruction at whose address the tracer asked for a sample.
    """

    addresses: tuple[int, ...]
    samples: tuple[tuple[int, int, int], ...] = ()
    registers: tuple[bytes, ...] = ()


@record
class Delivered(Event):
    """An event went through the IDT. `frame_at` is the linear address of the pushed frame's RIP word."""

    vector: int
    type: EventType
    error_code: int | None
    frame: Frame
    frame_at: int
    ist: int
    handler: int
    gs_base: int
    kernel_gs_base: int
    cr2: int
    injected: bool = False


@record
class SystemCall(Event):
    """SYSCALL or SYSENTER executed. `flags` and `sp` are user mode's; SYSENTER saves neither, nor RIP."""

    number: int
    return_ip: int
    flags: int
    sp: int
    target: int
    gs_base: int
    kernel_gs_base: int
    by: str = "syscall"
    """Or "sysenter"."""
    compat: bool = False
    """From compatibility mode: `number` is one of the i386 calls."""


@record
class Returned(Event):
    """IRET, SYSRET or SYSEXIT retired. `frame_at` is the address of the popped frame (0 for all but IRET)."""

    by: str
    frame: Frame
    frame_at: int
    gs_base: int
    kernel_gs_base: int
    cr3: int


@record
class GsSwapped(Event):
    """SWAPGS retired: the bases before it; after it they are exchanged."""

    gs_base: int
    kernel_gs_base: int


@record
class Passed(Event):
    """An instruction begins that an observer has asked for (Core.set_milestones); registers are as it finds them."""


@record
class MsrWritten(Event):
    """WRMSR retired, or a C function wrote the MSR."""

    number: int
    before: int
    value: int


@record
class CCalled(Event):
    """The guest reached a C function's entry; `args` are its System V integer arguments as declared."""

    name: str
    args: tuple[int, ...]
    sp: int
    return_to: int
    cpl: int
    flags: int
    gs_base: int
    kernel_gs_base: int
    cr3: int


@record
class CReturned(Event):
    """A C function returned to the guest."""

    name: str
    value: int | None


@record
class NotPreserved(Event):
    """Guest code returned to the C function that had called it, without the registers that a callee must keep.

    `lost` has a row each: the register's number, what it holds, what the C function had there.
    """

    name: str
    called: str
    lost: tuple[tuple[int, int, int], ...]


@record
class Pended(Event):
    """An event was raised while it cannot be delivered (IF=0, NMI blocked, shadow): held pending."""

    vector: int
    type: EventType
    why: str


@record
class Note(Event):
    """Something the C side did that a reader wants to see (a signal sent, a tick, a demand-paged page)."""

    text: str


@record
class DoubleFault(Event):
    """A second exception came while the first was being delivered; #DF follows (SDM 6.15, interrupt 8)."""

    first: int
    second: int


@record
class Shutdown(Event):
    """Triple fault: an exception came while #DF was being delivered."""

    vector: int
    why: str
