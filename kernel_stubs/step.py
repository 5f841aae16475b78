"""A tracer's single step (arch/x86/kernel/step.c)."""

from __future__ import annotations

from emu.arch import Rflags, Selector, Vector
from kernel_stubs.abi import MmStruct, PtRegs, TaskStruct, Tif
from kernel_stubs.context import Cpu, Kernel, task_pt_regs
from kernel_stubs.errno import UserFaultError
from kernel_stubs.ptrace_abi import SyscallWork
from kernel_stubs.siginfo import TRAP_BRKPT, Sig
from kernel_stubs.signal import force_sig
from kernel_stubs.uaccess import user_page

_POPF, _IRET = 0x9D, 0xCF
_PREFIXES = frozenset({0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3})
_REX = range(0x40, 0x50)
_LONGEST = 15
"""Bytes of an instruction."""


def enable_single_step(kernel: Kernel, task: TaskStruct) -> None:
    """user_enable_single_step(): a task that does not run is to trap after its next instruction.

    A TF that the task has set itself stays its own.
    """
    regs = task_pt_regs(kernel, task)
    if task.thread_info.flags & Tif.SINGLESTEP:
        regs.flags |= Rflags.TF
    task.thread_info.flags |= Tif.SINGLESTEP
    task.thread_info.syscall_work |= SyscallWork.SYSCALL_EXIT_TRAP
    had_it = regs.flags & Rflags.TF
    regs.flags |= Rflags.TF
    if _sets_trap_flag(kernel, task, regs):
        task.ptrace.forced_tf = 0
    elif not had_it:
        task.ptrace.forced_tf = 1


def disable_single_step(kernel: Kernel, task: TaskStruct) -> None:
    """user_disable_single_step(): the task's own TF is left alone."""
    task.thread_info.flags &= ~Tif.SINGLESTEP
    task.thread_info.syscall_work &= ~int(SyscallWork.SYSCALL_EXIT_TRAP)
    if task.ptrace.forced_tf:
        task.ptrace.forced_tf = 0
        task_pt_regs(kernel, task).flags &= ~Rflags.TF


def single_step_report(cpu: Cpu, regs: PtRegs) -> None:
    """user_single_step_report(): the step went over a system call."""
    task = cpu.current
    task.trap_nr, task.error_code = Vector.DB, 0
    force_sig(cpu, Sig.SIGTRAP, TRAP_BRKPT, regs.ip)


def _sets_trap_flag(kernel: Kernel, task: TaskStruct, regs: PtRegs) -> bool:
    """is_setting_trap_flag(): whether the next instruction is a POPF or an IRET, which choose TF themselves."""
    prefixes = _PREFIXES | set(_REX) if regs.cs == Selector.USER_CS else _PREFIXES
    for at in range(regs.ip, regs.ip + _LONGEST):
        try:
            frame = user_page(kernel, kernel.view(MmStruct, task.mm), at, write=False)
        except UserFaultError:
            return False
        byte = kernel.memory.read(frame, 1)[0]
        if byte not in prefixes:
            return byte in (_POPF, _IRET)
    return False
