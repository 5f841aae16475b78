"""Where Keystone and gas differ in single instructions. Every entry was found by comparing 19,000 forms with gas 2.40.

`adjust` changes what Keystone is shown; `direct_code` makes the code of what Keystone lacks: fixed codes, register
forms written out, and memory forms from the code of another instruction with the same operands (a donor).
"""

from __future__ import annotations

from dataclasses import replace

from asm.assembler import BAD_OPERANDS, Encoder
from asm.errors import Problem
from asm.operands import REGISTERS, SEGMENTS, Operand

LAST_LETTER = {8: "b", 16: "w", 32: "l", 64: "q"}
_SUFFIXES = ("", "b", "w", "l", "q")
_SHIFTS = ("shl", "shr", "sal", "sar", "rol", "ror", "rcl", "rcr", "shld", "shrd")
IMMEDIATE_SIGNED_8 = frozenset(name + suffix for name in ("bt", "bts", "btr", "btc") for suffix in _SUFFIXES)
IMMEDIATE_8 = IMMEDIATE_SIGNED_8 | {name + suffix for name in (*_SHIFTS, "in", "out", "int") for suffix in _SUFFIXES}
IMMEDIATE_16 = frozenset({"ret", "retq", "lret", "lretq", "lretl"})

FIXED = {
    "endbr64": "f30f1efa", "endbr32": "f30f1efb", "serialize": "0f01e8", "wbnoinvd": "f30f09",
    "saveprevssp": "f30f01ea", "setssbsy": "f30f01e8", "pconfig": "0f01c5", "xsusldtrk": "f20f01e8",
    "xresldtrk": "f20f01e9", "clui": "f30f01ee", "stui": "f30f01ef", "testui": "f30f01ed", "uiret": "f30f01ec",
    "vmrun": "0f01d8", "vmload": "0f01da", "vmsave": "0f01db", "skinit": "0f01de", "invlpga": "0f01df",
    "tdcall": "660f01cc", "seamret": "660f01cd", "seamcall": "660f01cf",
    "int $3": "cc", "xchg %rax,%rax": "90", "xchgq %rax,%rax": "90", "leavew": "66c9",
}  # fmt: skip

# Register forms: mnemonic -> (mandatory prefix, opcode after 0F, ModRM reg field, sizes that it takes, REX.W for 64).
REGISTER_FORMS = {
    "rdpid": ("f3", 0xC7, 7, (64,), False),
    "ptwrite": ("f3", 0xAE, 4, (32, 64), True),
    "incsspd": ("f3", 0xAE, 5, (32,), False),
    "incsspq": ("f3", 0xAE, 5, (64,), True),
    "rdsspd": ("f3", 0x1E, 1, (32,), False),
    "rdsspq": ("f3", 0x1E, 1, (64,), True),
    "umonitor": ("f3", 0xAE, 6, (64,), False),
    "umwait": ("f2", 0xAE, 6, (32,), False),
    "tpause": ("66", 0xAE, 6, (32,), False),
    "senduipi": ("f3", 0xC7, 6, (64,), False),
}
# Two-operand forms r/m, reg encoded like `cmovo` (0F 40 /r): mnemonic -> opcode after 0F.
LIKE_CMOV = {
    "lar": 0x02, "larw": 0x02, "larl": 0x02, "larq": 0x02, "lsl": 0x03, "lslw": 0x03, "lsll": 0x03, "lslq": 0x03,
    "ud1": 0xB9, "ud1w": 0xB9, "ud1l": 0xB9, "ud1q": 0xB9, "ud0": 0xFF, "ud0w": 0xFF, "ud0l": 0xFF, "ud0q": 0xFF,
}  # fmt: skip
NOPS = {"nop": 0, "nopw": 16, "nopl": 32, "nopq": 64}
RENAMED = {"enterq": "enter", "verww": "verw", "verrw": "verr", "lmsww": "lmsw", "icebp": "int1"}
_ATOMIC = "add adc and btc btr bts cmpxchg dec inc neg not or sbb sub xor xadd xchg"
LOCKABLE = frozenset(name + suffix for name in _ATOMIC.split() for suffix in _SUFFIXES) | {"cmpxchg8b", "cmpxchg16b"}
NOT_IN_64_BIT = frozenset(
    {"into", "pusha", "popa", "aaa", "aas", "daa", "das", "aam", "aad", "lds", "les", "bound", "arpl"}
)
NEEDS_SUFFIX = frozenset({"movs", "stos", "lods", "scas", "cmps", "ins", "outs"})


