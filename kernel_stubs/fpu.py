"""The FPU's registers: the guest saves and restores them, C looks at them in memory (arch/x86/kernel/fpu)."""

from __future__ import annotations

from kernel_stubs.abi import FXSAVE_SIZE, TASK_FPU
from kernel_stubs.binding import Call, Steps
from kernel_stubs.context import Cpu
from kernel_stubs.siginfo import FPE_FLTDIV, FPE_FLTINV, FPE_FLTOVF, FPE_FLTRES, FPE_FLTUND

MXCSR_FEATURE_MASK = 0xFFFF
"""With DAZ."""
_CWD, _SWD, _MXCSR = slice(0, 2), slice(2, 4), slice(24, 28)


def _area(cpu: Cpu) -> int:
    return cpu.percpu.current_task + TASK_FPU


def save_user_fpu(cpu: Cpu) -> Steps:
    """FXSAVE into the current task's area."""
    yield Call("save_fpregs", (_area(cpu),))
    return None


def saved_fpu(cpu: Cpu) -> bytes:
    """What `save_user_fpu` stored."""
    return cpu.memory.read(cpu.kernel.physical(_area(cpu)), FXSAVE_SIZE)


def clear_user_fpu(cpu: Cpu) -> Steps:
    """The state that a program starts with, for a signal handler (fpu__clear_user_states)."""
    yield Call("restore_fpregs", (cpu.kernel.image.symbol("init_fpstate"),))
    return None


def restore_user_fpu(cpu: Cpu, state: bytes) -> Steps:
    """FXRSTOR of a state that user mode gave; 0 if it has bits in MXCSR that no CPU takes."""
    if int.from_bytes(state[_MXCSR], "little") & ~MXCSR_FEATURE_MASK:
        return 0
    cpu.memory.write(cpu.kernel.physical(_area(cpu)), state)
    yield Call("restore_fpregs", (_area(cpu),))
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
