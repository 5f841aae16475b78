"""A traced task stops and its tracer is told (ptrace_stop in kernel/signal.c, include/linux/ptrace.h)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from kernel_stubs.abi import PtRegs, TaskState, TaskStruct
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.cred import USER_ID
from kernel_stubs.errno import SyscallError
from kernel_stubs.ptrace_abi import EVENTMSG_SYSCALL_ENTRY, EVENTMSG_SYSCALL_EXIT, Event, Option
from kernel_stubs.sched import schedule, wake_up
from kernel_stubs.siginfo import CLD_TRAPPED, KERNEL_SIGINFO_SIZE, SI_USER, Sig, Siginfo, signal_name
from kernel_stubs.signal import recalc_sigpending, send_signal
from kernel_stubs.signal_abi import NSIG, SIG_IGN, KernelSiginfo, Sa
from kernel_stubs.signal_state import action_of, bit, pending_signals

_SYSGOOD = 0x80


def fatal_signal_pending(cpu: Cpu, task: TaskStruct) -> bool:
    """Whether the task is to end whatever its tracer says."""
    return bool(task.exit_state or pending_signals(cpu.kernel, task) & bit(Sig.SIGKILL))


def stored_siginfo(task: TaskStruct) -> Siginfo | None:
    """What the task is stopped for; a group stop has none."""
    return Siginfo.from_bytes(bytes(task.ptrace.siginfo)) if task.ptrace.has_siginfo else None


def store_siginfo(task: TaskStruct, info: Siginfo | None) -> None:
    """What PTRACE_GETSIGINFO is to show."""
    task.ptrace.has_siginfo = info is not None
    if info is not None:
        task.ptrace.siginfo = KernelSiginfo.from_buffer_copy(info.to_bytes(KERNEL_SIGINFO_SIZE))


def ptrace_stop(cpu: Cpu, code: int, info: Siginfo | None, why: int = CLD_TRAPPED, message: int = 0) -> Steps:
    """Stop until the tracer, or SIGKILL, wants otherwise: the signal that the tracer gave, 0 for none."""
    task, own = cpu.current, cpu.current.ptrace
    if not own.tracer or fatal_signal_pending(cpu, task):
        return code
    own.stopped_for, own.message = code, message
    store_siginfo(task, info)
    task.state = TaskState.TRACED
    task.stop_code = code
    cpu.note(f"pid {task.pid} stops for its tracer: {_stop_name(code)}")
    _tell_tracer(cpu, task, why, code & 0x7F)
    yield from schedule(cpu)
    answer, own.stopped_for, own.has_siginfo = own.stopped_for, 0, 0
    task.stop_code = 0
    recalc_sigpending(cpu, task)
    return answer


def _stop_name(code: int) -> str:
    if code >> 8:
        return f"PTRACE_EVENT_{Event(code >> 8).name}"
    return "system call" if code & _SYSGOOD else signal_name(code)


def _tell_tracer(cpu: Cpu, task: TaskStruct, why: int, status: int) -> None:
    """do_notify_parent_cldstop: SIGCHLD, unless the tracer does not want to hear of it; and its wait4 looks again."""
    tracer = cpu.view(TaskStruct, task.ptrace.tracer)
    action = action_of(cpu.kernel, tracer, Sig.SIGCHLD)
    if action.handler != SIG_IGN and not action.flags & Sa.NOCLDSTOP:
        with suppress(SyscallError):  # no room for its siginfo
            send_signal(cpu, tracer, Siginfo.child(why, task.pid, USER_ID, status))
    wake_up(cpu, task.ptrace.tracer)


def ptrace_notify(cpu: Cpu, code: int, message: int = 0) -> Steps:
    """A stop of the tracer's own kind, with SIGTRAP and `code` as its si_code."""
    info = Siginfo.kill(Sig.SIGTRAP, code, cpu.current.pid, USER_ID)
    return (yield from ptrace_stop(cpu, code, info, message=message))


def report_syscall(cpu: Cpu, *, leaving: bool) -> Steps:
    """ptrace_report_syscall(): whether the system call must not be made, for the task is to end."""
    task = cpu.current
    if not task.ptrace.tracer:
        return 0
    good = _SYSGOOD if task.ptrace.options & Option.TRACESYSGOOD else 0
    message = EVENTMSG_SYSCALL_EXIT if leaving else EVENTMSG_SYSCALL_ENTRY
    signal = (yield from ptrace_notify(cpu, Sig.SIGTRAP | good, message)) or 0
    if 0 < signal <= NSIG and not fatal_signal_pending(cpu, task):
        send_signal(cpu, task, Siginfo(signal, SI_USER), process=False)
    return int(fatal_signal_pending(cpu, task))


def event_enabled(task: TaskStruct, event: Event) -> bool:
    """Whether the tracer wants to hear of it."""
    return bool(task.ptrace.tracer and task.ptrace.options >> event & 1)


def inherit_tracer(cpu: Cpu, child: TaskStruct) -> None:
    """A new task of one that is traced with PTRACE_O_TRACEFORK or the like: traced too, and it begins with a stop."""
    own = cpu.current.ptrace
    child.ptrace.tracer, child.ptrace.options = own.tracer, own.options
    send_signal(cpu, child, Siginfo(Sig.SIGSTOP, SI_USER), process=False)


def ptrace_event(cpu: Cpu, event: Event, message: int) -> Steps:
    """An event that the tracer has asked for. An execve that it has not asked for is told by SIGTRAP."""
    task = cpu.current
    if event_enabled(task, event):
        yield from ptrace_notify(cpu, event << 8 | Sig.SIGTRAP, message)
    elif event == Event.EXEC and task.ptrace.tracer:
        send_signal(cpu, task, Siginfo.kill(Sig.SIGTRAP, SI_USER, task.tgid, USER_ID), process=False)
    return None


def ptrace_signal(cpu: Cpu, info: Siginfo) -> Steps:
    """A signal was taken from the queue: what the tracer makes of it, as a number, 0 for nothing.

    The siginfo to deliver is left where `stored_siginfo` finds it.
    """
    task = cpu.current
    signal = (yield from ptrace_stop(cpu, info.signo, info)) or 0
    if not 0 < signal <= NSIG or task.exit_state:
        return 0
    given = Siginfo.from_bytes(bytes(task.ptrace.siginfo)) if task.ptrace.tracer else info
    if given.signo != signal:
        sender = cpu.view(TaskStruct, task.ptrace.tracer).tgid if task.ptrace.tracer else 0
        given = Siginfo.kill(signal, SI_USER, sender, USER_ID)
    if task.blocked & bit(signal) or fatal_signal_pending(cpu, task):
        send_signal(cpu, task, replace(given, signo=signal), process=False)
        return 0
    task.ptrace.siginfo = KernelSiginfo.from_buffer_copy(given.to_bytes(KERNEL_SIGINFO_SIZE))
    return signal


def trace_enter(cpu: Cpu, regs: PtRegs) -> Steps:
    """The stop before a system call: its number now, -1 if it is not to be made."""
    if (yield from report_syscall(cpu, leaving=False)):
        return -1
    number = regs.orig_ax & 0xFFFF_FFFF
    return number - (1 << 32) if number >> 31 else number
