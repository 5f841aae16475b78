"""What C does around every handler, between the assembly and the subject (kernel/entry/common.c)."""

from __future__ import annotations

from emu.arch import Rflags, Selector, is_canonical
from kernel_stubs.abi import EXIT_TO_USER_MODE_WORK, PtRegs, Tif
from kernel_stubs.binding import Steps, Window, c_function
from kernel_stubs.context import Cpu
from kernel_stubs.process import do_exit
from kernel_stubs.ptrace_abi import SYSCALL_WORK_ENTER, SYSCALL_WORK_EXIT, SyscallWork
from kernel_stubs.ptrace_stop import report_syscall, trace_enter
from kernel_stubs.rseq import rseq_handle_notify_resume
from kernel_stubs.sched import schedule
from kernel_stubs.signal_frame import do_signal
from kernel_stubs.softirq import invoke_softirq
from kernel_stubs.step import single_step_report
from kernel_stubs.trace import trace_exit_work, trace_irq_vector_entry, trace_irq_vector_exit

HARDIRQ_OFFSET = 1 << 16
NMI_OFFSET = 1 << 20
"""Parts of preempt_count (include/linux/preempt.h)."""


def exit_to_user_mode_loop(cpu: Cpu, regs: PtRegs) -> Steps:
    """Everything that must be done before user mode runs again.

    The flags are tested with interrupts off, and off they stay if there is nothing to do: whatever sets a flag after
    the test must be an event of user mode. While work is done they are on, so the test has to be repeated.
    """
    task = cpu.current
    if task.thread_info.flags & EXIT_TO_USER_MODE_WORK:
        task.ret_count += 1
    while not task.exit_state and (work := task.thread_info.flags & EXIT_TO_USER_MODE_WORK):
        trace_exit_work(cpu, work)
        yield Window()
        if work & Tif.NEED_RESCHED:
            yield from schedule(cpu)
        if work & (Tif.SIGPENDING | Tif.NOTIFY_SIGNAL):
            yield from do_signal(cpu, regs)
        if work & Tif.NOTIFY_RESUME:
            task.thread_info.flags &= ~Tif.NOTIFY_RESUME
            rseq_handle_notify_resume(cpu)
        task.thread_info.flags &= ~(work & (Tif.UPROBE | Tif.PATCH_PENDING))
        if not task.exit_state:
            yield Window()
    if task.exit_state:
        yield from do_exit(cpu)
    return None


def irqentry_exit(cpu: Cpu, regs: PtRegs) -> Steps:
    """An interrupt or exception ends. The kernel is not preemptible: only a return to user mode has work.

    The assembly of linux-2.6 sees to that itself.
    """
    if regs.user_mode and not cpu.kernel.classic:
        yield from exit_to_user_mode_loop(cpu, regs)
    return None


def interrupt_exit(cpu: Cpu, regs: PtRegs) -> Steps:
    """An interrupt ends: softirqs first (the end of Linux's irq_exit_rcu), which exceptions leave alone."""
    yield from invoke_softirq(cpu)
    yield from irqentry_exit(cpu, regs)
    return None


def irqentry_nmi_enter(cpu: Cpu) -> None:
    """An NMI, or an exception that can hit where one can, begins."""
    cpu.percpu.preempt_count += NMI_OFFSET + HARDIRQ_OFFSET


def irqentry_nmi_exit(cpu: Cpu) -> None:
    """It ends; there is no work loop, wherever it came from."""
    cpu.percpu.preempt_count -= NMI_OFFSET + HARDIRQ_OFFSET


def irq_enter_rcu(cpu: Cpu) -> None:
    """A device interrupt's handler begins."""
    cpu.percpu.preempt_count += HARDIRQ_OFFSET


def irq_exit_rcu(cpu: Cpu) -> None:
    """It ends."""
    cpu.percpu.preempt_count -= HARDIRQ_OFFSET


def sysvec_enter(cpu: Cpu, name: str, vector: int) -> None:
    """An interrupt of the local APIC's own begins; `name` is that of its tracepoints (irq_vectors)."""
    irq_enter_rcu(cpu)
    trace_irq_vector_entry(cpu, name, vector)


def sysvec_exit(cpu: Cpu, name: str, vector: int) -> None:
    """It ends."""
    trace_irq_vector_exit(cpu, name, vector)
    irq_exit_rcu(cpu)


def cond_local_irq_enable(regs: PtRegs) -> Steps:
    """Let interrupts in if the interrupted code had them on."""
    if regs.flags & Rflags.IF:
        yield Window()
    return None


def syscall_trace_enter(cpu: Cpu, regs: PtRegs, number: int) -> Steps:
    """What is to be done before a system call: its number afterwards; -1 for none, and regs.ax is its result then."""
    if cpu.current.thread_info.syscall_work & SYSCALL_WORK_ENTER:
        return (yield from trace_enter(cpu, regs))
    return number


def syscall_exit_work(cpu: Cpu, regs: PtRegs) -> Steps:
    """What is to be done when a system call has its result: a tracer's stop, or the trap of its single step."""
    work = cpu.current.thread_info.syscall_work & SYSCALL_WORK_EXIT
    if not work or cpu.current.exit_state:
        return None
    if work & SyscallWork.SYSCALL_EXIT_TRAP:
        single_step_report(cpu, regs)
    else:
        yield from report_syscall(cpu, leaving=True)
    return None


def sysret_allowed(regs: PtRegs) -> bool:
    """Whether SYSRETQ can bring about the user mode of `regs`."""
    return (
        regs.cx == regs.ip
        and is_canonical(regs.ip)
        and regs.r11 == regs.flags
        and not regs.flags & (Rflags.RF | Rflags.TF)
        and regs.cs == Selector.USER_CS
        and regs.ss == Selector.USER_DS
    )


@c_function
def syscall_exit_to_user_mode(cpu: Cpu, regs: PtRegs) -> Steps:
    """The last step of a system call, and of a new task's way to user mode. IF=0 on entry and exit."""
    yield from exit_to_user_mode_loop(cpu, regs)
    return None
