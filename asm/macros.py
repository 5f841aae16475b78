"""Macros: their formal parameters, the arguments of a call as gas splits them, and the expansion of a body."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from asm.errors import Problem, did_you_mean, near_names
from asm.source import SourceLine, scrub

NAME = re.compile(r"[A-Za-z_.$][\w.$]*")
FORMAL = re.compile(r"\s*,?\s*([A-Za-z_$][\w$]*)\s*(?::\s*(\w+))?")
KEYWORD = re.compile(r"([^\s,\";()=]*)=")
REFERENCE = re.compile(r"\\(@|\(\)|[A-Za-z_$](?:[\w.$]*[\w$])?)")
MAX_TEXT = 1 << 16  # characters of one expanded line


@dataclass(frozen=True, slots=True)
class Formal:
    """A parameter: `name`, `name=default`, `name:req` or `name:vararg`."""

    name: str
    default: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """A line of a body, cut at its references: literal texts and parameter names alternate."""

    line: SourceLine
    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Macro:
    """A `.macro` definition."""

    name: str
    formals: tuple[Formal, ...]
    body: tuple[Template, ...]


def define(arguments: str, body: Sequence[SourceLine]) -> Macro:
    """The macro that `.macro arguments` ... `.endm` defines."""
    text = scrub(arguments)
    found = NAME.match(text)
    if found is None:
        raise Problem("missing macro name")
    name, rest = found[0], text[found.end() :].strip()
    formals: list[Formal] = []
    at = 0
    while at < len(rest):
        formal = FORMAL.match(rest, at)
        if formal is None:
            raise Problem(f"bad parameter list of macro {name}: {rest[at:].strip()!r}")
        at, kind, default = formal.end(), formal[2] or "", ""
        if kind not in ("", "req", "vararg"):
            raise Problem(f"parameter {formal[1]} of macro {name}: unknown qualifier {kind!r}, not req or vararg")
        if equals := re.compile(r"\s*=\s*").match(rest, at):
            default, at = argument(rest, equals.end())
        if any(formal[1] == other.name for other in formals):
            raise Problem(f"macro {name} has two parameters {formal[1]}")
        if formals and formals[-1].kind == "vararg":
            raise Problem(f"macro {name}: a parameter follows the vararg {formals[-1].name}")
        formals.append(Formal(formal[1], default, kind))
    names = [formal.name for formal in formals]
    return Macro(name, tuple(formals), tuple(template(line, names) for line in body))


def template(line: SourceLine, names: Sequence[str]) -> Template:
    """Cut a line at the references to `names`, `\\@` and `\\()`; other backslashes stay."""
    if "\\" not in line.text:
        return Template(line, (line.text,))
    pieces = [""]
    at = 0
    for found in REFERENCE.finditer(line.text):
        pieces[-1] += line.text[at : found.start()]
        at = found.end()
        if found[1] in names or found[1] == "@":
            pieces.extend((found[1], ""))
        elif found[1] != "()":
            pieces[-1] += found[0]
    pieces[-1] += line.text[at:]
    return Template(line, tuple(pieces))


def fill(template: Template, values: dict[str, str]) -> str:
    """The line with its references replaced."""
    pieces = template.pieces
    if len(pieces) == 1:
        return pieces[0]
    text = "".join(values.get(piece, "\\@") if index & 1 else piece for index, piece in enumerate(pieces))
    if len(text) > MAX_TEXT:
        raise Problem(f"the macro expands to a line of more than {MAX_TEXT} characters")
    return text


def argument(text: str, at: int) -> tuple[str, int]:
    """The argument at `at` of a scrubbed text, without quotes, and where it ends: at a comma or a free blank."""
    if text[at : at + 1] == '"':
        return _string(text, at)
    start, brackets = at, 0
    while at < len(text):
        character = text[at]
        if character == "," or (character == " " and not brackets):
            break
        if character == '"':
            at = text.find('"', at + 1)
            if at < 0:
                return text[start:], len(text)
        elif character in "([":
            brackets += 1
        elif character in ")]" and brackets:
            brackets -= 1
        at += 1
    return text[start:at], at


def _string(text: str, at: int) -> tuple[str, int]:
    """A quoted argument: the quotes go, `\\"` and `""` mean a quote."""
    result: list[str] = []
    at += 1
    while at < len(text):
        character = text[at]
        if character == "\\" and text[at + 1 : at + 2] == '"':
            result.append('\\"')
            at += 2
        elif character == '"':
            if text[at + 1 : at + 2] != '"':
                return "".join(result), at + 1
            result.append('"')
            at += 2
        else:
            result.append(character)
            at += 1
    return "".join(result), at


def skip_comma(text: str, at: int) -> int:
    """Past blanks and at most one comma."""
    while text[at : at + 1] == " ":
        at += 1
    if text[at : at + 1] == ",":
        at += 1
    while text[at : at + 1] == " ":
        at += 1
    return at


def bind(macro: Macro, arguments: str) -> tuple[dict[str, str], list[str]]:
    """The value of each parameter in a call, and the faults of the call."""
    values: dict[str, str] = {}
    if not arguments and not macro.formals:
        return values, []
    text = scrub(arguments)
    by_name = {formal.name: formal for formal in macro.formals}
    free = iter(macro.formals)
    faults: list[str] = []
    at = 0
    keyword_seen = False
    while at < len(text):
        if keyword := KEYWORD.match(text, at):
            keyword_seen = True
            value, at = argument(text, keyword.end())
            if keyword[1] not in by_name:
                near = did_you_mean(near_names(keyword[1], by_name))
                faults.append(f"macro {macro.name} has no parameter {keyword[1]!r}{near}")
            else:
                values[keyword[1]] = value
        elif keyword_seen:
            return values, [*faults, f"positional argument after keyword argument of macro {macro.name}"]
        else:
            formal = next(free, None)
            if formal is None:
                count = len(macro.formals)
                return values, [*faults, f"too many arguments for macro {macro.name}, which takes {count}"]
            if formal.kind == "vararg":
                values[formal.name], at = text[at:], len(text)
            else:
                values[formal.name], at = argument(text, at)
        at = skip_comma(text, at)
    for formal in macro.formals:
        if not values.get(formal.name):
            values[formal.name] = formal.default
            if formal.kind == "req":
                faults.append(f"macro {macro.name} needs the argument {formal.name!r}")
    return values, faults


def arguments_of(text: str) -> list[str]:
    """The values that `.irp` goes through; one empty value when there are none."""
    text = scrub(text)
    values: list[str] = []
    at = 0
    while at < len(text):
        value, at = argument(text, at)
        values.append(value)
        at = skip_comma(text, at)
    return values or [""]
