"""Scenario files out of cases: what `entry64 run` needs to show a finding again."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from asm import Image
from emu.lab.rig import Facts
from emu.lab.sweep.case import Case, Shot

_ORDER = ("title", "shows", "kernel", "cpus", "seed", "budget")


def reproducer(text: str, facts: Facts, case: Case, image: Image, user: Image) -> str:
    """The scenario `text` with a case's events, which is to end as its baseline does (`facts`)."""
    data = tomllib.loads(text)
    data.pop("sweep", None)
    own = [spec for spec in data.get("inject", []) if "each" not in spec]
    shots = [table for shot in case.shots for table in _tables(shot, image, user)]
    first = case.violation
    where = f" at {first.where}" if first is not None else ""
    data |= {
        "title": f"{data['title']}: {case.key}",
        "shows": f"Found by entry64 sweep: {first.invariant if first else case.verdict}{where}.",
        "inject": [*own, *shots],
        "expect": expectation(facts),
    }
    return to_toml(data)


def expectation(facts: Facts) -> dict[str, object]:
    """What the outside world sees of a run."""
    expect: dict[str, object] = {}
    if facts.exit_code is not None:
        expect["exit"] = facts.exit_code
    elif facts.signal is not None:
        expect["signal"] = facts.signal
    elif facts.end != "finished":
        expect["end"] = facts.end
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        data = facts.stream(descriptor)
        if data:
            expect[name] = data.decode(errors="replace")
    return expect


def _tables(shot: Shot, image: Image, user: Image) -> list[dict[str, object]]:
    where: dict[str, object] = {"at": place(shot.where.boundary.ip, image, user)}
    if shot.where.arrival > 1:
        where["hit"] = shot.where.arrival
    if shot.where.cpu:
        where["cpu"] = shot.where.cpu
    return [table | where for table in shot.tables]


def place(address: int, image: Image, user: Image) -> str:
    """A boundary as a scenario file names it."""
    for source, prefix in ((image, ""), (user, "user:")):
        found = source.locate(address)
        if found is not None and source.instruction_at(address) is not None:
            return prefix + source.symbolize(address)
    return f"{address:#x}"


# --- TOML -------------------------------------------------------------------------------------------------------------
def to_toml(data: Mapping[str, Any]) -> str:
    """A scenario's tables as text."""
    lines = []
    plain = [name for name, value in data.items() if not _is_table(value)]
    for name in sorted(plain, key=lambda name: (*_ORDER, name).index(name)):
        lines.append(f"{name} = {_value(data[name])}")
    for name, value in data.items():
        if isinstance(value, Mapping):
            lines += _as_table(f"[{name}]", value)
        elif _is_table(value):
            for item in value:
                lines += _as_table(f"[[{name}]]", item)
    return "\n".join(lines) + "\n"


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


def _as_table(header: str, table: Mapping[str, Any]) -> list[str]:
    rows = ["", header]
    for name, value in table.items():
        if isinstance(value, Mapping):
            inner = ", ".join(f"{key} = {_value(item)}" for key, item in value.items())
            rows.append(f"{name} = {{ {inner} }}")
        else:
            rows.append(f"{name} = {_value(value)}")
    return rows


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:#x}" if value > 0xFFFF else str(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    text = str(value)
    if "\n" in text and "'''" not in text and not any(ord(c) < 32 and c not in "\n\t" for c in text):
        return f"'''\n{text.removeprefix(chr(10))}'''"
    return '"' + "".join(_escaped(c) for c in text) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if ord(character) >= 32 and ord(character) != 127 else f"\\u{ord(character):04x}"
