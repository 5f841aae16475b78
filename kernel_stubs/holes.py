"""Holes that history knows, put back into an image's sources (asm/*/holes.toml): for who wants to see them found."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import asm
from emu.errors import ImageError
from kernel_stubs.kernel_image import Overrides, source_files

KERNEL = "linux-6"


@dataclass(frozen=True, slots=True)
class Change:
    """A text of one source, and what stands there instead."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Hole:
    """One hole."""

    name: str
    title: str
    changes: tuple[Change, ...]

    def sources(self) -> Overrides:
        """All sources of the image with the hole in it. ImageError if a text is not there exactly once."""
        sources = source_files(KERNEL)
        for change in self.changes:
            found = sources[change.file].count(change.old)
            if found != 1:
                raise ImageError(f"hole {self.name}: {change.file} has {change.old.strip()!r} {found} times, not once")
            sources[change.file] = sources[change.file].replace(change.old, change.new)
        return tuple(sources.items())


def hole_in(sources: Overrides) -> str | None:
    """The hole that sources of `sources_with` have in them."""
    return next((name for name in holes() if sources_with(name) == sources), None)


@cache
def holes() -> dict[str, Hole]:
    """All of them by name, in the order of the file."""
    data = tomllib.loads((Path(asm.__file__).parent / KERNEL / "holes.toml").read_text())
    return {
        hole["name"]: Hole(hole["name"], hole["title"], tuple(Change(**change) for change in hole["change"]))
        for hole in data["hole"]
    }


def sources_with(name: str) -> Overrides:
    """All sources of linux-6 with a hole in them; ImageError for a hole that nobody knows."""
    known = holes()
    if name not in known:
        near = difflib.get_close_matches(name, known, 3, 0.5)
        hint = f"near: {', '.join(near)}" if near else f"there are {', '.join(known)}"
        raise ImageError(f"--sources hole:{name}: there is no such hole; {hint}")
    return known[name].sources()
