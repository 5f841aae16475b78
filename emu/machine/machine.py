"""The computer: RAM, CPUs, the interrupt bus between their APICs, observers; and its snapshots.

CPUs take turns (emu.machine.schedule), so one instruction runs at a time and every run of the same input is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from emu.events import Event
from emu.machine import semantics
from emu.machine.apic import Delivery, EndOfInterrupt, Ipi, Shorthand
from emu.machine.core import Core
from emu.machine.device import Device
from emu.machine.end import End, EndKind
from emu.machine.ioapic import IoApic, Message
from emu.machine.memory import Interval, Memory, RamSnapshot
from emu.machine.processor import Board, CoreSnapshot, Processor
from emu.machine.profile import Profile
from emu.machine.schedule import Interleaving, Turn
from emu.machine.xapic import XapicPage
from emu.record import record

if TYPE_CHECKING:
    from asm import Instruction

Observer = Callable[[Event], None]
Startup = Callable[[Core, int], None]
"""Starts a CPU that got a startup IPI with this vector."""


@record
class MachineSnapshot:
    """RAM, all cores, whose turn it was, and the devices."""

    ram: RamSnapshot
    cores: tuple[CoreSnapshot, ...]
    turn: Turn
    devices: tuple[Any, ...]
    translations: dict[int, int]


class Machine:
    """`cpus` processors that share `memory_bytes` of RAM. All but the first wait for a startup IPI."""

    def __init__(
        self, memory_bytes: int, cpus: int, profile: Profile, interleaving: Interleaving | None = None
    ) -> None:
        self.memory = Memory(memory_bytes)
        self.profile = profile
        self.interleaving = interleaving or Interleaving()
        self.observers: list[Observer] = []
        self.traced = False
        """Whether an observer has asked for `emu.tracepoints`."""
        self.translations: dict[int, int] = {}
        """Kernel page -> physical page, for the C side: a TLB of its own, flushed with the CPUs'."""
        self.startup: Startup | None = None
        """What a startup IPI does: emu.machine.startup.startup_ipi for real mode, or what stands in for it."""
        self.end_of_interrupt: list[Callable[[int], None]] = []
        """I/O APICs: told of the EOI of a level-triggered vector."""
        self.ioapic = IoApic(self._carry_from_device)
        self.end_of_interrupt.append(self.ioapic.end_of_interrupt)
        self.devices: list[Device[Any]] = [self.ioapic]
        board = Board(self.memory, profile, self._emit, self._carry)
        self.cores = [Core(index, board) for index in range(cpus)]
        for core in self.cores:
            core.map_device(XapicPage())
            core.map_device(self.ioapic)
        for core in self.cores[1:]:
            core.waits_for_startup = True
        self._turn = Turn()

    def trace(self, observer: Observer) -> None:
        """Observe, and be told of what the C side reports at its tracepoints too."""
        self.observers.append(observer)
        self.traced = True

    def forget_observers(self) -> None:
        """Nobody observes any more."""
        self.observers.clear()
        self.traced = False

    def _emit(self, event: Event) -> None:
        for observer in self.observers:
            observer(event)

    def observe_instructions(self, instructions: Iterable[Instruction]) -> None:
        """Give the semantics layer an image's instructions, so that it finds those that need it."""
        special = semantics.scan(instructions)
        for core in self.cores:
            core.add_special(special)

    def bind(self, sites: dict[int, Callable[[Core], None]], span: tuple[int, int]) -> None:
        """Run Python when a CPU reaches one of these addresses."""
        for core in self.cores:
            core.add_sites(sites, span)

    def flush_tlb(self) -> None:
        """Page tables changed: no CPU may use an old translation."""
        self.translations.clear()
        for core in self.cores:
            core.cpu.flush_tlb()

    # --- devices ----------------------------------------------------------------------------------------------------
    def add_device(self, device: Device[Any]) -> None:
        """Include a device in snapshots, and let its deadlines end runs. Where it answers is mapped apart."""
        self.devices.append(device)
        for core in self.cores:
            core.timed = (*core.timed, device)

    def raise_line(self, line: int) -> None:
        """An interrupt line of the I/O APIC goes high."""
        self.ioapic.set_line(line, high=True)

    def lower_line(self, line: int) -> None:
        """An interrupt line of the I/O APIC goes low."""
        self.ioapic.set_line(line, high=False)

    def _carry_from_device(self, message: Message) -> bool:
        lowest = message.delivery is Delivery.LOWEST
        cores = self.addressed(message.destination, logical=message.logical, lowest=lowest)
        for core in cores:
            self.interrupt(core, message.delivery, message.vector, level=True, level_triggered=message.level)
        return bool(cores)

    # --- the interrupt bus ------------------------------------------------------------------------------------------
    def _carry(self, sender: Processor, message: Ipi | EndOfInterrupt) -> None:
        if isinstance(message, EndOfInterrupt):
            for device in self.end_of_interrupt:
                device(message.vector)
            return
        for core in self._destinations(sender, message):
            self.interrupt(core, message.delivery, message.vector, level=message.level)

    def _destinations(self, sender: Processor, ipi: Ipi) -> list[Core]:
        match ipi.shorthand:
            case Shorthand.SELF:
                return [self.cores[sender.index]]
            case Shorthand.ALL:
                return list(self.cores)
            case Shorthand.OTHERS:
                return [core for core in self.cores if core is not sender]
        return self.addressed(ipi.destination, logical=ipi.logical, lowest=ipi.delivery is Delivery.LOWEST)

    def addressed(self, destination: int, *, logical: bool, lowest: bool) -> list[Core]:
        """The CPUs of a destination; for lowest priority only the one that is least busy, the first of equals."""
        cores = [core for core in self.cores if core.apic.accepts(destination, logical=logical)]
        return [min(cores, key=lambda core: core.apic.ppr)] if lowest and cores else cores

    def interrupt(
        self, core: Core, delivery: Delivery, vector: int, *, level: bool = False, level_triggered: bool = False
    ) -> None:
        """A message from the bus arrives at a CPU's APIC (SDM 10.6.1); `level` is the Level bit of an INIT."""
        match delivery:
            case Delivery.NMI:
                core.raise_nmi()
            case Delivery.INIT:
                if level:
                    core.init()
            case Delivery.STARTUP:
                if core.waits_for_startup and self.startup is not None:
                    core.waits_for_startup = False
                    self.startup(core, vector)
            case Delivery.FIXED | Delivery.LOWEST:
                core.raise_interrupt(vector, level=level_triggered)
            case _:
                pass  # SMI and ExtINT: no system-management mode, no 8259

    # --- running ----------------------------------------------------------------------------------------------------
    def advance(
        self,
        limit: int,
        limits: Mapping[int, int] | None = None,
        until: Callable[[], bool] | None = None,
    ) -> tuple[int, End]:
        """Run the CPUs in turns until one of them has something to say: (its number, why).

        No CPU's clock passes `limit`, nor its own in `limits`; reaching either is something to say. Limits do not
        change the interleaving.
        """
        own = limits or {}
        if len(self.cores) == 1:
            return 0, self.cores[0].advance(min(limit, own.get(0, limit)), until)
        while True:
            turn = self._turn
            if not turn.waiting:
                if all(core.idle_for_good for core in self.cores):
                    return 0, End(EndKind.HALTED, self.cores[0].cpu.ip, "every CPU halted with nothing to wake it")
                self._next_turn()
                continue
            index = turn.waiting[0]
            core = self.cores[index]
            mine = min(limit, own.get(index, limit))
            end = core.advance(min(turn.end, mine), until)
            if end.kind is EndKind.HALTED:
                core.clock = max(core.clock, min(turn.end, mine))
            elif end.kind is not EndKind.LIMIT:
                return index, end
            if core.clock >= turn.end:
                turn.waiting = turn.waiting[1:]
            if core.clock >= mine:
                return index, End(EndKind.LIMIT, core.cpu.ip)

    def _next_turn(self) -> None:
        turn = self._turn
        turn.number += 1
        length, order = self.interleaving.turn(turn.number, len(self.cores))
        turn.end += length
        turn.waiting = order

    def run(self, limit: int, cpu: int = 0) -> End:
        """Run one CPU alone until its clock is `limit`, or until it has something to say."""
        return self.cores[cpu].advance(limit)

    # --- snapshot ---------------------------------------------------------------------------------------------------
    def snapshot(self, since: MachineSnapshot | None = None) -> MachineSnapshot:
        """The whole state, at rest. `since`: one core has done nothing but `glide` from there."""
        if since is not None:
            (core,), (before,) = self.cores, since.cores
            state = (core.snapshot(before),)
            return MachineSnapshot(self.memory.snapshot(), state, since.turn, since.devices, since.translations)
        cores = tuple(core.snapshot() for core in self.cores)
        devices = tuple(device.save() for device in self.devices)
        return MachineSnapshot(self.memory.snapshot(), cores, self._turn.copy(), devices, dict(self.translations))

    def can_restore(self, saved: MachineSnapshot) -> bool:
        """Whether a restore leads to the whole state. Instruction breakpoints are gone when others have been loaded."""
        return all(core.can_restore(state) for core, state in zip(self.cores, saved.cores, strict=True))

    def restore(self, saved: MachineSnapshot, where: tuple[Interval, ...] | None = None) -> None:
        """Back to a snapshot of this machine; `where`: no other part of RAM differs from it."""
        self.memory.restore(saved.ram, where)
        self.translations = dict(saved.translations)
        self._turn = saved.turn.copy()
        for core, state in zip(self.cores, saved.cores, strict=True):
            core.restore(state)
        for device, saved_state in zip(self.devices, saved.devices, strict=True):
            device.load(saved_state)
