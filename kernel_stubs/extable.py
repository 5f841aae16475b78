"""The exception table: kernel instructions that may fault, and where they go on then (arch/x86/mm/extable.c)."""

from __future__ import annotations

from kernel_stubs.abi import ExTableEntry, PtRegs
from kernel_stubs.context import Cpu


def _fixup(cpu: Cpu, regs: PtRegs) -> int | None:
    symbols = cpu.kernel.image.symbols
    at, end = symbols.get("__start___ex_table", 0), symbols.get("__stop___ex_table", 0)
    while at < end:
        entry = cpu.view(ExTableEntry, at)
        if entry.insn == regs.ip:
            return entry.fixup
        at += ExTableEntry.SIZE
    return None


def has_fixup(cpu: Cpu, regs: PtRegs) -> bool:
    """Whether the table of the image has the instruction (search_exception_tables)."""
    return _fixup(cpu, regs) is not None


def fixup_exception(cpu: Cpu, regs: PtRegs) -> bool:
    """Send a fault in kernel mode to its fixup; False if the table of the image does not have the instruction."""
    fixup = _fixup(cpu, regs)
    if fixup is None:
        return False
    regs.ip = fixup
    return True
