"""The smallest DWARF 4 that lets gdb and addr2line name file and line: one compilation unit, one line program."""

from __future__ import annotations

import struct

from asm.image import Image, Statement

DW_TAG_COMPILE_UNIT = 0x11
DW_AT_NAME, DW_AT_STMT_LIST, DW_AT_LOW_PC, DW_AT_HIGH_PC, DW_AT_LANGUAGE = 0x03, 0x10, 0x11, 0x12, 0x13
DW_FORM_ADDR, DW_FORM_DATA2, DW_FORM_DATA8, DW_FORM_STRING, DW_FORM_SEC_OFFSET = 0x01, 0x05, 0x07, 0x08, 0x17
DW_LANG_MIPS_ASSEMBLER = 0x8001
DW_LNS_COPY, DW_LNS_ADVANCE_PC, DW_LNS_ADVANCE_LINE, DW_LNS_SET_FILE = 1, 2, 3, 4
DW_LNE_END_SEQUENCE, DW_LNE_SET_ADDRESS = 1, 2
OPERAND_COUNTS = bytes([0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1])


def debug_sections(image: Image) -> dict[str, bytes]:
    """.debug_line, .debug_info and .debug_abbrev; empty without source lines."""
    code = [segment for segment in image.segments if "x" in segment.flags and segment.data]
    sequences = [[s for s in image.statements if segment.address <= s.address < segment.end] for segment in code]
    sequences = [sorted(sequence, key=lambda s: s.address) for sequence in sequences if sequence]
    if not sequences:
        return {}
    files: dict[str, int] = {}
    program = b"".join(_sequence(sequence, files) for sequence in sequences)
    tables = b"\0" + b"".join(name.encode() + b"\0\0\0\0" for name in files) + b"\0"
    header = struct.pack("<BBBbBB", 1, 1, 1, 0, 1, len(OPERAND_COUNTS) + 1) + OPERAND_COUNTS + tables
    rest = struct.pack("<HI", 4, len(header)) + header + program
    low = min(sequence[0].address for sequence in sequences)
    high = max(sequence[-1].address + sequence[-1].size for sequence in sequences)
    attributes = (
        (DW_AT_NAME, DW_FORM_STRING), (DW_AT_LANGUAGE, DW_FORM_DATA2), (DW_AT_STMT_LIST, DW_FORM_SEC_OFFSET),
        (DW_AT_LOW_PC, DW_FORM_ADDR), (DW_AT_HIGH_PC, DW_FORM_DATA8),
    )  # fmt: skip
    abbreviations = bytes([1, DW_TAG_COMPILE_UNIT, 0])
    abbreviations += b"".join(bytes(attribute) for attribute in attributes) + b"\0\0\0"
    name = next(iter(files)).encode() + b"\0"
    entry = b"\x01" + name + struct.pack("<HIQQ", DW_LANG_MIPS_ASSEMBLER, 0, low & (1 << 64) - 1, high - low)
    information = struct.pack("<HIB", 4, 0, 8) + entry
    return {
        ".debug_line": struct.pack("<I", len(rest)) + rest,
        ".debug_info": struct.pack("<I", len(information)) + information,
        ".debug_abbrev": abbreviations,
    }


def _sequence(statements: list[Statement], files: dict[str, int]) -> bytes:
    """The line program of one segment."""
    address, file, line = statements[0].address, 1, 1
    program = bytearray(b"\x00\x09" + bytes([DW_LNE_SET_ADDRESS]) + struct.pack("<Q", address & (1 << 64) - 1))
    for statement in statements:
        number = files.setdefault(statement.position.file, len(files) + 1)
        if number != file:
            program += bytes([DW_LNS_SET_FILE]) + uleb128(number)
        if statement.position.line != line:
            program += bytes([DW_LNS_ADVANCE_LINE]) + sleb128(statement.position.line - line)
        if statement.address != address:
            program += bytes([DW_LNS_ADVANCE_PC]) + uleb128(statement.address - address)
        program.append(DW_LNS_COPY)
        address, file, line = statement.address, number, statement.position.line
    program += bytes([DW_LNS_ADVANCE_PC]) + uleb128(statements[-1].size)
    return bytes(program + bytes([0, 1, DW_LNE_END_SEQUENCE]))


def uleb128(value: int) -> bytes:
    """An unsigned number, 7 bits a byte, lowest first."""
    result = bytearray()
    while value >= 0x80:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def sleb128(value: int) -> bytes:
    """A signed number, 7 bits a byte, lowest first."""
    result = bytearray()
    while not -0x40 <= value < 0x40:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value & 0x7F)
    return bytes(result)
