"""Telling #SS from #GP and #PF: the engine does not know that a non-canonical stack access is #SS(0) (SDM 6.15)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capstone import CS_ARCH_X86, CS_MODE_64, Cs

from emu.arch import is_canonical
from emu.machine.cpu import Stop
from emu.machine.registers import RBP

if TYPE_CHECKING:
    from emu.machine.core import Core

_decoder = Cs(CS_ARCH_X86, CS_MODE_64)
_IMPLICIT = frozenset({"push", "pop", "pushfq", "popfq", "call", "ret", "leave", "enter", "iretq", "retf", "retfq"})


def is_stack_access(core: Core, stop: Stop) -> bool:
    """Whether the fault came from a stack-segment access at a non-canonical address."""
    cpu = core.cpu
    if is_canonical(cpu.sp) and is_canonical(cpu.register(RBP)):
        return False
    code = core.read_code(stop.ip, 15)
    for _address, _size, mnemonic, operands in _decoder.disasm_lite(code, stop.ip, 1):
        if mnemonic in _IMPLICIT and not is_canonical(cpu.register(RBP) if mnemonic == "leave" else cpu.sp):
            return True
        return ("[rsp" in operands and not is_canonical(cpu.sp)) or (
            "[rbp" in operands and not is_canonical(cpu.register(RBP))
        )
    return False
