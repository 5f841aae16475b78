"""User programs as frozen values: static ELF executables (fs/binfmt_elf.c decides what is one), and assembled ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from struct import Struct
from types import MappingProxyType
from typing import TYPE_CHECKING

from asm import Image
from emu.arch import PAGE_SIZE
from emu.errors import ProgramError
from kernel_stubs.abi import MMAP_MIN_ADDR, TASK_SIZE_MAX, VmFlags, page_align

if TYPE_CHECKING:  # pyelftools is imported where a file is read: programs of scenarios are none
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import Section, SymbolTableSection

TASK_SIZE32 = 0xFFFF_E000
"""The end of a 32-bit program's memory."""
PIE_BASE32 = 0x5655_5000
PIE_BASE = 0x5555_5555_4000
"""Where a position-independent program goes when addresses are not randomized."""
MAX_SYMBOLS = 500_000
"""No more are read from a file: a broken one may claim any number."""
MAX_PROGRAM_HEADERS = PAGE_SIZE // 56
PF_X, PF_W, PF_R = 1, 2, 4
SHN_UNDEF, SHN_ABS = 0, 0xFFF1
_SYMBOL64 = Struct("<IBBHQQ")
"""Elf64_Sym: name, info, other, shndx, value, size."""
_SYMBOL32 = Struct("<IIIBBH")
"""Elf32_Sym: name, value, size, info, other, shndx."""


@dataclass(frozen=True, slots=True)
class ProgramSegment:
    """One PT_LOAD, at its final address."""

    address: int
    file_offset: int
    file_size: int
    memory_size: int
    flags: int
    """VmFlags."""


@dataclass(frozen=True)
class UserProgram:
    """A program that can be started. Equal only to itself."""

    name: str
    data: bytes = field(repr=False)
    segments: tuple[ProgramSegment, ...]
    entry: int
    program_headers: int = 0
    """Linear address of the program headers, for the C library."""
    program_header_count: int = 0
    program_header_size: int = 56
    symbols: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    ia32: bool = False
    """A 32-bit program: it starts in compatibility mode and makes i386 system calls."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    @property
    def end(self) -> int:
        """The first page above all segments, where the heap begins."""
        return page_align(max(s.address + s.memory_size for s in self.segments))


def load_elf(data: bytes, name: str, *, ia32: bool = False) -> UserProgram:
    """A static x86-64 ELF file, or with `ia32` a static i386 one; ProgramError says what is wrong with others."""
    if not data:
        raise ProgramError(f"{name}: the file is empty")
    if data[:4] != b"\x7fELF":
        script = " (a script needs its interpreter)" if data[:2] == b"#!" else ""
        raise ProgramError(f"{name}: not an ELF file{script}")
    if len(data) < 64:
        raise ProgramError(f"{name}: truncated: {len(data)} bytes are less than an ELF header")
    _check_identity(data, name, ia32=ia32)
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        return _load(ELFFile(BytesIO(data)), data, name)
    except ProgramError:
        raise
    except (ELFError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError) as error:
        # pyelftools meets broken tables with whatever its parts raise.
        raise ProgramError(f"{name}: broken ELF file: {type(error).__name__}: {error}") from None


def _check_identity(data: bytes, name: str, *, ia32: bool) -> None:
    """The fields that say what kind of ELF file it is, by their offsets in its header."""
    machine = int.from_bytes(data[18:20], "little")
    if ia32 and (data[4], data[5], machine) == (1, 1, 3):
        return _check_tables(data, name, int.from_bytes(data[28:32], "little"), data[42:46], 32)
    if data[4] == 1:
        raise ProgramError(f"{name}: a 32-bit program; only 64-bit x86-64 programs can be run")
    if data[4] != 2 or data[5] != 1 or machine != 62:
        raise ProgramError(f"{name}: not for x86-64 (ELF class {data[4]}, data {data[5]}, machine {machine})")
    return _check_tables(data, name, int.from_bytes(data[32:40], "little"), data[54:58], 56)


def _check_tables(data: bytes, name: str, offset: int, sizes: bytes, expected: int) -> None:
    kind = int.from_bytes(data[16:18], "little")
    if kind not in (2, 3):
        what = {1: "a relocatable object; link it first", 4: "a core dump"}.get(kind, f"of type {kind}")
        raise ProgramError(f"{name}: not an executable but {what}")
    entry_size, count = int.from_bytes(sizes[:2], "little"), int.from_bytes(sizes[2:], "little")
    if entry_size != expected or not 0 < count <= MAX_PROGRAM_HEADERS:
        raise ProgramError(f"{name}: {count} program headers of {entry_size} bytes; expected 1 to 73 of {expected}")
    if offset + expected * count > len(data):
        raise ProgramError(f"{name}: truncated: the program headers lie beyond the end of the file")


def _load(elf: ELFFile, data: bytes, name: str) -> UserProgram:
    headers = [segment.header for segment in elf.iter_segments()]
    for header in headers:
        if header.p_type == "PT_INTERP":
            raw = data[header.p_offset : header.p_offset + header.p_filesz]
            interpreter = raw.split(b"\0")[0].decode(errors="replace")
            raise ProgramError(
                f"{name}: dynamically linked (interpreter {interpreter}); build a static program, e.g. gcc -static"
            )
    ia32 = elf.elfclass == 32
    top = TASK_SIZE32 if ia32 else TASK_SIZE_MAX
    bias = (PIE_BASE32 if ia32 else PIE_BASE) if elf.header.e_type == "ET_DYN" else 0
    segments = tuple(
        _segment(h.p_vaddr + bias, h.p_offset, h.p_filesz, h.p_memsz, h.p_flags, len(data), name, top)
        for h in headers
        if h.p_type == "PT_LOAD" and h.p_memsz
    )
    if not segments:
        raise ProgramError(f"{name}: nothing to load")
    entry = elf.header.e_entry + bias
    if entry >= top:
        raise ProgramError(f"{name}: the entry point {entry:#x} is not a user address")
    at = elf.header.e_phoff
    holders = (s for s in segments if s.file_offset <= at < s.file_offset + s.file_size)
    phdr = next((s.address + at - s.file_offset for s in holders), 0)
    symbols = MappingProxyType(_symbols(elf, data, bias))
    return UserProgram(name, data, segments, entry, phdr, len(headers), 32 if ia32 else 56, symbols, ia32)


def _segment(
    address: int, offset: int, size: int, memory: int, flags: int, length: int, name: str, top: int
) -> ProgramSegment:
    where = f"{name}: the segment at {address:#x}"
    if size > memory:
        raise ProgramError(f"{where} has more bytes in the file ({size:#x}) than in memory ({memory:#x})")
    if offset + size > length:
        raise ProgramError(f"{where} is truncated: it ends at {offset + size:#x} of a file of {length:#x} bytes")
    if (address - offset) % PAGE_SIZE:
        raise ProgramError(f"{where} is not aligned with its file offset {offset:#x} (pages of 4096 bytes)")
    if address < MMAP_MIN_ADDR or address + memory > top:
        raise ProgramError(f"{where} lies outside user memory ({MMAP_MIN_ADDR:#x} to {top:#x})")
    rights = (
        (VmFlags.READ if flags & PF_R else 0)
        | (VmFlags.WRITE if flags & PF_W else 0)
        | (VmFlags.EXEC if flags & PF_X else 0)
    )
    return ProgramSegment(address, offset, size, memory, int(rights))


def _symbols(elf: ELFFile, data: bytes, bias: int) -> dict[str, int]:
    """Defined functions and objects; the first of a name wins. A broken symbol table is no symbol table."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.sections import SymbolTableSection

    found: dict[str, int] = {}
    try:
        for section in elf.iter_sections():
            if not isinstance(section, SymbolTableSection):
                continue
            for name, value in _table(section, data, _SYMBOL64 if elf.elfclass == 64 else _SYMBOL32):
                if len(found) >= MAX_SYMBOLS:
                    return found
                found.setdefault(name, value + bias)
    except (ELFError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError):
        return {}
    return found


