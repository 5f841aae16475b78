"""Debug registers of traced tasks (arch/x86/kernel/hw_breakpoint.c, and ptrace_*_debugreg in ptrace.c)."""

from __future__ import annotations

from emu.arch import PAGE_SIZE, Rflags
from kernel_stubs.abi import TASK_SIZE_MAX, PtRegs, TaskStruct
from kernel_stubs.binding import Call, Steps
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.ptrace_abi import NR_BREAKPOINTS, TaskPtrace

DR6_RESERVED = 0xFFFF_0FF0
"""Bits that read as 1 when nothing is reported."""
DR_TRAP_BITS = 0xF
DR_STEP = 1 << 14
DR7_ENABLED = 0xFF
DR7_KNOWN = 0xFFFF_03FF
"""Enable bits, LE and GE, kinds and lengths; the rest of what a tracer writes is dropped."""
_EXECUTE, _WRITE, _READ_WRITE = 0, 1, 3
_LENGTHS = {0: 1, 1: 2, 3: 4, 2: 8}


def restore_debugregs(cpu: Cpu) -> Steps:
    """The current task came to this CPU: its breakpoints, or none, if another's are there."""
    own = cpu.current.ptrace
    if own.dr7 & DR7_ENABLED or cpu.core.cpu.state.dr[7] & DR7_ENABLED:
        at = cpu.percpu.current_task + TaskStruct.offset("ptrace") + TaskPtrace.offset("addresses")
        yield Call("load_debugregs", (at, own.dr7 & DR7_KNOWN))
    return None


def flush_breakpoints(cpu: Cpu) -> Steps:
    """execve: the addresses mean nothing in the new program."""
    own = cpu.current.ptrace
    own.dr6 = own.dr7 = 0
    own.addresses[:] = [0] * NR_BREAKPOINTS
    return restore_debugregs(cpu)


def triggered(task: TaskStruct, regs: PtRegs, dr6: int) -> None:
    """Note what user mode's #DB reports, DR6 with 1 for yes, where the tracer will look for it.

    An instruction breakpoint traps before its instruction, so RF lets that pass when it is executed.
    """
    own = task.ptrace
    hits = 0
    for number in range(NR_BREAKPOINTS):
        if dr6 >> number & 1 and own.dr7 >> 2 * number & 3:
            hits |= 1 << number
            if own.dr7 >> 16 + 4 * number & 3 == _EXECUTE:
                regs.flags |= Rflags.RF
    own.dr6 = dr6 & DR_STEP | hits


# --- as a tracer sees them --------------------------------------------------------------------------------------------
def get_debugreg(task: TaskStruct, number: int) -> int:
    """PTRACE_PEEKUSER of u_debugreg[number]."""
    own = task.ptrace
    if number < NR_BREAKPOINTS:
        return int(own.addresses[number])
    return {6: own.dr6 ^ DR6_RESERVED, 7: own.dr7}.get(number, 0)


def set_debugreg(task: TaskStruct, number: int, value: int) -> None:
    """PTRACE_POKEUSER of u_debugreg[number]. User addresses only; a length must fit its address and its kind."""
    own = task.ptrace
    if number < NR_BREAKPOINTS:
        if value >= TASK_SIZE_MAX + PAGE_SIZE:
            raise SyscallError(Errno.EPERM)
        if own.dr7 >> 2 * number & 3:
            _check(value, own.dr7 >> 16 + 4 * number & 15)
        own.addresses[number] = value
    elif number == 6:
        own.dr6 = value ^ DR6_RESERVED
    elif number == 7:
        for index in range(NR_BREAKPOINTS):
            if value >> 2 * index & 3:
                _check(own.addresses[index], value >> 16 + 4 * index & 15)
        own.dr7 = value & DR7_KNOWN
    else:
        raise SyscallError(Errno.EIO)


def _check(address: int, control: int) -> None:
    kind, length = control & 3, _LENGTHS[control >> 2]
    if kind not in (_EXECUTE, _WRITE, _READ_WRITE) or (kind == _EXECUTE and length != 1) or address % length:
        raise SyscallError(Errno.EINVAL)
