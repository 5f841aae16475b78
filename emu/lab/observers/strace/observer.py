"""The run as `strace -f -q` would show it: one line a system call and signal, by what the C side reports.

A line is begun when its call begins and completed when it ends; if another task has something to say in between, both
halves stand on their own, marked as strace marks them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from emu.arch import INT80_VECTOR
from emu.events import Delivered, Event, EventType, SystemCall
from emu.lab.observers.strace import calls, text
from emu.lab.observers.strace.call import Call
from emu.lab.observers.strace.results import result
from emu.lab.observers.strace.structures import siginfo
from emu.lab.user_memory import UserMemory
from emu.lab.view import View
from emu.machine.machine import Machine
from emu.tracepoints import (
    SchedProcessExec,
    SchedProcessExit,
    SchedProcessFork,
    SchedSwitch,
    SignalDeliver,
    SignalGenerate,
    SysEnter,
    SysExit,
)
from kernel_stubs.siginfo import Sig, Siginfo
from kernel_stubs.syscalls.names import SYSCALL_NAMES
from kernel_stubs.syscalls.names32 import IA32_SYSCALL_NAMES

RESULT_COLUMN = 40
"""Where the `=` stands, unless the call is longer."""
IGNORED = 1
"""TRACE_SIGNAL_IGNORED: a tracer would have been told of it all the same."""
_FORKS = frozenset({"fork", "vfork", "clone", "clone3"})


@dataclass(slots=True)
class _Task:
    pid: int
    call: Call | None = None
    late: bool = False
    """Whether arguments of the call are still to be shown."""
    last: str = "system call"
    ignored: list[Siginfo] = field(default_factory=list)


def call_name(number: int, *, ia32: bool) -> str:
    """The call's name in its ABI."""
    return (IA32_SYSCALL_NAMES if ia32 else SYSCALL_NAMES).get(number) or f"syscall_{number:#x}"


