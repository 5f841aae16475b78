"""The cases of one stretch of a scenario's run, and their verdicts.

A track follows a run from boundary to boundary: the baseline, or the handler of an event that was injected into it. At
each boundary every event is raised in turn. What it leads to is followed until the state is again that of the track (of
the innermost first, then of those around it, at last of user mode behind them): then all that comes is known already.
If it never is, the run goes on to its end, which must look like the baseline's.

An event that the CPU does not take at a boundary is pending. If the state one instruction later is that of the next
boundary with the event raised there, the two cases are one, and share its verdict: it is merged.

An event takes time. While the APIC timer runs, it has less left afterwards than in the track, so the state is never the
track's again, and the run goes on to its end. But it soon comes to the next boundary, with just as much less; the same
event there leads to that very state, clock and all, if it takes as long. So these cases are one too, as far as nothing
lies between them but plain instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import NamedTuple

from emu.lab.injection import Fire
from emu.lab.places import Places
from emu.lab.sweep.bench import MAX_EXTRA, Bench, Boundary
from emu.lab.sweep.case import CLEAN, LOST, PENDING, Case, Shot
from emu.lab.sweep.event import UNNOTICED, Ending, SweepEvent, Tables, raiser
from emu.lab.sweep.runner import Runner, UserUnknownError
from emu.lab.sweep.state import Apart, Reference
from emu.lab.sweep.track import Track
from emu.machine.end import End

_NO_STOP = 1 << 62


@dataclass(slots=True)
class _Series:
    """The cases of one event along a track."""

    waiting: list[Case] = field(default_factory=list)
    """Those that are merged with the next one."""
    before: _Before | None = None


class _Before(NamedTuple):
    """A clean case that led back to the track's state but for what that had of its own."""

    case: Case
    number: int
    """Of the boundary."""
    own: Apart


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
    windowed: bool = True
    """Whether the window limits its cases: it is the first event's."""
    ending: Ending = UNNOTICED
    """How a run with all of `shots` may end."""


