"""Where a statement stands in the source, and every error that the assembler raises.

AssemblyError            the source cannot be assembled; carries all diagnostics
UnknownSymbol            a name that the image does not define
OutsideImage             an address that no segment covers
BadElf                   bytes that are not an x86-64 executable
Problem                  internal: one fault of one statement, turned into a Diagnostic where the position is known
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Position:
    """One line of one source file, counted from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One error: where, what, and the macro calls that led there (outermost first)."""

    position: Position
    message: str
    macro_sites: tuple[Position, ...] = ()

    def __str__(self) -> str:
        sites = "".join(f"  in macro used at {site}" for site in reversed(self.macro_sites))
        return f"{self.position}: {self.message}{sites}"


class AssemblyError(Exception):
    """The source has errors. `diagnostics` holds all of them, in the order in which the
    statements were read; str() gives one a line."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n".join(str(diagnostic) for diagnostic in self.diagnostics))

    def __reduce__(self) -> tuple[type[AssemblyError], tuple[tuple[Diagnostic, ...]]]:
        return AssemblyError, (self.diagnostics,)


class UnknownSymbol(LookupError):
    """The image has no symbol of this name; `near` lists the most similar names."""

    def __init__(self, name: str, near: Sequence[str] = ()) -> None:
        self.name = name
        self.near = tuple(near)
        super().__init__(f"no symbol {name!r} in the image{did_you_mean(self.near)}")

    def __reduce__(self) -> tuple[type[UnknownSymbol], tuple[str, tuple[str, ...]]]:
        return UnknownSymbol, (self.name, self.near)


class OutsideImage(LookupError):
    """A read that touches bytes which no segment of the image holds."""


class BadElf(ValueError):
    """The bytes are not an ELF64 x86-64 executable or shared object."""


class Problem(Exception):
    """One fault of the statement at hand; whoever knows the position makes a Diagnostic of it."""


def near_names(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The names most similar to `name`, best first."""
    return difflib.get_close_matches(name, list(known), count, 0.6)


def did_you_mean(near: Sequence[str]) -> str:
    """The tail of an error message that offers `near`, or nothing."""
    return f"; did you mean {', '.join(near)}?" if near else ""
