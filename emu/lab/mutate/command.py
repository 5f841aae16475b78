"""The command line's side of mutation testing: the table, the survivors, the score."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from emu.lab.mutate.operators import NOP
from emu.lab.mutate.run import Fate, Status

GOAL = 95.0
"""Percent of the generic operator's mutants that must be killed or listed; of the others, all."""


def score(fates: list[Fate]) -> float:
    """Percent killed or equivalent."""
    good = sum(fate.status in (Status.KILLED, Status.EQUIVALENT) for fate in fates)
    return 100.0 * good / len(fates) if fates else 100.0


def parts(fates: list[Fate]) -> tuple[list[Fate], list[Fate]]:
    """Mutants of the named operators; of the generic one."""
    named = [fate for fate in fates if fate.operator != NOP]
    return named, [fate for fate in fates if fate.operator == NOP]


def good_enough(fates: list[Fate]) -> bool:
    """Whether the regression is as sharp as it must be."""
    named, generic = parts(fates)
    return score(named) == 100.0 and score(generic) >= GOAL


def text_lines(fates: list[Fate]) -> Iterator[str]:
    """For people."""
    names = list(dict.fromkeys(fate.operator for fate in fates))
    width = max((len(name) for name in names), default=0)
    yield f"{'operator':{width}}  " + "".join(f"{status.value:>12}" for status in Status) + "   score"
    for name in sorted(names):
        mine = [fate for fate in fates if fate.operator == name]
        count = Counter(fate.status for fate in mine)
        yield f"{name:{width}}  " + "".join(f"{count[status]:12}" for status in Status) + f"  {score(mine):5.1f}%"
    by = Counter(fate.killed.by for fate in fates if fate.killed is not None)
    yield "killed by: " + ", ".join(f"{name} {number}" for name, number in by.most_common())
    named, generic = parts(fates)
    yield f"named operators {score(named):.1f}%, any instruction {score(generic):.1f}%"
    for status in (Status.SURVIVED, Status.UNREACHED, Status.LOST):
        for fate in fates:
            if fate.status is status:
                yield f"{status.value}: {fate.operator} {fate.place}" + (
                    "" if fate.build == "fsgsbase" else f" [{fate.build}]"
                )


def as_json(fates: list[Fate]) -> str:
    """The JSON document."""
    named, generic = parts(fates)
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
        for fate in fates
    ]
    return json.dumps({"named": score(named), "generic": score(generic), "mutants": table}, indent=2)
