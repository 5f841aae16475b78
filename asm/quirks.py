"""Where Keystone and gas differ in single instructions. Each entry was found by comparing with gas."""

from __future__ import annotations

import re
from collections.abc import Sequence

from asm.assembler import Encoder
from asm.expression import Value
from asm.operands import REGISTERS, SEGMENTS, Operand

LAST_LETTER = {8: "b", 16: "w", 32: "l", 64: "q"}
_SHIFTS = [s + l for s in ("shl", "shr", "sal", "sar", "rol", "ror", "rcl", "rcr", "shld", "shrd") for l in ("", *"bwlq")]
_BITS = [s + l for s in ("bt", "bts", "btr", "btc") for l in ("", *"wlq")]
IMMEDIATE_8 = frozenset({"int", "in", "out", "inb", "inw", "inl", "outb", "outw", "outl", *_SHIFTS, *_BITS})
IMMEDIATE_16 = frozenset({"ret", "retq", "lret", "lretq", "lretl"})

FIXED = {
    "endbr64": "f30f1efa", "endbr32": "f30f1efb", "serialize": "0f01e8",
}  # fmt: skip

def rename(mnemonic: str, operands: Sequence[Operand], values: Sequence[Value | None]) -> str:
    """The mnemonic under which Keystone encodes the instruction as gas does."""
    return mnemonic


def direct_code(key: str, encoder: Encoder) -> bytes | None:
    """The code of an instruction that Keystone lacks or encodes differently; None for all others."""
    code = FIXED.get(key)
    return bytes.fromhex(code) if code else None
