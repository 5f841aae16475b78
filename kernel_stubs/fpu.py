"""The FPU's registers: the guest saves and restores them, C looks at them in memory (arch/x86/kernel/fpu).

linux-6 switches them with the task; linux-2.6 when somebody wants them (kernel_stubs.fpu_lazy).
"""

from __future__ import annotations

from kernel_stubs import fpu_lazy
from kernel_stubs.abi import FXSAVE_SIZE, TASK_FPU, TaskStruct
from kernel_stubs.binding import Call, Steps
from kernel_stubs.context import Cpu, Kernel
from kernel_stubs.siginfo import FPE_FLTDIV, FPE_FLTINV, FPE_FLTOVF, FPE_FLTRES, FPE_FLTUND

MXCSR_FEATURE_MASK = 0xFFFF
"""With DAZ."""
_CWD, _SWD, _MXCSR = slice(0, 2), slice(2, 4), slice(24, 28)
_SAVE, _RESTORE, _INITIAL = "save_fpregs", "restore_fpregs", "init_fpstate"


def _area(cpu: Cpu) -> int:
    return cpu.percpu.current_task + TASK_FPU


def task_fpu(kernel: Kernel, address: int) -> bytes:
    """The state of a task whose registers are in no CPU; b"" if it never had one."""
    task = kernel.view(TaskStruct, address)
    if kernel.classic and not task.used_math:
        return b""
    return kernel.memory.read(kernel.physical(address + TASK_FPU), FXSAVE_SIZE)


def set_task_fpu(kernel: Kernel, address: int, state: bytes) -> None:
    """Give such a task another state."""
    kernel.view(TaskStruct, address).used_math = 1
    kernel.memory.write(kernel.physical(address + TASK_FPU), state)


def initial_state(kernel: Kernel) -> bytes:
    """What a program begins with."""
    return kernel.memory.read(kernel.physical(kernel.image.symbol(_INITIAL)), FXSAVE_SIZE)


# --- switches ---------------------------------------------------------------------------------------------------------
def _eager(cpu: Cpu) -> bool:
    """Whether a switch of tasks is one of registers too: user mode's, which kernel threads have none of."""
    return bool(cpu.current.mm) and not cpu.kernel.classic and _SAVE in cpu.kernel.image.symbols


def save_fpu(cpu: Cpu) -> Steps:
    """Before a switch: the current task's registers go to memory."""
    if _eager(cpu):
        yield Call(_SAVE, (_area(cpu),))
    return None


def restore_fpu(cpu: Cpu) -> Steps:
    """After a switch: the current task's come back."""
    if _eager(cpu):
        yield Call(_RESTORE, (_area(cpu),))
    return None


def copy_fpu(cpu: Cpu, child: int) -> Steps:
    """A new task has the current one's state."""
    if cpu.kernel.classic:
        yield from fpu_lazy.copy_fpu(cpu, child)
    elif _eager(cpu):
        yield Call(_SAVE, (child + TASK_FPU,))
    return None


# --- the current task -------------------------------------------------------------------------------------------------
def save_user_fpu(cpu: Cpu) -> Steps:
    """FXSAVE into the current task's area, if its state is in the registers."""
    if cpu.kernel.classic:
        yield from fpu_lazy.unlazy_fpu(cpu, cpu.percpu.current_task)
    else:
        yield Call(_SAVE, (_area(cpu),))
    return None


def saved_fpu(cpu: Cpu) -> bytes:
    """What `save_user_fpu` stored; b"" if the task has no state."""
    return task_fpu(cpu.kernel, cpu.percpu.current_task)


def clear_user_fpu(cpu: Cpu) -> Steps:
    """The state that a program starts with, for one, or for a signal handler (fpu__clear_user_states, flush_thread)."""
    if cpu.kernel.classic:
        yield from fpu_lazy.clear_fpu(cpu)
    elif _INITIAL in cpu.kernel.image.symbols:
        yield Call(_RESTORE, (cpu.kernel.image.symbol(_INITIAL),))
    return None


def restore_user_fpu(cpu: Cpu, state: bytes) -> Steps:
    """FXRSTOR of a state that user mode gave; 0 if it has bits in MXCSR that no CPU takes."""
    if int.from_bytes(state[_MXCSR], "little") & ~MXCSR_FEATURE_MASK:
        return 0
    if cpu.kernel.classic:
        yield from fpu_lazy.use_state(cpu, state)
        return 1
    cpu.memory.write(cpu.kernel.physical(_area(cpu)), state)
    yield Call(_RESTORE, (_area(cpu),))
    return 1


def exception_code(state: bytes, *, simd: bool) -> int:
    """si_code for #MF or #XF: the unmasked exception of the highest priority; 0 if there is none."""
    if simd:
        mxcsr = int.from_bytes(state[_MXCSR], "little")
        raised = mxcsr & ~(mxcsr >> 7)
    else:
        raised = int.from_bytes(state[_SWD], "little") & ~int.from_bytes(state[_CWD], "little")
    for flags, code in (
        (0x01, FPE_FLTINV), (0x04, FPE_FLTDIV), (0x08, FPE_FLTOVF), (0x12, FPE_FLTUND), (0x20, FPE_FLTRES),
    ):  # fmt: skip
        if raised & flags:
            return code
    return 0
