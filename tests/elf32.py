"""The smallest i386 programs: an ELF header and machine code."""

import struct

BASE = 0x0804_8000
EXIT_WITH_EAX = b"\x89\xc3\xb8\x01\x00\x00\x00\xcd\x80"
"""mov %eax,%ebx; mov $1,%eax; int $0x80"""


def elf32(code: bytes) -> bytes:
    """A static i386 program that consists of this code."""
    header = struct.pack("<16sHHIIIIIHHHHHH", b"\x7fELF\1\1\1", 2, 3, 1, BASE + 84, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    segment = struct.pack("<8I", 1, 0, BASE, BASE, 84 + len(code), 84 + len(code), 5, 4096)
    return header + segment + code
