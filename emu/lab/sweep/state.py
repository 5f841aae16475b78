"""When two states of the machine are the same: an injected event has left no trace, and what follows is known.

The same are: all registers; what is pending or blocked; the local APIC; and memory, apart from

- *dead stack*: what lies on a CPU's stack below RSP, below the RSP of all that an entry under way has interrupted
  there, and below the pt_regs around a frame that hardware pushed there on another stack's behalf; a stack that has
  none of these, wholly. But the pt_regs of user mode at the end of the task stack live as long as an entry from user
  mode is under way, for the exits read them from another stack, and the top word of the hard-IRQ stack while that
  stack is marked as in use;
- *CR2*, unless the entry of a page fault is under way: nothing reads it then;
- RFLAGS.RF, which lasts for one instruction after the IRETQ of a fault;
- *counters*: the fields in COUNTERS, which count events or hold times, and which no code branches on. A timer's tick
  does look at `slice_end`: that is compared, as a time to go, while the APIC timer runs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from emu.arch import PAGE_SIZE, Vector
from emu.events import Delivered
from emu.lab.chain import Entry, EntryChain
from emu.lab.sweep.event import SweepEvent
from emu.lab.view import PT_REGS_SIZE, View
from emu.machine.core import Core
from emu.machine.memory import Interval, address_of, memcmp
from emu.record import record
from kernel_stubs.abi import IRQ_TABLE, IrqDesc, MmStruct, PerCpu, TaskStruct
from kernel_stubs.abi26 import X8664Pda
from kernel_stubs.boot import System
from kernel_stubs.context import percpu_address
from kernel_stubs.layout import Struct

COUNTERS: dict[type[Struct], tuple[str, ...]] = {
    PerCpu: (
        "irq_count", "timer_ticks", "nmi_count", "mce_count", "spurious_count", "apic_error_count",
        "spurious_apic_count",
        "nmi_cr2",  # scratch of exc_nmi
        "slice_end", "nr_switches",
    ),
    TaskStruct: ("ret_count", "trap_nr", "error_code", "cr2"),  # the last three: of the last exception, for a signal
    MmStruct: ("minor_faults",),
    IrqDesc: ("count", "unhandled"),
    X8664Pda: ("nmi_count",),
}  # fmt: skip
"""Structure -> fields that an event may change for good."""

_REGISTERS = struct.Struct("40x138s1x5s32x36s4x8s8x4s4x8s8x184s8x4936s16x64s")
"""Bytes of a saved context that are state: not the engine's notes on flags and exceptions, nor the hidden flags of CS
and SS, which depend on the instruction that loaded the same selector, nor byte 178, with RFLAGS.RF, nor CR2."""
_CR2 = slice(480, 488)
"""CR2: state only while the entry of a page fault is under way, and always on other CPUs."""
_PF = int(Vector.PF)
_FRAME_SIZE = 40
_NEAR = PAGE_SIZE
"""To copy so much more costs less than to copy in two pieces."""


Apart = tuple[object, ...]
"""What is pending or blocked; the clock at which the APIC timer and the task's time slice end; how long the event took.
Plain instructions change none of this."""


@record
class Regions:
    """Physical memory of a state."""

    live: tuple[Interval, ...]
    """What is compared."""
    rest: tuple[Interval, ...]
    """All that is not; with some that is, in fewer pieces."""


@record
class Reference:
    """A state to come back to."""

    depth: int
    """Entries under way."""
    registers: tuple[bytes, ...]
    pending: tuple[object, ...]
    ram: bytes
    regions: Regions
    output: tuple[tuple[int, bytes], ...]
    """What the program has written."""


class Comparer:
    """Takes references of one system and compares its present state with them."""

    def __init__(self, system: System, view: View, chain: EntryChain, vectors: Iterable[int], cpu: int = 0) -> None:
        """`vectors` are those of the interrupts that the sweep injects: their counts change. The other CPUs than `cpu`
        must be where they were."""
        self._system = system
        self._view = view
        self._chain = chain
        self._cpu = cpu
        self._core: Core = system.machine.cores[cpu]
        self._others = tuple(core for core in system.machine.cores if core is not self._core)
        self._memory = system.machine.memory
        self._context = self._core.cpu.context
        self._vectors = tuple(vectors)
        self._known: dict[tuple[int, ...], Regions] = {}
        self.matched: Reference | None = None
        """A reference whose memory is this state's wherever it was compared. Who changes anything sets it to None."""

    def capture(self, ram: bytes | None = None, since: Reference | None = None) -> Reference:
        """The present state; `ram` is a copy of all memory in use, if there is one already; `since`: a state that has
        become this one by plain execution."""
        if ram is None:
            ram = self._memory.snapshot().data
        if since is not None and self._core.apic.deadline is None:
            return Reference(since.depth, self._registers(), since.pending, ram, self._regions(), since.output)
        return Reference(
            len(self._chain.stack(self._cpu)), self._registers(), self._pending(), ram, self._regions(),
            tuple(self._system.kernel.output),
        )  # fmt: skip

    def same(self, reference: Reference, raised: SweepEvent | None = None) -> bool:
        """Whether the present state is that of a reference, with this event pending in addition."""
        expected = reference.pending if raised is None else _with(reference.pending, raised)
        return self._pending() == expected and self._same_but_pending(reference)

    def pending_at(self, reference: Reference) -> tuple[object, ...] | None:
        """What is pending or blocked, as in `Reference.pending`, if the present state is otherwise that of a reference;
        None if it is not."""
        return self._pending() if self._same_but_pending(reference) else None

    def apart(self, begun: int) -> Apart | None:
        """What the present state has of its own if it is otherwise that of a reference; `begun`: the clock there.

        None with several CPUs.
        """
        if self._others:
            return None
        core, slice_end = self._core, self._view.percpu_word(self._cpu, "slice_end")
        return (*self._pending_at(core)[:-1], core.apic.deadline, slice_end, core.clock - begun)

    def _same_but_pending(self, reference: Reference) -> bool:
        if (
            self._registers() != reference.registers
            or tuple(self._system.kernel.output) != reference.output
            or (self._memory.used != len(reference.ram) and not self._is_untouched(len(reference.ram)))
        ):
            return False
        here = self._memory.host_address
        there = address_of(reference.ram)
        for low, high in reference.regions.live:
            if memcmp(here + low, there + low, high - low):
                return False
        self.matched = reference
        return True

    def _is_untouched(self, start: int) -> bool:
        """Whether memory from there on is within reach, but as it was at power-on."""
        memory = self._memory
        return memory.used > start and not any(memory.ram[start : memory.used])

    # --- registers --------------------------------------------------------------------------------------------------
    def _registers(self) -> tuple[bytes, ...]:
        found: tuple[bytes, ...] = _REGISTERS.unpack_from(self._context)
        for entry in self._chain.stack(self._cpu):
            if entry.vector == _PF:
                return (*found, bytes(self._context[_CR2]))
        return found

    def _pending(self) -> tuple[object, ...]:
        own = self._pending_at(self._core)
        if not self._others:
            return own
        contexts = ((core, core.cpu.context) for core in self._others)
        return (
            *own,
            *((*_REGISTERS.unpack_from(one), bytes(one[_CR2]), self._pending_at(core)) for core, one in contexts),
        )

    def _pending_at(self, core: Core) -> tuple[object, ...]:
        apic = core.apic
        left = None
        if apic.deadline is not None:
            left = apic.deadline - core.clock, self._view.percpu_word(core.index, "slice_end") - core.clock
        own = (core.nmi_pending, core.mce_pending, apic.irr, core.nmi_blocked, core.halted, tuple(core.msrs.items()))
        registers = (apic.isr, apic.tmr, apic.tpr, apic.spurious, tuple(apic.lvt.items()), apic.icr, apic.esr)
        return (*own, *registers, left)

    # --- memory -----------------------------------------------------------------------------------------------------
    def _regions(self) -> Regions:
        """Live is all of memory but dead stack and counters."""
        view, cpu = self._view, self._core.cpu
        entries = self._chain.stack(self._cpu)
        pointers = _pointers(entries)
        if cpu.cpl == 0:
            pointers.append(cpu.sp)
        in_use = view.percpu_word(self._cpu, "hardirq_stack_inuse")
        task = view.percpu_word(self._cpu, "current_task")
        from_user = bool(entries) and entries[0].from_user
        key = (task, view.top_of_stack(self._cpu), self._memory.used, in_use, from_user, *pointers)
        found = self._known.get(key)
        if found is None:
            holes = self._dead_stack(pointers, from_user=from_user)
            physical = [*self._counters()]
            for low, high in holes:
                physical += self._physical(low, high)
            physical.sort()
            live = _complement(physical, self._memory.used)
            found = self._known[key] = Regions(live, _joined(physical))
        return found

    def _dead_stack(self, pointers: list[int], *, from_user: bool) -> tuple[Interval, ...]:
        """Linear addresses."""
        view = self._view
        dead = []
        for stack in view.stacks(self._cpu):
            lowest = stack.high
            inside = [sp for sp in pointers if stack.low <= sp <= stack.high]
            if inside:
                lowest = min(inside)
            elif stack.name == "task" and from_user:
                lowest = stack.high - PT_REGS_SIZE
            elif stack.name == "irq" and view.percpu_word(self._cpu, "hardirq_stack_inuse"):
                lowest = stack.high - 8
            dead.append((stack.low, lowest))
        return tuple(dead)

    def _physical(self, low: int, high: int) -> list[Interval]:
        kernel, found = self._system.kernel, []
        while low < high:
            end = min(high, (low & -PAGE_SIZE) + PAGE_SIZE)
            at = kernel.physical(low)
            found.append((at, at + end - low))
            low = end
        return found

    def _counters(self) -> Iterable[Interval]:
        kernel, view = self._system.kernel, self._view
        area = percpu_address(kernel, self._cpu)
        percpu = kernel.view(PerCpu, area)
        if not percpu.current_task:
            return  # a CPU that has not booted
        task = kernel.view(TaskStruct, percpu.current_task)
        bases: list[tuple[type[Struct], int]] = [
            (PerCpu, kernel.physical(area)), (TaskStruct, kernel.physical(percpu.current_task)),
            *((IrqDesc, IRQ_TABLE + vector * IrqDesc.SIZE) for vector in self._vectors),
        ]  # fmt: skip
        if view.classic:
            bases.append((X8664Pda, kernel.physical(view.percpu_base(self._cpu))))
        if task.mm:
            bases.append((MmStruct, kernel.physical(task.mm)))
        for kind, base in bases:
            for name in COUNTERS[kind]:
                field = getattr(kind, name)
                yield base + field.offset, base + field.offset + field.size


