"""Finding scenarios: files, and those that come with entry64 by their bare names."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import emu
from emu.errors import ScenarioError
from emu.lab.scenario import ScenarioFile, read_scenario

FOLDER = Path(emu.__path__[0]).parent / "scenarios"
"""Beside the packages, in a checkout as in an installation."""


def shipped_names() -> list[str]:
    """The bare names."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def find_scenario(name: str) -> ScenarioFile:
    """A file if there is one of this name, else the shipped scenario."""
    shown = os.fsencode(name).decode(errors="replace")
    if "/" in name or name.endswith(".toml") or "\0" in name or Path(name).is_file():
        return read_scenario(Path(name), shown)
    if name in shipped_names():
        return read_scenario(FOLDER / f"{name}.toml", f"{name}.toml")
    if Path(name).exists():
        return read_scenario(Path(name), shown)  # a directory, which says so
    near = difflib.get_close_matches(name, shipped_names(), 3, 0.4)
    hint = f"; near: {', '.join(near)}" if near else ""
    raise ScenarioError(f"{shown}: neither a file nor a shipped scenario{hint}")
