"""From an instruction statement to what Keystone can encode, and the fields that are filled in later.

Branches are written here. All other instructions go to Keystone with numbers in place of symbols: a symbolic field
gets a placeholder whose place in the code is then certain (an immediate is last, a displacement just before it).
"""

from __future__ import annotations

from dataclasses import replace

from asm.assembler import PREFIX_ORDER, sort_prefixes
from asm.errors import Problem
from asm.expression import Value, parse
from asm.layout import Branch, Place
from asm.operands import HIGH_BYTES, REGISTERS, Operand, Shape, parse_instruction
from asm.quirks import (
    IMMEDIATE_8,
    IMMEDIATE_16,
    IMMEDIATE_SIGNED_8,
    LAST_LETTER,
    LOCKABLE,
    adjust,
    direct_code,
)
from asm.unit import Fixup, Unit

CONDITIONS = {
    "o": 0, "no": 1, "b": 2, "c": 2, "nae": 2, "ae": 3, "nb": 3, "nc": 3, "e": 4, "z": 4, "ne": 5, "nz": 5,
    "be": 6, "na": 6, "a": 7, "nbe": 7, "s": 8, "ns": 9, "p": 10, "pe": 10, "np": 11, "po": 11,
    "l": 12, "nge": 12, "ge": 13, "nl": 13, "le": 14, "ng": 14, "g": 15, "nle": 15,
}  # fmt: skip
# mnemonic -> (code before disp8 or None, code before disp32 or None)
BRANCHES: dict[str, tuple[bytes | None, bytes | None]] = {
    f"j{condition}": (bytes([0x70 + code]), bytes([0x0F, 0x80 + code])) for condition, code in CONDITIONS.items()
}
BRANCHES |= dict.fromkeys(("jmp", "jmpq"), (b"\xeb", b"\xe9"))
BRANCHES |= dict.fromkeys(("call", "callq"), (None, b"\xe8"))
BRANCHES |= {"jrcxz": (b"\xe3", None), "jecxz": (b"\x67\xe3", None), "loop": (b"\xe2", None)}
BRANCHES |= dict.fromkeys(("loope", "loopz"), (b"\xe1", None))
BRANCHES |= dict.fromkeys(("loopne", "loopnz"), (b"\xe0", None))
BRANCHES |= {"xbegin": (None, b"\xc7\xf8")}

PLACEHOLDERS = {8: 0x5A, 16: 0x5A3C, 32: 0x5A3C1D2E, 64: 0x5A3C1D2E4B6F7081}
DISPLACEMENT = 0x6B4D2E1F
SUFFIX_BITS = {"b": 8, "w": 16, "l": 32, "q": 64}


def assemble_instruction(unit: Unit, text: str, place: Place) -> None:
    """Append one instruction to the current section; Problem if it is not one."""
    shape = parse_instruction(text)
    section = unit.section
    if section.nobits:
        raise Problem(f"section {section.name} holds no data, so no instruction")
    unit.mark_appeared()
    if not shape.mnemonic:
        if shape.prefixes in (b"\x66", b"\x67"):
            raise Problem("a prefix that changes sizes cannot stand alone")
        section.add_item(shape.prefixes, place, "code")
        return
    if shape.mnemonic in BRANCHES and len(shape.operands) == 1 and _is_target(shape.operands[0]):
        _branch(unit, shape, place)
        return
    if shape.mnemonic in BRANCHES and len(shape.operands) == 1 and not shape.operands[0].star:
        raise Problem(f"an indirect {shape.mnemonic} needs * before its operand")
    if shape.mnemonic.startswith("movabs") and any(_is_target(operand) for operand in shape.operands):
        _move_absolute(unit, shape, place)
        return
    _encode(unit, shape, place)


def _is_target(operand: Operand) -> bool:
    """Whether the operand is a bare expression."""
    return operand.kind == "mem" and not (operand.star or operand.segment or operand.base or operand.index)


def _branch(unit: Unit, shape: Shape, place: Place) -> None:
    target = parse(shape.operands[0].text, unit)
    short, long = BRANCHES[shape.mnemonic]
    section = unit.section
    if short is not None and long is not None and not isinstance(target, int):
        section.add_tail(Branch(target, shape.prefixes + short, shape.prefixes + long), place, "code")
        return
    if long is not None:
        code, size = shape.prefixes + long, 4
    else:
        assert short is not None
        code, size = shape.prefixes + short, 1
    index = len(section.frag.items)
    frag = section.add_item(code + bytes(size), place, "code")
    unit.fixups.append(Fixup(frag, index, "branch", size, target, place, signed=True))


