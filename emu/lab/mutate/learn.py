"""What the checks do on the unbroken image: their outcomes, and which instructions they execute."""

from __future__ import annotations

from dataclasses import dataclass

from asm import Image
from emu.errors import ImageError
from emu.lab.coverage import ExecutedAddresses
from emu.lab.mutate.check import Check
from emu.lab.mutate.suite import Outcome, outcome, reports
from emu.lab.sweep.scene import Options, Scene


@dataclass(frozen=True)
class Known:
    """What a check does on the unbroken image."""

    check: Check
    outcomes: tuple[Outcome, ...]
    """Of each case."""
    executed: frozenset[int]
    cost: int
    """Instructions, all cases together, or cases of a sweep."""


def learn(check: Check, image: Image) -> Known:
    """Run a check on the unbroken image; ImageError if it fails."""
    return _learn_sweep(check, image) if check.events else _learn_scenario(check, image)


def _learn_scenario(check: Check, image: Image) -> Known:
    recorder = ExecutedAddresses()
    outcomes, cost = [], 0
    for report in reports(check, image, (recorder,)):
        for violation in report.violations if check.shipped else report.facts.violations:
            raise _failure(check, violation.message)
        if check.shipped and report.unmet:
            raise _failure(check, "; ".join(report.unmet))
        outcomes.append(outcome(report.facts))
        cost += report.facts.clock
    return Known(check, tuple(outcomes), frozenset(recorder.addresses), cost)


def _learn_sweep(check: Check, image: Image) -> Known:
    scene = Scene(check.name, check.text, Options(check.events, check.depth, check.window, image=image))
    seen: set[int] = set()
    units, cost = scene.units(0), 0
    scene.walker.bench.core.cpu.trace(seen.add)
    # IRETQ and others never reach the tracer: they are executed at rest, and tell.
    scene.walker.bench.machine.observers.append(lambda event: seen.add(event.ip))
    for unit in units:
        for case in scene.cases(unit):
            cost += 1
            if case.violation is not None:
                raise _failure(check, case.violation.message)
    return Known(check, (), frozenset(seen), cost)


def _failure(check: Check, message: str) -> ImageError:
    return ImageError(f"the regression fails on the unbroken image: {check.name}: {message}")
