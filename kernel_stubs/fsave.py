"""The FPU's state as 32-bit frames begin it: `struct _fpstate_32`, the FSAVE layout (arch/x86/kernel/fpu/regset.c)."""

from __future__ import annotations

import struct

from kernel_stubs.abi import FXSAVE_SIZE

FREGS_SIZE = 112
"""`struct fregs_state`: environment, eight registers of 10 bytes, status, magic. The FXSAVE image lies behind it."""
_ENVIRONMENT = struct.Struct("<7I")
_FXSAVE_HEAD = struct.Struct("<HHBBHQQ")
_FXSAVE_ST = 32
_ST_SIZE, _FXSAVE_ST_SIZE, _REGISTERS = 10, 16, 8
_VALID, _ZERO, _SPECIAL, _EMPTY = range(4)
_FXSR_MAGIC = 0
"""An FXSAVE image follows; without one it is 0xffff."""


def _st(fxsave: bytes, index: int) -> bytes:
    at = _FXSAVE_ST + _FXSAVE_ST_SIZE * index
    return fxsave[at : at + _ST_SIZE]


def _tag(register: bytes) -> int:
    exponent = int.from_bytes(register[8:], "little") & 0x7FFF
    mantissa = int.from_bytes(register[:8], "little")
    if exponent == 0x7FFF:
        return _SPECIAL
    if exponent == 0:
        return _SPECIAL if mantissa else _ZERO
    return _VALID if mantissa >> 63 else _SPECIAL


def _full_tags(fxsave: bytes, present: int, top: int) -> int:
    """Two bits for each physical register, from the one bit that FXSAVE keeps (SDM volume 1, 10.5.1.1)."""
    tags = 0
    for physical in range(_REGISTERS):
        tag = _tag(_st(fxsave, (physical - top) % _REGISTERS)) if present >> physical & 1 else _EMPTY
        tags |= tag << 2 * physical
    return tags


def to_fregs(fxsave: bytes, cs: int, ds: int) -> bytes:
    """The FSAVE part for an FXSAVE image. 64-bit FXSAVE keeps no selectors, so they are the task's present ones."""
    control, status, present, _, opcode, ip, operand = _FXSAVE_HEAD.unpack_from(fxsave)
    tags = _full_tags(fxsave, present, status >> 11 & 7)
    environment = _ENVIRONMENT.pack(
        control | 0xFFFF_0000, status | 0xFFFF_0000, tags | 0xFFFF_0000,
        ip & 0xFFFF_FFFF, cs & 0xFFFF | opcode << 16, operand & 0xFFFF_FFFF, ds | 0xFFFF_0000,
    )  # fmt: skip
    registers = b"".join(_st(fxsave, index) for index in range(_REGISTERS))
    return environment + registers + struct.pack("<HH", status, _FXSR_MAGIC)


def fold_fregs(fregs: bytes, fxsave: bytes) -> bytes:
    """An FXSAVE image whose x87 part comes from the FSAVE part, as a return from a 32-bit handler has it."""
    control, status, tags, ip, code, operand, _ = _ENVIRONMENT.unpack_from(fregs)
    present = sum((tags >> 2 * n & 3 != _EMPTY) << n for n in range(_REGISTERS))
    image = bytearray(fxsave[:FXSAVE_SIZE])
    _FXSAVE_HEAD.pack_into(image, 0, control & 0xFFFF, status & 0xFFFF, present, 0, code >> 16, ip, operand)
    for index in range(_REGISTERS):
        at = _FXSAVE_ST + _FXSAVE_ST_SIZE * index
        image[at : at + _ST_SIZE] = fregs[_ENVIRONMENT.size + _ST_SIZE * index :][:_ST_SIZE]
    return bytes(image)


__all__ = ["FREGS_SIZE", "fold_fregs", "to_fregs"]
