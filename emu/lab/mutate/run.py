"""Mutants on worker processes, and what becomes of each."""

from __future__ import annotations

import fnmatch
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from enum import Enum

from asm import Image
from emu.errors import ImageError
from emu.lab.mutate import suite
from emu.lab.mutate.check import Check
from emu.lab.mutate.instructions import by_instruction
from emu.lab.mutate.learn import Known, learn
from emu.lab.mutate.listed import Equivalent, equivalents, reason_unreached
from emu.lab.mutate.mutant import Mutant, build_name, builds
from emu.lab.mutate.sources import by_source
from emu.lab.mutate.suite import Killed
from emu.lab.scenario import ScenarioFile
from emu.machine.profile import Profile
from kernel_stubs.kernel_image import Overrides, build_image, source_files


class Status(Enum):
    """What became of a mutant."""

    KILLED = "killed"
    EQUIVALENT = "equivalent"  # it ran, and by rule or list changes nothing that anybody could see
    UNEXECUTED = "unexecuted"  # no check executes it, and the list of what nothing executes says why
    SURVIVED = "survived"
    UNREACHED = "unreached"  # no check executes what it changes, and nobody says why
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
    """Of one that need not be killed."""


@dataclass(frozen=True)
class Work:
    """What workers are given once."""

    kernel: str
    sources: Overrides | None
    known: dict[Profile, tuple[Known, ...]]
    """By build."""
    listed: tuple[Equivalent, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """All fates, and the rows of the list that none of them needed."""

    fates: tuple[Fate, ...]
    stale: tuple[Equivalent, ...] = ()


# --- one mutant -------------------------------------------------------------------------------------------------------
def judge(mutant: Mutant, work: Work) -> Fate | None:
    """Run the checks that execute what a mutant changes, until one notices; None if it changes nothing at all."""
    for profile in (mutant.profile, *(p for p in builds(work.kernel) if p != mutant.profile and not mutant.patch)):
        base = build_image(work.kernel, profile, (), work.sources)
        try:
            image = mutant.image(work.kernel, profile, work.sources)
        except ImageError:
            return None
        if any(one.data != other.data for one, other in zip(image.segments, base.segments, strict=True)):
            return _judge(mutant, work, profile, base, image)
    return None


def _judge(mutant: Mutant, work: Work, profile: Profile, base: Image, image: Image) -> Fate:
    touched = mutant.touched(base)
    fate = Fate(mutant.operator, mutant.place, build_name(profile), Status.UNREACHED)
    for known in work.known[profile]:
        if touched and known.executed.isdisjoint(touched):
            continue
        killed = suite.judge(known.check, image, known.outcomes, longer=mutant.longer)
        if killed is not None:
            return replace(fate, status=Status.KILLED, killed=killed)
        fate = replace(fate, status=Status.SURVIVED)
        if mutant.same:  # the manual says that no other can notice either
            return replace(fate, status=Status.EQUIVALENT, reason=mutant.same)
    if fate.status is Status.UNREACHED:
        reason = reason_unreached(work.kernel, base, touched)
        return replace(fate, status=Status.UNEXECUTED, reason=reason) if reason else fate
    for row in work.listed:
        if row.matches(fate.operator, fate.place):
            return replace(fate, status=Status.EQUIVALENT, reason=row.reason)
    return fate


# --- all of them ------------------------------------------------------------------------------------------------------
def mutants(kernel: str, sources: Overrides | None, operators: Sequence[str] = ()) -> list[Mutant]:
    """All mutants of an image: of its second build only what the first one does not have. ImageError if none."""
    found: list[Mutant] = []
    first, *_ = builds(kernel)
    own = {(s.position, s.macro_sites) for s in build_image(kernel, first, (), sources).statements}
    for profile in builds(kernel):
        image = build_image(kernel, profile, (), sources)
        for mutant in by_instruction(image, profile):
            statement = image.line_at(mutant.patch[0][0])
            known = statement is not None and (statement.position, statement.macro_sites) in own
            # What is said of a register there depends on what follows.
            depends = mutant.place.startswith("paranoid")
            if profile == first or not known or depends:
                found.append(mutant)
    found += by_source(kernel, source_files(kernel) if sources is None else dict(sources), first)
    chosen = [mutant for mutant in found if _chosen(mutant.operator, operators)]
    if not found:
        raise ImageError(f"{kernel}: the image has no entry code")
    if not chosen:
        names = ", ".join(sorted({mutant.operator for mutant in found}))
        raise ImageError(f"{kernel}: no operator is called {' or '.join(operators)}; there are {names}")
    return chosen


def _chosen(operator: str, operators: Sequence[str]) -> bool:
    return not operators or any(fnmatch.fnmatchcase(operator, pattern) for pattern in operators)


def run(
    kernel: str, sources: Overrides | None, own: tuple[ScenarioFile, ...], jobs: int, operators: Sequence[str] = (),
    progress: Callable[[int, int, int], None] = lambda done, total, survived: None,
) -> Outcome:  # fmt: skip
    """The fate of every mutant, in the order of `mutants`."""
    todo = mutants(kernel, sources, operators)
    work = Work(kernel, sources, {}, equivalents(kernel))
    with _executor(work, jobs) as executor:
        for profile in builds(kernel):
            checks = suite.checks(kernel, profile, own)
            learnt = list(executor.map(_learn_one, checks, [profile] * len(checks)))
            work.known[profile] = tuple(sorted(learnt, key=_order))
    fates: dict[int, Fate | None] = {}
    survived = 0
    for number, fate in _parallel(todo, work, jobs):
        fates[number] = fate
        survived += fate is not None and fate.status is Status.SURVIVED
        progress(len(fates), len(todo), survived)
    table = tuple(fate for number in range(len(todo)) if (fate := fates[number]) is not None)
    used = [(fate.operator, fate.place) for fate in table if fate.status is Status.EQUIVALENT]
    whole = not operators and sources is None
    stale = tuple(row for row in work.listed if whole and not any(row.matches(*one) for one in used))
    return Outcome(table, stale)


def _order(known: Known) -> tuple[bool, bool, int]:
    return bool(known.check.events), not known.check.sharp, known.cost


_work: Work | None = None


def _prepare(work: Work) -> None:
    global _work
    _work = work


def _learn_one(check: Check, profile: Profile) -> Known:
    assert _work is not None
    return learn(check, build_image(_work.kernel, profile, (), _work.sources))


def _judge_one(mutant: Mutant) -> Fate | None:
    assert _work is not None
    return judge(mutant, _work)


def _parallel(todo: list[Mutant], work: Work, jobs: int) -> Iterator[tuple[int, Fate | None]]:
    """(number, fate), as they come. When a worker dies, those under way run again, one at a time; the rest goes on."""
    left = deque(range(len(todo)))
    while left:
        under_way: dict[Future[Fate | None], int] = {}
        try:
            with _executor(work, jobs) as executor:
                while left or under_way:
                    while left and len(under_way) < 2 * jobs:
                        under_way[executor.submit(_judge_one, todo[left[0]])] = left[0]
                        left.popleft()
                    done, _ = wait(under_way, return_when=FIRST_COMPLETED)
                    for future in done:
                        fate = future.result()
                        yield under_way.pop(future), fate
        except BrokenProcessPool:
            for number in sorted(under_way.values()):
                yield number, _alone(todo[number], work)


def _executor(work: Work, jobs: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, context, initializer=_prepare, initargs=(work,))


def _alone(mutant: Mutant, work: Work) -> Fate | None:
    try:
        with _executor(work, 1) as executor:
            return executor.submit(_judge_one, mutant).result()
    except BrokenProcessPool:
        return Fate(mutant.operator, mutant.place, build_name(mutant.profile), Status.LOST)
