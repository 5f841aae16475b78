"""Waiting for children (do_wait in kernel/exit.c)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntFlag

from kernel_stubs.abi import ExitState, TaskState, TaskStruct, WaitResult
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, Restart, SyscallError
from kernel_stubs.notify import child_code
from kernel_stubs.process import reap
from kernel_stubs.sched import all_tasks, sleep_on
from kernel_stubs.siginfo import CLD_CONTINUED, CLD_STOPPED, CLD_TRAPPED, Sig
from kernel_stubs.signal import CODE_CONTINUED


class Wait(IntFlag):
    """Options of wait4(2) and waitid(2)."""

    NOHANG = 1
    STOPPED = 2
    EXITED = 4
    CONTINUED = 8
    NOWAIT = 0x0100_0000
    NOTHREAD = 0x2000_0000
    ALL = 0x4000_0000
    CLONE = 0x8000_0000


@dataclass(frozen=True, slots=True)
class Report:
    """What a wait found."""

    pid: int
    status: int
    code: int
    """si_code."""
    detail: int
    """si_status."""


NOTHING = Report(0, 0, 0, 0)
Wanted = Callable[[TaskStruct], bool]


def do_wait(cpu: Cpu, wanted: Wanted, options: int) -> Steps:
    """Until a child that is wanted has something to report: its address; 0 if none has and WNOHANG is set."""
    while True:
        found = _look(cpu, wanted, options)
        if found or options & Wait.NOHANG:
            return found
        if (yield from sleep_on(cpu, cpu.current.group_leader)) == WaitResult.SIGNAL:
            # The signal is SIGCHLD more often than not: what it tells of is looked at before anything else.
            found = _look(cpu, wanted, options)
            if found:
                return found
            raise SyscallError(Restart.ERESTARTSYS)


def _look(cpu: Cpu, wanted: Wanted, options: int) -> int:
    any_child = False
    mine = cpu.current.group_leader
    # The oldest first, as they lie in the parent's list of children.
    for address, task in reversed(list(all_tasks(cpu.kernel))):
        tracer = task.ptrace.tracer
        if task.exit_state == ExitState.DEAD:
            continue
        if tracer != mine and (task.parent != mine or task.group_leader != address):
            continue
        if not wanted(task):
            continue
        any_child = True
        if task.exit_state == ExitState.ZOMBIE and not task.live_threads:
            if options & Wait.EXITED and tracer in (0, mine):  # the tracer first
                return address
        elif _has_stopped_or_gone_on(task, mine, options):
            return address
    if not any_child:
        raise SyscallError(Errno.ECHILD)
    return 0


def _has_stopped_or_gone_on(task: TaskStruct, mine: int, options: int) -> bool:
    """A tracer is told of stops without having to ask."""
    tracer = task.ptrace.tracer
    if task.stop_code == CODE_CONTINUED:
        return bool(options & Wait.CONTINUED) and tracer in (0, mine)
    return bool(task.stop_code) and (tracer == mine or (not tracer and bool(options & Wait.STOPPED)))


def report(cpu: Cpu, address: int, options: int) -> Report:
    """What the child has to say; a zombie is gone then, unless WNOWAIT is set."""
    if not address:
        return NOTHING
    task = cpu.view(TaskStruct, address)
    if task.exit_state == ExitState.ZOMBIE and not task.live_threads:
        code, detail = child_code(task.exit_code)
        found = Report(task.pid, task.exit_code, code, detail)
        if not options & Wait.NOWAIT:
            reap(cpu, address)
        return found
    traced = task.state == TaskState.TRACED
    if task.stop_code == CODE_CONTINUED:
        found = Report(task.pid, CODE_CONTINUED, CLD_CONTINUED, Sig.SIGCONT)
    else:
        found = Report(task.pid, task.stop_code << 8 | 0x7F, CLD_TRAPPED if traced else CLD_STOPPED, task.stop_code)
    if not options & Wait.NOWAIT:
        task.stop_code = 0
        if traced:  # what the tracer has seen is delivered only if it says so, also if it ends without a word
            task.ptrace.stopped_for = 0
    return found
