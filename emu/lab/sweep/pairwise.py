"""Covering arrays of strength 2: a few rows in which any two columns take every pair of their values."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

Row = tuple[int, ...]


def pairwise(sizes: Sequence[int]) -> list[Row]:
    """Rows of indices below `sizes`, first those where one column alone is not 0, then greedily what is left.

    The same sizes give the same rows. A row has the lowest value where nothing else decides, so that few columns of it
    are not 0.
    """
    rows = [tuple(value if n == column else 0 for n in range(len(sizes))) for column, size in enumerate(sizes)
            for value in range(1, size)]  # fmt: skip
    missing = {
        ((a, x), (b, y))
        for a, b in combinations(range(len(sizes)), 2)
        for x in range(1, sizes[a])
        for y in range(1, sizes[b])
    }
    while missing:
        row = _row(sizes, missing)
        rows.append(row)
        missing -= set(combinations(tuple(enumerate(row)), 2))
    return rows


def _row(sizes: Sequence[int], missing: set[tuple[tuple[int, int], tuple[int, int]]]) -> Row:
    """A row that begins with the first missing pair and then has, column by column, what most pairs are missing of."""
    row: dict[int, int] = dict(min(missing))
    for column, size in enumerate(sizes):
        if column in row:
            continue
        fixed = tuple(row.items())

        def new(value: int, column: int = column, fixed: tuple[tuple[int, int], ...] = fixed) -> int:
            return sum(tuple(sorted(((column, value), one))) in missing for one in fixed)

        row[column] = max(range(size), key=lambda value: (new(value), -value))
    return tuple(row[column] for column in range(len(sizes)))
