"""32-bit programs of scenarios: what the assembler wrote must be the same instructions in compatibility mode."""

from __future__ import annotations

import re
from pathlib import PurePath

from capstone import CS_ARCH_X86, CS_MODE_32, CS_OPT_SYNTAX_ATT, Cs

from asm import Image
from emu.errors import ScenarioError

_WIDE = re.compile(r"%r([abcd]x|[sb]p|[sd]i)\b")


def check_both_modes(image: Image, where: str) -> None:
    """ScenarioError for the first instruction that means something else in 32-bit code than in 64-bit code.

    The assembler knows 64-bit code only. Instructions on 32-bit registers, pushes and pops, and addresses in (%rsp) and
    its like are encoded as 32-bit code has them; REX prefixes and RIP-relative addresses are not. `where`: the key that
    asks for 32-bit code.
    """
    engine = Cs(CS_ARCH_X86, CS_MODE_32)
    engine.syntax = CS_OPT_SYNTAX_ATT
    for one in image.instructions():
        wide = (_stem(one.mnemonic, one.operands), _WIDE.sub(r"%e\1", one.operands))
        found = [
            (_stem(mnemonic, operands), operands)
            for _, size, mnemonic, operands in engine.disasm_lite(one.data, one.address)
            if size == one.size
        ]
        if [wide] != found:
            statement = image.line_at(one.address)
            line = f"{PurePath(statement.position.file).name}:{statement.position.line}" if statement else where
            raise ScenarioError(
                f"{line}: {one.mnemonic} {one.operands} is no 32-bit instruction ({where} asks for 32 bits): "
                "use 32-bit registers, absolute addresses, pushq and popq for pushes and pops"
            )


def _stem(mnemonic: str, operands: str) -> str:
    """The mnemonic without the size of pushes, pops, calls, jumps and returns, which goes with the mode."""
    if mnemonic.startswith(("push", "pop", "call", "jmp", "ret", "leave")):
        return mnemonic.rstrip("lq")
    return mnemonic