# String instructions: the registers of their memory operands, as sources and destinations.
_STRING_MOVES = frozenset(name + suffix for name in ("movs", "cmps") for suffix in ("b", "w", "l", "q"))
_STRING_BASES = {"lods": "si", "outs": "si", "stos": "di", "scas": "di", "ins": "di", "xlat": "bx"}


def adjust(mnemonic: str, operands: tuple[Operand, ...]) -> tuple[str, tuple[Operand, ...]]:
    """The mnemonic and operands for which Keystone gives gas's code."""
    mnemonic = RENAMED.get(mnemonic, mnemonic)
    if mnemonic in NOT_IN_64_BIT:
        raise Problem(f"{mnemonic} does not exist in 64-bit mode")
    if mnemonic in NEEDS_SUFFIX and not any(operand.kind == "reg" for operand in operands):
        raise Problem(f"{mnemonic} needs a suffix: {', '.join(mnemonic + suffix for suffix in 'bwlq')}")
    _check_string(mnemonic, operands)
    operands = tuple(_drop_default_segment(operand) if operand.segment else operand for operand in operands)
    if mnemonic[:3] == "mov" and mnemonic[3:] in ("", "w", "l", "q") and len(operands) == 2:
        if any(operand.text in SEGMENTS and operand.kind == "reg" for operand in operands):
            return _segment_move(mnemonic, operands)
        source, target = operands
        if mnemonic == "mov" and source.kind == "imm" and target.kind == "reg" and REGISTERS[target.text] == 64:
            return "movq", operands
    elif mnemonic in ("sldt", "str") and operands and operands[0].kind == "reg":
        if REGISTERS[operands[0].text] == 64:
            return mnemonic, (replace(operands[0], text=resize(operands[0].text, 32)),)
    elif mnemonic == "movsxd" and len(operands) == 2 and REGISTERS.get(operands[1].text) == 64:
        return "movslq", operands
    return mnemonic, operands


def _check_string(mnemonic: str, operands: tuple[Operand, ...]) -> None:
    """Keystone takes any memory operand of a string instruction, warns on stderr and ignores it."""
    memory = [operand for operand in operands if operand.kind == "mem"]
    stem = mnemonic if mnemonic in _STRING_BASES else mnemonic[:-1]
    if mnemonic in _STRING_MOVES and len(memory) == len(operands) == 2:
        allowed: tuple[str, ...] = ("si", "di") if mnemonic.startswith("movs") else ("di", "si")
    elif stem in _STRING_BASES and len(memory) == 1:
        allowed = (_STRING_BASES[stem],)
    else:
        return
    for operand, base in zip(memory, allowed, strict=True):
        if operand.text or operand.index or operand.base != f"r{base}":
            raise Problem(f"the operand of {mnemonic} is (%r{base})")
        if operand.segment not in ("", "es" if base == "di" else "ds"):
            raise Problem(f"write the segment as a prefix: {operand.segment} {mnemonic}")


def _drop_default_segment(operand: Operand) -> Operand:
    """gas writes no prefix for the segment that is used anyway."""
    default = "ss" if operand.base in ("rsp", "rbp", "esp", "ebp") else "ds"
    return replace(operand, segment="") if operand.segment == default else operand


def _segment_move(mnemonic: str, operands: tuple[Operand, ...]) -> tuple[str, tuple[Operand, ...]]:
    """gas always takes the form without operand-size prefix and REX.W, except for a 16-bit destination register."""
    source, target = operands
    if "mem" in (source.kind, target.kind):
        if mnemonic in ("movl", "movq"):
            raise Problem("a segment register is moved to or from memory with movw")
        return "mov", operands
    suffix = mnemonic[3:]
    general = source if target.text in SEGMENTS else target
    if general.text not in REGISTERS or (suffix and suffix != LAST_LETTER.get(REGISTERS[general.text])):
        raise Problem(BAD_OPERANDS)
    if source.kind != "reg" or target.kind != "reg":
        raise Problem(BAD_OPERANDS)
    if target.text in SEGMENTS:
        return "movl", (replace(source, text=resize(source.text, 32)), target)
    if REGISTERS[target.text] == 16:
        return "mov", operands
    return "movl", (source, replace(target, text=resize(target.text, 32)))


