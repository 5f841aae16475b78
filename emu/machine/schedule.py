"""In which order, and for how long at a time, CPUs take their turns: part of the input, so runs can be repeated."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Interleaving:
    """Each turn lets every CPU run up to `quantum` instructions.

    Without a seed that is always `quantum`, in order of CPU number. With one, every turn draws its own length (1 to
    `quantum`) and order from the seed and the turn's number alone.
    """

    quantum: int = 1000
    seed: int | None = None

    def turn(self, number: int, cpus: int) -> tuple[int, tuple[int, ...]]:
        """(length, order of the CPUs) of a turn."""
        order = list(range(cpus))
        if self.seed is None:
            return self.quantum, tuple(order)
        draw = random.Random(f"{self.seed}/{number}")
        length = draw.randint(1, self.quantum)
        draw.shuffle(order)
        return length, tuple(order)


@dataclass(slots=True)
class Turn:
    """Where the machine is in its schedule. `end` is the clock that each CPU runs to in this turn."""

    number: int = -1
    end: int = 0
    waiting: tuple[int, ...] = field(default=())
    """CPUs that have not had this turn yet; the first one is running."""

    def copy(self) -> Turn:
        """For a snapshot."""
        return Turn(self.number, self.end, self.waiting)
