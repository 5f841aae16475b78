"""One scenario of a sweep, ready to run any stretch of its boundaries; and what a sweep is asked to do."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from asm import Image
from emu.errors import ScenarioError
from emu.lab.injection import Injection
from emu.lab.places import Boundary, Places
from emu.lab.rig import Facts, Rig
from emu.lab.run import Prepared, allowed_endings, prepare
from emu.lab.scenario import ScenarioFile, parse_scenario
from emu.lab.sweep.bench import Bench
from emu.lab.sweep.case import Case
from emu.lab.sweep.events import EVENTS
from emu.lab.sweep.smp_bench import SmpBench
from emu.lab.sweep.track import Track
from emu.lab.sweep.vary import Variation
from emu.lab.sweep.version import code_digest
from emu.lab.sweep.walk import Walker
from emu.lab.violation import Violation
from emu.machine.end import EndKind
from kernel_stubs.kernel_image import Overrides

CHUNK, NESTED_CHUNK = 64, 4
"""Boundaries of a unit of work at depth 1, and deeper at most."""
_UNITS = 50
"""So many a deeper sweep has at least, if it can: they take long, and no job is to wait for another's last one."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a sweep does with each scenario."""

    events: tuple[str, ...]
    depth: int = 1
    window: str = ""
    """`first..last`, or several of them with commas between: where the first event is raised."""
    sources: Overrides | None = None
    image: Image | None = None
    """Replaces the image that the scenario names."""
    first: tuple[str, ...] = ()
    """Those of `events` that come first, if others are for the nested places only."""
    cpu: int = 0
    """The CPU that is swept, of several."""
    asked: str = "--window"
    """Who asked for the window, for messages."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of work: boundaries `first` to `end`-1 of a scenario."""

    scenario: int
    first: int
    end: int
    lost: tuple[tuple[str, str], ...] = ()
    """Cases that cost workers their lives, and how: they are left out."""
    row: tuple[int, int] | None = None
    """For a row of what varies: the boundary where it begins, and its number. `first` is behind all boundaries then."""

    @property
    def name(self) -> str:
        """For the store."""
        return f"{self.scenario}:{self.first}"


