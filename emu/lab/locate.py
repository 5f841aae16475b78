"""In which line of a TOML text each key stands: tomllib gives values only, and an error message needs the line.

This reader judges nothing. `tomllib` has accepted the text before; where it has not, what was found so far is all
there is. It never raises.
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass

Path = tuple[str | int, ...]
"""Keys and array indices from the top of the file, as in `data["inject"][0]["at"]`."""

_SPACE = re.compile(r"[ \t]*")
_SKIP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*+")
_REST_OF_LINE = re.compile(r"[^\n]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\n]+")
_STRINGS = (
    re.compile(r'"""(?:[^"\\]|\\.|"(?!""))*+"{3,5}', re.DOTALL),
    re.compile(r"'''(?:[^']|'(?!''))*+'{3,5}"),
    re.compile(r'"(?:[^"\\\n]|\\.)*+"'),
    re.compile(r"'[^'\n]*+'"),
)


@dataclass(frozen=True, slots=True)
class Lines:
    """Line numbers, from 1."""

    keys: Mapping[Path, int]
    texts: Mapping[Path, int]
    """Of string values: the line of the first character, which for a multi-line string may be the next one."""

    def of(self, path: Path) -> int:
        """The line of a key, or of the innermost table around it that is written down; 1 for the file itself."""
        while path and path not in self.keys:
            path = path[:-1]
        return self.keys.get(path, 1)

    def text(self, path: Path) -> int:
        """The line where a string value's text begins."""
        return self.texts.get(path, self.of(path))


def locate(text: str) -> Lines:
    """Find the keys of a TOML text."""
    scanner = _Scanner(text)
    with contextlib.suppress(_Lost, RecursionError):
        scanner.document()
    return Lines(scanner.keys, scanner.texts)


class _Lost(Exception):
    """The text is not TOML from here on."""


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.keys: dict[Path, int] = {}
        self.texts: dict[Path, int] = {}
        self._arrays: dict[Path, int] = {}
        """Arrays of tables: how many elements so far."""
        self._line = 1
        self._counted = 0

    # --- characters -------------------------------------------------------------------------------------------------
    def line(self) -> int:
        """The line of the present position."""
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line

    def take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise _Lost
        self.at = match.end()
        return match.group()

    def skip(self, literal: str) -> bool:
        if self.text.startswith(literal, self.at):
            self.at += len(literal)
            return True
        return False

    def expect(self, literal: str) -> None:
        if not self.skip(literal):
            raise _Lost

    # --- grammar ----------------------------------------------------------------------------------------------------
    def document(self) -> None:
        table: Path = ()
        while True:
            self.take(_SKIP)
            if self.at >= len(self.text):
                return
            if self.skip("[["):
                table = self.header(array=True)
                self.expect("]]")
            elif self.skip("["):
                table = self.header(array=False)
                self.expect("]")
            else:
                self.pair(table)
            self.take(_REST_OF_LINE)

    def header(self, *, array: bool) -> Path:
        line = self.line()
        names = self.key()
        path: Path = ()
        for depth, name in enumerate(names, 1):
            path += (name,)
            last = depth == len(names)
            if array and last:
                self._arrays[path] = self._arrays.get(path, 0) + 1
            self.keys.setdefault(path, line)
            if path in self._arrays:
                path += (self._arrays[path] - 1,)
                self.keys.setdefault(path, line)
        return path

    def key(self) -> list[str]:
        """A dotted key."""
        names = []
        while True:
            self.take(_SPACE)
            names.append(self.simple_key())
            self.take(_SPACE)
            if not self.skip("."):
                return names

    def simple_key(self) -> str:
        if self.text[self.at : self.at + 1] in ('"', "'"):
            return _unquote(self.string())
        return self.take(_BARE_KEY)

    def pair(self, table: Path) -> None:
        line = self.line()
        path = table
        for name in self.key():
            path += (name,)
            self.keys.setdefault(path, line)
        self.expect("=")
        self.take(_SPACE)
        self.value(path)

    def value(self, path: Path) -> None:
        following = self.text[self.at : self.at + 1]
        if following in ('"', "'"):
            multi_line = self.text[self.at : self.at + 3] in ('"""', "'''")
            start = self.at + (3 if multi_line else 1)
            newline = re.compile(r"\r?\n").match(self.text, start) if multi_line else None
            self.texts[path] = self.line() + (newline is not None)
            self.string()
        elif following == "[":
            self.array(path)
        elif following == "{":
            self.inline_table(path)
        else:
            self.take(_SCALAR)

    def string(self) -> str:
        for pattern in _STRINGS:
            match = pattern.match(self.text, self.at)
            if match is not None:
                self.at = match.end()
                return match.group()
        raise _Lost

    def array(self, path: Path) -> None:
        self.expect("[")
        index = 0
        while True:
            self.take(_SKIP)
            if self.skip("]"):
                return
            element: Path = (*path, index)
            self.keys.setdefault(element, self.line())
            self.value(element)
            index += 1
            self.take(_SKIP)
            if not self.skip(","):
                self.expect("]")
                return

    def inline_table(self, path: Path) -> None:
        self.expect("{")
        while True:
            self.take(_SKIP)
            if self.skip("}"):
                return
            self.pair(path)
            self.take(_SKIP)
            if not self.skip(","):
                self.expect("}")
                return


def _unquote(literal: str) -> str:
    try:
        return next(iter(tomllib.loads(f"{literal} = 0")))
    except tomllib.TOMLDecodeError:
        raise _Lost from None