def _table(section: SymbolTableSection, data: bytes, layout: Struct) -> Iterator[tuple[str, int]]:
    """Names and values of the symbols that are defined in a section: pyelftools takes a tenth of a second for those of
    a static program. ValueError if the table is broken."""
    rows, strings = (_content(one, data) for one in (section, section.stringtable))
    if section["sh_entsize"] != layout.size or len(rows) % layout.size:
        raise ValueError("no table of symbols")
    for row in layout.iter_unpack(rows):
        at, value, index = (row[0], row[4], row[3]) if layout is _SYMBOL64 else (row[0], row[1], row[5])
        if at and index not in (SHN_UNDEF, SHN_ABS):
            name = strings[at : strings.find(b"\0", at)]
            if name:
                yield name.decode(errors="replace"), value


def _content(section: Section, data: bytes) -> bytes:
    first, size = section["sh_offset"], section["sh_size"]
    if first + size > len(data):
        raise ValueError("a section lies beyond the end of the file")
    return data[first : first + size]


def program_from_image(image: Image, name: str, *, ia32: bool = False) -> UserProgram:
    """An assembled program; what follows the last byte of a page is zero. `ia32`: it is 32-bit code."""
    top = TASK_SIZE32 if ia32 else TASK_SIZE_MAX
    data = bytearray()
    segments = []
    for segment in image.segments:
        if not segment.data:
            continue
        data += bytes((segment.address - len(data)) % PAGE_SIZE)
        rights = int(VmFlags.READ)
        if "w" in segment.flags:
            rights |= VmFlags.WRITE
        if "x" in segment.flags:
            rights |= VmFlags.EXEC
        size = len(segment.data)
        if segment.address < MMAP_MIN_ADDR or segment.end > top:
            raise ProgramError(f"{name}: section {segment.name} at {segment.address:#x} is not in user memory")
        segments.append(ProgramSegment(segment.address, len(data), size, size, int(rights)))
        data += segment.data
    if not segments:
        raise ProgramError(f"{name}: nothing to load")
    symbols = MappingProxyType(dict(image.symbols))
    return UserProgram(name, bytes(data), tuple(segments), image.entry, symbols=symbols, ia32=ia32)
