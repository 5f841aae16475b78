"""What several commands of the command line share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

own_sources = click.option(
    "--sources", metavar="FOLDER", help="Assemble the kernel image from this folder's sources, which hold an image.S."
)


def read_sources(folder: str | None) -> Any:
    """(name, text) of each source, or None; typed where it is used, to keep the import lazy."""
    from kernel_stubs.kernel_image import read_sources as read

    return None if folder is None else read(Path(folder))