class Scene:
    """A scenario on its bench."""

    def __init__(self, name: str, text: str, options: Options) -> None:
        self.file: ScenarioFile = parse_scenario(text, name)
        cpus = self.file.scenario.cpus
        if options.cpu >= cpus:
            there = "there is one CPU, 0" if cpus == 1 else f"there are CPUs 0 to {cpus - 1}"
            raise ScenarioError(f"{self.file.name}: no CPU {options.cpu} to sweep; {there}")
        self.prepared: Prepared = prepare(self.file, options.image, options.sources)
        self.options = options
        self.injections = own_injections(self.prepared)
        self._events = tuple(event for name in options.events for event in EVENTS[name])
        self.first = options.first or options.events
        self._places = Places(self.prepared.options.image, lambda: self.prepared.user)
        parts = [part.strip() for part in options.window.split(",")] if options.window else []
        self._parts = {part: _addresses(self._places.boundaries(part, options.asked)) for part in parts}
        self._window = frozenset[int]().union(*self._parts.values()) if self._parts else None
        spec = self.file.scenario.sweep.vary if self.file.scenario.sweep else None
        if spec is not None and cpus > 1:
            raise ScenarioError(f"{self.file.where('sweep', 'vary')}: values vary in scenarios of one CPU only")
        self._variation = Variation(self.file, spec, self._places) if spec is not None else None
        self._vary_at: int | None = None
        """Number of the boundary where values vary."""
        self.rows = 0
        """How many rows of them there are."""
        self._walker: Walker | None = None
        self._track: Track | None = None
        self.boundaries = 0
        self.unreached: tuple[str, ...] = ()
        """Ranges of the window where the baseline never is."""
        self._up_at: int | None = None
        """Number of the first boundary where the CPU has booted."""
        self.swept: dict[int, None] = {}
        """Numbers of the boundaries in the window, in order."""

    def key(self) -> str:
        """What the results depend on, hashed: entry64 itself, the scenario, the image, and what is asked for."""
        image, options = self.prepared.options.image, self.options
        asked = (code_digest(), self.file.text, options.events, options.depth, options.window, self.first, options.cpu)
        digest = hashlib.sha256(repr(asked).encode())
        for segment in image.segments:
            digest.update(repr((segment.name, segment.address, segment.flags)).encode() + segment.data)
        return digest.hexdigest()[:16]

    @cached_property
    def baseline(self) -> Facts:
        """The run without any event of the sweep."""
        rig = Rig(self.prepared.options, self.prepared.user)
        scenario = self.file.scenario
        return rig.run(self.injections, scenario.budget, "", allowed=allowed_endings(scenario))

    @cached_property
    def shown(self) -> tuple[Violation, ...]:
        """Holes that the scenario lists as known, and that the baseline has already: no case counts them."""
        scenario = self.file.scenario
        known = scenario.sweep.known if scenario.sweep is not None and scenario.expect.violation is not None else ()
        if not known:
            return ()
        return tuple(v for v in self.baseline.violations if any(hole.means(v.invariant, v.where) for hole in known))

    def broken(self) -> tuple[Violation, ...]:
        """Other violations of the baseline: what fails without any event is not swept."""
        shown = {(one.invariant, one.where) for one in self.shown}
        return tuple(one for one in self.baseline.violations if (one.invariant, one.where) not in shown)

    # --- boundaries and units ---------------------------------------------------------------------------------------
    def _begin(self) -> None:
        kind = Bench if self.file.scenario.cpus == 1 else SmpBench
        bench = self._bench = kind(self.prepared, self.injections, self._events, self.options.cpu)
        bench.judge.forgive(frozenset((one.invariant, one.where) for one in self.shown))
        arrivals: Counter[int] = Counter()
        bench.core.cpu.trace(lambda address: arrivals.update((address,)))
        end = bench.to_boot()
        bench.core.cpu.trace(None)
        if end is not None or not bench.binding.at_rest:
            raise ScenarioError(f"{self.file.name}: it never comes to user mode: {end.text if end else ''}")
        bench.lazy.prime()
        self._start = (bench.save(), bench.here, arrivals)

    def start(self) -> Bench:
        """A bench where the baseline begins: user mode is about to run for the first time."""
        self._begin()
        return self._bench

    def count(self) -> int:
        """How many boundaries there are, from the first way to user mode to the end."""
        self._begin()
        number, bench = 0, self._bench
        self.swept.clear()
        reached: set[int] = set()
        resuming: set[int] = set()
        arrivals = 0
        self._up_at = None
        while True:
            if self._up_at is None and bench.up:
                self._up_at = number
            here = bench.here.ip
            if self._variation is not None and here in self._variation.addresses and here not in resuming:
                arrivals += 1
                if arrivals == self._variation.hit:
                    self._vary_at, self.rows = number, len(self._variation.rows(bench))
            resuming.discard(here)
            bench.interrupted.clear()
            start = bench.here
            if self._up_at is not None and (self._window is None or bench.here.ip in self._window):
                self.swept[number] = None
                reached.add(bench.here.ip)
            number += 1
            if bench.step() is not None or bench.core.clock >= bench.budget:
                break
            if start in bench.interrupted:
                resuming.add(start.ip)
        if self._variation is not None and self._vary_at is None:
            raise ScenarioError(f"{self.file.where('sweep', 'vary', 'at')}: the program never comes there so often")
        self.boundaries = number
        self.unreached = tuple(part for part, addresses in self._parts.items() if not addresses & reached)
        return number

    def units(self, scenario: int) -> list[Unit]:
        """The work, in pieces that do not depend on who does it."""
        total = self.count()
        size = CHUNK if self.options.depth == 1 else max(1, min(NESTED_CHUNK, len(self.swept) // _UNITS))
        starts = sorted({number - number % size for number in self.swept})
        units = [Unit(scenario, max(at, self._up_at or 0), min(at + size, total)) for at in starts]
        for number in range(self.rows):
            assert self._vary_at is not None
            units.append(Unit(scenario, total + number, total + number + 1, row=(self._vary_at, number)))
        return units

    # --- cases ------------------------------------------------------------------------------------------------------
    @property
    def walker(self) -> Walker:
        """Runs the cases."""
        if self._walker is None:
            self._begin()
            bench = self._bench
            end = bench.go(bench.budget, lambda: False)
            if end.kind is EndKind.UNTIL:
                raise AssertionError("unreachable")
            names = {event.name for name in self.first for event in EVENTS[name]}
            first = tuple(event for event in bench.events if event.name in names)
            self._walker = Walker(bench, bench.events, self._places, end, first, self._window)
        return self._walker

    def cases(self, unit: Unit) -> Iterator[Case]:
        """The cases of a unit. Units in order cost least: the scene goes on from where it is."""
        walker = self.walker
        first = unit.first if unit.row is None else unit.row[0]
        if self._track is None or self._track.number > first:
            saved, here, arrivals = self._start
            self._track = Track(walker.bench, saved, (), here, dict(arrivals))
        if not self._track.skip_to(first):
            return
        walker.skip = frozenset(key for key, _ in unit.lost)
        if unit.row is None:
            yield from walker.baseline_cases(self._track, unit.end, self.options.depth)
            return
        assert self._variation is not None
        self._track.enter()
        row = self._variation.rows(walker.bench)[unit.row[1]]
        yield from walker.row_cases(self._track, self._variation.event(unit.row[1], row), self.options.depth)


def _addresses(boundaries: list[Boundary]) -> frozenset[int]:
    return frozenset(address for one in boundaries for address in one.addresses)


def own_injections(prepared: Prepared) -> tuple[Injection, ...]:
    """The scenario's own, but for one at `each` place of a range: that is a small sweep itself."""
    specs = prepared.file.scenario.inject
    each = {index + 1 for index, spec in enumerate(specs) if spec.each is not None}
    return tuple(injection for injection in prepared.cases[0].injections if injection.number not in each)
