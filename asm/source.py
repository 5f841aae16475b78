"""Reading: files and includes, comments, statement separators, character constants.

Follows gas's scrubber where it can be seen from outside: a character constant becomes its number, `;` and the end of
line separate statements, `#` starts a comment, and a blank in an operand counts only between two symbol characters
(so that `MACRO a b` and `MACRO a -b` have two arguments, but `MACRO a + b` one).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from asm.errors import Position, Problem

CPP_DIRECTIVE = re.compile(r"\s*#(include|define|undef|ifdef|ifndef|if|else|elif|endif|error|warning|pragma)\b")
SPECIAL = re.compile(r"[\"'#;/*]")
LEXEME = re.compile(r"\"(?:[^\"\\]|\\.)*\"|\"|'|/\*|//|#|;")
CHARACTER = re.compile(r"'(\\.|[^\\\n])'?")
ESCAPED_CHARACTERS = {"n": 10, "t": 9, "r": 13, "b": 8, "f": 12, "\\": 92, "'": 39, '"': 34}
# What gas calls a symbol component: blanks between two of these are kept, all others vanish.
SYMBOL_CHARACTERS = r"\w.$*%(\[{}\-"
STRING = re.compile(r'("(?:[^"\\]|\\.)*"?)', re.DOTALL)
DEAD_BLANK = re.compile(rf"(?<![{SYMBOL_CHARACTERS}\"])\s+|\s+(?![{SYMBOL_CHARACTERS}\"])")
BLANKS = re.compile(r"\s+")
CONTROL = re.compile(r"[^\t -~\n\x80-\U0010ffff]")


class SourceLine(NamedTuple):
    """One statement (or one `.macro` line ...) of the source, comments removed."""

    text: str
    position: Position


Report = Callable[[Position, str], None]


def split_statements(text: str, file: str, first_line: int, report: Report) -> list[SourceLine]:
    """Cut `text` into statements; `first_line` is the number of its first line in `file`.

    Faults (an unterminated string, a preprocessor line) go to `report`, and the line is left out.
    """
    statements: list[SourceLine] = []
    in_comment: Position | None = None
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), first_line):
        position = Position(file, number)
        if in_comment is None and not SPECIAL.search(line) and line.isascii() and line.isprintable():
            if line and not line.isspace():
                statements.append(SourceLine(line, position))
            continue
        if in_comment is None and (found := CPP_DIRECTIVE.match(line)):
            report(position, f"C preprocessor lines are not supported: #{found[1]} (a comment needs a blank after #)")
            continue
        try:
            parts, open_comment = _split_line(line, in_comment is not None)
        except Problem as problem:
            report(position, str(problem))
            continue
        in_comment = (in_comment or position) if open_comment else None
        statements.extend(SourceLine(part, position) for part in parts)
    if in_comment is not None:
        report(in_comment, "unterminated /* comment")
    return statements


def _split_line(line: str, in_comment: bool) -> tuple[list[str], bool]:
    """The statements of one line, and whether a /* comment is still open at its end."""
    parts: list[str] = []
    current: list[str] = []
    at = 0
    if in_comment:
        end = line.find("*/")
        if end < 0:
            return [], True
        at = end + 2
        current.append(" ")
    open_comment = False
    while found := LEXEME.search(line, at):
        current.append(line[at : found.start()])
        at = found.end()
        lexeme = found[0]
        if lexeme == ";":
            parts.append("".join(current))
            current = []
        elif lexeme == "/*":
            end = line.find("*/", at)
            if end < 0:
                open_comment, at = True, len(line)
                break
            current.append(" ")
            at = end + 2
        elif lexeme == "'":
            character = CHARACTER.match(line, at - 1)
            if character is None:
                raise Problem("empty character constant")
            current.append(str(character_value(character[1])))
            at = character.end()
        elif lexeme == '"':
            raise Problem("unterminated string")
        elif lexeme[0] == '"':
            current.append(lexeme)
        else:  # a comment to the end of the line
            at = len(line)
            break
    current.append(line[at:])
    parts.append("".join(current))
    for part in parts:
        check_characters(part)
    return [part for part in parts if part and not part.isspace()], open_comment


def character_value(character: str) -> int:
    """The value of the inside of a character constant, e.g. `a` or `\\n`."""
    if character[0] == "\\":
        return ESCAPED_CHARACTERS.get(character[1], ord(character[1]))
    return ord(character)


def check_characters(text: str) -> None:
    """Refuse control characters anywhere, and what is not ASCII outside strings."""
    if found := CONTROL.search(text):
        raise Problem(f"invalid character {found[0]!r}")
    if not text.isascii() and not (bare := STRING.sub("", text)).isascii():
        raise Problem(f"invalid character {next(c for c in bare if ord(c) > 127)!r}")


@lru_cache(maxsize=20000)
def scrub(text: str) -> str:
    """Operand text with the blanks that gas keeps: one between two symbol characters, all inside strings."""
    text = text.strip()
    if " " not in text and "\t" not in text:
        return text
    if '"' not in text:
        return DEAD_BLANK.sub("", BLANKS.sub(" ", text))
    parts = STRING.split(text)
    for index in range(0, len(parts), 2):
        part = BLANKS.sub(" ", parts[index])
        inner = DEAD_BLANK.sub("", part.strip())
        # A blank beside a string separates only what would otherwise be a word.
        if index and part[:1] == " " and inner[:1] not in {"", ","}:
            inner = " " + inner
        elif index and not inner and part and index + 1 < len(parts):
            inner = " "
        if index + 1 < len(parts) and inner and part[-1:] == " " and inner[-1] not in ", ":
            inner += " "
        parts[index] = inner
    return "".join(parts)


@dataclass(frozen=True)
class Library:
    """Where `.include` finds files: given texts first, then the directory of the includer, then `include_dirs`."""

    virtual_files: Mapping[str, str]
    include_dirs: Sequence[Path]
    refused: str | None = None  # why no file may be included, if so

    def open(self, name: str, includer: str) -> tuple[str, str]:
        """The (file name, text) that `.include "name"` in `includer` means; Problem when there is none."""
        if name in self.virtual_files:
            return name, self.virtual_files[name]
        if self.refused is not None:
            raise Problem(f'.include "{name}" refused: {self.refused}')
        for directory in (Path(includer).parent, *self.include_dirs):
            path = directory / name
            if path.is_file():
                return str(path), read_source(path)
        raise Problem(f'.include "{name}": no such file')


def read_source(path: Path) -> str:
    """The text of a source file; Problem when it is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise Problem(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise Problem(f"cannot read {path}: {error.strerror}") from None
