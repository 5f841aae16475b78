"""Every error that a user can see.

    Entry64Error            exit status 2: one clear message, no traceback
    ├── EngineError         the installed unicorn is not one that this version knows
    ├── ScenarioError       a scenario file: where, what, what was expected
    │   └── UnknownSymbolError
    ├── ProgramError        a user program that cannot be started
    └── ImageError          an unknown or broken kernel image

What the guest does wrong is never an exception: it is a result (emu.lab.report).
"""

from __future__ import annotations

from collections.abc import Sequence


class Entry64Error(Exception):
    """A mistake in what the user gave us; its text is the whole message."""


class EngineError(Entry64Error):
    """The CPU engine on this machine does not behave as measured."""


class ScenarioError(Entry64Error):
    """A scenario file is wrong; the message starts with file:line."""


class UnknownSymbolError(ScenarioError):
    """A scenario names a symbol that the image does not have."""

    def __init__(self, where: str, name: str, near: Sequence[str]) -> None:
        hint = f"; near: {', '.join(near)}" if near else ""
        super().__init__(f"{where}: no symbol {name!r} in the image{hint}")


class ProgramError(Entry64Error):
    """A user program cannot be started: not static, not 64-bit, truncated, missing."""


class ImageError(Entry64Error):
    """An unknown kernel image or one that does not assemble."""
