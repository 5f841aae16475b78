"""What a mutant need not be killed for: lists with reasons, beside the sources of each image.

equivalent.toml   mutants that change nothing that anybody could see
unexecuted.toml   instructions that nothing executes (emu.lab.coverage)
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass

from asm import Image
from emu.errors import ImageError
from emu.lab.coverage import reason_unexecuted
from kernel_stubs.kernel_image import SOURCES

LIST = "equivalent.toml"


@dataclass(frozen=True, slots=True)
class Equivalent:
    """A row of the list: one operator and one place, both patterns as in a shell."""

    operator: str
    place: str
    reason: str

    def matches(self, operator: str, place: str) -> bool:
        """Whether it means this mutant."""
        return fnmatch.fnmatchcase(operator, self.operator) and fnmatch.fnmatchcase(place, self.place)

    def __str__(self) -> str:
        return f"{self.operator} {self.place}"


def equivalents(kernel: str) -> tuple[Equivalent, ...]:
    """An image's list; ImageError if it is not as it should be."""
    path = SOURCES / kernel / LIST
    try:
        return parse(path.read_text("utf-8"))
    except FileNotFoundError:
        return ()
    except ValueError as error:
        raise ImageError(f"asm/{kernel}/{LIST}: {error}") from None


def parse(text: str) -> tuple[Equivalent, ...]:
    """The rows of a list; ValueError if one lacks its operator, places or reason."""
    found = []
    for row in tomllib.loads(text).get("equivalent", []):
        if row.keys() != {"operator", "places", "reason"} or not all(row.values()):
            raise ValueError(f"{row}: a row has an operator, places and a reason")
        found += [Equivalent(row["operator"], place, row["reason"]) for place in row["places"]]
    return tuple(found)


def without_mutant(rows: Iterable[Equivalent], mutants: Iterable[tuple[str, str]]) -> list[Equivalent]:
    """The rows that mean none of these mutants (operator, place): what they were written for is gone."""
    known = list(mutants)
    return [row for row in rows if not any(row.matches(*one) for one in known)]


def reason_unreached(kernel: str, image: Image, touched: frozenset[int]) -> str:
    """Why nothing executes what a mutant changes, if the list says so of each of its instructions; else empty."""
    reasons = [reason_unexecuted(kernel, image, address) for address in sorted(touched)]
    return reasons[0] if reasons and all(reasons) else ""
