"""The cases of one stretch of a scenario's run, and their verdicts.

A track follows a run from boundary to boundary: the baseline, or the handler of an event that was injected into it. At
each boundary every event is raised in turn. What it leads to is followed until the state is again that of the track (of
the innermost first, then of those around it, at last of user mode behind them): then all that comes is known already.
If it never is, the run goes on to its end, which must look like the baseline's.

An event that the CPU does not take at a boundary is pending. If the state one instruction later is that of the next
boundary with the event raised there, the two cases are one, and share its verdict: it is merged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

from emu.lab.injection import Fire
from emu.lab.places import Places
from emu.lab.sweep.bench import MAX_EXTRA, Bench, Boundary, Saved
from emu.lab.sweep.case import CLEAN, LOST, PENDING, Case, Result, Shot, Where
from emu.lab.sweep.event import SweepEvent, raiser
from emu.lab.sweep.runner import Runner
from emu.lab.sweep.state import Reference
from emu.lab.view import KERNEL_HALF
from emu.machine.end import End, EndKind

Recipe = tuple[tuple[Boundary, Fire], ...]
"""Events to raise on the way from a saved state to a boundary."""


LOOK_AHEAD = 8
"""Boundaries that a track knows ahead. Each takes as much memory as the guest uses; more would not fit the cache."""


class _Step(NamedTuple):
    """The way to a boundary from the one before."""

    saved: Saved
    recipe: Recipe
    at: Boundary
    reference: Reference
    interrupted: bool
    """Whether an event came in where it begins."""


class Track:
    """A run that is walked boundary by boundary, with the next one always known."""

    def __init__(self, bench: Bench, saved: Saved, recipe: Recipe, start: Boundary, arrivals: dict[int, int]) -> None:
        self.bench = bench
        self.arrivals = arrivals
        self.number = 0
        self._resuming: set[int] = set()
        self.saved, self.recipe, self.at = saved, recipe, start
        self._to_user: tuple[Reference | None, int] | None = None
        self.enter()
        self.reference = bench.comparer.capture()
        self._count(start.ip)
        self._ahead: deque[_Step] = deque()
        self._look_ahead()

    @property
    def where(self) -> Where:
        """The present boundary."""
        return Where(self.at, self.arrivals[self.at.ip])

    @property
    def next(self) -> tuple[Boundary, Reference] | None:
        """The next boundary and the state there; None if the run ends before."""
        return (self._ahead[0].at, self._ahead[0].reference) if self._ahead else None

    def enter(self) -> None:
        """Bring the bench to the present boundary."""
        bench = self.bench
        bench.load(self.saved)
        for boundary, fire in self.recipe:
            bench.run_to(boundary)
            fire(bench.system.kernel, bench.core)
        bench.run_to(self.at)

    def advance(self) -> bool:
        """Go on to the next boundary; False if the run is over."""
        if not self._ahead:
            return False
        step = self._ahead.popleft()
        self._pass(step.interrupted, step.at)
        self.saved, self.recipe, self.reference = step.saved, step.recipe, step.reference
        if not self._ahead:
            self._look_ahead()
        return True

    def skip_to(self, number: int) -> bool:
        """Go on to a later boundary, without looking at those in between; False if the run ends before."""
        return self._skip(lambda: self.number >= number)

    def skip_into(self, window: frozenset[int], stop: int | None) -> bool:
        """Go on to a boundary at an address of the window; False if number `stop`, or the end, comes first."""
        found = self._skip(lambda: self.at.ip in window or self.number == stop)
        return found and self.number != stop

    def _skip(self, done: Callable[[], bool]) -> bool:
        while self._ahead and not done():
            step = self._ahead.popleft()
            self._pass(step.interrupted, step.at)
            self.saved, self.recipe, self.reference = step.saved, step.recipe, step.reference
        if not done():
            bench = self.bench
            self.enter()
            while not done():
                start = self.at
                bench.interrupted.clear()
                if bench.step() is not None or bench.violated:
                    return False
                self._pass(start in bench.interrupted, bench.here)
                if self.number % LOOK_AHEAD == 0 and bench.binding.at_rest:
                    self.saved, self.recipe = bench.save(), ()
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
        """Learn the next boundaries, several at once: cases leave the bench elsewhere, and coming back costs."""
        bench = self.bench
        self.enter()
        saved, recipe = self.saved, self.recipe
        while len(self._ahead) < LOOK_AHEAD:
            start = bench.here
            bench.interrupted.clear()
            if bench.step() is not None or bench.violated:
                return
            # With a C function in flight there is more to know than a snapshot holds: go there from the last one.
            ram = None
            if bench.binding.at_rest:
                saved, recipe = bench.save(), ()
                ram = saved.machine.ram.data
            reference = bench.comparer.capture(ram)
            self._ahead.append(_Step(saved, recipe, bench.here, reference, start in bench.interrupted))

    def _count(self, ip: int) -> None:
        """As emu.lab.injection.Plan does: coming back to an interrupted instruction is no new arrival."""
        if ip in self._resuming:
            self._resuming.remove(ip)
        else:
            self.arrivals[ip] = self.arrivals.get(ip, 0) + 1

    def user_reference(self) -> Reference | None:
        """The state when user mode runs for the next time; None if the run ends before."""
        if self.at.ip < KERNEL_HALF:
            return self.reference
        if self._to_user is None or self._to_user[1] <= self.at.clock:
            bench = self.bench
            self.enter()
            end = bench.go(bench.budget, bench.in_user_mode)
            if end.kind is EndKind.UNTIL:
                self._to_user = (bench.comparer.capture(), bench.core.clock)
            else:
                self._to_user = (None, 1 << 64)
        return self._to_user[0]


@dataclass(slots=True)
class _Around:
    """What surrounds the cases of a track."""

    shots: tuple[Shot, ...]
    """What has led to it."""
    key: str
    references: tuple[Reference, ...]
    """States of the tracks around it, the outermost first, where each of `shots` was raised."""
    base: Track
    depth: int
    """How deep events may still nest."""


class Walker:
    """Runs cases on one bench. `window`: addresses where the first event may be raised; None for all."""

    def __init__(
        self,
        bench: Bench,
        events: tuple[SweepEvent, ...],
        places: Places,
        end: End,
        window: frozenset[int] | None = None,
    ) -> None:
        """`end` is that of the baseline, where the bench is now."""
        self.bench = bench
        self.events = events
        self._window = window
        self._fires = cache(lambda tables: raiser([dict(items) for items in tables], places))
        self._baseline = bench.outcome(end)
        self._limit = bench.core.clock + MAX_EXTRA
        self._runner = Runner(bench, self._baseline, self._limit)
        self.announce: Callable[[str], object] = lambda key: None
        """Told the key of each case before it runs."""
        self.skip: frozenset[str] = frozenset()
        """Cases not to run, because they ended the process that did."""

    def baseline_cases(self, track: Track, stop: int, depth: int) -> Iterator[Case]:
        """The cases of the baseline from its present boundary up to number `stop`."""
        around = _Around((), "", (), track, depth)
        return self._cases(track, around, stop)

    def _cases(self, track: Track, around: _Around, stop: int | None) -> Iterator[Case]:
        waiting: dict[str, list[Case]] = {event.name: [] for event in self.events}
        while True:
            if self._window is not None and not around.shots and not track.skip_into(self._window, stop):
                return
            going_on = self._goes_on(track, around, stop)
            # A pending case may be left to the next boundary's only if there is one.
            following = track.next if going_on else None
            if following is not None and not self._inside(following[0].ip, around):
                following = None
            for event in self.events:
                yield from self._case(track, event, around, waiting[event.name], following)
            if not going_on or not track.advance():
                return

    def _inside(self, ip: int, around: _Around) -> bool:
        """Whether cases of this track may begin at an address: the window is the first event's."""
        return self._window is None or bool(around.shots) or ip in self._window

    def _goes_on(self, track: Track, around: _Around, stop: int | None) -> bool:
        """Whether the next boundary belongs to this stretch too."""
        if track.next is None:
            return False
        if stop is not None:
            return track.number + 1 < stop
        return track.next[1].depth > around.references[-1].depth

    def _case(
        self, track: Track, event: SweepEvent, around: _Around, waiting: list[Case],
        following: tuple[Boundary, Reference] | None,
    ) -> Iterator[Case]:  # fmt: skip
        """The case of one event at the present boundary, those merged with it, and those nested in it."""
        bench = self.bench
        tables = None
        if event.site(bench.view, track.at.ip):
            user = around.base.user_reference()
            track.enter()
            tables = event.inject(bench)
        if tables is None:
            yield from _released(waiting, None)
            return
        if event.tables is not None:
            track.enter()
        fire = self._fires(tuple(tuple(table.items()) for table in tables))
        sign = "+" if around.shots else "@"
        key = f"{around.key} {event.name}{sign}{track.number}".strip()
        shots = (*around.shots, Shot(event, track.where, tables))
        references = (*around.references, track.reference)
        if key in self.skip:
            yield Case(key, shots, LOST)
            yield from _released(waiting, None)
            return
        self.announce(key)
        result = self._runner.run(event, fire, references, user, following)
        if result is None:
            yield from _released(waiting, None)
            return
        case = Case(key, shots, result.verdict, to_end=result.to_end, violation=result.violation)
        if result.same_as_next:
            waiting.append(case)
        else:
            yield from _released(waiting, case)
            yield case
        if around.depth > 1 and result.verdict in (CLEAN, PENDING):
            yield from self._nested(track, fire, result, shots, key, references, around)

    def _nested(
        self, track: Track, fire: Fire, result: Result, shots: tuple[Shot, ...], key: str,
        references: tuple[Reference, ...], around: _Around,
    ) -> Iterator[Case]:  # fmt: skip
        """A second event at every boundary of the handler; for one that is pending, at this boundary only, because
        whatever comes later is that later boundary's."""
        bench = self.bench
        track.enter()
        fire(bench.system.kernel, bench.core)
        inner = Track(bench, track.saved, (*track.recipe, (track.at, fire)), bench.here, dict(track.arrivals))
        inside = _Around(shots, key, references, around.base, around.depth - 1)
        yield from self._cases(inner, inside, None if result.delivered else 1)


def _released(waiting: list[Case], case: Case | None) -> Iterator[Case]:
    """Cases that were waiting for the verdict of the next boundary's case; None: it has none, for nothing happens."""
    for one in waiting:
        if case is None or case.verdict in (CLEAN, PENDING):
            yield replace(one, verdict=PENDING, merged=case.key if case else "")
        else:
            yield replace(one, verdict=case.verdict, merged=case.key, violation=case.violation, to_end=case.to_end)
    waiting.clear()
