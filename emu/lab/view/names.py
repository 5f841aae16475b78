"""Names for addresses: symbols, source lines, instructions."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from functools import cached_property
from pathlib import PurePath

from capstone import CS_ARCH_X86, CS_MODE_64, CS_OPT_SYNTAX_ATT, Cs

from asm import Image
from emu.events import Frame
from emu.lab.view.at_rest import Booted
from emu.lab.view.functions import CFunctions

_FARTHEST_USER_SYMBOL = 0x10000
"""A user address farther behind a symbol than this is not named after it: its size is unknown."""
_LONGEST_INSTRUCTION = 15
_UNREADABLE = "(bad)"
_STACK_WRITERS = ("mov", "lea", "xchg", "pop", "cmov")
_GS_WRITERS = frozenset({"swapgs", "wrgsbase", "wrgsbasel", "wrgsbaseq", "wrmsr"})
_ALWAYS_MOVE = _GS_WRITERS | {"leave", "leaveq", "iretq", "sysretq"}


class Names(CFunctions):
    """What is called what, in the kernel image and in the program. Answers that cannot change are computed once."""

    def __init__(
        self, system: Booted, user_image: Image | None = None, user_symbols: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(system)
        self.user_image = user_image
        ordered = sorted((address, name) for name, address in (user_symbols or {}).items())
        self._user_addresses = [address for address, _ in ordered]
        self._user_names = [name for _, name in ordered]
        self._code: dict[int, str] = {}
        self._wheres: dict[int, str] = {}

    def symbol(self, address: int) -> str:
        """`name+0x3`; plain hexadecimal if nothing is known there."""
        found = self.image.locate(address)
        if found is not None:
            return _named(self._aliases.get(address - found[1], found[0]), found[1])
        if self.user_image is not None and self.user_image.segment_at(address) is not None:
            return self.user_image.symbolize(address)
        at = bisect_right(self._user_addresses, address) - 1
        if at >= 0 and address - self._user_addresses[at] < _FARTHEST_USER_SYMBOL:
            return _named(self._user_names[at], address - self._user_addresses[at])
        return f"{address:#x}"

    @cached_property
    def _aliases(self) -> dict[int, str]:
        """What to call an address that has several symbols: not by that of a boundary."""
        table: dict[int, str] = {}
        for name, address in self.image.symbols.items():
            if not name.startswith("__"):
                table.setdefault(address, name)
        return table

    def where(self, address: int) -> str:
        """`entry_SYSCALL_64+0x3 (entry_64.S:41)`."""
        found = self._wheres.get(address)
        if found is None:
            image = self._image_of(address)
            statement = None if image is None else image.line_at(address)
            found = self.symbol(address)
            if statement is not None:
                found += f" ({PurePath(statement.position.file).name}:{statement.position.line})"
            self._wheres[address] = found
        return found

    def disassemble(self, address: int) -> str:
        """The instruction at an address in AT&T syntax, from an image or else from the guest's memory."""
        found = self._code.get(address)
        if found is None:
            found = self._disassemble(address)
            if found != _UNREADABLE:
                self._code[address] = found
        return found

    def _image_of(self, address: int) -> Image | None:
        for image in (self.image, self.user_image):
            if image is not None and image.segment_at(address) is not None:
                return image
        return None

    def _disassemble(self, address: int) -> str:
        image = self._image_of(address)
        instruction = None if image is None else image.instruction_at(address)
        if instruction is not None:
            return self._with_target(instruction.mnemonic, instruction.operands)
        code = self.read(0, address, _LONGEST_INSTRUCTION)
        for _, _, mnemonic, operands in self._capstone.disasm_lite(code, address, 1):
            return self._with_target(mnemonic, operands)
        return _UNREADABLE

    def _with_target(self, mnemonic: str, operands: str) -> str:
        """A branch to a known place names it."""
        if operands.startswith("0x") and mnemonic.startswith(("j", "call", "loop")):
            operands = self.symbol(int(operands, 16))
        return f"{mnemonic} {operands}".rstrip()

    @cached_property
    def _capstone(self) -> Cs:
        engine = Cs(CS_ARCH_X86, CS_MODE_64)
        engine.syntax = CS_OPT_SYNTAX_ATT
        return engine

    def call_site(self, return_to: int) -> int | None:
        """Address of the CALL that returns to `return_to`."""
        for size in (5, 2, 3, 6, 7):
            instruction = self.image.instruction_at(return_to - size)
            if instruction is not None and instruction.size == size and instruction.mnemonic.startswith("call"):
                return instruction.address
        return None

    def call_site_of_frame(self, frame: Frame) -> int | None:
        """Address of the CALL whose return address was on top of the stack of interrupted code."""
        word = self.read_kernel(frame.sp, 8)
        return None if word is None else self.call_site(int.from_bytes(word, "little"))

    @cached_property
    def moves(self) -> frozenset[int]:
        """Where to sample RSP and GS_BASE again: kernel instructions that may change the stack or the GS base."""
        images = [image for image in (self.image, self.user_image) if image is not None]
        return frozenset(i.address for image in images for i in image.instructions() if _moves(i.mnemonic, i.operands))


def _named(name: str, offset: int) -> str:
    return f"{name}+{offset:#x}" if offset else name


def _moves(mnemonic: str, operands: str) -> bool:
    if mnemonic in _ALWAYS_MOVE:
        return True
    if mnemonic.startswith("mov") and operands.endswith("%gs"):
        return True
    if not mnemonic.startswith(_STACK_WRITERS):
        return False
    return operands.endswith(", %rsp") or operands == "%rsp" or (mnemonic == "xchgq" and operands.startswith("%rsp,"))
