"""The command line's side of mutation testing: the table, the survivors, the score."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence

from emu.lab.mutate.mutant import NOP
from emu.lab.mutate.run import Fate, Outcome, Status

GOAL = 95.0
"""Percent of the generic operator's mutants that must be killed or equivalent; of the others, all."""
_GOOD = (Status.KILLED, Status.EQUIVALENT)


def score(fates: Sequence[Fate]) -> float | None:
    """Percent killed or equivalent, of those that anything can execute; None if there are none."""
    counted = [fate for fate in fates if fate.status is not Status.UNEXECUTED]
    return 100.0 * sum(fate.status in _GOOD for fate in counted) / len(counted) if counted else None


def parts(fates: Sequence[Fate]) -> tuple[list[Fate], list[Fate]]:
    """Mutants of the named operators; of the generic one."""
    named = [fate for fate in fates if fate.operator != NOP]
    return named, [fate for fate in fates if fate.operator == NOP]


def good_enough(outcome: Outcome) -> bool:
    """Whether the regression is as sharp as it must be, and the list true. Nothing that was not tried is good."""
    named, generic = (score(part) for part in parts(outcome.fates))
    tried = named is not None or generic is not None
    return tried and named in (None, 100.0) and (generic is None or generic >= GOAL) and not outcome.stale


def percent(value: float | None) -> str:
    """A score in words."""
    return "n/a" if value is None else f"{value:.1f}%"


def text_lines(outcome: Outcome) -> Iterator[str]:
    """For people."""
    fates = outcome.fates
    names = sorted({fate.operator for fate in fates})
    width = max((len(name) for name in names), default=0)
    yield f"{'operator':{width}}  mutants" + "".join(f"{status.value:>12}" for status in Status) + "   score"
    for name in (*names, "all"):
        mine = [fate for fate in fates if name in (fate.operator, "all")]
        count = Counter(fate.status for fate in mine)
        columns = "".join(f"{count[status]:12}" for status in Status)
        yield f"{name:{width}}  {len(mine):7}{columns}  {percent(score(mine)):>6}"
    by = Counter(fate.killed.by for fate in fates if fate.killed is not None)
    yield "killed by: " + ", ".join(f"{name} {number}" for name, number in by.most_common())
    named, generic = parts(fates)
    yield f"named operators {percent(score(named))}, any instruction {percent(score(generic))}"
    for status in (Status.SURVIVED, Status.UNREACHED, Status.LOST):
        for fate in fates:
            if fate.status is status:
                yield f"{status.value}: {fate.operator} {fate.place}" + (
                    "" if fate.build == "fsgsbase" else f" [{fate.build}]"
                )
    for row in outcome.stale:
        yield f"listed as equivalent, but no mutant needs it: {row}"


def as_json(kernel: str, outcome: Outcome) -> str:
    """The JSON document."""
    named, generic = parts(outcome.fates)
    table = [
        {
            "operator": fate.operator,
            "place": fate.place,
            "build": fate.build,
            "status": fate.status.value,
            "killed_by": fate.killed.by if fate.killed else None,
            "check": fate.killed.check if fate.killed else None,
            "message": fate.killed.message if fate.killed else None,
            "reason": fate.reason or None,
        }
        for fate in outcome.fates
    ]
    document = {
        "kernel": kernel, "named": score(named), "generic": score(generic),
        "stale": [str(row) for row in outcome.stale], "mutants": table,
    }  # fmt: skip
    return json.dumps(document, indent=2)
