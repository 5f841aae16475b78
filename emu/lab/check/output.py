"""Report files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from emu.errors import Entry64Error


def check_writable(path: Path) -> None:
    """Entry64Error now, if `write_whole` cannot work later: a regression takes its time."""
    if path.is_dir():
        raise Entry64Error(f"{path}: cannot be written: it is a folder")
    if not path.parent.is_dir():
        raise Entry64Error(f"{path}: cannot be written: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise Entry64Error(f"{path}: cannot be written: the folder {path.parent} is read-only")


def write_whole(path: Path, text: str) -> None:
    """Replace a file's content; whoever reads it meanwhile sees the old one."""
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
    except OSError as error:
        raise Entry64Error(f"{path}: cannot be written: {error.strerror}") from None
