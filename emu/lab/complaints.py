"""Pydantic's findings about a scenario as lines for people: `file:line: what`."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from emu.lab.locate import Lines, Path

_EXPECTED = {
    "model_type": "must be a table",
    "dict_type": "must be a table",
    "tuple_type": "must be an array",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
}
"""Pydantic's error type -> what TOML calls it."""


def complaints(error: ValidationError, model: type[BaseModel], name: str, lines: Lines) -> list[str]:
    """One line a finding, in order of their lines."""
    found = [(lines.of(path), text) for path, text in findings(error, model)]
    return [f"{name}:{line}: {text}" for line, text in sorted(dict.fromkeys(found), key=lambda item: item[0])]


def findings(error: ValidationError, model: type[BaseModel]) -> list[tuple[Path, str]]:
    """Where in the data, and what is wrong."""
    details = error.errors(include_url=False)
    return [(tuple(detail["loc"]), _complaint(detail, tuple(detail["loc"]), model)) for detail in details]


def _complaint(detail: Any, path: tuple[str | int, ...], model: type[BaseModel]) -> str:  # pydantic's ErrorDetails
    table, key = path[:-1], path[-1] if path else ""
    kind = detail["type"]
    if kind == "extra_forbidden":
        known = _keys(model, table)
        near = difflib.get_close_matches(str(key), known, 3, 0.5)
        hint = f"near: {', '.join(near)}" if near else f"known: {', '.join(known)}"
        return f"unknown key {str(key)!r} in {_table(table)}; {hint}"
    if kind == "missing":
        return f"{_table(table)} needs {str(key)!r}"
    message = _EXPECTED.get(kind) or detail["msg"].removeprefix("Value error, ").replace("Input should", "must", 1)
    if kind == "value_error":
        if not _is_table(model, path):
            return f"{_key(path)}: {message}"
        return f"{_table(path)}: {message}"
    return f"{_key(path)} {message}, not {_shown(detail['input'])}"


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "an array"
    text = repr(value) if isinstance(value, str) else str(value).lower()
    return text if len(text) <= 60 else text[:57] + "..."


def _table(path: tuple[str | int, ...]) -> str:
    """`[cpu]`, `[[inject]]`, or the file's top."""
    names = ".".join(str(part) for part in path if isinstance(part, str))
    if not names:
        return "the top level"
    return f"[[{names}]]" if any(isinstance(part, int) for part in path) else f"[{names}]"


def _key(path: tuple[str | int, ...]) -> str:
    """`[cpu] profile`, `[[inject]] event`, `[expect] calls[2]`."""
    named = [index for index, part in enumerate(path) if isinstance(part, str)]
    at = named[-1] if named else 0
    indices = "".join(f"[{part}]" for part in path[at + 1 :])
    head = f"{_table(path[:at])} " if at else ""
    return f"{head}{path[at]}{indices}" if path else "the file"


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _model_at(model: type[BaseModel], path: tuple[str | int, ...]) -> type[BaseModel] | None:
    for part in path:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        inner = next(_models(field.annotation), None) if field else None
        if inner is None:
            return None
        model = inner
    return model


def _is_table(model: type[BaseModel], path: tuple[str | int, ...]) -> bool:
    return _model_at(model, path) is not None


def _keys(model: type[BaseModel], table: tuple[str | int, ...]) -> list[str]:
    at = _model_at(model, table)
    return [field.alias or name for name, field in at.model_fields.items()] if at else []
