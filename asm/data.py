"""Data directives: what puts bytes, space or padding into a section."""

from __future__ import annotations

import re
from collections.abc import Callable

from asm.errors import Problem
from asm.expression import Value, parse
from asm.layout import MAX_SECTION, Align, Org, Place, Space
from asm.unit import Fixup, Unit

Handler = Callable[[Unit, str, Place], None]

STRING = re.compile(r'\s*"((?:[^"\\]|\\.)*)"')
ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]+)|(.))", re.DOTALL)
SIMPLE_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "'": "'"}


def split_arguments(text: str) -> list[str]:
    """Cut at commas outside strings and parentheses."""
    parts: list[str] = []
    depth = start = at = 0
    while at < len(text):
        character = text[at]
        if character == '"':
            found = STRING.match(text, at)
            if found is None:
                raise Problem("unterminated string")
            at = found.end()
            continue
        if character in "()":
            depth += 1 if character == "(" else -1
        elif character == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
        at += 1
    parts.append(text[start:].strip())
    return parts if parts != [""] else []


def parse_string(text: str) -> bytes:
    """The bytes of one or more adjacent string literals, as gas joins them."""
    result = b""
    at = 0
    while at < len(text):
        found = STRING.match(text, at)
        if found is None:
            raise Problem(f"expected a string, not {text[at:].strip()!r}")
        result += unescape(found[1])
        at = found.end()
        if not text[at:].strip():
            break
    return result


def unescape(text: str) -> bytes:
    """The bytes that the inside of a string literal stands for; Problem on an unknown escape."""
    result = bytearray()
    at = 0
    for found in ESCAPE.finditer(text):
        result += text[at : found.start()].encode()
        at = found.end()
        if found[1]:
            result.append(int(found[1], 8) & 0xFF)
        elif found[2]:
            result.append(int(found[2], 16) & 0xFF)
        elif found[3] in SIMPLE_ESCAPES:
            result += SIMPLE_ESCAPES[found[3]].encode()
        else:
            raise Problem(f"unknown escape \\{found[3]} in a string")
    return bytes(result + text[at:].encode())


def _emit(unit: Unit, data: bytes, place: Place, kind: str = "data") -> None:
    section = unit.section
    if section.nobits and any(data):
        raise Problem(f"section {section.name} cannot hold initialised data")
    unit.mark_appeared()
    if data:
        section.add_item(data, place, kind)


def integers(size: int, kind: str = "data") -> Handler:
    """A directive whose arguments are integers of `size` bytes."""

    def handler(unit: Unit, text: str, place: Place) -> None:
        data = bytearray()
        fixups: list[tuple[int, Value]] = []
        for argument in split_arguments(text):
            value = _parse_at(unit, argument, len(data))
            if isinstance(value, int):
                data += pack(value, size)
            else:
                fixups.append((len(data), value))
                data += bytes(size)
        if fixups and unit.section.nobits:
            raise Problem(f"section {unit.section.name} cannot hold initialised data")
        frag, index = unit.section.frag, len(unit.section.frag.items)
        _emit(unit, bytes(data), place, kind)
        unit.fixups.extend(Fixup(frag, index, "data", size, value, place, offset) for offset, value in fixups)

    return handler


def _parse_at(unit: Unit, text: str, delta: int) -> Value:
    """An expression in which `.` is `delta` bytes after the start of the statement."""
    if not delta or "." not in text:
        return parse(text, unit)
    return parse(text, _Ahead(unit, delta))


class _Ahead:
    """The unit as an expression.Scope whose current location is some bytes further."""

    def __init__(self, unit: Unit, delta: int) -> None:
        self.lookup = unit.lookup
        self.local_label = unit.local_label
        self.distance = unit.distance
        self._unit, self._delta = unit, delta

    def here(self) -> Value:
        """The location of the argument."""
        return self._unit.here(self._delta)


def pack(value: int, size: int) -> bytes:
    """`value` in `size` bytes; Problem when gas would have to cut it."""
    bits = 8 * size
    if not -(1 << bits) < value < 1 << bits:
        raise Problem(f"{value:#x} does not fit in {size} byte{'s' if size > 1 else ''}")
    return (value & ((1 << bits) - 1)).to_bytes(size, "little")


def strings(terminator: bytes) -> Handler:
    """`.ascii` or `.asciz`."""

    def handler(unit: Unit, text: str, place: Place) -> None:
        arguments = split_arguments(text)
        _emit(unit, b"".join(parse_string(argument) + terminator for argument in arguments), place)

    return handler