class Strace:
    """Observer. `write` gets pieces of lines; `title` is a line before them, if it is not empty."""

    def __init__(self, view: View, write: Callable[[str], object], title: str = "") -> None:
        self._view = view
        self._write = write
        self._title = title
        self._tasks: dict[int, _Task] = {}
        self._open: int | None = None
        """Whose line is begun."""
        self._column = 0
        self._sp: dict[int, int] = {}
        self._handlers: Mapping[type[Event], Callable[[Any], None]] = {
            SystemCall: self._entered,
            Delivered: self._entered,
            SysEnter: self._sys_enter,
            SysExit: self._sys_exit,
            SignalGenerate: self._signal_generate,
            SignalDeliver: self._signal_deliver,
            SchedSwitch: self._sched_switch,
            SchedProcessFork: self._fork,
            SchedProcessExec: self._exec,
            SchedProcessExit: self._exit,
        }

    def attach(self, machine: Machine) -> None:
        """Begin."""
        if self._title:
            self._write(f"== {self._title}\n")
        machine.trace(self)

    def finish(self) -> None:
        """The run is over: a line that is begun ends."""
        self._interrupt(None)

    def __call__(self, event: Event) -> None:
        """Follow one event."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    # --- pieces of lines --------------------------------------------------------------------------------------------
    def _put(self, piece: str) -> None:
        self._write(piece)
        self._column += len(piece)

    def _interrupt(self, pid: int | None) -> None:
        """Somebody else, or something else, has a line to write."""
        if self._open is not None and self._open != pid:
            self._put(" <unfinished ...>\n")
            self._open, self._column = None, 0

    def _begin(self, task: _Task) -> None:
        self._interrupt(None)
        if len(self._tasks) > 1:
            self._put(f"[pid {task.pid:5}] ")

    def _line(self, task: _Task, words: str) -> None:
        self._begin(task)
        self._put(f"{words}\n")
        self._column = 0

    def _resume(self, task: _Task) -> None:
        """Go on with the line of a task's call."""
        call = task.call
        if call is not None and self._open != task.pid:
            self._begin(task)
            self._put(f"<... {call.name} resumed>")

    def _end(self, value: str) -> None:
        self._put(") ")
        self._put(f"{'':{max(0, RESULT_COLUMN - self._column)}}= {value}\n")
        self._open, self._column = None, 0

    def _task(self, pid: int) -> _Task:
        return self._tasks.setdefault(pid, _Task(pid))

    def _current(self, cpu: int) -> _Task:
        task = self._view.current_task(cpu)
        return self._task(0 if task is None else task.pid)

    # --- system calls -----------------------------------------------------------------------------------------------
    def _entered(self, event: SystemCall | Delivered) -> None:
        if isinstance(event, SystemCall):
            self._sp[event.cpu] = event.sp
        elif event.vector == INT80_VECTOR and event.type is EventType.SWINT:
            self._sp[event.cpu] = event.frame.sp

    def _memory(self, cpu: int) -> UserMemory | None:
        return self._view.user_memory(cpu)

    def _sys_enter(self, event: SysEnter) -> None:
        task = self._current(event.cpu)
        name = call_name(event.number, ia32=event.ia32)
        call = task.call = Call(
            name, event.number, event.args, event.ia32, self._memory(event.cpu), self._sp.get(event.cpu, 0), task.last
        )
        task.last = name
        shown = calls.arguments(call)
        self._begin(task)
        self._put(f"{name}({', '.join(arg.decode(call, arg.index) for arg in shown if not arg.out)}")
        task.late = any(arg.out for arg in shown)
        if task.late and len(shown) > 1 and not shown[0].out and name not in calls.LATE_COMMA:
            self._put(", ")
        self._open = task.pid
        if name in calls.NEVER_RETURN:
            task.call = None
            self._end("?")

    def _sys_exit(self, event: SysExit) -> None:
        task = self._current(event.cpu)
        call = task.call
        if call is None or self._view.fatal_signal_pending(event.cpu):
            return  # the task ends without a tracer's stop
        call.result, call.memory = event.value, self._memory(event.cpu)
        self._resume(task)
        late = [arg for arg in calls.arguments(call) if arg.out]
        if late:
            comma = ", " if call.name in calls.LATE_COMMA else ""
            self._put(comma + ", ".join(arg.decode(call, arg.index) for arg in late))
        self._end(result(call, event.value))
        task.call = None
        ignored, task.ignored = task.ignored, []
        for info in ignored:
            self._signal(task, info)

    # --- signals ----------------------------------------------------------------------------------------------------
    def _signal(self, task: _Task, info: Siginfo) -> None:
        self._line(task, f"--- {text.signal(info.signo)} {siginfo(info)} ---")

    def _signal_generate(self, event: SignalGenerate) -> None:
        task = self._tasks.get(event.pid)
        if event.result != IGNORED or task is None:
            return
        info = Siginfo.from_bytes(event.info)
        if task.call is not None:
            task.ignored.append(info)
        else:
            self._signal(task, info)

    def _signal_deliver(self, event: SignalDeliver) -> None:
        info = Siginfo.from_bytes(event.info)
        if info.signo != Sig.SIGKILL:
            self._signal(self._current(event.cpu), info)

    def _sched_switch(self, event: SchedSwitch) -> None:
        task = self._view.current_task(event.cpu)
        if event.prev_state == "T" and task is not None:
            self._line(self._task(event.prev_pid), f"--- stopped by {text.signal(task.signals.last_stop)} ---")

    # --- tasks ------------------------------------------------------------------------------------------------------
    def _fork(self, event: SchedProcessFork) -> None:
        parent = self._tasks.get(event.pid)
        if parent is not None and parent.call is not None and parent.call.name in _FORKS:
            self._task(event.child_pid)

    def _exec(self, event: SchedProcessExec) -> None:
        """A thread that executes a program becomes its process's leader."""
        if event.old_pid == event.pid or event.old_pid not in self._tasks:
            return
        if self._open == event.old_pid:
            self._interrupt(None)
        task = self._tasks[event.pid] = self._tasks.pop(event.old_pid)
        task.pid = event.pid
        self._line(task, f"+++ superseded by execve in pid {event.old_pid} +++")

    def _exit(self, event: SchedProcessExit) -> None:
        task = self._tasks.get(event.pid)
        if task is None:
            return
        if task.call is not None:
            self._resume(task)
            if task.late:
                self._put(" <unfinished ...>")
            self._end("?")
        signal = event.code & 0x7F
        how = f"killed by {text.signal(signal)}" if signal else f"exited with {event.code >> 8 & 0xFF}"
        self._line(task, f"+++ {how} +++")
        del self._tasks[event.pid]