_STEMS = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
_GENERAL = {
    64: [f"r{stem}" for stem in _STEMS] + [f"r{number}" for number in range(8, 16)],
    32: [f"e{stem}" for stem in _STEMS] + [f"r{number}d" for number in range(8, 16)],
    16: [*_STEMS] + [f"r{number}w" for number in range(8, 16)],
}
_NUMBERS = {name: number for names in _GENERAL.values() for number, name in enumerate(names)}


def register_number(register: str) -> int:
    """The number of a general register of 16, 32 or 64 bits; Problem for any other."""
    if register not in _NUMBERS:
        raise Problem(BAD_OPERANDS)
    return _NUMBERS[register]


def resize(register: str, bits: int) -> str:
    """The general register of another size: `r9`, 32 -> `r9d`."""
    number = register_number(register)
    if bits not in _GENERAL:
        raise Problem(BAD_OPERANDS)
    return _GENERAL[bits][number]


def direct_code(mnemonic: str, operands: tuple[Operand, ...], shown: list[str], encoder: Encoder) -> bytes | None:
    """The code of an instruction that Keystone lacks or gets wrong; None for all others. Problem on wrong operands."""
    key = f"{mnemonic} {','.join(shown)}" if shown else mnemonic
    if code := FIXED.get(key):
        return bytes.fromhex(code)
    if mnemonic in REGISTER_FORMS and len(operands) == 1 and operands[0].kind == "reg":
        return _register_form(mnemonic, operands[0].text)
    if mnemonic in LIKE_CMOV and len(operands) == 2 and operands[1].kind == "reg":
        return _like_cmov(mnemonic, operands, shown, encoder)
    if mnemonic in NOPS and len(operands) == 1 and operands[0].kind in ("reg", "mem"):
        bits = NOPS[mnemonic] or (REGISTERS[operands[0].text] if operands[0].kind == "reg" else 32)
        if bits not in (16, 32, 64) or (operands[0].kind == "reg" and REGISTERS[operands[0].text] != bits):
            raise Problem(BAD_OPERANDS)
        donor = {16: "cmovow {},%ax", 32: "cmovol {},%eax", 64: "cmovoq {},%rax"}[bits]
        return _transplant(encoder.code(donor.format(shown[0])), 0x40, 0x1F)
    if mnemonic == "cldemote" and len(operands) == 1 and operands[0].kind == "mem":
        return _transplant(encoder.code(f"prefetchnta {shown[0]}"), 0x18, 0x1C)
    return None


def _register_form(mnemonic: str, register: str) -> bytes:
    prefix, opcode, field, sizes, wide = REGISTER_FORMS[mnemonic]
    number, bits = register_number(register), REGISTERS[register]
    if bits not in sizes:
        raise Problem(BAD_OPERANDS)
    rex = (0x48 if wide and bits == 64 else 0) | (0x41 if number > 7 else 0)
    return (
        bytes.fromhex(prefix) + (bytes([rex]) if rex else b"") + bytes([0x0F, opcode, 0xC0 | field << 3 | number & 7])
    )


def _like_cmov(mnemonic: str, operands: tuple[Operand, ...], shown: list[str], encoder: Encoder) -> bytes:
    source, target = operands
    bits = REGISTERS[target.text]
    suffix = mnemonic[3:]
    if bits not in (16, 32, 64) or (suffix and LAST_LETTER[bits] != suffix):
        raise Problem(BAD_OPERANDS)
    first = shown[0]
    if source.kind == "reg":
        source_bits = REGISTERS[source.text]
        # lar and lsl read a selector: gas takes a 16-bit source, or one of the target's size
        if source_bits != bits and not (source_bits == 16 and mnemonic[:2] != "ud"):
            raise Problem(BAD_OPERANDS)
        first = "%" + resize(source.text, bits)
    elif source.kind != "mem":
        raise Problem(BAD_OPERANDS)
    code = encoder.code(f"cmovo{LAST_LETTER[bits]} {first},{shown[1]}")
    return _transplant(code, 0x40, LIKE_CMOV[mnemonic])


def _transplant(code: bytes, old: int, new: int) -> bytes:
    """The donor's code with the opcode after 0F replaced."""
    at = code.index(bytes([0x0F, old])) + 1
    return code[:at] + bytes([new]) + code[at + 1 :]
