"""One scenario of a sweep, ready to run any stretch of its boundaries; and what a sweep is asked to do."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from asm import Image
from emu.errors import ScenarioError
from emu.lab.injection import Injection
from emu.lab.places import Places
from emu.lab.rig import Facts, Rig
from emu.lab.run import Prepared, allowed_endings, prepare
from emu.lab.scenario import ScenarioFile, parse_scenario
from emu.lab.sweep.bench import Bench
from emu.lab.sweep.case import Case
from emu.lab.sweep.events import EVENTS
from emu.lab.sweep.walk import Track, Walker
from emu.machine.end import EndKind
from kernel_stubs.kernel_image import Overrides

CHUNK = 64
"""Boundaries of a unit of work at depth 1."""
VERSION = 1
"""Of what a case means: results of another version are no results."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a sweep does with each scenario."""

    events: tuple[str, ...]
    depth: int = 1
    window: str = ""
    """`first..last`: where the first event is raised."""
    sources: Overrides | None = None
    image: Image | None = None
    """Replaces the image that the scenario names."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of work: boundaries `first` to `end`-1 of a scenario."""

    scenario: int
    first: int
    end: int
    lost: tuple[tuple[str, str], ...] = ()
    """Cases that cost workers their lives, and how: they are left out."""

    @property
    def name(self) -> str:
        """For the store."""
        return f"{self.scenario}:{self.first}"


class Scene:
    """A scenario on its bench."""

    def __init__(self, name: str, text: str, options: Options) -> None:
        self.file: ScenarioFile = parse_scenario(text, name)
        if self.file.scenario.cpus > 1:
            raise ScenarioError(f"{self.file.where('cpus')}: a sweep runs scenarios of one CPU")
        self.prepared: Prepared = prepare(self.file, options.image, options.sources)
        self.options = options
        self.injections = own_injections(self.prepared)
        self._events = tuple(EVENTS[name] for name in options.events)
        self._places = Places(self.prepared.options.image, lambda: self.prepared.user)
        self._window: frozenset[int] | None = None
        if options.window:
            found = self._places.boundaries(options.window, "--window")
            self._window = frozenset(address for one in found for address in one.addresses)
        self._walker: Walker | None = None
        self._track: Track | None = None
        self.boundaries = 0

    def key(self) -> str:
        """What the results depend on, hashed: the scenario, the image, and what is asked for."""
        image, options = self.prepared.options.image, self.options
        digest = hashlib.sha256(repr((VERSION, self.file.text, options.events, options.depth, options.window)).encode())
        for segment in image.segments:
            digest.update(repr((segment.name, segment.address, segment.flags)).encode() + segment.data)
        return digest.hexdigest()[:16]

    def baseline(self) -> Facts:
        """The run without any event of the sweep."""
        rig = Rig(self.prepared.options, self.prepared.user)
        scenario = self.file.scenario
        return rig.run(self.injections, scenario.budget, "", allowed=allowed_endings(scenario))

    # --- boundaries and units ---------------------------------------------------------------------------------------
    def _begin(self) -> None:
        bench = self._bench = Bench(self.prepared, self.injections, self._events)
        arrivals: Counter[int] = Counter()
        bench.core.cpu.trace(lambda address: arrivals.update((address,)))
        end = bench.to_boot()
        bench.core.cpu.trace(None)
        if end is not None or not bench.binding.at_rest:
            raise ScenarioError(f"{self.file.name}: it never comes to user mode: {end.text if end else ''}")
        bench.prime()
        self._start = (bench.save(), bench.here, arrivals)

    def start(self) -> Bench:
        """A bench where the baseline begins: user mode is about to run for the first time."""
        self._begin()
        return self._bench

    def count(self) -> int:
        """How many boundaries there are, from the first way to user mode to the end."""
        self._begin()
        number, bench = 1, self._bench
        while bench.step() is None and bench.core.clock < bench.budget:
            number += 1
        self.boundaries = number
        return number

    def units(self, scenario: int) -> list[Unit]:
        """The work, in pieces that do not depend on who does it."""
        size = CHUNK if self.options.depth == 1 else 1
        total = self.count()
        return [Unit(scenario, at, min(at + size, total)) for at in range(0, total, size)]

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
            self._walker = Walker(bench, bench.events, self._places, end, self._window)
        return self._walker

    def cases(self, unit: Unit) -> Iterator[Case]:
        """The cases of a unit. Units in order cost least: the scene goes on from where it is."""
        walker = self.walker
        if self._track is None or self._track.number > unit.first:
            saved, here, arrivals = self._start
            self._track = Track(walker.bench, saved, (), here, dict(arrivals))
        if not self._track.skip_to(unit.first):
            return
        walker.skip = frozenset(key for key, _ in unit.lost)
        yield from walker.baseline_cases(self._track, unit.end, self.options.depth)


def own_injections(prepared: Prepared) -> tuple[Injection, ...]:
    """The scenario's own, but for one at `each` place of a range: that is a small sweep itself."""
    specs = prepared.file.scenario.inject
    each = {index + 1 for index, spec in enumerate(specs) if spec.each is not None}
    return tuple(injection for injection in prepared.cases[0].injections if injection.number not in each)
