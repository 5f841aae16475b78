"""Assemble a kernel image, with what Python defines handed to the sources."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import asm
from asm import AssemblyError, Image, assemble_text
from emu.errors import ImageError
from emu.machine.profile import Profile
from kernel_stubs import abi26
from kernel_stubs.abi import KERNEL_BASE, asm_constants
from kernel_stubs.abi26 import LINUX_26
from kernel_stubs.binding import registered
from kernel_stubs.syscalls import compat
from kernel_stubs.syscalls.table import implemented

SOURCES = Path(asm.__file__).parent
IMAGE_SOURCE = "image.S"
C_FUNCTION_MODULES = (
    "debug", "entry_common", "init", "irq", "mce", "nmi", "page_fault", "time", "traps",
    "ia32", "sysvec", "syscalls.compat_files", "syscalls.compat_limits", "syscalls.compat_signals",
    "syscalls.compat_waits", "syscalls.ldt", "syscalls.limits",
    "idle", "switch", "process", "smp", "softirq", "tasklet", "netdev",
    "syscalls.processes", "syscalls.identity", "syscalls.futex", "syscalls.descriptors", "syscalls.directories",
    "syscalls.attributes",
    "syscalls.execute",
    "syscalls.clock", "syscalls.files", "syscalls.memory", "syscalls.paths", "syscalls.signals", "syscalls.system",
    "syscalls.ptrace", "syscalls.compat_ptrace", "syscalls.restart", "syscalls.table", "syscalls.tasks",
)  # fmt: skip
"""All modules that register C functions or system calls."""

Overrides = tuple[tuple[str, str], ...]
"""(file name, text): sources to take instead of the image's own."""


def load_c_functions() -> None:
    """Fill the registries of C functions and system calls."""
    for module in C_FUNCTION_MODULES:
        importlib.import_module(f"kernel_stubs.{module}")
    importlib.import_module("kernel_stubs.linux26").install()


def kernel_names() -> tuple[str, ...]:
    """The kernel images that there are."""
    return tuple(sorted(path.parent.name for path in SOURCES.glob(f"*/{IMAGE_SOURCE}")))


def source_files(kernel: str) -> dict[str, str]:
    """Name -> text of an image's sources."""
    folder = _folder(kernel)
    return {path.name: path.read_text() for path in sorted(folder.iterdir()) if path.suffix in (".S", ".inc")}


def _folder(kernel: str) -> Path:
    names = kernel_names()
    if kernel not in names:
        near = difflib.get_close_matches(kernel, names, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ImageError(f"no kernel image {kernel!r}; there are {', '.join(names)}{hint}")
    return SOURCES / kernel


def _slots(names: Iterable[str]) -> str:
    return "".join(f"C_FUNCTION {name}\n" for name in names)


def _rows(table: dict[int, str]) -> str:
    return "".join(f"SYSCALL_ENTRY {number}, {name}\n" for number, name in table.items())


def generated_sources(kernel: str) -> dict[str, str]:
    """Name -> text of the sources that Python writes: C function slots and system-call tables."""
    if kernel != LINUX_26:
        return {"c_functions.inc": _slots(registered())}
    native, i386 = abi26.syscall_rows(implemented()), abi26.ia32_syscall_rows(compat.functions())
    return {
        "c_functions.inc": _slots(abi26.c_function_slots((*native.values(), *i386.values()))),
        "sys_call_table.inc": _rows(native),
        "ia32_sys_call_table.inc": _rows(i386),
    }


def kernel_constants(kernel: str) -> dict[str, int]:
    """Name -> value of what the sources see besides the CPU's features."""
    if kernel != LINUX_26:
        return asm_constants()
    return abi26.asm_constants() | {
        "__NR_syscall_max": max(abi26.syscall_rows(implemented())),
        "IA32_NR_syscalls": max(abi26.ia32_syscall_rows(compat.functions())) + 1,
    }


def read_sources(folder: Path) -> Overrides:
    """The sources of somebody's own image: every .S and .inc file of a folder with an image.S."""
    try:
        found = tuple(
            (path.name, path.read_text()) for path in sorted(folder.iterdir()) if path.suffix in (".S", ".inc")
        )
    except OSError as error:
        raise ImageError(f"{folder}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ImageError(f"{folder}: a source is not UTF-8 text") from None
    if IMAGE_SOURCE not in dict(found):
        raise ImageError(f"{folder}: has no {IMAGE_SOURCE}; it must hold all sources of an image")
    return found


def build_image(
    kernel: str, profile: Profile, overrides: Overrides = (), own_sources: Overrides | None = None
) -> Image:
    """The image named `kernel`, assembled for a CPU with this profile's features, once in a process.

    `overrides` replaces sources by name (to break one on purpose); `own_sources` all of them. ImageError if it does
    not assemble.
    """
    return assembled_image(kernel, profile, overrides, own_sources)


@cache  # which tells arguments that are left out from those that are given
def assembled_image(kernel: str, profile: Profile, overrides: Overrides, own_sources: Overrides | None) -> Image:
    """As `build_image`."""
    sources = source_files(kernel) if own_sources is None else dict(own_sources)
    load_c_functions()
    for name, _ in overrides:
        if name not in sources:
            raise ImageError(f"kernel image {kernel} has no source {name!r} to replace")
    # Sources go in by name, so that positions in messages and traces are the same on every machine.
    sources |= generated_sources(kernel) | dict(overrides)
    try:
        return assemble_text(
            sources[IMAGE_SOURCE],
            name=IMAGE_SOURCE,
            base=KERNEL_BASE,
            virtual_files=sources,
            constants=kernel_constants(kernel)
            | {"CONFIG_SMAP": int(profile.smap), "CONFIG_FSGSBASE": int(profile.fsgsbase)},
            entry="startup_64",
        )
    except AssemblyError as error:
        raise ImageError(f"kernel image {kernel} does not assemble:\n{error}") from error
