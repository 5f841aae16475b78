"""Operators that go by instruction of the assembled image, whatever macro made it: a few bytes are changed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from asm import Image, Instruction
from emu.lab.coverage import sites
from emu.lab.mutate.mutant import NOP, Mutant, nops
from emu.machine.profile import Profile

_REMOVED = {
    "swapgs": "swapgs", "cld": "cld", "clac": "clac", "stac": "clac", "cli": "cli-sti", "sti": "cli-sti",
    "wrgsbase": "fsgsbase", "wrgsbaseq": "fsgsbase", "rdgsbase": "fsgsbase", "rdgsbaseq": "fsgsbase",
    "leave": "stack-switch", "leaveq": "stack-switch",
}  # fmt: skip
"""Mnemonic -> what `remove-...` calls it."""
_TO_RSP = re.compile(r"(movq|leaq|mov|lea|cmov\w+) .*, %rsp$|popq? %rsp$|(addq|subq) .*, %rsp$")
_TO_CR3 = re.compile(r"movq? %\w+, %cr3$")
_NUMBERED = {"irq_entries_start": 0x100, "spurious_entries_start": 0x40, "interrupt": 0x100}
"""Arrays of stubs that differ in a number only -> offset of the one that stands for all, of vector 0x30 or 0xf0."""
_STUB_SIZE = 0x10
_VECTOR_SOURCES = frozenset({"idtentry.S", "irq.S", "traps.S", "paranoid.S"})
"""Where PUSH of a number makes the word below a hardware frame: an error code, a vector, or a complement of one."""
_NONE = ("pushq $-1", "pushq $0xffffffffffffffff")
"""What says that there is neither, and no system call."""
_NOT_MUTATED = frozenset({"int3", "nop", "ud2"})
_PREFIXES = (*range(0x40, 0x50), 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66)


def instructions(image: Image) -> list[Instruction]:
    """The entry code: of the arrays of stubs that differ in a number only, those of one vector."""
    found = []
    for address in sorted(sites(image)):
        name, offset = image.locate(address) or ("", 0)
        if name in _NUMBERED and not 0 <= offset - _NUMBERED[name] < _STUB_SIZE:
            continue
        instruction = image.instruction_at(address)
        if instruction is not None and instruction.mnemonic not in _NOT_MUTATED:
            found.append(instruction)
    return found


def by_instruction(image: Image, profile: Profile) -> Iterator[Mutant]:
    """Named operators and the generic one, at every instruction."""
    for one in instructions(image):
        place, text = f"{image.symbolize(one.address)}: {_in_words(image, one)}", str(one)
        removed = ((one.address, nops(one.size)),)
        kind = _REMOVED.get(one.mnemonic)
        if kind is None and _TO_CR3.match(text):
            kind = "cr3-write"
        if kind is None and _TO_RSP.match(text):
            kind = "stack-switch"
        if one.mnemonic.startswith("cmov") or (one.mnemonic.startswith("j") and one.mnemonic not in ("jmp", "jmpq")):
            yield Mutant("invert-branch", place, profile, ((one.address, inverted(one.data)),))
        elif wrong := _wrong_number(image, one, text):
            yield Mutant("error-code", place, profile, ((one.address, wrong),))
        yield Mutant(NOP if kind is None else f"remove-{kind}", place, profile, removed)


def _wrong_number(image: Image, one: Instruction, text: str) -> bytes:
    """The PUSH of another number where one stands for an error code or a vector; empty elsewhere."""
    if text in _NONE:
        return one.data[:1] + bytes(one.size - 1)
    statement = image.line_at(one.address)
    if not text.startswith("pushq $") or statement is None:
        return b""
    outermost = statement.macro_sites[0] if statement.macro_sites else statement.position
    name, offset = image.locate(one.address) or ("", 0)
    if outermost.file not in _VECTOR_SOURCES or (offset >= _STUB_SIZE and name not in _NUMBERED):
        return b""
    return one.data[:1] + bytes((one.data[1] ^ 1,)) + one.data[2:]


def _in_words(image: Image, one: Instruction) -> str:
    """An instruction that does not change its name when code before it grows."""
    target = one.operands
    if target.startswith("0x") and one.mnemonic.startswith(("j", "call")):
        target = image.symbolize(int(target, 16))
    return f"{one.mnemonic} {re.sub(r'-?0x[0-9a-f]+(?=[(]%rip)', '...', target)}".rstrip()


def inverted(code: bytes) -> bytes:
    """Jcc or CMOVcc with the opposite condition, which is the lowest bit of the opcode (SDM volume 2, B.1.4.7)."""
    at = next(n for n, byte in enumerate(code) if byte not in _PREFIXES)
    if code[at] == 0x0F:
        at += 1
    return code[:at] + bytes((code[at] ^ 1,)) + code[at + 1 :]
