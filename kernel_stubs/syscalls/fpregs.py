"""The FPU registers of a stopped task, as its tracer sees them (arch/x86/kernel/fpu/regset.c)."""

from __future__ import annotations

from kernel_stubs.abi import FXSAVE_SIZE, TASK_FPU, TaskStruct
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.sched import address_of

_MXCSR = slice(24, 28)


def _at(cpu: Cpu, task: TaskStruct) -> int:
    """Physical address of what the task's FPU registers were when it left its CPU."""
    return cpu.kernel.physical(address_of(cpu.kernel, task) + TASK_FPU)


def read_fpregs(cpu: Cpu, task: TaskStruct) -> bytes:
    """PTRACE_GETFPREGS: in the form of FXSAVE."""
    return cpu.memory.read(_at(cpu, task), FXSAVE_SIZE)


def write_fpregs(cpu: Cpu, task: TaskStruct, state: bytes) -> None:
    """PTRACE_SETFPREGS; EINVAL if MXCSR has a reserved bit, which would make FXRSTOR fault."""
    if int.from_bytes(state[_MXCSR], "little") & ~0xFFFF:
        raise SyscallError(Errno.EINVAL)
    cpu.memory.write(_at(cpu, task), state)
