"""Random x86-64 instructions as bytes: one function a family, drawing operands from a `Draw`.

Flags that an instruction leaves undefined are defined again by a CMP right behind it.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 = range(16)
POINTERS = (RBX, RBP, RSI, RDI, R13, R14)
"""Registers that streams begin with an address in (R12 and RSP need a SIB byte as a base)."""
SCRATCH = (RAX, RCX, RDX, R8, R9, R10, R11, R15)


class Draw(random.Random):
    """A seeded source of operands."""

    def register(self) -> int:
        """Mostly one that is no pointer; now and then any but RSP."""
        return self.choice(SCRATCH) if self.random() < 0.85 else self.choice([n for n in range(16) if n != RSP])

    def immediate(self, size: int) -> bytes:
        """A signed immediate: small, at a border, or anything."""
        bits = 8 * size
        value = self.choice(
            [0, 1, -1, self.randrange(-128, 128), (1 << bits - 1) - 1, -(1 << bits - 1), self.getrandbits(bits)]
        )
        return (value & (1 << bits) - 1).to_bytes(size, "little")


def rm(
    draw: Draw, opcode: bytes, reg: int, size: int, *, memory: bool, prefix: bytes = b"", target: int | None = None
) -> bytes:
    """`opcode` with a ModRM byte; `size` gives operand-size prefix and REX.W, 1 a byte register of the new set."""
    base = draw.choice(POINTERS) if memory else (draw.register() if target is None else target)
    rex = (size == 8) << 3 | (reg >> 3 & 1) << 2 | base >> 3 & 1
    head = (b"\x66" if size == 2 else b"") + prefix
    if rex or size == 1:
        head += bytes([0x40 | rex])
    if memory:
        return head + opcode + bytes([0x40 | (reg & 7) << 3 | base & 7, draw.choice([0, 8, 16, 24, 64, 0xF8])])
    return head + opcode + bytes([0xC0 | (reg & 7) << 3 | base & 7])


def define_flags(draw: Draw) -> bytes:
    """CMP $imm8, %reg: all six arithmetic flags."""
    return b"\x48\x83" + bytes([0xF8 | draw.choice([RAX, RCX, RDX])]) + draw.immediate(1)


def _wide(size: int, opcode: int) -> bytes:
    return bytes([opcode | (size > 1)])


def _size(draw: Draw) -> int:
    return draw.choice([1, 2, 4, 4, 8, 8])


def alu(draw: Draw) -> bytes:
    """ADD OR ADC SBB AND SUB XOR CMP, to and from memory, with immediates. AND, OR, XOR leave AF undefined."""
    operation, size = draw.randrange(8), _size(draw)
    kind = draw.choice(["rr", "rm", "mr", "ri", "mi"])
    if kind in ("ri", "mi"):
        code = rm(draw, bytes([0x80 if size == 1 else 0x83]), operation, size, memory=kind == "mi") + draw.immediate(1)
    else:
        opcode = bytes([operation << 3 | (size > 1) | (kind == "rm") << 1])
        code = rm(draw, opcode, draw.register(), size, memory=kind != "rr")
    return code + (define_flags(draw) if operation in (1, 4, 6) else b"")


def move(draw: Draw) -> bytes:
    """MOV, MOVZX, MOVSX, LEA, XCHG, BSWAP, immediate loads."""
    size = _size(draw)
    match draw.randrange(8):
        case 0:
            return rm(draw, _wide(size, 0x88), draw.register(), size, memory=draw.random() < 0.6)
        case 1:
            return rm(draw, _wide(size, 0x8A), draw.register(), size, memory=draw.random() < 0.6)
        case 2:
            opcode = bytes([0x0F, draw.choice([0xB6, 0xB7, 0xBE, 0xBF])])
            return rm(draw, opcode, draw.register(), draw.choice([4, 8]), memory=draw.random() < 0.5)
        case 3:
            return rm(draw, b"\x8d", draw.register(), draw.choice([4, 8]), memory=True)
        case 4:
            return rm(draw, _wide(size, 0x86), draw.register(), size, memory=draw.random() < 0.4)
        case 5:
            register = draw.register()
            return bytes([0x48 | register >> 3, 0x0F, 0xC8 | register & 7])
        case 6:
            register = draw.register()
            return bytes([0x48 | register >> 3, 0xB8 | register & 7]) + draw.immediate(8)
        case _:
            return rm(draw, b"\xc7", 0, 8, memory=draw.random() < 0.5) + draw.immediate(4)


def conditional(draw: Draw) -> bytes:
    """CMOVcc and SETcc."""
    condition = draw.randrange(16)
    if draw.random() < 0.5:
        return rm(draw, bytes([0x0F, 0x90 | condition]), 0, 1, memory=draw.random() < 0.4)
    return rm(
        draw, bytes([0x0F, 0x40 | condition]), draw.register(), draw.choice([2, 4, 8]), memory=draw.random() < 0.4
    )


def unary(draw: Draw) -> bytes:
    """INC DEC NOT NEG TEST."""
    size, memory = _size(draw), draw.random() < 0.4
    choice = draw.randrange(5)
    if choice < 2:
        return rm(draw, _wide(size, 0xFE), choice, size, memory=memory)
    if choice < 4:
        return rm(draw, _wide(size, 0xF6), choice, size, memory=memory)
    return rm(draw, _wide(size, 0x84), draw.register(), size, memory=memory) + define_flags(draw)


def shift(draw: Draw) -> bytes:
    """ROL ROR RCL RCR SHL SHR SAR, by 1, CL or an immediate."""
    size, memory = _size(draw), draw.random() < 0.3
    operation = draw.choice([0, 1, 2, 3, 4, 5, 7])
    match draw.randrange(3):
        case 0:
            code = rm(draw, _wide(size, 0xD0), operation, size, memory=memory)
        case 1:
            code = rm(draw, _wide(size, 0xD2), operation, size, memory=memory)
        case _:
            code = rm(draw, _wide(size, 0xC0), operation, size, memory=memory) + draw.immediate(1)
    return code + define_flags(draw)


def multiply(draw: Draw) -> bytes:
    """MUL IMUL DIV IDIV; division also by zero and with an overflow."""
    size = _size(draw)
    operation = draw.choice([4, 5, 6, 7, 8])
    if operation == 8:
        code = rm(draw, b"\x0f\xaf", draw.register(), draw.choice([2, 4, 8]), memory=draw.random() < 0.4)
    else:
        code = rm(draw, _wide(size, 0xF6), operation, size, memory=draw.random() < 0.3)
    return code + define_flags(draw)


def bits(draw: Draw) -> bytes:
    """BT BTS BTR BTC with an immediate, BSF, BSR of something, POPCNT, SHLD, SHRD."""
    size = draw.choice([4, 8])
    match draw.randrange(3):
        case 0:
            code = rm(draw, b"\x0f\xba", draw.randrange(4, 8), size, memory=draw.random() < 0.5) + draw.immediate(1)
        case 1:
            code = rm(draw, b"\x0f\xb8", draw.register(), size, memory=draw.random() < 0.3, prefix=b"\xf3")
        case _:
            opcode = draw.choice([b"\x0f\xa4", b"\x0f\xac"])
            code = rm(draw, opcode, draw.register(), size, memory=draw.random() < 0.4) + draw.immediate(1)
    return code + define_flags(draw)


def atomic(draw: Draw) -> bytes:
    """CMPXCHG, XADD, CMPXCHG8B; LOCK where memory is written."""
    size, memory = _size(draw), draw.random() < 0.7
    lock = b"\xf0" if memory and draw.random() < 0.5 else b""
    match draw.randrange(3):
        case 0:
            size = 8 if size == 4 and not memory else size  # there the engine clears the upper half of what is kept
            return lock + rm(draw, bytes([0x0F, 0xB0 | (size > 1)]), draw.register(), size, memory=memory)
        case 1:
            return lock + rm(draw, bytes([0x0F, 0xC0 | (size > 1)]), draw.register(), size, memory=memory)
        case _:
            # Right behind an instruction that sets flags the engine would lose CF, AF and OF: hence the NOP.
            code = rm(draw, b"\x0f\xc7", 1, 4, memory=True)
            return b"\x90" + (b"\xf0" if draw.random() < 0.5 else b"") + code


def flags(draw: Draw) -> bytes:
    """CLC STC CMC CLD STD SAHF LAHF."""
    return draw.choice([b"\xf8", b"\xf9", b"\xf5", b"\xfc", b"\xfd", b"\x9e", b"\x9f"])


def stack(draw: Draw) -> bytes:
    """PUSH, POP, ENTER, LEAVE, of registers, memory and immediates."""
    register = draw.register()
    rex = bytes([0x41]) if register > 7 else b""
    match draw.randrange(7):
        case 0 | 1:
            return rex + bytes([0x50 | register & 7])
        case 2:
            return rex + bytes([0x58 | register & 7])
        case 3:
            return b"\x68" + draw.immediate(4)
        case 4:
            return rm(draw, b"\xff", 6, 4, memory=True)
        case 5:
            return rm(draw, b"\x8f", 0, 4, memory=True)
        case _:
            return b"\xc8" + struct.pack("<HB", draw.randrange(0, 64, 8), draw.randrange(3))


def string(draw: Draw) -> bytes:
    """MOVS CMPS STOS LODS SCAS, alone or repeated a few times."""
    opcode = draw.choice([0xA4, 0xA5, 0xAA, 0xAB, 0xAC, 0xAD, 0xA6, 0xA7, 0xAE, 0xAF])
    wide = b"\x48" if draw.random() < 0.5 else b""
    if draw.random() < 0.5:
        return wide + bytes([opcode])
    prefix = draw.choice([b"\xf3", b"\xf2"]) if opcode in (0xA6, 0xA7, 0xAE, 0xAF) else b"\xf3"
    return b"\xb9" + struct.pack("<I", draw.randrange(6)) + prefix + wide + bytes([opcode])


ORDINARY: tuple[tuple[Callable[[Draw], bytes], int], ...] = (
    (alu, 6), (move, 6), (conditional, 2), (unary, 2), (shift, 2), (multiply, 2), (bits, 2), (atomic, 1), (flags, 1),
    (stack, 3), (string, 2),
)  # fmt: skip
"""Families with their weights."""


def ordinary(draw: Draw) -> bytes:
    """One instruction that is no system instruction."""
    families, weights = zip(*ORDINARY, strict=True)
    return draw.choices(families, weights)[0](draw)
