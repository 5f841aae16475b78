"""A run that is walked boundary by boundary: the baseline, or the handler of an event that was injected into it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from emu.arch import KERNEL_HALF
from emu.lab.injection import Fire
from emu.lab.sweep.bench import Bench, Boundary, Saved
from emu.lab.sweep.case import Where
from emu.lab.sweep.state import Reference
from emu.machine.end import EndKind

Recipe = tuple[tuple[Boundary, Fire], ...]
"""Events to raise on the way from a saved state to a boundary."""


class Origin(NamedTuple):
    """The last state behind a boundary with no C function in flight: there is always a way from here."""

    saved: Saved
    recipe: Recipe


LOOK_AHEAD = 16
"""Boundaries that a track knows ahead. Those with the same memory share one copy of it."""


class _Step(NamedTuple):
    """The way to a boundary from the one before."""

    saved: Saved
    origin: Origin
    at: Boundary
    reference: Reference
    interrupted: bool
    """Whether an event came in where it begins."""
    plain: bool
    """Whether it is one instruction that knows nothing of time (`glide`)."""


class Track:
    """A run that is walked boundary by boundary, with the next one always known."""

    def __init__(
        self, bench: Bench, saved: Saved, recipe: Recipe, start: Boundary, arrivals: dict[int, int],
        *, counted: bool = False, there: bool = False,
    ) -> None:  # fmt: skip
        """`saved`: a state with no C function in flight; `recipe`: the way from there to `start`, where the bench is if
        `there`. `counted`: the arrival at `start` is one of `arrivals` already."""
        self.bench = bench
        self.arrivals = arrivals
        self.number = 0
        self.plain = False
        """Whether what led to the present boundary was one instruction that knows nothing of time."""
        self._resuming: set[int] = set()
        self.origin, self.at = Origin(saved, recipe), start
        self.saved: Saved | None = None
        """The present state."""
        self._to_user: tuple[Reference | None, int] | None = None
        """The state when user mode runs for the next time, None if it never does, and the clock then."""
        if there:
            self.saved = bench.save()
        else:
            self.enter()
        self.reference = bench.comparer.capture()
        if not counted:
            self._count(start.ip)
        self._ahead: deque[_Step] = deque()
        self._look_ahead()

    @property
    def where(self) -> Where:
        """The present boundary."""
        return Where(self.at, self.arrivals[self.at.ip], self.bench.cpu)

    @property
    def next(self) -> tuple[Boundary, Reference] | None:
        """The next boundary and the state there; None if the run ends before."""
        return (self._ahead[0].at, self._ahead[0].reference) if self._ahead else None

    def enter(self) -> None:
        """Bring the bench to the present boundary."""
        bench = self.bench
        if self.saved is not None and bench.can_load(self.saved):
            bench.load(self.saved)
            return
        bench.load(self.origin.saved)
        for boundary, fire in self.origin.recipe:
            bench.run_to(boundary)
            fire(bench.system.kernel, bench.core)
        bench.run_to(self.at)
        self.saved = bench.save()

    def advance(self) -> bool:
        """Go on to the next boundary; False if the run is over."""
        if not self._ahead:
            return False
        self._take(self._ahead.popleft())
        if not self._ahead:
            self._look_ahead()
        return True

    def _take(self, step: _Step) -> None:
        self._pass(step.interrupted, step.at)
        self.saved, self.origin, self.reference, self.plain = step.saved, step.origin, step.reference, step.plain

    def skip_to(self, number: int) -> bool:
        """Go on to a later boundary, without looking at those in between; False if the run ends before."""
        return self._skip(lambda: self.number >= number)

    def skip_into(self, window: frozenset[int], stop: int | None) -> bool:
        """Go on to a boundary at an address of the window; False if number `stop`, or the end, comes first."""
        found = self._skip(lambda: self.at.ip in window or self.number == stop)
        return found and self.number != stop

    def _skip(self, done: Callable[[], bool]) -> bool:
        while self._ahead and not done():
            self._take(self._ahead.popleft())
        if not done():
            bench = self.bench
            self.enter()
            self.plain = False
            while not done():
                start = self.at
                bench.interrupted.clear()
                if bench.step() is not None or bench.violated:
                    return False
                self._pass(start in bench.interrupted, bench.here)
                if self.number % LOOK_AHEAD == 0 and bench.binding.at_rest:
                    self.origin = Origin(bench.save(), ())
            self.saved = bench.save()
            self.reference = bench.comparer.capture()
        if not self._ahead:
            self._look_ahead()
        return True

    def _pass(self, interrupted: bool, at: Boundary) -> None:
        if interrupted:
            self._resuming.add(self.at.ip)
        self.at = at
        self.number += 1
        self._count(at.ip)

    def _look_ahead(self) -> None:
        """Learn the next boundaries, several at once: cases leave the bench elsewhere, and coming back costs.

        While a C function is in flight a step comes first, or not at all: one that lets it go on ends all ways back to
        states before.
        """
        bench, ahead = self.bench, self._ahead
        self.enter()
        if not bench.core.cpu.settled:  # what is glided over must not depend on what a case has left behind
            bench.step()
            self.enter()
        while True:
            if not bench.glide(LOOK_AHEAD - len(ahead), self._glided):
                newest = ahead[-1].saved if ahead else self.saved
                assert newest is not None  # and nothing has gone on since
                bench.load(newest)
            if len(ahead) >= LOOK_AHEAD or (ahead and not bench.binding.at_rest):
                return
            start = bench.here
            bench.interrupted.clear()
            if bench.step() is not None or bench.violated:
                return
            self._know(None, interrupted=start in bench.interrupted, plain=False)
            if len(ahead) >= LOOK_AHEAD:
                return

    def _glided(self) -> None:
        """The bench is at the boundary behind the last one that is known, by plain execution."""
        self._know(self._ahead[-1] if self._ahead else None, interrupted=False, plain=True)

    def _know(self, since: _Step | None, *, interrupted: bool, plain: bool) -> None:
        """The bench is at the next boundary; `since`: the one that plain execution has led from."""
        bench = self.bench
        saved = bench.save(since.saved if since else None)
        reference = bench.comparer.capture(saved.machine.ram.data, since.reference if since else None)
        if bench.binding.at_rest:
            origin = Origin(saved, ())
        else:
            origin = self._ahead[-1].origin if self._ahead else self.origin
        self._ahead.append(_Step(saved, origin, bench.here, reference, interrupted, plain))

    def _count(self, ip: int) -> None:
        """As emu.lab.injection.Plan does: coming back to an interrupted instruction is no new arrival."""
        if ip in self._resuming:
            self._resuming.remove(ip)
        else:
            self.arrivals[ip] = self.arrivals.get(ip, 0) + 1

    @property
    def knows_user_reference(self) -> bool:
        """Whether `user_reference` costs nothing, and leaves the bench where it is."""
        return self.at.ip < KERNEL_HALF or (self._to_user is not None and self._to_user[1] > self.at.clock)

    def user_reference(self) -> Reference | None:
        """The state when user mode runs for the next time; None if the run ends before."""
        if self.at.ip < KERNEL_HALF:
            return self.reference
        if self._to_user is None or self._to_user[1] <= self.at.clock:
            bench = self.bench
            self.enter()
            end = bench.to_user_mode(bench.budget)
            if end.kind is EndKind.UNTIL and not bench.violated:
                self._to_user = (bench.comparer.capture(), bench.core.clock)
            else:
                self._to_user = (None, 1 << 64)
        return self._to_user[0]
