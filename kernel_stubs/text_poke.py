"""Kernel code is patched while others execute it: INT3 stands for the instruction (arch/x86/kernel/alternative.c).

Whoever runs into the INT3 has exc_int3 do what the instruction does. A CALL pushes its return address: on a kernel
stack that is where the frame of the exception would be, so asm_exc_int3 leaves a gap.
"""

from __future__ import annotations

from kernel_stubs import mm
from kernel_stubs.abi import PtRegs
from kernel_stubs.context import Cpu, Kernel

INT3 = 0xCC
CALL, JMP, JMP8 = 0xE8, 0xE9, 0xEB
_LENGTHS = {CALL: 5, JMP: 5, JMP8: 2}


def begin_text_poke(kernel: Kernel, address: int) -> None:
    """First step of text_poke_bp(): INT3 where a CALL or a JMP stands; ValueError if it is something else."""
    physical = kernel.physical(address)
    data = mm.kernel_data(kernel.memory)
    old = kernel.memory.read(physical, 8)
    if old[0] not in _LENGTHS:
        raise ValueError(f"text patching replaces CALL and JMP, not {old[:1].hex()}... at {address:#x}")
    if data.poke_address:  # there is one at a time: that one is done
        kernel.memory.write(kernel.physical(data.poke_address), bytes(data.poke_opcode)[:1])
    data.poke_address = address
    data.poke_opcode[:] = list(old)
    kernel.memory.write(physical, bytes((INT3,)))


def poke_int3_handler(cpu: Cpu, regs: PtRegs) -> bool:
    """Do what the instruction under the INT3 does; False if the INT3 is nobody's."""
    data = mm.kernel_data(cpu.memory)
    address = regs.ip - 1
    if address != data.poke_address:
        return False
    old = bytes(data.poke_opcode)
    following = address + _LENGTHS[old[0]]
    displacement = old[1:2] if old[0] == JMP8 else old[1:5]
    regs.ip = (following + int.from_bytes(displacement, "little", signed=True)) & 0xFFFF_FFFF_FFFF_FFFF
    if old[0] == CALL:
        regs.sp -= 8
        cpu.core.write_linear(regs.sp, following.to_bytes(8, "little"))
    return True
