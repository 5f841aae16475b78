"""A bench for scenarios of several CPUs, of which one is swept: boundaries are its own.

The others take their turns meanwhile. While an event is handled they wait for as long as that comes to an end by
itself, for then the state is that of the baseline again. Their clocks are behind afterwards, which is another
interleaving, as good as the first. Where that does not help (the handler waits for another CPU) the case runs on with
all of them.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.lab.injection import Injection
from emu.lab.rig import BOOTED
from emu.lab.run import Prepared
from emu.lab.sweep.bench import Bench, Saved
from emu.lab.sweep.event import SweepEvent
from emu.machine.end import End, EndKind

_ALONE = 5_000
"""Instructions that a CPU gets before it may be waiting for another."""
_FOREVER = 1 << 62


class SmpBench(Bench):
    """The system of a scenario with several CPUs."""

    def __init__(
        self, prepared: Prepared, injections: tuple[Injection, ...], events: tuple[SweepEvent, ...], cpu: int
    ) -> None:
        super().__init__(prepared, injections, events, cpu)
        self._others = tuple(core for core in self.machine.cores if core is not self.core)
        self._alone_until = 0
        """Clock up to which the swept CPU runs alone."""

    def load(self, saved: Saved) -> None:
        """Back."""
        super().load(saved)
        self._alone_until = 0

    def to_boot(self) -> End | None:
        """From reset to where the first CPU goes to user mode; the end of the run if it comes first. The others are
        where they are by then."""
        booted, first = self.view.image.symbols.get(BOOTED, -1), self.machine.cores[0]
        first.set_breakpoints({booted} if booted >= 0 else set())
        while first.cpu.ip != booted and first.cpu.cpl != 3:
            _, end = self.machine.advance(self.budget, None, lambda: first.cpu.cpl == 3)
            if end.kind not in (EndKind.BREAKPOINT, EndKind.UNTIL):
                return end
        first.set_breakpoints(set())
        self._set_stops()
        return None

    @property
    def up(self) -> bool:
        """Whether the swept CPU has booted: the first one has by now, another when it waits for work or has some."""
        return not self.cpu or self.core.halted or self.core.cpu.cpl == 3

    # --- running ----------------------------------------------------------------------------------------------------
    def alone(self) -> None:
        """Let the other CPUs wait for a while: what is handled now may come to an end by itself."""
        self._alone_until = self.core.clock + _ALONE

    def together(self) -> None:
        """All CPUs take their turns."""
        self._alone_until = 0

    def step(self, until: Callable[[], bool] | None = None) -> End | None:
        """To the next boundary. A CPU that waits in HLT is at one boundary, however long."""
        core = self.core
        while True:
            ip = core.cpu.ip
            end = super().step(until)
            if end is not None or not core.halted or core.cpu.ip != ip:
                return end
            if core.clock >= self.budget:
                return End(EndKind.LIMIT, ip, "the CPU waits for ever")

    def _advance(self, limit: int, until: Callable[[], bool] | None, stops: set[int] | None) -> End | None:
        """One advance of the machine, in which the swept CPU's clock does not pass `limit`."""
        plan, cores = self.plan, self.machine.cores
        self._break_at(self._joined(stops))
        for other in self._others:
            other.set_breakpoints(plan.breakpoints(other.index))
        limits = {index: due for index, due in plan.next_counts().items() if cores[index].clock < due}
        mine = min(limit, limits.get(self.cpu, limit))
        if self.core.clock < self._alone_until:
            index, end = self.cpu, self.core.advance(min(mine, self._alone_until), until)
            if end.kind is EndKind.HALTED:
                self._alone_until, end = 0, End(EndKind.LIMIT, end.ip)
        else:
            index, end = self.machine.advance(_FOREVER, limits | {self.cpu: mine}, until)
        if end.kind not in (EndKind.LIMIT, EndKind.BREAKPOINT):
            return end
        if plan.waiting:
            self._inject(cores[index])
        return None
