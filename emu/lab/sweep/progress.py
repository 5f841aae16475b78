"""How far a sweep is, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

LINE_EVERY = 10.0
"""Seconds between two lines off a terminal."""
Progress = Callable[[int, int, int, int], None]
"""Told: units done, units in all, cases, violations among them."""


class _Pace:
    """Cases a second of one sweep, without those that were there before."""

    def __init__(self) -> None:
        self._since = 0.0
        self._before = self._newest = 0
        self._total = -1

    def rate(self, total: int, cases: int) -> float:
        """Now; another total, or fewer cases than before, are another sweep's."""
        now = time.monotonic()
        if total != self._total or cases < self._newest:
            self._since, self._before, self._total = now, cases, total
        self._newest = cases
        return (cases - self._before) / max(now - self._since, 1e-3)


class Bar:
    """On a terminal; it is gone when a sweep is over, so that results can be printed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: RichProgress | None = None
        self._pace = _Pace()

    def __call__(self, done: int, total: int, cases: int, violations: int) -> None:
        """Progress."""
        rate = self._pace.rate(total, cases)
        if self._bar is None:
            self._bar = RichProgress(
                BarColumn(bar_width=None), TaskProgressColumn(), TextColumn("{task.description}"),
                TimeRemainingColumn(), TextColumn("left"), console=self._console, transient=True, expand=True,
            )  # fmt: skip
            self._task = self._bar.add_task("", total=total)
            self._bar.start()
        colour = "red" if violations else "green"
        words = f"{cases:,} cases  {rate:,.0f}/s  [{colour}]{_violations(violations)}[/]"
        self._bar.update(self._task, completed=done, description=words)
        if done == total:
            self.close()

    def close(self) -> None:
        """Remove it."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _violations(number: int) -> str:
    return f"{number:,} violation{'' if number == 1 else 's'}"


def _lines() -> Progress:
    pace, last = _Pace(), 0.0

    def write(done: int, total: int, cases: int, violations: int) -> None:
        nonlocal last
        rate, now = pace.rate(total, cases), time.monotonic()
        if now - last >= LINE_EVERY or done == total:
            last = now
            part = 100 * done // total if total else 100
            print(f"{part:3}%  {cases:,} cases  {rate:,.0f}/s  {_violations(violations)}", file=sys.stderr, flush=True)

    return write


def silent(done: int, total: int, cases: int, violations: int) -> None:
    """Shows nothing."""


@contextmanager
def shown_progress(on: bool) -> Iterator[Progress]:
    """A progress to tell, shown if `on`."""
    if not on:
        yield silent
    elif not sys.stderr.isatty():
        yield _lines()
    else:
        bar = Bar(Console(stderr=True))
        try:
            yield bar
        finally:
            bar.close()
