"""Findings of a sweep, each made as small as it gets: few events, an early boundary, a short program.

Rows that show the same violation at the same place are one finding. Its smallest case is taken, by number of events
and then by boundary, and its scenario file is cut down for as long as `entry64 run` still shows that violation.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from asm import Image
from emu.errors import Entry64Error
from emu.lab.rig import Rig
from emu.lab.run import allowed_endings, prepare
from emu.lab.scenario import parse_scenario
from emu.lab.sweep.case import DELIVERY, ENDING, LOST, TRANSPARENCY
from emu.lab.sweep.reproducer import expectation, to_toml
from emu.lab.sweep.scene import Scene
from emu.lab.sweep.store import Row
from kernel_stubs.kernel_image import Overrides

MAX_TRIES = 300
"""Runs for one finding."""
MAX_MINIMISED = 20
"""Findings of a scenario that are made small: more of them have few causes."""
Known = Callable[[str, str], bool]
"""(invariant, place) -> whether nobody needs a scenario of it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One way to break an invariant."""

    invariant: str
    message: str
    where: str
    events: str
    """Key of the smallest case."""
    place: str
    cases: int
    """How many show it."""
    reproduced: bool
    """Whether a run of the scenario shows the same violation."""
    scenario: str
    """A scenario file's text."""

    def lines(self) -> list[str]:
        """For people."""
        count = "1 case" if self.cases == 1 else f"{self.cases} cases, the smallest"
        how = "" if self.reproduced else " (as it was found)"
        return [
            f"{self.invariant or LOST} at {self.where or '?'}: {self.message}",
            f"  {count} {self.events}: {self.place}{how}",
        ]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def findings(rows: Iterable[Row], scene: Scene, known: Known = lambda _invariant, _where: False) -> Iterator[Finding]:
    """The findings among the rows of one scenario, in the order of their smallest cases.

    Those that are known already, and all after the first MAX_MINIMISED, stay as they were found.
    """
    left = MAX_MINIMISED
    for row, count in smallest(rows):
        text, shown = row.reproducer, False
        judged = row.verdict != LOST and row.invariant not in (DELIVERY, ENDING)  # `run` does not judge the others
        if judged and left and not known(row.invariant, row.location):
            left -= 1
            text, shown = minimise(row, scene.options.image, scene.options.sources)
        yield Finding(row.invariant, row.message, row.location, row.events, row.place, count, shown, text)


def smallest(rows: Iterable[Row]) -> list[tuple[Row, int]]:
    """The smallest case of each violation at each place, and how many show it; in the order of their sizes.

    A broken image has as many rows as there are cases: no more of them are kept than this.
    """
    chosen: dict[tuple[str, str], tuple[Row, int]] = {}
    for row in rows:
        best, count = chosen.get((row.invariant, row.location), (row, 0))
        chosen[row.invariant, row.location] = (min(best, row, key=size), count + 1)
    return sorted(chosen.values(), key=lambda item: size(item[0]))


def size(row: Row) -> tuple[int, list[int], str]:
    """How small a case is. Of rows of a variation, the earlier ones change less."""
    numbers = [int(number) for number in re.findall(r"[@+](\d+)", row.events)]
    variation = [int(number) for number in re.findall(r"^vary\.(\d+)", row.events)]
    return row.events.count(" "), numbers + variation, row.events


def minimise(row: Row, image: Image | None, sources: Overrides | None) -> tuple[str, bool]:
    """The scenario of a row, cut down, and whether a run of it shows the violation."""
    left = MAX_TRIES

    def shows(data: dict[str, Any]) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and _shows(to_toml(data), row, image, sources)

    data = tomllib.loads(row.reproducer)
    if not shows(data):
        return row.reproducer, False
    data = _fewer_events(data, shows)
    data = _earlier(data, shows)
    if row.invariant != TRANSPARENCY:
        data = _shorter_program(data, shows)
    return to_toml(data), True


def _shows(text: str, row: Row, image: Image | None, sources: Overrides | None) -> bool:
    """Whether a run's first violation is that of the row (or, for transparency, whether it ends unexpectedly).

    Injections that the violation comes before are no obstacle: they are the first to be left out.
    """
    try:
        prepared = prepare(parse_scenario(text, "finding.toml"), image, sources)
        rig = Rig(prepared.options, prepared.user)
        scenario = prepared.file.scenario
        facts = rig.run(prepared.cases[0].injections, scenario.budget, "", allowed=allowed_endings(scenario), log=False)
    except Entry64Error:
        return False
    if row.invariant == TRANSPARENCY:
        wanted = scenario.expect.model_dump(exclude_defaults=True)
        return not facts.missed and not facts.violations and expectation(facts) != wanted
    return bool(facts.violations) and (facts.violations[0].invariant, facts.violations[0].where) == (
        row.invariant,
        row.location,
    )


Shows = Callable[[dict[str, Any]], bool]


def _fewer_events(data: dict[str, Any], shows: Shows) -> dict[str, Any]:
    for index in range(len(data["inject"]) - 1, -1, -1):
        less = data | {"inject": data["inject"][:index] + data["inject"][index + 1 :]}
        if less["inject"] and shows(less):
            data = less
    return data


def _earlier(data: dict[str, Any], shows: Shows) -> dict[str, Any]:
    """The first arrival at a place instead of a later one."""
    for index, spec in enumerate(data["inject"]):
        if spec.get("hit", 1) > 1:
            first = {key: value for key, value in spec.items() if key != "hit"}
            earlier = data | {"inject": [*data["inject"][:index], first, *data["inject"][index + 1 :]]}
            if shows(earlier):
                data = earlier
    return data


def _shorter_program(data: dict[str, Any], shows: Shows) -> dict[str, Any]:
    """Leave out instructions of the user program, from the last to the first, as long as that still shows it."""
    lines = data["user"]["asm"].splitlines()
    for index in range(len(lines) - 1, -1, -1):
        code = lines[index].partition("#")[0].strip()
        if code.endswith(":"):
            continue
        fewer = lines[:index] + lines[index + 1 :]
        # How a shorter program ends is of no interest: the violation comes first.
        less = data | {"user": data["user"] | {"asm": "\n".join(fewer) + "\n"}, "expect": {}}
        if not code or shows(less):
            lines = fewer
            data = data | {"user": less["user"]} if not code else less
    return data
