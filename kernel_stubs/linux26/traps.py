"""Exceptions: `do_*(regs, error_code)` with what linux-6 does for the same vector (arch/x86/kernel/traps_64.c)."""

from __future__ import annotations

from emu.arch import Rflags
from kernel_stubs.abi import PtRegs, Tif
from kernel_stubs.binding import CFunction, Steps, registered
from kernel_stubs.context import Cpu
from kernel_stubs.fpu_lazy import math_state_restore, owns_fpu
from kernel_stubs.linux26.calls import Body, register26
from kernel_stubs.oops import die
from kernel_stubs.traps import describe

SAME_AS = {
    "do_divide_error": "exc_divide_error",
    "do_int3": "exc_int3",
    "do_overflow": "exc_overflow",
    "do_bounds": "exc_bounds",
    "do_invalid_op": "exc_invalid_op",
    "do_coprocessor_segment_overrun": "exc_coproc_segment_overrun",
    "do_invalid_TSS": "exc_invalid_tss",
    "do_segment_not_present": "exc_segment_not_present",
    "do_stack_segment": "exc_stack_segment",
    "do_general_protection": "exc_general_protection",
    "do_page_fault": "exc_page_fault",
    "do_spurious_interrupt_bug": "exc_spurious_interrupt_bug",
    "do_coprocessor_error": "exc_coprocessor_error",
    "do_alignment_check": "exc_alignment_check",
    "do_simd_coprocessor_error": "exc_simd_coprocessor_error",
}
"""C function -> that of linux-6 for the same exception."""
BY_MODE = {
    "do_machine_check": ("exc_machine_check_user", "exc_machine_check"),
}
"""C function -> those of linux-6 for an exception in user mode and in the kernel."""


def call(function: CFunction, cpu: Cpu, regs: PtRegs, error_code: int) -> object:
    """A handler of linux-6, which gets an error code only where its exception has one."""
    extra = (error_code,) if len(function.parameters) > 1 else ()
    return function.function(cpu, regs, *extra)


def _body(user: CFunction, kernel: CFunction) -> Body:
    return lambda cpu, regs, error_code: call(user if regs.user_mode else kernel, cpu, regs, error_code)


def _debug(cpu: Cpu, regs: PtRegs, error_code: int) -> object:
    """#DB. SYSENTER keeps the TF of user mode: the kernel does without it, and the entry finds TIF_SINGLESTEP."""
    newer = registered()
    if regs.user_mode:
        return newer["exc_debug_user"].function(cpu, regs)
    stepping = regs.flags & Rflags.TF
    newer["exc_debug"].function(cpu, regs)
    if stepping and not regs.flags & Rflags.TF:
        cpu.current.thread_info.flags |= Tif.SINGLESTEP
    return None


def _double_fault(cpu: Cpu, regs: PtRegs, error_code: int) -> object:
    return registered()["exc_double_fault"].function(cpu, regs, error_code, cpu.core.cpu.cr2)


def _device_not_available(cpu: Cpu, regs: PtRegs, error_code: int) -> Steps:
    """#NM: the task uses the FPU for the first time since it got the CPU. The kernel never does, and nobody twice."""
    if not regs.user_mode or owns_fpu(cpu, cpu.current):
        raise die(cpu, describe(cpu, regs, "unexpected #NM exception"))
    yield from math_state_restore(cpu)
    return None


def register_all() -> None:
    """Register the exceptions' C functions."""
    newer = registered()
    pairs = {name: (same, same) for name, same in SAME_AS.items()} | BY_MODE
    for name, (user, kernel) in pairs.items():
        register26(name, _body(newer[user], newer[kernel]), (PtRegs, int))
    register26("do_device_not_available", _device_not_available, (PtRegs, int))
    register26("do_debug", _debug, (PtRegs, int))
    register26("do_double_fault", _double_fault, (PtRegs, int))
