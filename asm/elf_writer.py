"""Image -> ELF64 executable: sections, load segments, symbol table, DWARF lines."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import groupby

from asm.dwarf import debug_sections
from asm.image import Image, Segment

PAGE = 4096
EHDR_SIZE, PHDR_SIZE = 64, 56
SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB = 1, 2, 3
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR = 1, 2, 4
PF_X, PF_W, PF_R = 1, 2, 4
SHN_ABS = 0xFFF1
STB_LOCAL, STB_GLOBAL = 0, 1
STT_NOTYPE, STT_OBJECT, STT_FUNC = 0, 1, 2
EM_X86_64 = 62
ET_EXEC = 2


@dataclass
class _Section:
    name: str
    kind: int
    flags: int
    address: int
    data: bytes
    link: int = 0
    info: int = 0
    alignment: int = 1
    entry_size: int = 0
    offset: int = 0


class _Strings:
    """A string table."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0")
        self._known: dict[str, int] = {"": 0}

    def add(self, text: str) -> int:
        if text not in self._known:
            self._known[text] = len(self.data)
            self.data += text.encode() + b"\0"
        return self._known[text]


def write_elf(image: Image) -> bytes:
    """The bytes of the ELF file; deterministic."""
    mask = (1 << 64) - 1
    sections = [_Section("", 0, 0, 0, b"", alignment=0)]
    for segment in image.segments:
        flags = SHF_ALLOC | (SHF_EXECINSTR if "x" in segment.flags else 0) | (SHF_WRITE if "w" in segment.flags else 0)
        sections.append(_Section(segment.name, SHT_PROGBITS, flags, segment.address & mask, segment.data))
    groups = [list(group) for _, group in groupby(image.segments, key=lambda segment: segment.flags)]
    groups = [group for group in groups if any(segment.data for segment in group)]

    # Contents of the segments, each group at a file offset congruent with its address.
    body = bytearray(EHDR_SIZE + PHDR_SIZE * len(groups))
    program_headers = b""
    offsets: dict[int, int] = {}
    for group in groups:
        start = min(segment.address for segment in group)
        end = max(segment.end for segment in group)
        body += bytes((start - len(body)) % PAGE)
        file_offset = len(body)
        body += bytes(end - start)
        for segment in group:
            at = file_offset + segment.address - start
            offsets[id(segment)] = at
            body[at : at + len(segment.data)] = segment.data
        permissions = PF_R | (PF_X if "x" in group[0].flags else 0) | (PF_W if "w" in group[0].flags else 0)
        program_headers += struct.pack(
            "<IIQQQQQQ", 1, permissions, file_offset, start & mask, start & mask, end - start, end - start, PAGE
        )
    for section, segment in zip(sections[1:], image.segments, strict=True):
        section.offset = offsets.get(id(segment), EHDR_SIZE)
    body[EHDR_SIZE : EHDR_SIZE + len(program_headers)] = program_headers

    for name, data in debug_sections(image).items():
        sections.append(_Section(name, SHT_PROGBITS, 0, 0, data))
    symbols, strings, local_count = _symbol_table(image)
    sections.append(
        _Section(".symtab", SHT_SYMTAB, 0, 0, symbols, len(sections) + 1, local_count, alignment=8, entry_size=24)
    )
    sections.append(_Section(".strtab", SHT_STRTAB, 0, 0, strings))
    names = _Strings()
    name_offsets = [names.add(section.name) for section in sections] + [names.add(".shstrtab")]
    sections.append(_Section(".shstrtab", SHT_STRTAB, 0, 0, bytes(names.data)))

    for section in sections[1 + len(image.segments) :]:
        body += bytes(-len(body) % section.alignment)
        section.offset = len(body)
        body += section.data
    body += bytes(-len(body) % 8)
    table_offset = len(body)
    for section, name_offset in zip(sections, name_offsets, strict=True):
        body += struct.pack(
            "<IIQQQQIIQQ", name_offset, section.kind, section.flags, section.address, section.offset, len(section.data),
            section.link, section.info, section.alignment, section.entry_size,
        )  # fmt: skip
    identification = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)
    body[:EHDR_SIZE] = identification + struct.pack(
        "<HHIQQQIHHHHHH", ET_EXEC, EM_X86_64, 1, image.entry & mask, EHDR_SIZE if groups else 0, table_offset, 0,
        EHDR_SIZE, PHDR_SIZE, len(groups), 64, len(sections), len(sections) - 1,
    )  # fmt: skip
    return bytes(body)


def _symbol_table(image: Image) -> tuple[bytes, bytes, int]:
    """(.symtab, .strtab, index of the first global symbol)."""
    strings = _Strings()
    entries: tuple[list[bytes], list[bytes]] = ([bytes(24)], [])
    homes = {name: _home(image, address) for name, address in image.symbols.items()}
    starts: dict[int, list[int]] = {}
    for name, address in image.symbols.items():
        starts.setdefault(homes[name], []).append(address)
    sizes: dict[tuple[int, int], int] = {}
    for home, addresses in starts.items():
        ordered = sorted(set(addresses))
        end = image.segments[home].end if home >= 0 else ordered[-1]
        for address, following in zip(ordered, [*ordered[1:], end], strict=True):
            sizes[home, address] = following - address
    for name, address in image.symbols.items():
        home = homes[name]
        kind = STT_NOTYPE if home < 0 else STT_FUNC if "x" in image.segments[home].flags else STT_OBJECT
        is_global = name in image.globals
        size = sizes[home, address] if home >= 0 else 0
        entry = struct.pack(
            "<IBBHQQ", strings.add(name), (STB_GLOBAL if is_global else STB_LOCAL) << 4 | kind, 0,
            home + 1 if home >= 0 else SHN_ABS, address & (1 << 64) - 1, size,
        )  # fmt: skip
        entries[is_global].append(entry)
    for name, address in image.externals.items():
        if name not in image.symbols:
            entries[True].append(
                struct.pack("<IBBHQQ", strings.add(name), STB_GLOBAL << 4, 0, SHN_ABS, address & (1 << 64) - 1, 0)
            )
    return b"".join(entries[0] + entries[1]), bytes(strings.data), len(entries[0])


def _home(image: Image, address: int) -> int:
    """The index of the segment of a symbol, -1 if there is none. The end of a segment counts as inside."""
    inside: Segment | None = image.segment_at(address)
    for index, segment in enumerate(image.segments):
        if segment is inside:
            return index
    return next((i for i, segment in enumerate(image.segments) if segment.address <= address <= segment.end), -1)
