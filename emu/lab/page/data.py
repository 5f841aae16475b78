"""What the page shows, as plain data for JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from emu.errors import Entry64Error
from emu.lab.minimise import smallest
from emu.lab.page.trail import State, baseline, to_violation
from emu.lab.sweep.case import VERDICTS
from emu.lab.sweep.scene import Options, Scene
from emu.lab.sweep.store import Store, Sweep
from emu.lab.sweep.vary import FAMILY as VARY
from kernel_stubs.kernel_image import Overrides

_EVENT = re.compile(r"(\w+)[\w.-]*[@+](\d+)")
NESTED = " \N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK} "
"""Between two events of which the second came in the first one's handler: they have a column of their own."""
MAX_TIMELINES = 50
"""Of one scenario: each takes a run."""


def page_data(store: Store, sources: Overrides | None) -> list[dict[str, Any]]:
    """All sweeps of a file, in the order in which they were begun."""
    return [_sweep(store, sweep, sources) for sweep in store.sweeps()]


def _sweep(store: Store, sweep: Sweep, sources: Overrides | None) -> dict[str, Any]:
    events = tuple(sweep.events.split(","))
    outer = tuple(sweep.first.split(","))
    options = Options(events, sweep.depth, sweep.window, sources, first=outer, cpu=sweep.cpu)
    scene = Scene(sweep.scenario, sweep.text, options)
    if scene.key() != sweep.key:
        raise Entry64Error(
            f"{sweep.scenario}: this sweep was made with other entry code, or by another version of entry64; "
            "give the same --sources, or sweep again"
        )
    firsts = [*outer, *([VARY] if scene.rows else [])]
    cells: dict[int, dict[str, list[int]]] = {}
    columns: set[str] = set()
    for row in store.rows(sweep.key):
        parts = [_EVENT.fullmatch(part) for part in row.events.split(" ")]
        first = parts[0]
        if first is None or None in parts:
            raise Entry64Error(f"{sweep.scenario}: the database has a case with the unknown key {row.events!r}")
        column = NESTED.join(part[1] for part in parts[:2] if part)
        columns.add(column)
        counts = cells.setdefault(int(first[2]), {}).setdefault(column, [0] * len(VERDICTS))
        counts[VERDICTS.index(row.verdict)] += 1
    pairs = [pair for pair in (f"{one}{NESTED}{two}" for one in firsts for two in events) if pair in columns]
    units = scene.units(0)
    states = list(baseline(scene))
    return {
        "name": sweep.scenario,
        "title": scene.file.scenario.title,
        "kernel": scene.file.scenario.kernel,
        "events": [*firsts, *pairs],
        "depth": sweep.depth,
        "window": sweep.window,
        "complete": len(store.done(sweep.key)) >= len(units),
        "counts": {verdict: store.counts(sweep.key).get(verdict, 0) for verdict in VERDICTS},
        "rows": [
            [*_row(one), cells.get(number, {} if number in scene.swept else None)] for number, one in enumerate(states)
        ],
        "findings": list(_findings(store, sweep, sources)),
    }


def _row(one: State) -> list[Any]:
    return list(one)


def _findings(store: Store, sweep: Sweep, sources: Overrides | None) -> Iterator[dict[str, Any]]:
    for number, (row, count) in enumerate(smallest(store.rows(sweep.key, VERDICTS[2:]))):
        timeline: list[State] = []
        last = -1
        if row.reproducer and number < MAX_TIMELINES:
            scene = Scene("finding.toml", row.reproducer, Options(("nmi",), sources=sources))
            timeline, last = to_violation(scene)
        yield {
            "verdict": row.verdict, "invariant": row.invariant, "message": row.message, "where": row.location,
            "case": row.events, "place": row.place, "cases": count,
            "scenario": row.reproducer, "timeline": [_row(one) for one in timeline], "last": last,
        }  # fmt: skip