def _space(unit: Unit, text: str, place: Place) -> None:
    """.skip count[, fill]"""
    arguments = arguments_between(text, ".skip", 1, 2)
    fill = pack(unit.absolute(arguments[1], "the fill"), 1) if len(arguments) > 1 else b"\0"
    _repeat(unit, parse(arguments[0], unit), fill, place)


def _fill(unit: Unit, text: str, place: Place) -> None:
    """.fill repeat[, size[, value]]"""
    arguments = arguments_between(text, ".fill", 1, 3)
    size = unit.absolute(arguments[1], "the size") if len(arguments) > 1 and arguments[1] else 1
    value = unit.absolute(arguments[2], "the value") if len(arguments) > 2 else 0
    if not 0 <= size <= 8:
        raise Problem(f".fill size {size} is not in 0..8")
    # gas keeps the low four bytes of the value and fills up with zeros.
    pattern = (value & 0xFFFFFFFF).to_bytes(8, "little")[:size]
    if size:
        _repeat(unit, parse(arguments[0], unit), pattern, place)


def _repeat(unit: Unit, count: Value, fill: bytes, place: Place) -> None:
    unit.mark_appeared()
    if unit.section.nobits and any(fill):
        raise Problem(f"section {unit.section.name} cannot hold initialised data")
    if not isinstance(count, int):
        unit.section.add_tail(Space(count, fill), place, "data")
        return
    if count < 0:
        raise Problem(f"negative size {count}")
    if count * len(fill) > MAX_SECTION:
        raise Problem(f"{count * len(fill)} bytes are more than a section may have, {MAX_SECTION}")
    _emit(unit, fill * count, place)


def _org(unit: Unit, text: str, place: Place) -> None:
    arguments = arguments_between(text, ".org", 1, 2)
    fill = pack(unit.absolute(arguments[1], "the fill"), 1)[0] if len(arguments) > 1 else 0
    origin(unit, parse(arguments[0], unit), place, fill)


def origin(unit: Unit, target: Value, place: Place, fill: int = 0) -> None:
    """`.org target` or `. = target`."""
    unit.mark_appeared()
    unit.section.add_tail(Org(target, fill), place, "data")


def align(power: bool) -> Handler:
    """`.p2align n[, fill[, limit]]` (power) or `.balign n[, fill[, limit]]`."""

    def handler(unit: Unit, text: str, place: Place) -> None:
        arguments = arguments_between(text, ".align", 1, 3)
        number = unit.absolute(arguments[0], "the alignment")
        if power and not 0 <= number <= 16:
            raise Problem(f"alignment 2**{number} is not in 0..16")
        boundary = 1 << number if power else number or 1
        if boundary & (boundary - 1) or not 1 <= boundary <= 1 << 16:
            raise Problem(f"alignment {boundary} is not a power of two up to 65536")
        given = len(arguments) > 1 and arguments[1] != ""
        fill = unit.absolute(arguments[1], "the fill") & 0xFF if given else None
        limit = unit.absolute(arguments[2], "the limit") if len(arguments) > 2 else 0
        section = unit.section
        unit.mark_appeared()
        if section.nobits and fill:
            raise Problem(f"section {section.name} cannot hold initialised data")
        if boundary == 1:
            return  # not even the end of a fragment, so that labels around it keep a known distance
        section.alignment = max(section.alignment, boundary)
        if section.executable and (fill is None or fill == 0x90):
            pattern = None
        else:
            pattern = bytes([fill or 0])
        section.add_tail(Align(boundary, pattern, max(limit, 0)), place, "padding")

    return handler


def arguments_between(text: str, name: str, least: int, most: int) -> list[str]:
    """The arguments of directive `name`; Problem unless there are `least` to `most`."""
    arguments = split_arguments(text)
    if not least <= len(arguments) <= most:
        raise Problem(f"{name} takes {least} to {most} arguments, not {len(arguments)}")
    return arguments


DATA_DIRECTIVES: dict[str, Handler] = {
    ".byte": integers(1, "bytes"),
    **dict.fromkeys((".word", ".short", ".value", ".hword", ".2byte"), integers(2)),
    **dict.fromkeys((".long", ".int", ".4byte"), integers(4)),
    **dict.fromkeys((".quad", ".8byte"), integers(8)),
    ".ascii": strings(b""),
    **dict.fromkeys((".asciz", ".string"), strings(b"\0")),
    **dict.fromkeys((".zero", ".skip", ".space"), _space),
    ".fill": _fill,
    ".org": _org,
    **dict.fromkeys((".align", ".balign"), align(power=False)),
    ".p2align": align(power=True),
}
