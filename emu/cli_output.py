"""Files that the command line names for what a run writes as it goes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import click

from emu.errors import Entry64Error

Write = Callable[[str], object]


def _failed(name: str, error: OSError | ValueError) -> Entry64Error:
    return Entry64Error(f"{name}: cannot be written: {getattr(error, 'strerror', None) or error}")


@contextmanager
def text_file(name: str) -> Iterator[IO[str]]:
    """A file to write, or stdout for `-`; Entry64Error if it cannot be opened, or closed."""
    if name == "-":
        yield sys.stdout
        return
    try:
        file = Path(name).open("w", encoding="utf-8", errors="backslashreplace", newline="\n")  # noqa: SIM115  closed
    except (OSError, ValueError) as error:
        raise _failed(name, error) from None
    try:
        yield file
    finally:
        try:
            file.close()
        except OSError as error:
            raise _failed(name, error) from None


@contextmanager
def outputs(names: Mapping[str, str | None], stdout: str | None) -> Iterator[dict[str, Write]]:
    """Option -> what writes to its file, for those that name one.

    `stdout` is what else goes to stdout and must stay alone there. UsageError if two would mix in one place.
    """
    wanted = {option: name for option, name in names.items() if name is not None}
    places: dict[str, str] = {"-": stdout} if stdout else {}
    for option, name in wanted.items():
        place = name if name == "-" else str(Path(name).absolute())
        if place in places:
            where = "on stdout" if name == "-" else f"in {name}"
            raise click.UsageError(f"{places[place]} and {option} {name} would mix {where}; give {option} another file")
        places[place] = f"{option} {name}" if name == "-" else option
    with ExitStack() as stack:
        yield {option: _writer(name, stack.enter_context(text_file(name))) for option, name in wanted.items()}


def _writer(name: str, file: IO[str]) -> Write:
    if name == "-":
        return file.write

    def write(text: str) -> None:
        try:
            file.write(text)
        except OSError as error:
            raise _failed(name, error) from None

    return write
