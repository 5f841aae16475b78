"""What several commands of the command line share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import click

from emu.cli_output import Write

if TYPE_CHECKING:
    from emu.lab.rig import Tracing

_HOLE = "hole:"
own_sources = click.option(
    "--sources", metavar="FOLDER",
    help="Assemble the kernel image from this folder's sources, which hold an image.S; hole:NAME for linux-6 with a "
    "hole of history in it.",
)  # fmt: skip


_STRACE = (
    click.option("--strace", is_flag=True, help="Write system calls and signals as strace -f does, to stderr."),
    click.option("-c", "--strace-summary", is_flag=True, help="With --strace: count calls, errors and instructions."),
    click.option("-o", "--strace-output", metavar="FILE", help="With --strace: write to FILE instead; - is stdout."),
    click.option("--ftrace", "ftrace_to", metavar="FILE", help="Write what ftrace would have to FILE; - is stdout."),
)

C = TypeVar("C", bound=Callable[..., Any])  # a command's function


def observers(command: C) -> C:
    """The options of a command whose run can be watched: `Watching` takes them."""
    for option in reversed(_STRACE):
        command = option(command)
    return command


@dataclass(frozen=True)
class Watching:
    """What the options of `observers` ask for."""

    strace: bool
    summary: bool
    strace_to: str | None
    ftrace_to: str | None

    def __post_init__(self) -> None:
        """UsageError for options that need --strace."""
        for given, option in ((self.summary, "-c"), (self.strace_to is not None, "-o")):
            if given and not self.strace:
                raise click.UsageError(f"{option} says how to write what --strace shows; give --strace too")

    def files(self) -> dict[str, str | None]:
        """Option -> the file that it names, for `emu.cli_output.outputs`."""
        return {"-o": self.strace_to, "--ftrace": self.ftrace_to}

    def begin(self, files: Mapping[str, Write], title: str, *, several: bool) -> list[Tracing]:
        """The observers of one run; `several` if others follow."""
        asked: list[Tracing] = []
        if self.strace:
            from emu.lab.observers.strace import StraceText

            asked.append(StraceText(files.get("-o", _to_stderr), self.summary, title if several else ""))
        if "--ftrace" in files:
            from emu.lab.observers.ftrace import FtraceText

            asked.append(FtraceText(files["--ftrace"], title))
        return asked


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)


def read_sources(folder: str | None) -> Any:
    """(name, text) of each source, or None; typed where it is used, to keep the import lazy."""
    from kernel_stubs.holes import sources_with
    from kernel_stubs.kernel_image import read_sources as read

    if folder is None:
        return None
    return read(Path(folder)) if is_folder(folder) else sources_with(folder.removeprefix(_HOLE))


def is_folder(sources: str | None) -> TypeGuard[str]:
    """Whether `--sources` names a folder, not a hole."""
    return sources is not None and not sources.startswith(_HOLE)
