"""One line of the table of `make bench`: our figure beside its goal and its limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

SECONDS, SLICE = 3.0, 0.15
"""Each rate, ours and its limit alike, is measured for about this long, in slices of at least so much."""
_AT_MOST = ("s", "times", "MiB")
"""Units of which less is better."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    name: str
    value: float
    unit: str
    limit_name: str
    limit: float
    goal: float

    @property
    def met(self) -> bool:
        """Whether the goal is met: a rate at least, a time at most."""
        return self.value <= self.goal if self.unit in _AT_MOST else self.value >= self.goal

    def line(self, width: int) -> str:
        """A row of the table."""
        digits = ",.0f" if self.value >= 1000 else ",.2f"
        goal = f"goal {self.goal:>8,g} {'met' if self.met else 'MISSED'}" if self.goal else ""
        limit = f"{self.limit_name}: {self.limit:{digits}} {self.unit}"
        return f"{self.name:{width}}  {self.value:>9{digits}} {self.unit:5}  {goal:20}  {limit}"


def rate(work: Callable[[], int]) -> float:
    """Units a second of `work`, which returns how many it did: the best slice of about SECONDS, after one to warm up.

    What makes the others slower is mostly not ours: the host's other guests, or its clock (see timeit.Timer.repeat).
    """
    work()
    best, end = 0.0, time.perf_counter() + SECONDS
    while (start := time.perf_counter()) < end:
        done = work()
        while (spent := time.perf_counter() - start) < SLICE:
            done += work()
        best = max(best, done / spent)
    return best