class Walker:
    """Runs cases on one bench. `first`: the events that come first; `window`: addresses where they may be raised, None
    for all."""

    def __init__(
        self,
        bench: Bench,
        events: tuple[SweepEvent, ...],
        places: Places,
        end: End,
        first: tuple[SweepEvent, ...],
        window: frozenset[int] | None = None,
    ) -> None:
        """`end` is that of the baseline, where the bench is now."""
        self.bench = bench
        self.events = events
        self._first = first
        self._window = window
        self._fires = cache(lambda tables: raiser([dict(items) for items in tables], places))
        self._of_event: dict[str, tuple[Tables, Fire]] = {}
        """The last tables of each event, and what raises it."""
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

    def row_cases(self, track: Track, row: SweepEvent, depth: int) -> Iterator[Case]:
        """A run that differs from the baseline from the present boundary on, and the cases in it."""
        bench = self.bench
        track.enter()
        tables = row.inject(bench)
        assert tables is not None
        fire = self._fire(row.name, tables)
        key, shots = f"{row.name}@{track.number}", (Shot(row, track.where, tables),)
        if key in self.skip:
            yield Case(key, shots, LOST)
            return
        self.announce(key)
        result, outcome = self._runner.to_end(row, fire)
        yield Case(key, shots, result.verdict, to_end=True, violation=result.violation)
        if result.verdict != CLEAN:
            return
        limit, inner = bench.core.clock + MAX_EXTRA, self._inner(track, fire)
        around = _Around(shots, key, (), inner, depth)
        yield from self._compared(Runner(bench, outcome, limit), self._cases(inner, around, _NO_STOP))

    def _fire(self, name: str, tables: Tables) -> Fire:
        known = self._of_event.get(name)
        if known is None or known[0] != tables:
            fire = self._fires(tuple(tuple(table.items()) for table in tables))
            known = self._of_event[name] = tables, fire
        return known[1]

    def _cases(self, track: Track, around: _Around, stop: int | None) -> Iterator[Case]:
        events = self._first if around.windowed else self.events
        series = {event.name: _Series() for event in events}
        while True:
            if self._window is not None and around.windowed and not track.skip_into(self._window, stop):
                return
            going_on = self._goes_on(track, around, stop)
            # A pending case may be left to the next boundary's only if there is one.
            following = track.next if going_on else None
            if following is not None and not self._inside(following[0].ip, around):
                following = None
            for event in events:
                yield from self._case(track, event, around, series[event.name], following)
            if not going_on or not track.advance():
                return

    def _inside(self, ip: int, around: _Around) -> bool:
        """Whether cases of this track may begin at an address."""
        return self._window is None or not around.windowed or ip in self._window

    def _goes_on(self, track: Track, around: _Around, stop: int | None) -> bool:
        """Whether the next boundary belongs to this stretch too."""
        if track.next is None:
            return False
        if stop is not None:
            return track.number + 1 < stop
        return track.next[1].depth > around.references[-1].depth

    def _case(
        self, track: Track, event: SweepEvent, around: _Around, series: _Series,
        following: tuple[Boundary, Reference] | None,
    ) -> Iterator[Case]:  # fmt: skip
        """The case of one event at the present boundary, those merged with it, and those nested in it."""
        bench, waiting = self.bench, series.waiting
        if around.ending is not UNNOTICED and event.ending is not UNNOTICED:
            event = replace(event, ending=event.ending | around.ending)
        tables = None
        if event.site(bench.view, track.at.ip):
            track.enter()
            tables = event.inject(bench)
        if tables is None:
            yield from _released(waiting, None)
            return
        if event.tables is not None:
            track.enter()
        fire = self._fire(event.name, tables)
        sign = "+" if around.shots else "@"
        key = f"{around.key} {event.name}{sign}{track.number}".strip()
        shots = (*around.shots, Shot(event, track.where, tables))
        references = (*around.references, track.reference)
        if key in self.skip:
            yield Case(key, shots, LOST)
            yield from _released(waiting, None)
            return
        self.announce(key)
        before, series.before = series.before, None
        if before is not None and not (track.plain and before.number == track.number - 1):
            before = None
        known = before.own if before is not None else None
        try:
            result = self._runner.run(event, fire, references, around.base, following, known)
        except UserUnknownError:  # few cases need it
            around.base.user_reference()
            track.enter()
            result = self._runner.run(event, fire, references, around.base, following, known)
        if result is None:
            yield from _released(waiting, None)
            return
        case = Case(key, shots, result.verdict, to_end=result.to_end, violation=result.violation)
        if result.apart is not None and result.verdict == CLEAN:
            if before is not None and result.apart == known:
                case = replace(case, merged=before.case.merged or before.case.key)
            series.before = _Before(case, track.number, result.apart)
        if result.same_as_next:
            waiting.append(case)
        else:
            yield from _released(waiting, case)
            yield case
        if around.depth > 1 and result.verdict in (CLEAN, PENDING):
            inside = _Around(shots, key, references, around.base, around.depth - 1, False, event.ending)
            yield from self._nested(track, fire, inside, None if result.delivered else 1)

    def _inner(self, track: Track, fire: Fire) -> Track:
        """The run with an event raised at the present boundary, from there on."""
        bench = self.bench
        track.enter()
        fire(bench.system.kernel, bench.core)
        (saved, recipe), here = track.origin, bench.here
        recipe = (*recipe, (track.at, fire))
        return Track(bench, saved, recipe, here, dict(track.arrivals), counted=here == track.at, there=True)

    def _nested(self, track: Track, fire: Fire, inside: _Around, stop: int | None) -> Iterator[Case]:
        """A second event at every boundary of the handler; for one that is pending, at this boundary only, because
        whatever comes later is that later boundary's."""
        inner = self._inner(track, fire)
        if inside.ending == UNNOTICED:
            yield from self._cases(inner, inside, stop)
            return
        # The run with the first event is another than without: it is what the second one must not change.
        _, outcome = self._runner.to_end(inside.shots[-1].event, lambda kernel, core: None)
        inside.base = inner
        limit = self.bench.core.clock + MAX_EXTRA
        yield from self._compared(Runner(self.bench, outcome, limit), self._cases(inner, inside, stop))

    def _compared(self, runner: Runner, cases: Iterator[Case]) -> Iterator[Case]:
        """Cases in a run that ends with another outcome than the baseline."""
        before, self._runner = self._runner, runner
        try:
            yield from cases
        finally:
            self._runner = before


def _released(waiting: list[Case], case: Case | None) -> Iterator[Case]:
    """Cases that were waiting for the verdict of the next boundary's case; None: it has none, for nothing happens."""
    for one in waiting:
        if case is None or case.verdict in (CLEAN, PENDING):
            yield replace(one, verdict=PENDING, merged=(case.merged or case.key) if case else "")
        else:
            yield replace(one, verdict=case.verdict, merged=case.key, violation=case.violation, to_end=case.to_end)
    waiting.clear()
