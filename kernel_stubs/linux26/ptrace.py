"""Traced system calls: both ends of `tracesys` (arch/x86/kernel/ptrace.c)."""

from __future__ import annotations

from emu.arch import Rflags
from kernel_stubs.abi import PtRegs, Tif
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.linux26.calls import c_function26
from kernel_stubs.ptrace_abi import SyscallWork
from kernel_stubs.ptrace_stop import report_syscall
from kernel_stubs.step import single_step_report


@c_function26
def syscall_trace_enter(cpu: Cpu, regs: PtRegs) -> Steps:
    """Before a system call: its number now, or -1. All of orig_ax, as a 64-bit tracer has written it: assembly looks at
    what counts of it."""
    info = cpu.current.thread_info
    if info.flags & Tif.SINGLESTEP:  # SYSCALL has cleared it
        regs.flags |= Rflags.TF
    if info.syscall_work & SyscallWork.SYSCALL_TRACE and (yield from report_syscall(cpu, leaving=False)):
        return -1
    return regs.orig_ax


@c_function26
def syscall_trace_leave(cpu: Cpu, regs: PtRegs) -> Steps:
    """A system call has its result: the tracer's stop, and the trap of its single step."""
    task = cpu.current
    if task.exit_state:
        return None
    if task.thread_info.syscall_work & SyscallWork.SYSCALL_TRACE:
        yield from report_syscall(cpu, leaving=True)
    if task.thread_info.flags & Tif.SINGLESTEP and task.ptrace.tracer and not task.exit_state:
        single_step_report(cpu, regs)
    return None
