"""ELF64 executable -> Image: allocated sections (or load segments), the symbol table, and our own line table."""

from __future__ import annotations

import io
import struct
from typing import Any

from elftools.common.exceptions import DWARFError, ELFError
from elftools.elf.constants import P_FLAGS, SH_FLAGS
from elftools.elf.elffile import ELFFile

from asm.errors import BadElf, Position
from asm.image import Image, Segment, Statement

SHN_UNDEF, SHN_LORESERVE, SHN_ABS = 0, 0xFF00, 0xFFF1
STT_SECTION, STT_FILE = 3, 4
MAX_LINE_TABLE = 4 << 20  # bytes
# What the library lets through when a file does not keep its own promises.
MALFORMED = (
    struct.error, UnicodeDecodeError, KeyError, IndexError, AssertionError, ValueError, TypeError, AttributeError,
    OverflowError, MemoryError,
)  # fmt: skip


def read_elf(data: bytes) -> Image:
    """The image; BadElf if `data` is not an x86-64 executable or shared object."""
    try:
        elf = ELFFile(io.BytesIO(data))
        if elf["e_machine"] != "EM_X86_64" or elf.elfclass != 64 or not elf.little_endian:
            raise BadElf("not an x86-64 ELF file")
        if elf["e_type"] not in ("ET_EXEC", "ET_DYN"):
            raise BadElf(f"an ELF file of type {elf['e_type']}, not an executable or shared object")
        segments = _segments(elf)
        symbols, global_names, externals = _symbols(elf)
        statements = _statements(elf)
        entry = int(elf["e_entry"])
    except (ELFError, *MALFORMED) as error:
        if isinstance(error, BadElf):
            raise
        raise BadElf(f"not a readable ELF file: {error or type(error).__name__}") from error
    return Image(
        segments=segments,
        symbols=symbols,
        globals=global_names,
        externals=externals,
        statements=statements,
        entry=entry,
    )


def _segments(elf: Any) -> list[Segment]:
    segments: list[Segment] = []
    for section in elf.iter_sections():
        flags = section["sh_flags"]
        if not flags & SH_FLAGS.SHF_ALLOC or (flags & SH_FLAGS.SHF_TLS and section["sh_type"] == "SHT_NOBITS"):
            continue
        data = bytes(section["sh_size"]) if section["sh_type"] == "SHT_NOBITS" else section.data()
        letters = "r" + "w" * bool(flags & SH_FLAGS.SHF_WRITE) + "x" * bool(flags & SH_FLAGS.SHF_EXECINSTR)
        segments.append(Segment(section.name, section["sh_addr"], data, letters))
    if segments:
        return segments
    for number, header in enumerate(elf.iter_segments(type="PT_LOAD")):  # stripped of its section table
        flags = header["p_flags"]
        letters = "r" + "w" * bool(flags & P_FLAGS.PF_W) + "x" * bool(flags & P_FLAGS.PF_X)
        data = header.data().ljust(header["p_memsz"], b"\0")
        segments.append(Segment(f"load{number}", header["p_vaddr"], data, letters))
    return segments


def _symbols(elf: Any) -> tuple[dict[str, int], set[str], dict[str, int]]:
    """(symbols, names of globals, absolute symbols). Read with struct: a kernel has 100,000 of them."""
    symbols: dict[str, int] = {}
    global_names: set[str] = set()
    externals: dict[str, int] = {}
    table = elf.get_section_by_name(".symtab") or elf.get_section_by_name(".dynsym")
    if table is None:
        return symbols, global_names, externals
    strings = elf.get_section(table["sh_link"]).data()
    raw = table.data()
    for name_at, info, _other, index, value, _size in struct.iter_unpack("<IBBHQQ", raw[: len(raw) // 24 * 24]):
        if index == SHN_UNDEF or info & 15 in (STT_SECTION, STT_FILE) or not name_at:
            continue
        name = strings[name_at : strings.index(b"\0", name_at)].decode()
        if index == SHN_ABS:
            externals[name] = value
            continue
        if index >= SHN_LORESERVE:
            continue
        is_global = info >> 4 != 0
        if name not in symbols or (is_global and name not in global_names):
            symbols[name] = value
        if is_global:
            global_names.add(name)
    return symbols, global_names, externals


def _statements(elf: Any) -> list[Statement]:
    """What the line table says: a statement for each row. Macro calls, text and kinds are not in it. A table of
    several megabytes (a kernel's would take minutes) is left alone, as is one that cannot be read."""
    section = elf.get_section_by_name(".debug_line")
    if section is None or section["sh_size"] > MAX_LINE_TABLE:
        return []
    statements: list[Statement] = []
    try:
        dwarf = elf.get_dwarf_info()
        for unit in dwarf.iter_CUs():
            program = dwarf.line_program_for_CU(unit)
            if program is not None:
                statements.extend(_rows(program))
    except (ELFError, DWARFError, *MALFORMED):
        return []
    return statements


def _rows(program: Any) -> list[Statement]:
    names = [entry.name.decode(errors="replace") for entry in program["file_entry"]]
    first = 0 if program["version"] >= 5 else 1
    statements: list[Statement] = []
    before: Any = None
    for entry in program.get_entries():
        state = entry.state
        if state is None:
            continue
        if before is not None and state.address > before.address:
            where = Position(names[before.file - first], before.line)
            statements.append(Statement(before.address, state.address - before.address, where, (), "", "bytes"))
        before = None if state.end_sequence else state
    return statements