def _move_absolute(unit: Unit, shape: Shape, place: Place) -> None:
    """movabs between the accumulator and a 64-bit address."""
    operands = shape.operands
    if len(operands) != 2 or not {operand.kind for operand in operands} == {"reg", "mem"}:
        raise Problem("movabs needs the accumulator and an address")
    store = operands[1].kind == "mem"
    register = operands[0 if store else 1].text
    address = operands[1 if store else 0]
    if register not in ("rax", "eax", "ax", "al"):
        raise Problem(f"movabs with an address needs the accumulator, not %{register}")
    bits = REGISTERS[register]
    if shape.mnemonic[6:] not in ("", LAST_LETTER[bits]):
        raise Problem(f"{shape.mnemonic} does not fit %{register}")
    code = {64: b"\x48", 16: b"\x66"}.get(bits, b"") + bytes([0xA0 + (bits > 8) + 2 * store])
    section = unit.section
    index = len(section.frag.items)
    value = parse(address.text, unit)
    frag = section.add_item(shape.prefixes + code + bytes(8), place, "code")
    unit.fixups.append(Fixup(frag, index, "imm", 8, value, place))


def _encode(unit: Unit, shape: Shape, place: Place) -> None:
    mnemonic, operands = adjust(shape.mnemonic, shape.operands)
    prefixes = shape.prefixes
    if prefixes:
        _check_prefixes(shape)
    bits = operand_bits(mnemonic, operands)
    _check_high_bytes(operands)
    values: list[Value | None] = []
    shown: list[str] = []
    for operand in operands:
        if operand.kind == "reg":
            values.append(None)
            shown.append(f"*%{operand.text}" if operand.star else f"%{operand.text}")
        elif operand.kind == "imm":
            value = parse(operand.text, unit)
            values.append(value)
            shown.append(f"${_immediate(mnemonic, value, bits)}")
        else:
            value = parse(operand.text, unit) if operand.text else 0
            values.append(value)
            if operand.base == "eip":  # Keystone forgets the prefix and the base
                prefixes += b"\x67"
                operand = replace(operand, base="rip")
            if operand.segment == "ds":  # Keystone forgets this one too
                prefixes += b"\x3e"
                operand = replace(operand, segment="")
            shown.append(_memory(unit, operand, value))
    key = f"{mnemonic} {','.join(shown)}" if shown else mnemonic
    direct = direct_code(mnemonic, operands, shown, unit.encoder)
    code: bytes | str
    if direct is not None:
        code = sort_prefixes(prefixes + direct)
    else:
        unit.encoder.add(key)
        code = f"{prefixes.hex()}\t{key}" if prefixes else key
    section = unit.section
    index = len(section.frag.items)
    frag = section.add_item(code, place, "code")
    if all(value is None or isinstance(value, int) for value in values):
        return
    tail = 0
    if any(operand.kind == "imm" for operand in operands):
        tail = _immediate_size(unit, mnemonic, operands, values, bits, code)
    for operand, field in zip(operands, values, strict=True):
        if field is None or isinstance(field, int):
            continue
        if operand.kind == "imm":
            unit.fixups.append(Fixup(frag, index, "imm", tail, field, place, signed=bits == 64 and tail == 4))
        else:
            kind = "pcrel" if operand.base in ("rip", "eip") else "disp"
            unit.fixups.append(Fixup(frag, index, kind, 4, field, place, tail=tail, signed=True))


def _check_prefixes(shape: Shape) -> None:
    groups = [PREFIX_ORDER.get(prefix, 9) for prefix in shape.prefixes]
    if len(set(groups)) < len(groups):
        raise Problem("two prefixes of the same kind")
    memory = bool(shape.operands) and (shape.operands[-1].kind == "mem" or shape.mnemonic.startswith("xchg"))
    if b"\xf0" in shape.prefixes and not (shape.mnemonic in LOCKABLE and memory):
        raise Problem("lock needs an instruction that reads and writes memory")


