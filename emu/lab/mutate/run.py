"""Mutants on worker processes, and what becomes of each."""

from __future__ import annotations

import fnmatch
import multiprocessing
import tomllib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, cast

from emu.errors import ImageError
from emu.events import Event
from emu.lab.mutate import suite
from emu.lab.mutate.operators import NOP, SECTION, Mutant, by_instruction, by_source, idempotent, instructions
from emu.lab.mutate.suite import Check, Killed, Outcome
from emu.lab.rig import Trace
from emu.lab.scenario import ScenarioFile
from emu.lab.sweep.scene import Options, Scene
from emu.machine.profile import Profile
from kernel_stubs.kernel_image import Overrides, build_image, source_files

EQUIVALENT_FILE = Path(__file__).parent / "equivalent.toml"


class Status(Enum):
    """What became of a mutant."""

    KILLED = "killed"
    SURVIVED = "survived"
    EQUIVALENT = "equivalent"  # listed: it changes nothing that anybody could see
    UNREACHED = "unreached"  # no check executes what it changes
    LOST = "lost"  # the process that ran it died


@dataclass(frozen=True, slots=True)
class Fate:
    """A mutant and what became of it."""

    operator: str
    place: str
    build: str
    """`fsgsbase` or `no-fsgsbase`."""
    status: Status
    killed: Killed | None = None
    reason: str = ""
    """Of an equivalent one."""


@dataclass(frozen=True)
class Known:
    """What a check does on the unbroken image."""

    check: Check
    outcome: Outcome
    executed: frozenset[int]


@dataclass(frozen=True)
class Work:
    """What workers are given once."""

    kernel: str
    sources: Overrides | None
    known: dict[bool, tuple[Known, ...]]
    """By build: with FSGSBASE or without."""


# --- the unbroken image -----------------------------------------------------------------------------------------------
class _Coverage(Trace):
    """A trace that keeps addresses only."""

    seen: set[int]

    def begin(self, view: object) -> Any:
        """What Rig asks of a trace."""
        return self

    def attach(self, machine: Any) -> None:
        """Begin."""
        for core in machine.cores:
            core.cpu.trace(self.seen.add)
        machine.observers.append(self)

    def finish(self) -> None:
        """The run is over."""

    def __call__(self, event: Event) -> None:
        """IRETQ and others never reach the tracer: they are executed at rest, and tell."""
        self.seen.add(event.ip)


def learn(check: Check, kernel: str, profile: Profile, sources: Overrides | None) -> Known:
    """Run a check on the unbroken image."""
    image = build_image(kernel, profile, (), sources)
    seen: set[int] = set()
    if check.events:
        scene = Scene(check.name, check.text, Options(check.events, check.depth, check.window, image=image))
        units = scene.units(0)
        scene.walker.bench.core.cpu.trace(seen.add)
        scene.walker.bench.machine.observers.append(lambda event: seen.add(event.ip))
        for unit in units:
            for case in scene.cases(unit):
                if case.violation is not None:
                    raise ImageError(
                        f"the regression fails on the unbroken image: {check.name}: {case.violation.message}"
                    )
        return Known(check, (), frozenset(seen))
    coverage = _Coverage(write=lambda text: None, boot=True)
    object.__setattr__(coverage, "seen", seen)
    facts = suite.rig_of(check, image)(cast(Trace, coverage))
    if facts.violations:
        raise ImageError(f"the regression fails on the unbroken image: {check.name}: {facts.violations[0].message}")
    return Known(check, suite.outcome(facts), frozenset(seen))


# --- one mutant -------------------------------------------------------------------------------------------------------
def judge(mutant: Mutant, work: Work) -> Fate:
    """Run the checks that execute what a mutant changes, until one notices."""
    build = "fsgsbase" if mutant.profile.fsgsbase else "no-fsgsbase"
    fate = Fate(mutant.operator, mutant.place, build, Status.UNREACHED)
    image = mutant.image(work.kernel, work.sources)
    for known in work.known[mutant.profile.fsgsbase]:
        if mutant.touched and known.executed.isdisjoint(mutant.touched):
            continue
        killed = suite.judge(known.check, image, known.outcome)
        if killed is not None:
            return Fate(mutant.operator, mutant.place, build, Status.KILLED, killed)
        fate = Fate(mutant.operator, mutant.place, build, Status.SURVIVED)
    return fate


