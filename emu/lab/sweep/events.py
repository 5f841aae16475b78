"""What a sweep can inject. Each event is one that user mode, and the kernel code that it hits, must not notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from emu.arch import LOCAL_TIMER_VECTOR, Vector
from emu.errors import Entry64Error
from emu.lab.chain import Entry
from emu.lab.view import View
from emu.machine.core import Core
from kernel_stubs.abi import VMALLOC_LAZY, SystemVector
from kernel_stubs.binding import SLOT_SIZE, SLOT_WINDOW

IRQ_VECTOR = 0x30
RESCHEDULE_VECTOR = int(SystemVector.RESCHEDULE)
LAZY_PAGE = VMALLOC_LAZY + 0x10_0000
"""A page of the vmalloc area that is mapped when the kernel first touches it; nothing else uses it."""


def _always(_view: View, _core: Core, _entries: tuple[Entry, ...]) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class SweepEvent:
    """One kind of event."""

    name: str
    vector: int
    fields: dict[str, object] = field(hash=False)
    """Of its [[inject]] table in kernel mode ..."""
    user_fields: dict[str, object] | None = field(default=None, hash=False)
    """... and in user mode, if other; `address` "rip" stands for the interrupted instruction's."""
    possible: Callable[[View, Core, tuple[Entry, ...]], bool] = _always
    """Whether hardware can raise it at this boundary, and a sound kernel lets it: else there is no case."""
    interrupt: bool = False
    """Whether it comes through the local APIC."""
    counter: str = ""
    """Field of the per-CPU area that its handler counts up: an event that nobody handles is lost."""

    def inject(self, cpl: int, ip: int) -> dict[str, object]:
        """The [[inject]] table at a boundary, without its place."""
        fields = self.fields if cpl == 0 or self.user_fields is None else self.user_fields
        return {key: ip if value == "rip" else value for key, value in fields.items()}


def _no_debug_within_debug(_view: View, core: Core, entries: tuple[Entry, ...]) -> bool:
    # In user mode it is the user's own, and a signal.  Linux turns breakpoints off in exc_debug, and allows none on
    # entry code, so #DB never comes while the #DB stack is in use.
    return core.cpu.cpl == 0 and all(entry.vector != Vector.DB for entry in entries)


def _no_check_within_check(_view: View, _core: Core, entries: tuple[Entry, ...]) -> bool:
    # With MCG_STATUS.MCIP set a second machine check shuts the CPU down (SDM 16.3.1.2).
    return all(entry.vector != Vector.MC for entry in entries)


def _kernel_can_fault(view: View, core: Core, entries: tuple[Entry, ...]) -> bool:
    # #PF has no stack of its own, and its entry trusts CS: the kernel touches no memory that may be missing before GS,
    # page tables and stack are its own; nor while CR2 has another fault's address.
    cpu = core.cpu
    if cpu.cpl == 3:
        return True
    stack = view.stack_at(0, cpu.sp)
    return (
        cpu.gs_base == view.percpu_base(0)
        and view.kernel_cr3(cpu.cr3)
        and stack is not None
        and stack.name != "entry"
        and stack.low + 0x400 < cpu.sp
        and not _cr2_matters(view, core, entries)
        and view.read_kernel(LAZY_PAGE, 8) is None
    )


def _cr2_matters(view: View, core: Core, entries: tuple[Entry, ...]) -> bool:
    """Whether a page fault's entry may not have read CR2 yet, or an NMI's not saved it, or put it back already."""
    for index in range(len(entries) - 1, -1, -1):
        entry = entries[index]
        ip = entries[index + 1].ip if index + 1 < len(entries) else core.cpu.ip
        if entry.is_nmi:
            calls = view.symbol(ip).startswith("nmi_touch_scratch")  # by exc_nmi's C
            return not calls and not (view.in_c(ip) and ip % SLOT_SIZE >= SLOT_WINDOW)
        if entry.vector == Vector.PF and (not view.in_c(ip) or ip % SLOT_SIZE == 0):
            return True
    return False


EVENTS: dict[str, SweepEvent] = {
    event.name: event
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
}  # fmt: skip
"""Name -> event, in the order of tables."""


def events_named(text: str) -> tuple[SweepEvent, ...]:
    """`nmi,irq` or `all`, in the order of EVENTS."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in EVENTS and name != "all"]
    if unknown or not names:
        raise Entry64Error(f"--event {text}: there are {', '.join(EVENTS)}, and all")
    return tuple(event for event in EVENTS.values() if event.name in names or "all" in names)
