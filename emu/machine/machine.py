"""The computer: RAM, CPUs, the clock, observers; and its snapshots.

CPUs take turns of `quantum` instructions in order of their number: the interleaving is part of the input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emu.events import Event
from emu.machine import semantics
from emu.machine.core import Core, CoreSnapshot, End, EndKind
from emu.machine.memory import Memory, RamSnapshot
from emu.machine.profile import Profile

if TYPE_CHECKING:
    from asm import Instruction

Observer = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class MachineSnapshot:
    """RAM and all cores."""

    ram: RamSnapshot
    cores: tuple[CoreSnapshot, ...]


class Machine:
    """`cpus` processors that share `memory_bytes` of RAM."""

    def __init__(self, memory_bytes: int, cpus: int, profile: Profile, quantum: int = 1000) -> None:
        self.memory = Memory(memory_bytes)
        self.profile = profile
        self.quantum = quantum
        self.observers: list[Observer] = []
        self.translations: dict[int, int] = {}
        """Kernel page -> physical page, for the C side: a TLB of its own, flushed with the CPUs'."""
        self.cores = [Core(index, self.memory, profile, self._emit) for index in range(cpus)]

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

    def run(self, limit: int, cpu: int = 0) -> End:
        """Advance one CPU until its clock is `limit`, or until an event that ends the run."""
        return self.cores[cpu].advance(limit)

    def snapshot(self) -> MachineSnapshot:
        """The whole state, at rest."""
        return MachineSnapshot(self.memory.snapshot(), tuple(core.snapshot() for core in self.cores))

    def restore(self, saved: MachineSnapshot) -> None:
        """Back to a snapshot of this machine."""
        self.memory.restore(saved.ram)
        self.translations.clear()
        for core, state in zip(self.cores, saved.cores, strict=True):
            core.restore(state)


__all__ = ["End", "EndKind", "Machine", "MachineSnapshot", "Observer"]
