"""What an instruction's operands are at this moment: register values, memory addresses, how memory is accessed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from capstone import (
    CS_AC_READ,
    CS_AC_WRITE,
    CS_ARCH_X86,
    CS_GRP_BRANCH_RELATIVE,
    CS_GRP_CALL,
    CS_GRP_INT,
    CS_GRP_IRET,
    CS_GRP_JUMP,
    CS_GRP_RET,
    CS_MODE_32,
    CS_MODE_64,
    Cs,
)
from capstone.x86_const import X86_OP_MEM

from emu.machine.cpu import Cpu
from emu.machine.registers import FS, GS, RCX, REGISTER_NAMES

_long, _compatible = Cs(CS_ARCH_X86, CS_MODE_64), Cs(CS_ARCH_X86, CS_MODE_32)
_long.detail = _compatible.detail = True
_MASK = (1 << 64) - 1
_REP_PREFIXES = {0xF2, 0xF3, 0x66, *range(0x40, 0x50)}
_ALL_PREFIXES = _REP_PREFIXES | {0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x67}
_STRINGS = {bytes([opcode]) for opcode in (*range(0x6C, 0x70), *range(0xA4, 0xA8), *range(0xAA, 0xB0))}
_PLAIN_STRINGS = {bytes([opcode]) for opcode in (0xA4, 0xA5, 0xAA, 0xAB, 0xAC, 0xAD)}  # these end with RCX = 0 only
_BRANCHES = frozenset({CS_GRP_BRANCH_RELATIVE, CS_GRP_CALL, CS_GRP_INT, CS_GRP_IRET, CS_GRP_JUMP, CS_GRP_RET})
_NUMBERS = {name: (n, 8) for n, name in enumerate(REGISTER_NAMES)}
for _n, _name in enumerate(REGISTER_NAMES):
    if _n < 8:
        _NUMBERS["e" + _name[1:]] = (_n, 4)
        _NUMBERS[_name[1:]] = (_n, 2)
    else:
        _NUMBERS[_name + "d"] = (_n, 4)
        _NUMBERS[_name + "w"] = (_n, 2)
_STACK_BASES = frozenset({"rsp", "rbp", "esp", "ebp", "sp", "bp"})


@dataclass(frozen=True, slots=True)
class MemoryOperand:
    """An explicit memory operand: its linear address, bytes, and what the instruction does with it."""

    mnemonic: str
    address: int
    size: int
    reads: bool
    writes: bool
    on_stack: bool
    """Whether SS is the segment: #SS instead of #GP for a non-canonical address."""


def register_value(cpu: Cpu, name: str) -> int | None:
    """A general register's value by its name (rax, eax, ax, r8d, ...); None for another register."""
    found = _NUMBERS.get(name)
    if found is None:
        return None
    number, size = found
    return cpu.register(number) & ((1 << 8 * size) - 1)


def memory_operands(cpu: Cpu, code: bytes, ip: int) -> Iterator[MemoryOperand]:
    """The memory operands of the instruction at the start of `code`, which lies at `ip`."""
    decoder = _long if cpu.long_mode_code else _compatible
    for instruction in decoder.disasm(code, ip, 1):
        for operand in instruction.operands:
            if operand.type != X86_OP_MEM:
                continue
            memory = operand.mem
            base, index = instruction.reg_name(memory.base) or "", instruction.reg_name(memory.index) or ""
            address = memory.disp + (register_value(cpu, index) or 0) * memory.scale
            address += ip + instruction.size if base in ("rip", "eip") else register_value(cpu, base) or 0
            address &= (1 << 8 * instruction.addr_size) - 1
            segment = instruction.reg_name(memory.segment) if memory.segment else ""
            if segment in ("fs", "gs"):
                address += cpu.state.segs[FS if segment == "fs" else GS].base
            on_stack = base in _STACK_BASES and segment not in ("fs", "gs")
            yield MemoryOperand(
                instruction.mnemonic, address & _MASK, operand.size,
                bool(operand.access & CS_AC_READ), bool(operand.access & CS_AC_WRITE), on_stack,
            )  # fmt: skip


def repeats_itself(code: bytes) -> bool:
    """Whether an instruction can leave RIP where it is: a branch, or one with a REP prefix."""
    for instruction in _long.disasm(code, 0, 1):
        return bool(instruction.prefix[0] in (0xF2, 0xF3) or _BRANCHES & set(instruction.groups))
    return True


def repetitions(cpu: Cpu, code: bytes) -> int:
    """How many iterations the instruction in `code` surely makes before RIP leaves it: RCX of a plain REP, else 1."""
    prefixes = code[: next((n for n, byte in enumerate(code) if byte not in _REP_PREFIXES), len(code))]
    opcode = code[len(prefixes) : len(prefixes) + 1]
    if opcode in _PLAIN_STRINGS and (0xF2 in prefixes or 0xF3 in prefixes) and cpu.long_mode_code:
        return max(cpu.state.regs[RCX], 1)
    return 1


def iterates(code: bytes) -> bool:
    """Whether the instruction in `code` may stand before an iteration of its own: a string instruction with REP."""
    prefixes = code[: next((n for n, byte in enumerate(code) if byte not in _ALL_PREFIXES), len(code))]
    return code[len(prefixes) : len(prefixes) + 1] in _STRINGS and (0xF2 in prefixes or 0xF3 in prefixes)


def address_of(cpu: Cpu, code: bytes) -> int | None:
    """The address of the first memory operand of the instruction at RIP, None if it has none."""
    return next((operand.address for operand in memory_operands(cpu, code, cpu.ip)), None)