def _pointers(entries: tuple[Entry, ...]) -> list[int]:
    """Stack pointers above which something lives, of entries under way."""
    pointers = []
    for entry in entries:
        pointers.append(entry.words[3])
        event = entry.event
        # An entry that has just left the stack where hardware pushed its frame still copies from there.
        if isinstance(event, Delivered) and (event.ist or entry.from_user):
            pointers.append(event.frame_at + _FRAME_SIZE - PT_REGS_SIZE)
    return pointers


def _with(pending: tuple[object, ...], event: SweepEvent) -> tuple[object, ...]:
    nmi, check, irr, *rest = pending
    assert isinstance(irr, int)
    if event.interrupt:
        return (nmi, check, irr | 1 << event.vector, *rest)
    return (1 if event.name == "nmi" else nmi, event.name == "mce" or check, irr, *rest)


def _complement(holes: list[Interval], end: int) -> tuple[Interval, ...]:
    found, at = [], 0
    for low, high in holes:
        if low > at:
            found.append((at, low))
        at = max(at, high)
    if at < end:
        found.append((at, end))
    return tuple(found)


def _joined(holes: list[Interval]) -> tuple[Interval, ...]:
    found: list[Interval] = []
    for low, high in holes:
        if found and low - found[-1][1] < _NEAR:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        elif low < high:
            found.append((low, high))
    return tuple(found)
