"""What a sweep keeps in memory does not depend on the number of its cases."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from sweep_runs import text

from emu.lab.scenario import parse_scenario
from emu.lab.sweep.case import CLEAN, VIOLATION
from emu.lab.sweep.command import sweep
from emu.lab.sweep.scene import Options, Unit
from emu.lab.sweep.store import Row, Store

OPTIONS = Options(("nmi",), depth=2)
REPRODUCER = "x" * 2_000


class Made:
    """Instead of workers: so many rows of a unit, which cost nothing to make."""

    def __init__(self, verdict: str, rows: int) -> None:
        self.verdict = verdict
        self.rows = rows

    def run(self, units: list[Unit]) -> Iterator[tuple[Unit, list[Row]]]:
        tracemalloc.start()
        for unit in units:
            yield unit, [self.row(f"nmi@{unit.first} nmi+{number}") for number in range(self.rows)]

    def row(self, key: str) -> Row:
        place = f"entry_SYSCALL_64 > asm_exc_nmi, case {key}"
        if self.verdict == CLEAN:
            return Row(key, place, CLEAN, "", False, "", "", "", "")
        return Row(key, place, self.verdict, "", False, "stacks", f"message of {key}", "asm_exc_nmi", REPRODUCER + key)


def grown(verdict: str, rows: int) -> tuple[int, int]:
    """(cases, bytes that Python objects took for them at the worst moment)."""
    file = parse_scenario(text(), "t.toml")
    made, store = Made(verdict, rows), Store(None)
    try:
        (result,) = sweep([file], OPTIONS, 1, store, lambda *_: None, hire=lambda job: made, known=lambda *_: True)
        return result.counts[verdict], tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("verdict", [CLEAN, VIOLATION])
def test_the_parent_keeps_no_rows(verdict):
    few, before = grown(verdict, 12)
    many, after = grown(verdict, 72)
    assert many == 6 * few > 5_000
    # One unit's rows are longer, by 60 rows of at most 3 kB: nothing else is.
    assert after - before < 300_000


def test_rows_without_a_database_are_on_disk():
    store = Store(None)
    store.add("sweep", 0, (Made(CLEAN, 0).row(f"nmi@{number}") for number in range(20_000)))
    links = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert any("etilqs_" in link for link in links)
    store.close()
