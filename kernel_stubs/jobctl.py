"""Job control: a process that stops, and what its parent is told (do_signal_stop in kernel/signal.c)."""

from __future__ import annotations

from contextlib import suppress

from kernel_stubs.abi import TaskState, TaskStruct
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.cred import USER_ID
from kernel_stubs.errno import SyscallError
from kernel_stubs.ptrace_stop import fatal_signal_pending, ptrace_stop
from kernel_stubs.sched import all_tasks, schedule, wake_up
from kernel_stubs.siginfo import CLD_CONTINUED, CLD_STOPPED, Sig, Siginfo, signal_name
from kernel_stubs.signal import recalc_sigpending, send_signal, signal_wake_up, threads_of
from kernel_stubs.signal_abi import SIG_IGN, Sa
from kernel_stubs.signal_state import action_of


def start_group_stop(cpu: Cpu, signal: int) -> None:
    """All threads of the current process are to stop, each on its own way to user mode."""
    mine = cpu.current.tgid
    if all(task.tgid == mine for _, task in all_tasks(cpu.kernel)):
        cpu.note(f"{signal_name(signal)} ignored: nobody could continue the process")
        return
    for task in threads_of(cpu, cpu.current):
        if not task.exit_state:
            task.signals.stop_signal = signal
            signal_wake_up(cpu, task)


def stop_here(cpu: Cpu) -> Steps:
    """The current task stops until SIGCONT or SIGKILL. The last thread to stop tells the parent."""
    task = cpu.current
    signal, task.signals.stop_signal = task.signals.stop_signal, 0
    task.signals.last_stop = signal
    recalc_sigpending(cpu, task)
    leader = cpu.view(TaskStruct, task.group_leader)
    known = leader.signals.group_stop
    last = not any(thread.signals.stop_signal and not thread.exit_state for thread in threads_of(cpu, task))
    if last:
        leader.signals.group_stop = signal
    if task.ptrace.tracer:
        yield from ptrace_stop(cpu, signal, None, CLD_STOPPED)
        return None
    if fatal_signal_pending(cpu, task):
        return None
    task.state = TaskState.STOPPED
    if last:
        leader.stop_code, leader.signals.untold = signal, 0
        cpu.note(f"pid {task.tgid} stopped by {signal_name(signal)}")
        if not known:  # else a tracer has left a process that was told of before
            tell_parent(cpu, leader, CLD_STOPPED, signal)
        elif leader.parent:
            wake_up(cpu, leader.parent)
    yield from schedule(cpu)
    return None


def tell_of_continuing(cpu: Cpu) -> None:
    """SIGCONT has ended a stop of the current process, which runs again: its parent has not heard of it yet."""
    leader = cpu.view(TaskStruct, cpu.current.group_leader)
    code, leader.signals.untold = leader.signals.untold, 0
    if code:
        tell_parent(cpu, leader, code, Sig.SIGCONT if code == CLD_CONTINUED else 0)


def tell_parent(cpu: Cpu, leader: TaskStruct, code: int, status: int) -> None:
    """do_notify_parent_cldstop: SIGCHLD, unless it does not want to hear of stops; and a wait4 looks again."""
    if not leader.parent:
        return
    parent = cpu.view(TaskStruct, leader.parent)
    action = action_of(cpu.kernel, parent, Sig.SIGCHLD)
    if action.handler != SIG_IGN and not action.flags & Sa.NOCLDSTOP:
        with suppress(SyscallError):
            send_signal(cpu, parent, Siginfo.child(code, leader.pid, USER_ID, status))
    wake_up(cpu, leader.parent)
