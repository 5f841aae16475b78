"""Bare-metal ELF images: what is loaded where, and how they want to be entered."""

from __future__ import annotations

import difflib
import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.constants import P_FLAGS, SH_FLAGS
from elftools.elf.elffile import ELFFile

from asm import Image, Segment
from emu.errors import Entry64Error, ImageError

HEADER_MAGIC, LOADER_MAGIC = 0x1BADB002, 0x2BADB002
_SEARCHED = 8192
"""The multiboot header lies in this many bytes at the start of the file (Multiboot Specification 0.6.96, 3.1)."""
_NOT_SUPPORTED = 0xFFFC
"""Header flags that we would have to understand: all required ones but page alignment and memory information."""
_MALFORMED = (
    ELFError, struct.error, UnicodeDecodeError, KeyError, IndexError, AssertionError, ValueError, TypeError,
    AttributeError, OverflowError, MemoryError,
)  # fmt: skip


@dataclass(frozen=True)
class Load:
    """Bytes for physical memory; `size` includes the zeros behind them."""

    address: int
    data: bytes
    size: int

    @property
    def end(self) -> int:
        """The address behind it."""
        return self.address + self.size


@dataclass(frozen=True)
class BareImage:
    """An image. `code` has its symbols and executable sections at linear addresses."""

    loads: tuple[Load, ...]
    code: Image
    entry: int
    is_64: bool
    multiboot: bool

    def symbol(self, name: str) -> int:
        """The address of a symbol, or of a number; ImageError with similar names."""
        if name in self.code.symbols:
            return self.code.symbols[name]
        try:
            return int(name, 0)
        except ValueError:
            near = difflib.get_close_matches(name, self.code.symbols)
            raise ImageError(f"no symbol {name!r} in the image" + (f"; near: {', '.join(near)}" * bool(near))) from None


def load(path: str) -> BareImage:
    """Read an ELF file; ImageError if it cannot be booted."""
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}") from None
    try:
        return _parse(data)
    except Entry64Error as error:
        raise ImageError(f"{path}: {error}") from None
    except _MALFORMED as error:
        raise ImageError(f"{path}: not a readable ELF file: {error or type(error).__name__}") from None


def _parse(data: bytes) -> BareImage:
    elf = ELFFile(io.BytesIO(data))
    if not elf.little_endian or elf["e_machine"] not in ("EM_386", "EM_X86_64"):
        raise ImageError("not an x86 ELF file")
    if elf["e_type"] != "ET_EXEC":
        raise ImageError(f"an ELF file of type {elf['e_type']}, not an executable at fixed addresses")
    loads = tuple(
        Load(s["p_paddr"], s.data(), s["p_memsz"])
        for s in elf.iter_segments()
        if s["p_type"] == "PT_LOAD" and s["p_memsz"]
    )
    if not loads:
        raise ImageError("nothing to load")
    if any(len(part.data) > part.size for part in loads):
        raise ImageError("a segment is larger in the file than in memory")
    code = Image(segments=_code(elf), symbols=_symbols(elf), entry=elf["e_entry"])
    return BareImage(loads, code, elf["e_entry"], elf.elfclass == 64, _has_multiboot_header(data))


def _code(elf: Any) -> list[Segment]:
    """The executable sections; in an image without sections, the executable segments."""
    found = [
        Segment(section.name, section["sh_addr"], section.data(), "rx")
        for section in elf.iter_sections()
        if section["sh_flags"] & SH_FLAGS.SHF_EXECINSTR and section["sh_type"] == "SHT_PROGBITS"
    ]
    return found or [
        Segment("code", s["p_vaddr"], s.data(), "rx")
        for s in elf.iter_segments()
        if s["p_type"] == "PT_LOAD" and s["p_flags"] & P_FLAGS.PF_X
    ]


def _symbols(elf: Any) -> dict[str, int]:
    table = elf.get_section_by_name(".symtab")
    if table is None:
        return {}
    kinds = ("STT_NOTYPE", "STT_FUNC", "STT_OBJECT")
    wanted = (s for s in table.iter_symbols() if s.name and s["st_info"]["type"] in kinds)
    return {s.name: s["st_value"] for s in wanted if isinstance(s["st_shndx"], int)}


def _has_multiboot_header(data: bytes) -> bool:
    for at in range(0, min(len(data), _SEARCHED) - 11, 4):
        magic, flags, checksum = struct.unpack_from("<3I", data, at)
        if magic == HEADER_MAGIC and (magic + flags + checksum) & 0xFFFF_FFFF == 0:
            if flags & _NOT_SUPPORTED:
                raise ImageError(f"its multiboot header wants what is not supported: flags {flags:#x}")
            return True
    return False
