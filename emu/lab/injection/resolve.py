"""Injections: what a scenario puts at an instruction boundary, resolved before the run and fired during it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from emu.errors import ScenarioError
from emu.lab.injection.actions import Fire, action
from emu.lab.injection.guest import CannotInject
from emu.lab.places import Boundary, Places
from emu.lab.scenario.inject import Inject
from emu.machine.core import Core
from kernel_stubs.context import Kernel, KernelOops


@dataclass(frozen=True, slots=True)
class Injection:
    """One `[[inject]]`, resolved: what, and the boundary or the instruction count."""

    number: int
    what: str
    fire: Fire
    cpu: int
    boundary: Boundary | None
    hit: int
    instruction: int | None

    def __str__(self) -> str:
        if self.boundary is None:
            return f"{self.what} before instruction {self.instruction}"
        times = f", arrival {self.hit}" if self.hit > 1 else ""
        return f"{self.what} at {self.boundary.name}{times}"


def resolve(
    specs: Sequence[Inject], where: Callable[[int, str], str], places: Places, cpus: int
) -> list[list[Injection]]:
    """The injections of each case: one case, or one for each boundary of an `each`.

    `where(index, key)` says where a message's subject stands.
    """
    cases: list[list[Injection]] = [[]]
    for index, spec in enumerate(specs):
        here = partial(where, index)
        if spec.cpu >= cpus:
            raise ScenarioError(f"{here('cpu')}: no CPU {spec.cpu}; the machine has {cpus}, counted from 0")
        boundaries: list[Boundary | None] = [None]
        if spec.at is not None:
            boundaries = [places.boundary(spec.at, here("at"))]
        elif spec.each is not None:
            boundaries = [*places.boundaries(spec.each, here("each"))]
        actions = [(*action(one, places, here), one.hit) for one in spec.single()]
        cases = [
            [
                *case,
                *(
                    Injection(index + 1, what, action, spec.cpu, boundary, hit, spec.instruction)
                    for what, action, hit in actions
                ),
            ]
            for boundary in boundaries
            for case in cases
        ]
    return cases


def fire(injection: Injection, kernel: Kernel, core: Core) -> str | None:
    """Do it now; what prevented it, in words."""
    try:
        injection.fire(kernel, core)
    except (CannotInject, KernelOops) as problem:
        return f"injection {injection.number} ({injection}): {problem}"
    return None
