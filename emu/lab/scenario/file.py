"""A scenario's text: read and checked, with the line of each of its parts for messages.

A scenario is untrusted: nothing in it names a file of the host. Whatever is wrong with one is a ScenarioError whose
lines are `file:line: what`.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from emu.errors import ScenarioError
from emu.lab.complaints import complaints
from emu.lab.locate import Lines, locate
from emu.lab.scenario.tables import Scenario

MAX_FILE = 1 << 20


class ScenarioFile:
    """A scenario with where its parts stand."""

    def __init__(self, name: str, scenario: Scenario, lines: Lines, text: str = "") -> None:
        self.name = name
        """The file's name in messages."""
        self.text = text
        self.scenario = scenario
        self.lines = lines

    def where(self, *path: str | int) -> str:
        """`file:line` of a key."""
        return f"{self.name}:{self.lines.of(path)}"


def parse_scenario(text: str, name: str) -> ScenarioFile:
    """Read a scenario from its text; `name` stands for the file in messages."""
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except RecursionError:
        raise ScenarioError(f"{name}:1: not TOML: nested too deep") from None
    except ValueError as error:  # TOMLDecodeError, or a number that int() refuses
        raise ScenarioError(_syntax_error(name, text, str(error))) from None
    lines = locate(text)
    try:
        scenario = Scenario.model_validate(data)
    except ValidationError as error:
        raise ScenarioError("\n".join(complaints(error, Scenario, name, lines))) from None
    return ScenarioFile(name, scenario, lines, text)


def _syntax_error(name: str, text: str, message: str) -> str:
    found = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if found:
        return f"{name}:{found[1]}: not TOML: {message[: found.start()]}, in column {found[2]}"
    message = message.removesuffix(" (at end of document)")
    if message.startswith("Exceeds the limit"):
        message = "a number has too many digits"
    return f"{name}:{len(text.splitlines()) or 1}: not TOML: {message.splitlines()[0]}"


def read_scenario(path: Path, name: str | None = None) -> ScenarioFile:
    """Read a scenario file."""
    name = name or str(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ScenarioError(f"{name}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # a null byte in the name
        raise ScenarioError(f"{name!r}: cannot be read: {error}") from None
    if len(data) > MAX_FILE:
        raise ScenarioError(f"{name}: larger than {MAX_FILE >> 20} MiB")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ScenarioError(f"{name}:{line}: not UTF-8 (byte {data[error.start]:#04x})") from None
    return parse_scenario(text, name)


def scenario_schema() -> dict[str, Any]:
    """JSON Schema of the file format, for editors."""
    return Scenario.model_json_schema()
