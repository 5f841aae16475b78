"""C programs of tests/programs: each is compiled once in a test run's process, whichever tests want it."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent / "programs"
HAS_GCC = shutil.which("gcc") is not None


@functools.cache
def has_m32() -> bool:
    """Whether gcc makes static i386 programs."""
    if not HAS_GCC:
        return False
    probe = subprocess.run(
        ["gcc", "-m32", "-static", "-x", "c", "-o", "/dev/null", "-"],
        input=b"int main(void) { return 0; }", capture_output=True, check=False,
    )  # fmt: skip
    return probe.returncode == 0


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="entry64-programs-")


@functools.cache
def compiled(name: str, *flags: str) -> Path:
    """The static executable of a program."""
    folder = Path(_folder().name) / "".join(flags).replace("/", "_")
    folder.mkdir(exist_ok=True)
    source = SOURCES / f"{name}.c"
    subprocess.run(["gcc", "-static", "-O1", "-w", "-pthread", *flags, "-o", folder / name, source], check=True)
    return folder / name
