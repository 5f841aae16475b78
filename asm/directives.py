"""The directives that are known: data (see data.py), sections, and what is said about symbols."""

from __future__ import annotations

import re
from collections.abc import Callable

from asm.data import DATA_DIRECTIVES, Handler, arguments_between, split_arguments
from asm.errors import Problem
from asm.expression import parse
from asm.layout import Place
from asm.source import scrub
from asm.unit import Unit

NAME = re.compile(r"[A-Za-z_.$][\w.$]*")
SECTION_TYPES = ("progbits", "nobits", "note", "init_array", "fini_array", "preinit_array")
SYMBOL_TYPES = ("function", "object", "notype", "common", "tls_object", "gnu_indirect_function", "gnu_unique_object")


def _section(unit: Unit, text: str, place: Place) -> None:
    """.section name[, "flags"[, @type[, entry size]]]"""
    arguments = split_arguments(text)
    if not arguments:
        raise Problem(".section needs a name")
    name = arguments[0].strip('"')
    if not re.fullmatch(r"[\w.$*-]+", name):
        raise Problem(f"bad section name {arguments[0]!r}")
    flags: str | None = None
    nobits: bool | None = None
    if len(arguments) > 1:
        if not re.fullmatch(r'"[a-zA-Z]*"', arguments[1]):
            raise Problem(f"bad section flags {arguments[1]!r}")
        flags = arguments[1].strip('"')
        if unknown := set(flags) - set("awxMSTo"):
            raise Problem(f"unsupported section flag {min(unknown)!r}")
    if len(arguments) > 2:
        kind = arguments[2].strip('"').lstrip("@%")
        if kind not in SECTION_TYPES:
            raise Problem(f"unknown section type {arguments[2]!r}")
        nobits = kind == "nobits"
    unit.use_section(unit.get_section(name, flags, nobits))


def named_section(name: str) -> Handler:
    """`.text`, `.data`, `.bss`."""

    def handler(unit: Unit, text: str, place: Place) -> None:
        if text.strip() not in ("", "0"):
            raise Problem("subsections are not supported")
        unit.use_section(unit.get_section(name, None, None))

    return handler


def _push_section(unit: Unit, text: str, place: Place) -> None:
    state = (unit.section, unit.previous)
    _section(unit, text, place)
    unit.stack.append(state)


def _pop_section(unit: Unit, text: str, place: Place) -> None:
    _nothing_after(text)
    if not unit.stack:
        raise Problem(".popsection without .pushsection")
    unit.section, unit.previous = unit.stack.pop()


def _previous(unit: Unit, text: str, place: Place) -> None:
    _nothing_after(text)
    if unit.previous is None:
        raise Problem(".previous without a section before")
    unit.use_section(unit.previous)


def _nothing_after(text: str) -> None:
    if text.strip():
        raise Problem(f"unexpected {text.strip()!r}")


def names(action: Callable[[Unit, str], None]) -> Handler:
    """A directive whose arguments are symbol names."""

    def handler(unit: Unit, text: str, place: Place) -> None:
        for name in split_arguments(text) or [""]:
            if not NAME.fullmatch(name):
                raise Problem(f"bad symbol name {name!r}")
            action(unit, name)

    return handler


def _global(unit: Unit, name: str) -> None:
    unit.globals.add(name)


def _mention(unit: Unit, name: str) -> None:
    """Nothing to do: every symbol of the image can be seen, and all undefined names are external."""


def _type(unit: Unit, text: str, place: Place) -> None:
    found = re.fullmatch(r'([\w.$]+)(?:,| )\s*[@%#]?"?(\w+)"?', scrub(text))
    if found is None or found[2].lower().removeprefix("stt_") not in (*SYMBOL_TYPES, "func"):
        raise Problem(f"bad .type {text.strip()!r}")


def _size(unit: Unit, text: str, place: Place) -> None:
    arguments = arguments_between(text, ".size", 2, 2)
    if not NAME.fullmatch(arguments[0]):
        raise Problem(f"bad symbol name {arguments[0]!r}")
    parse(arguments[1], unit)


def _ignore_code64(unit: Unit, text: str, place: Place) -> None:
    _nothing_after(text)


def _refuse_mode(unit: Unit, text: str, place: Place) -> None:
    raise Problem("only 64-bit code can be assembled; .code32 and .code16 are not supported")


DIRECTIVES: dict[str, Handler] = {
    **DATA_DIRECTIVES,
    ".section": _section,
    ".text": named_section(".text"),
    ".data": named_section(".data"),
    ".bss": named_section(".bss"),
    ".pushsection": _push_section,
    ".popsection": _pop_section,
    ".previous": _previous,
    **dict.fromkeys((".globl", ".global", ".weak"), names(_global)),
    **dict.fromkeys((".local", ".extern", ".hidden"), names(_mention)),
    ".type": _type,
    ".size": _size,
    ".code64": _ignore_code64,
    **dict.fromkeys((".code32", ".code16", ".code16gcc"), _refuse_mode),
}
