"""What a sweep can inject. User mode, and the kernel code that is hit, must not notice any of these but `access`."""

from __future__ import annotations

from emu.arch import KERNEL_HALF, LOCAL_TIMER_VECTOR, Vector
from emu.errors import Entry64Error
from emu.events import EventType
from emu.lab.chain import Entry
from emu.lab.sweep.access import ACCESS, FAMILY
from emu.lab.sweep.event import SweepEvent
from emu.lab.view import View
from emu.machine.core import Core
from kernel_stubs.abi import VMALLOC_LAZY, SystemVector
from kernel_stubs.running import SLOT_SIZE, SLOT_WINDOW

IRQ_VECTOR = 0x30
RESCHEDULE_VECTOR = int(SystemVector.RESCHEDULE)
LAZY_PAGE = VMALLOC_LAZY + 0x10_0000
"""A page of the vmalloc area that is mapped when the kernel first touches it; nothing else uses it."""
IRETQ = b"\x48\xcf"


def _no_debug_within_debug(_view: View, core: Core, entries: tuple[Entry, ...]) -> bool:
    # In user mode it is the user's own, and a signal.  Linux turns breakpoints off in exc_debug, and allows none on
    # entry code, so #DB never comes while the #DB stack is in use.
    return core.cpu.cpl == 0 and not core.halted and all(entry.vector != Vector.DB for entry in entries)


def _no_check_within_check(_view: View, _core: Core, entries: tuple[Entry, ...]) -> bool:
    # With MCG_STATUS.MCIP set a second machine check shuts the CPU down (SDM 16.3.1.2).
    return all(entry.vector != Vector.MC for entry in entries)


def _kernel_can_fault(view: View, core: Core, entries: tuple[Entry, ...]) -> bool:
    # #PF has no stack of its own, and its entry trusts CS: the kernel touches no memory that may be missing before GS,
    # page tables and stack are its own; nor while CR2 has another fault's address. IRETQ touches the stack only: if it
    # faults, the frame is bad, and Linux takes it for a return to user mode.
    # In user mode it is the instruction's own page, if the program has not jumped to the kernel's.
    cpu = core.cpu
    if core.halted:
        return False  # nothing executes
    if cpu.cpl == 3:
        return cpu.ip < KERNEL_HALF
    if entries and entries[-1].vector is None and cpu.sp == entries[-1].words[3]:
        return False  # SYSCALL leaves RSP alone: the user's may lie anywhere, on a kernel stack too
    stack = view.stack_at(core.index, cpu.sp)
    return (
        cpu.gs_base == view.percpu_base(core.index)
        and view.kernel_cr3(cpu.cr3)
        and stack is not None
        and stack.name != "entry"
        and stack.low + 0x400 < cpu.sp
        and not _cr2_matters(view, core, entries)
        and view.read_kernel(cpu.ip, 2) != IRETQ
        and view.read_kernel(LAZY_PAGE, 8) is None
    )


def _cr2_matters(view: View, core: Core, entries: tuple[Entry, ...]) -> bool:
    """Whether a page fault's entry may not have read CR2 yet, or an NMI's not saved it, or put it back already."""
    for index in range(len(entries) - 1, -1, -1):
        entry = entries[index]
        ip = entries[index + 1].ip if index + 1 < len(entries) else core.cpu.ip
        if entry.type is EventType.NMI:
            calls = view.symbol(ip).startswith("nmi_touch_scratch")  # by exc_nmi's C
            return not calls and not (view.in_c(ip) and ip % SLOT_SIZE >= SLOT_WINDOW)
        if entry.vector == Vector.PF and (not view.in_c(ip) or ip % SLOT_SIZE == 0):
            return True
    return False


EVENTS: dict[str, tuple[SweepEvent, ...]] = {
    event.name: (event,)
    for event in (
        SweepEvent("nmi", Vector.NMI, {"event": "nmi"}, counter="nmi_count"),
        SweepEvent("irq", IRQ_VECTOR, {"event": "irq", "vector": IRQ_VECTOR}, interrupt=True),
        SweepEvent("timer", LOCAL_TIMER_VECTOR, {"event": "timer"}, interrupt=True, counter="timer_ticks"),
        SweepEvent("resched", RESCHEDULE_VECTOR, {"event": "irq", "vector": RESCHEDULE_VECTOR}, interrupt=True),
        SweepEvent("mce", Vector.MC, {"event": "machine-check"}, possible=_no_check_within_check, counter="mce_count"),
        SweepEvent("db", Vector.DB, {"event": "exception", "vector": int(Vector.DB)}, possible=_no_debug_within_debug),
        SweepEvent(
            "pf", Vector.PF,
            {"event": "exception", "vector": int(Vector.PF), "error_code": 0, "address": LAZY_PAGE},
            {"event": "page-not-present", "address": "rip"},
            possible=_kernel_can_fault,
        ),
    )
} | {FAMILY: ACCESS}  # fmt: skip
"""Name -> the kinds of events that it stands for, in the order of tables."""


def events_named(text: str, option: str = "--event") -> tuple[str, ...]:
    """`nmi,irq` or `all` as names, in the order of EVENTS."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in EVENTS and name != "all"]
    if unknown or not names:
        raise Entry64Error(f"{option} {text}: there are {', '.join(EVENTS)}, and all")
    return tuple(name for name in EVENTS if name in names or "all" in names)