def _immediate_size(
    unit: Unit,
    mnemonic: str,
    operands: tuple[Operand, ...],
    values: list[Value | None],
    bits: int,
    code: bytes | str,
) -> int:
    """Bytes of the immediate at the end of the code."""
    for operand, value in zip(operands, values, strict=True):
        if operand.kind == "imm" and not isinstance(value, int):
            return 8 if mnemonic.startswith("movabs") else min(bits or 32, 32) // 8
    # A number beside a symbolic displacement: find the displacement's placeholder.
    try:
        data = code if isinstance(code, bytes) else unit.encoder.code(code)
    except Problem:
        return 0  # reported with the other bad instructions
    at = data.rfind(DISPLACEMENT.to_bytes(4, "little"))
    return len(data) - at - 4 if at >= 0 else 0


def operand_bits(mnemonic: str, operands: tuple[Operand, ...]) -> int:
    """The size of the operation as far as it can be seen: from a register, else from the suffix; else 0."""
    if mnemonic in IMMEDIATE_8:
        return 8
    if mnemonic in IMMEDIATE_16:
        return 16
    for operand in reversed(operands):
        if operand.kind == "reg":
            return REGISTERS[operand.text]
    if mnemonic.startswith("push"):
        return 16 if mnemonic == "pushw" else 64
    return SUFFIX_BITS.get(mnemonic[-1:], 0)


def _check_high_bytes(operands: tuple[Operand, ...]) -> None:
    """Keystone ends the process on %ah beside a register that needs REX."""
    high = next((o.text for o in operands if o.kind == "reg" and o.text in HIGH_BYTES), None)
    if high is None:
        return
    for operand in operands:
        plain = (operand.text,) if operand.kind == "reg" else ()
        for name in (*plain, operand.base, operand.index):
            wide = name in plain and REGISTERS[name] == 64
            if name in ("sil", "dil", "bpl", "spl") or name[1:2].isdigit() or wide:
                raise Problem(f"%{high} cannot be used in an instruction that needs a REX prefix")


def _immediate(mnemonic: str, value: Value, bits: int) -> int:
    """The number to show to Keystone, signed in the operand's size."""
    if not isinstance(value, int):
        if mnemonic.startswith("movabs"):
            return PLACEHOLDERS[64]
        return PLACEHOLDERS[min(bits or 32, 32)]
    if bits not in (8, 16, 32):
        if bits == 64 and not mnemonic.startswith("mov") and not -(1 << 31) <= value < 1 << 31:
            raise Problem(f"immediate {value:#x} does not fit in 32 bits")
        return value
    if not -(1 << bits) < value < 1 << bits:
        raise Problem(f"immediate {value:#x} does not fit in {bits} bits")
    if value < -(1 << (bits - 1)):
        value += 1 << bits
    if mnemonic in IMMEDIATE_SIGNED_8:
        return value - 256 if value > 127 else value
    if mnemonic in IMMEDIATE_8 or mnemonic in IMMEDIATE_16:
        return value & ((1 << bits) - 1)
    return value - (1 << bits) if value >> (bits - 1) == 1 else value


def _memory(unit: Unit, operand: Operand, value: Value) -> str:
    if isinstance(value, int):
        wide = not ({operand.base, operand.index} & _REGISTERS_32)
        if not -(1 << 31) <= value < (1 << 31 if wide else 1 << 32):
            raise Problem(f"displacement {value:#x} does not fit in 32 bits")
        shown = str(value - (1 << 32) if value >= 1 << 31 else value)
    else:
        shown = str(DISPLACEMENT)
    if operand.scale:
        scale = parse(operand.scale, unit)
        if scale not in (1, 2, 4, 8) or not isinstance(scale, int):
            raise Problem(f"scale {operand.scale} is not 1, 2, 4 or 8")
        inner = f"(%{operand.base},%{operand.index},{scale})" if operand.base else f"(,%{operand.index},{scale})"
    elif operand.index:
        inner = f"(%{operand.base},%{operand.index})" if operand.base else f"(,%{operand.index})"
    elif operand.base:
        inner = f"(%{operand.base})"
    else:
        inner = "(,%riz)"  # without it Keystone makes the address relative to RIP
    segment = f"%{operand.segment}:" if operand.segment else ""
    star = "*" if operand.star else ""
    return f"{star}{segment}{shown}{inner}"


_REGISTERS_32 = frozenset(name for name, bits in REGISTERS.items() if bits == 32)
