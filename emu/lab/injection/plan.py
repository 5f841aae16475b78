"""The injections of one run that are still to come, and which of them are due.

All injections of a boundary fire there in the order of the file, before its instruction executes. An event that
the CPU cannot take yet (IF clear, NMIs blocked) stays pending as on hardware. An instruction that was interrupted or
faulted and is begun again has arrived once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from emu.events import Delivered, Event
from emu.lab.injection.resolve import Injection
from emu.machine.core import Core


@dataclass
class Plan:
    """The injections of one run that are still to come."""

    waiting: list[Injection]
    arrivals: dict[tuple[int, int], int] = field(default_factory=dict)
    """Number and hit of an injection -> how often its boundary was reached."""
    _last: dict[int, tuple[int, int]] = field(default_factory=dict)
    """CPU -> clock and address of its last arrival at a boundary."""
    _resuming: set[tuple[int, int]] = field(default_factory=set)
    """(CPU, boundary) that an event interrupted: coming back to one is no new arrival."""

    def __call__(self, event: Event) -> None:
        """Observe deliveries."""
        if isinstance(event, Delivered) and self._last.get(event.cpu) == (event.clock, event.ip):
            self._resuming.add((event.cpu, event.ip))

    def copy(self) -> Plan:
        """An independent copy, for a snapshot."""
        return Plan(list(self.waiting), dict(self.arrivals), dict(self._last), set(self._resuming))

    def load(self, saved: Plan) -> None:
        """Back to what `copy` gave."""
        if self == saved:
            return
        fresh = saved.copy()
        self.waiting, self.arrivals, self._last, self._resuming = (
            fresh.waiting, fresh.arrivals, fresh._last, fresh._resuming,
        )  # fmt: skip

    def breakpoints(self, cpu: int) -> set[int]:
        """Addresses where this CPU has to stop."""
        return {a for i in self.waiting if i.cpu == cpu and i.boundary is not None for a in i.boundary.addresses}

    def next_counts(self) -> dict[int, int]:
        """CPU -> the clock at which its next injection by instruction count is due."""
        counts: dict[int, int] = {}
        for injection in self.waiting:
            if injection.instruction is not None:
                counts[injection.cpu] = min(injection.instruction, counts.get(injection.cpu, injection.instruction))
        return counts

    def due(self, core: Core, *, arrived: bool) -> list[Injection]:
        """What is to be fired now; `arrived`: the CPU stopped before an instruction because of a boundary."""
        ip = core.cpu.ip
        if arrived:
            self._last[core.index] = (core.clock, ip)
            if (core.index, ip) in self._resuming:
                self._resuming.remove((core.index, ip))
                arrived = False
        ready = [i for i in self.waiting if i.cpu == core.index and self._is_due(i, core, arrived)]
        self.waiting = [i for i in self.waiting if i not in ready]
        return ready

    def _is_due(self, injection: Injection, core: Core, arrived: bool) -> bool:
        if injection.instruction is not None:
            return core.clock >= injection.instruction
        if not arrived or injection.boundary is None or core.cpu.ip not in injection.boundary.addresses:
            return False
        key = injection.number, injection.hit
        count = self.arrivals[key] = self.arrivals.get(key, 0) + 1
        return count == injection.hit
