"""Faults that the engine reports with the wrong vector or error code, put right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capstone import CS_ARCH_X86, CS_MODE_64, Cs

from emu.arch import Cr4, PageFault, Vector, is_canonical
from emu.machine.operands import memory_operands
from emu.machine.paging import Access, PageFaultError
from emu.machine.registers import CS, RBP, SS
from emu.machine.stop import Stop

if TYPE_CHECKING:
    from emu.machine.exceptions import Exceptions

_decoder = Cs(CS_ARCH_X86, CS_MODE_64)
_IMPLICIT = frozenset({"push", "pop", "pushfq", "popfq", "call", "ret", "leave", "enter", "iretq", "retf", "retfq"})
_HOLE = 0x0000_8000_0000_0000
_OSXSAVE = 1 << 18
_MODIFYING = frozenset({"cmpxchg", "cmpxchg8b", "cmpxchg16b", "rol", "ror", "rcl", "rcr"})
"""What the decoder takes for readers."""
_NOT_A_READ = int(PageFault.W | PageFault.I)
_PAGE_IS_THERE = int(PageFault.P | PageFault.U)
_PREFIXES = bytes((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF2, 0xF3, *range(0x40, 0x50)))
_FAR = (b"\x9a", b"\xca", b"\xcb")
_FAR_FRAME = 16
"""Bytes: what these push or pop."""


def correct(core: Exceptions, stop: Stop) -> tuple[int, int]:
    """Vector and error code as hardware gives them."""
    vector, code = stop.vector, stop.error_code
    if vector == Vector.PF:
        if _crosses_the_hole(core, stop):
            core.cpu.cr2 = stop.old_cr2
            return (Vector.SS, 0) if is_stack_access(core, stop) else (Vector.GP, 0)
        if not code & PageFault.U and core.cpu.cpl == 3 and is_far_transfer(core, stop) and _on_stack(core):
            return vector, code | int(PageFault.U)
        if not code & _NOT_A_READ and _modifies(core, stop):
            return vector, code | int(PageFault.W)
    elif vector == Vector.UD:
        if core.read_code(stop.ip, 2) == b"\x0f\x33":
            return Vector.GP, 0  # RDPMC: there is no counter
    elif vector == Vector.GP:
        if not core.cpu.cr4 & _OSXSAVE and core.read_code(stop.ip, 3) == b"\x0f\x01\xd1":
            return Vector.UD, 0  # XSETBV
        if is_stack_access(core, stop):
            return Vector.SS, 0
    return vector, code


def _modifies(core: Exceptions, stop: Stop) -> bool:
    """A read-modify-write access is a write from the start (SDM 4.7); the engine reads first."""
    cr2 = core.cpu.cr2
    return any(
        ((operand.reads and operand.writes) or operand.mnemonic.split()[-1] in _MODIFYING)
        and operand.address <= cr2 < operand.address + operand.size
        for operand in memory_operands(core.cpu, core.read_code(stop.ip, 15), stop.ip)
    )


def is_far_transfer(core: Exceptions, stop: Stop) -> bool:
    """Whether the instruction is a far CALL or RET, whose stack the engine accesses as the kernel would at any CPL."""
    code = core.read_code(core.cpu.state.segs[CS].base + stop.ip, 15).lstrip(_PREFIXES)
    return code[:1] in _FAR or (code[:1] == b"\xff" and code[1:2] != b"" and code[1] >> 3 & 7 == 3)


def _on_stack(core: Exceptions) -> bool:
    state = core.cpu.state
    return abs(core.cpu.cr2 - state.segs[SS].base - core.cpu.sp) <= _FAR_FRAME


def is_smap_alone(core: Exceptions, stop: Stop) -> bool:
    """Whether a far CALL or RET at CPL 3 was kept from a stack of its own, by SMAP, which is not for user mode."""
    cpu = core.cpu
    if stop.vector != Vector.PF or stop.error_code & _PAGE_IS_THERE != PageFault.P or cpu.cpl != 3:
        return False
    if not (cpu.cr4 & Cr4.SMAP and is_far_transfer(core, stop) and _on_stack(core)):
        return False
    try:
        core.linear.translate(cpu.cr2, Access(user=True, write=bool(stop.error_code & PageFault.W)))
    except PageFaultError:
        return False
    return True


def _crosses_the_hole(core: Exceptions, stop: Stop) -> bool:
    """An access that begins at a canonical address and ends at a non-canonical one is #GP or #SS, not #PF."""
    cr2 = core.cpu.cr2
    if not _HOLE - 64 <= cr2 < _HOLE:
        return False
    code = core.read_code(stop.ip, 15)
    if any(operand.address + operand.size > _HOLE for operand in memory_operands(core.cpu, code, stop.ip)):
        return True
    return is_stack_access(core, stop) or cr2 + 8 > _HOLE


def is_stack_access(core: Exceptions, stop: Stop) -> bool:
    """Whether the fault came from a stack-segment access at a non-canonical address: #SS(0) (SDM 6.15)."""
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
