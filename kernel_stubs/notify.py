"""Telling a parent what became of a child (do_notify_parent in kernel/signal.c)."""

from __future__ import annotations

from contextlib import suppress

from kernel_stubs.abi import TaskStruct
from kernel_stubs.context import Cpu
from kernel_stubs.cred import USER_ID
from kernel_stubs.errno import SyscallError
from kernel_stubs.sched import wake_up
from kernel_stubs.siginfo import CLD_DUMPED, CLD_EXITED, CLD_KILLED, Sig, Siginfo
from kernel_stubs.signal import send_signal
from kernel_stubs.signal_abi import NSIG, SIG_IGN, Sa
from kernel_stubs.signal_state import action_of

WCOREFLAG = 0x80
"""In a wait status: a core was dumped, which RLIMIT_CORE does not allow here."""


def child_code(status: int) -> tuple[int, int]:
    """(si_code, si_status) for a wait status."""
    signal = status & 0x7F
    if not signal:
        return CLD_EXITED, status >> 8
    return (CLD_DUMPED if status & WCOREFLAG else CLD_KILLED), signal


def notify_tracer(cpu: Cpu, address: int) -> None:
    """A traced process has ended whose tracer is not its parent."""
    task = cpu.view(TaskStruct, address)
    code, status = child_code(task.exit_code)
    with suppress(SyscallError):  # no room for its siginfo
        send_signal(cpu, cpu.view(TaskStruct, task.ptrace.tracer), Siginfo.child(code, task.pid, USER_ID, status))
    wake_up(cpu, task.ptrace.tracer)


def notify_parent(cpu: Cpu, child: int) -> bool:
    """A process has ended. True if its parent has said that it will not wait for it."""
    task = cpu.view(TaskStruct, child)
    if not task.parent:
        return True
    parent = cpu.view(TaskStruct, task.parent)
    ignored = False
    if task.exit_signal == Sig.SIGCHLD and parent.signals.sighand:
        action = action_of(cpu.kernel, parent, Sig.SIGCHLD)
        ignored = action.handler == SIG_IGN or bool(action.flags & Sa.NOCLDWAIT)
    if 0 < task.exit_signal <= NSIG:
        code, status = child_code(task.exit_code)
        info = Siginfo.child(code, task.pid, USER_ID, status)
        with suppress(SyscallError):  # no room for its siginfo
            send_signal(cpu, parent, Siginfo(task.exit_signal, info.code, 0, info.payload))
    wake_up(cpu, task.parent)
    return ignored
