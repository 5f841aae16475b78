"""A sweep that is killed at random moments, again and again: nothing is lost, nothing counts twice."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from sweep_runs import text

from emu.lab.scenario import parse_scenario
from emu.lab.sweep.command import sweep
from emu.lab.sweep.pool import Workshop
from emu.lab.sweep.scene import Options
from emu.lab.sweep.store import Store

KILLS = 10
OPTIONS = Options(("nmi", "irq"), depth=2, window="entry_SYSCALL_64..entry_SYSCALL_64+0x3")


class Rows(list):
    """Rows that tell when they are taken: in the middle of a transaction."""

    def __init__(self, rows, moment: Callable[[], None]) -> None:
        super().__init__(rows)
        self.moment = moment

    def __iter__(self):
        for row in super().__iter__():
            self.moment()
            yield row


class Here:
    """Runs units in this process, and tells of each case before it runs."""

    def __init__(self, job, moment: Callable[[], None]) -> None:
        self.workshop = Workshop(job)
        self.moment = moment

    def run(self, units):
        for unit in units:
            yield unit, Rows(self.workshop.rows(unit, lambda key: self.moment()), self.moment)


def run(db: Path, moment: Callable[[], None]) -> dict[str, int]:
    """The sweep, with `moment` called before each case and within each transaction; the counts that it reports."""
    store = Store(db)
    file = parse_scenario(text(), "t.toml")
    (result,) = sweep([file], OPTIONS, 1, store, lambda *_: None, hire=lambda job: Here(job, moment))
    store.close()
    return result.counts


def run_until(db: Path, moment: int, how: int) -> None:
    """In a process of its own: the sweep, and a signal to itself at the n-th moment."""
    passed = 0

    def count() -> None:
        nonlocal passed
        passed += 1
        if passed == moment:
            os.kill(os.getpid(), how)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may have been started without
    try:
        run(db, count)
    except KeyboardInterrupt:
        os._exit(130)


def table(db: Path) -> list[tuple]:
    connection = sqlite3.connect(db)
    found = connection.execute("SELECT * FROM cases ORDER BY sweep, events").fetchall()
    connection.close()
    return found


@pytest.mark.parametrize(("how", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_ten_random_moments(tmp_path, how, status):
    moments = 0

    def count() -> None:
        nonlocal moments
        moments += 1

    counts = run(tmp_path / "whole.db", count)
    wanted = table(tmp_path / "whole.db")
    assert sum(counts[verdict] for verdict in ("clean", "pending")) == len(wanted) > 300
    choose = random.Random(how)
    fork = multiprocessing.get_context("fork")
    db = tmp_path / "killed.db"
    for _ in range(KILLS):
        process = fork.Process(target=run_until, args=(db, choose.randrange(1, moments // KILLS), how))
        process.start()
        process.join()
        assert process.exitcode == status
        found = table(db)
        assert set(found) <= set(wanted)  # what is there is right already
    assert len(found) < len(wanted)
    assert run(db, lambda: None) == counts
    assert table(db) == wanted
