"""The FPU registers of a stopped task, as its tracer sees them (arch/x86/kernel/fpu/regset.c)."""

from __future__ import annotations

from kernel_stubs.abi import TaskStruct
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.fpu import MXCSR_FEATURE_MASK, initial_state, set_task_fpu, task_fpu
from kernel_stubs.sched import address_of

_MXCSR = slice(24, 28)


def read_fpregs(cpu: Cpu, task: TaskStruct) -> bytes:
    """PTRACE_GETFPREGS: in the form of FXSAVE; of a task that has never used them, what it would find."""
    return task_fpu(cpu.kernel, address_of(cpu.kernel, task)) or initial_state(cpu.kernel)


def write_fpregs(cpu: Cpu, task: TaskStruct, state: bytes) -> None:
    """PTRACE_SETFPREGS; EINVAL if MXCSR has a reserved bit, which would make FXRSTOR fault."""
    if int.from_bytes(state[_MXCSR], "little") & ~MXCSR_FEATURE_MASK:
        raise SyscallError(Errno.EINVAL)
    set_task_fpu(cpu.kernel, address_of(cpu.kernel, task), state)