# --- all of them ------------------------------------------------------------------------------------------------------
def mutants(kernel: str, sources: Overrides | None, operators: Sequence[str]) -> list[Mutant]:
    """All mutants of an image: of the build without FSGSBASE only what the other one does not have."""
    found: list[Mutant] = []
    with_it, without = Profile(), Profile(fsgsbase=False)
    own = {(s.position, s.macro_sites) for s in build_image(kernel, with_it, (), sources).statements}
    for profile in (with_it, without):
        image = build_image(kernel, profile, (), sources)
        if not instructions(image):
            raise ImageError(f"{kernel}: the image has no section {SECTION}; mutants are made of linux-6 only")
        for mutant in by_instruction(image, profile):
            statement = image.line_at(mutant.patch[0][0])
            known = statement is not None and (statement.position, statement.macro_sites) in own
            # What is said of a register there depends on what follows.
            depends = mutant.place.startswith("paranoid")
            if profile is with_it or not known or depends:
                found.append(mutant)
    usual = {mutant.name: mutant for mutant in by_source(kernel, with_it, sources)}
    others = [mutant for mutant in by_source(kernel, without, sources) if mutant.name not in usual]
    found += [*usual.values(), *others]
    return [mutant for mutant in found if _chosen(mutant.operator, operators)]


def _chosen(operator: str, operators: Sequence[str]) -> bool:
    return not operators or any(fnmatch.fnmatchcase(operator, pattern) for pattern in operators)


def run(
    kernel: str, sources: Overrides | None, own: tuple[ScenarioFile, ...], jobs: int, operators: Sequence[str] = (),
    progress: Callable[[int, int, int], None] = lambda done, total, survived: None,
) -> list[Fate]:  # fmt: skip
    """The fate of every mutant, in the order of `mutants`."""
    todo = mutants(kernel, sources, operators)
    known = {}
    for fsgsbase in sorted({mutant.profile.fsgsbase for mutant in todo}, reverse=True):
        checks = suite.checks(fsgsbase=fsgsbase, own=own if fsgsbase else ())
        learnt = [learn(check, kernel, Profile(fsgsbase=fsgsbase), sources) for check in checks]
        known[fsgsbase] = tuple(sorted(learnt, key=lambda one: len(one.check.events) * one.check.depth))
    work = Work(kernel, sources, known)
    listed = read_equivalent()
    fates: dict[int, Fate] = {}
    survived = 0
    for number, raw in _parallel(todo, work, jobs):
        reason = _reason(raw, listed) if raw.status in (Status.SURVIVED, Status.UNREACHED) else ""
        fate = Fate(raw.operator, raw.place, raw.build, Status.EQUIVALENT, None, reason) if reason else raw
        fates[number] = fate
        survived += fate.status is Status.SURVIVED
        progress(len(fates), len(todo), survived)
    table = [fates[number] for number in range(len(todo))]
    texts = source_files(kernel) if sources is None else dict(sources)
    for name, reason in idempotent(texts):
        operator, _, place = name.partition(" ")
        if _chosen(operator, operators):
            table.append(Fate(operator, place, "fsgsbase", Status.EQUIVALENT, None, reason))
    return table


_work: Work | None = None


def _prepare(work: Work) -> None:
    global _work
    _work = work


def _judge(mutant: Mutant) -> Fate:
    assert _work is not None
    return judge(mutant, _work)


def _parallel(todo: list[Mutant], work: Work, jobs: int) -> Iterator[tuple[int, Fate]]:
    """(number, fate), as they come. After a worker has died, those that are left run one at a time."""
    left = set(range(len(todo)))
    try:
        with _executor(work, jobs) as executor:
            futures: dict[Future[Fate], int] = {executor.submit(_judge, todo[n]): n for n in sorted(left)}
            waiting = set(futures)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    fate = future.result()
                    left.discard(futures[future])
                    yield futures[future], fate
    except BrokenProcessPool:
        for number in sorted(left):
            yield number, _alone(todo[number], work)


def _executor(work: Work, jobs: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, context, initializer=_prepare, initargs=(work,))


def _alone(mutant: Mutant, work: Work) -> Fate:
    try:
        with _executor(work, 1) as executor:
            return executor.submit(_judge, mutant).result()
    except BrokenProcessPool:
        return Fate(mutant.operator, mutant.place, "", Status.LOST)


# --- equivalents ------------------------------------------------------------------------------------------------------
def read_equivalent() -> list[tuple[str, str, str]]:
    """(operator, place, reason) patterns of the checked-in list."""
    data = tomllib.loads(EQUIVALENT_FILE.read_text())
    return [(one["operator"], place, one["reason"]) for one in data.get("equivalent", []) for place in one["places"]]


def _reason(fate: Fate, listed: list[tuple[str, str, str]]) -> str:
    for operator, place, reason in listed:
        if fnmatch.fnmatchcase(fate.operator, operator) and fnmatch.fnmatchcase(fate.place, place):
            return reason
    return ""


__all__ = ["NOP", "Fate", "Status", "judge", "learn", "mutants", "run"]
