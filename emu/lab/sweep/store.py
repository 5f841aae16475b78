"""Results in SQLite, as they come: a unit's rows and the note that it is done are one transaction.

A sweep is known by a hash of all that its results depend on, so a file can hold many, and a command that is given again
finds what it has already.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from emu.errors import Entry64Error

FORMAT = 3
"""Of the tables; a file says which it has."""
_SCHEMA = f"""
BEGIN IMMEDIATE;
PRAGMA user_version = {FORMAT};
CREATE TABLE IF NOT EXISTS sweeps (
    sweep TEXT PRIMARY KEY, scenario TEXT NOT NULL, events TEXT NOT NULL, first TEXT NOT NULL, depth INTEGER NOT NULL,
    window TEXT NOT NULL, cpu INTEGER NOT NULL, boundaries INTEGER NOT NULL, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS units (sweep TEXT NOT NULL, first INTEGER NOT NULL, PRIMARY KEY (sweep, first));
CREATE TABLE IF NOT EXISTS cases (
    sweep TEXT NOT NULL, events TEXT NOT NULL, place TEXT NOT NULL, verdict TEXT NOT NULL, merged TEXT NOT NULL,
    to_end INTEGER NOT NULL, invariant TEXT NOT NULL, message TEXT NOT NULL, location TEXT NOT NULL,
    reproducer TEXT NOT NULL, PRIMARY KEY (sweep, events)) WITHOUT ROWID;
COMMIT;
"""


class Row(NamedTuple):
    """One case in the table."""

    events: str
    place: str
    verdict: str
    merged: str
    to_end: bool
    invariant: str
    message: str
    location: str
    reproducer: str
    """A scenario file that shows a finding; empty for a case that is fine."""


class Sweep(NamedTuple):
    """What was asked for."""

    key: str
    scenario: str
    events: str
    first: str
    """Those of the events that come first."""
    depth: int
    window: str
    cpu: int
    boundaries: int
    text: str
    """The scenario file."""


class Store:
    """The results of sweeps. Without a path they are in a temporary file, which nobody else sees: a million cases take
    some hundred megabytes."""

    def __init__(self, path: Path | None) -> None:
        try:
            self._db = sqlite3.connect(path or "", isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            (format_,) = self._db.execute("PRAGMA user_version").fetchone()
            if not tables:
                self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise Entry64Error(f"{path}: no database of results: {error}") from None
        if tables and format_ != FORMAT:
            raise Entry64Error(f"{path}: a database of another program, or of another version of entry64")

    def close(self) -> None:
        """No more."""
        self._db.close()

    def begin(self, sweep: Sweep) -> None:
        """Make a sweep known."""
        self._db.execute("INSERT OR IGNORE INTO sweeps VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", sweep)

    def done(self, sweep: str) -> set[int]:
        """First boundaries of the units that are complete."""
        return {first for (first,) in self._db.execute("SELECT first FROM units WHERE sweep = ?", (sweep,))}

    def add(self, sweep: str, first: int, rows: Iterable[Row]) -> None:
        """A unit is complete."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            values = ((sweep, *row) for row in rows)
            self._db.executemany("INSERT OR REPLACE INTO cases VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
            self._db.execute("INSERT OR IGNORE INTO units VALUES (?, ?)", (sweep, first))
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def sweeps(self) -> list[Sweep]:
        """All that the file knows, the oldest first."""
        return [Sweep(*row) for row in self._db.execute("SELECT * FROM sweeps ORDER BY rowid")]

    # --- answers ----------------------------------------------------------------------------------------------------
    def rows(self, sweep: str, verdicts: Sequence[str] = ()) -> Iterator[Row]:
        """The cases, in the order of their keys."""
        query, values = "SELECT * FROM cases WHERE sweep = ?", [sweep]
        if verdicts:
            query += f" AND verdict IN ({', '.join('?' * len(verdicts))})"
            values += verdicts
        for _, events, place, verdict, merged, to_end, *rest in self._db.execute(query + " ORDER BY events", values):
            yield Row(events, place, verdict, merged, bool(to_end), *rest)

    def counts(self, sweep: str) -> dict[str, int]:
        """Verdict -> cases; and how many were `merged`, and ran `to the end`."""
        query = "SELECT verdict, count(*), sum(merged != ''), sum(to_end) FROM cases WHERE sweep = ? GROUP BY verdict"
        table, merged, to_end = {}, 0, 0
        for verdict, number, some, others in self._db.execute(query, (sweep,)):
            table[verdict] = number
            merged, to_end = merged + some, to_end + others
        return table | {"merged": merged, "to the end": to_end}
