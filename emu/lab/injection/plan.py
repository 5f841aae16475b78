"""The injections of one run that are still to come, and which of them are due.

All injections of a boundary fire there in the order of the file, before its instruction executes. An event that
the CPU cannot take yet (IF clear, NMIs blocked) stays pending as on hardware. An instruction that was interrupted or
faulted and is begun again has arrived once.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from emu.events import Delivered, Event
from emu.lab.injection.resolve import Injection
from emu.machine.core import Core

_NOWHERE: frozenset[int] = frozenset()


@dataclass
class Plan:
    """The injections of one run that are still to come."""

    waiting: Sequence[Injection]
    """Never changed, but replaced: what follows from it holds for as long as it is the same."""
    arrivals: dict[tuple[int, int], int] = field(default_factory=dict)
    """Number and hit of an injection -> how often its boundary was reached."""
    _last: dict[int, tuple[int, int]] = field(default_factory=dict)
    """CPU -> clock and address of its last arrival at a boundary."""
    _resuming: set[tuple[int, int]] = field(default_factory=set)
    """(CPU, boundary) that an event interrupted: coming back to one is no new arrival."""

    _of: Sequence[Injection] | None = field(default=None, compare=False)
    """What `_places` and `_counts` were worked out for."""
    _places: dict[int, set[int]] = field(default_factory=dict, compare=False)
    _counts: dict[int, int] = field(default_factory=dict, compare=False)

    def __call__(self, event: Event) -> None:
        """Observe deliveries."""
        if isinstance(event, Delivered) and self._last.get(event.cpu) == (event.clock, event.ip):
            self._resuming.add((event.cpu, event.ip))

    def copy(self) -> Plan:
        """An independent copy, for a snapshot."""
        return Plan(self.waiting, dict(self.arrivals), dict(self._last), set(self._resuming))

    def load(self, saved: Plan) -> None:
        """Back to what `copy` gave."""
        if self == saved:
            return
        fresh = saved.copy()
        self.waiting, self.arrivals, self._last, self._resuming = (
            fresh.waiting, fresh.arrivals, fresh._last, fresh._resuming,
        )  # fmt: skip

    def breakpoints(self, cpu: int) -> Set[int]:
        """Addresses where this CPU has to stop: the same object while `waiting` is the same."""
        self._work_out()
        return self._places.get(cpu, _NOWHERE)

    def next_counts(self) -> dict[int, int]:
        """CPU -> the clock at which its next injection by instruction count is due."""
        self._work_out()
        return self._counts

    def _work_out(self) -> None:
        if self._of is self.waiting:
            return
        places: dict[int, set[int]] = {}
        counts: dict[int, int] = {}
        for one in self.waiting:
            if one.boundary is not None:
                places.setdefault(one.cpu, set()).update(one.boundary.addresses)
            if one.instruction is not None:
                counts[one.cpu] = min(one.instruction, counts.get(one.cpu, one.instruction))
        self._of, self._places, self._counts = self.waiting, places, counts

    def due(self, core: Core, *, arrived: bool) -> list[Injection]:
        """What is to be fired now; `arrived`: the CPU stopped before an instruction because of a boundary."""
        ip = core.cpu.ip
        if arrived:
            self._last[core.index] = (core.clock, ip)
            if (core.index, ip) in self._resuming:
                self._resuming.remove((core.index, ip))
                arrived = False
        ready = [i for i in self.waiting if i.cpu == core.index and self._is_due(i, core, arrived)]
        if ready:
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
