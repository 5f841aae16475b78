"""`strace -c`: how often each system call was made, how often it failed, and the instructions that it took."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from emu.arch import INT80_VECTOR
from emu.events import Delivered, Event, EventType, Returned, SystemCall
from emu.lab.observers.strace.call import MAX_ERRNO
from emu.lab.observers.strace.observer import call_name
from emu.lab.view import View
from emu.machine.machine import Machine
from emu.tracepoints import SchedProcessExit, SchedSwitch, SysEnter, SysExit

HEADER = "% time instructions    per call     calls    errors syscall"
RULE = "------ ------------ ----------- --------- --------- ----------------"


@dataclass(slots=True)
class _Row:
    instructions: int = 0
    calls: int = 0
    errors: int = 0


@dataclass(slots=True)
class _Timing:
    """A task on its way through the kernel and back."""

    began: int
    """The CPU's clock when the task entered the kernel, or last went on."""
    spent: int = 0
    name: str = ""


class StraceSummary:
    """Observer. Instructions count from a call's first one to the return to user mode, as long as its task runs."""

    def __init__(self, view: View, write: Callable[[str], object], title: str = "") -> None:
        self._view = view
        self._write = write
        self._title = title
        self._rows: dict[str, _Row] = {}
        self._under_way: dict[int, _Timing] = {}
        self._handlers: Mapping[type[Event], Callable[[Any], None]] = {
            SystemCall: self._entered,
            Delivered: self._entered,
            SysEnter: self._sys_enter,
            SysExit: self._sys_exit,
            SchedSwitch: self._sched_switch,
            SchedProcessExit: self._exit,
            Returned: self._returned,
        }

    def attach(self, machine: Machine) -> None:
        """Begin."""
        machine.trace(self)

    def __call__(self, event: Event) -> None:
        """Count."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def _pid(self, cpu: int) -> int:
        task = self._view.current_task(cpu)
        return task.pid if task is not None else 0

    def _entered(self, event: SystemCall | Delivered) -> None:
        if isinstance(event, Delivered) and not (event.vector == INT80_VECTOR and event.type is EventType.SWINT):
            return
        self._under_way[self._pid(event.cpu)] = _Timing(event.clock)

    def _sys_enter(self, event: SysEnter) -> None:
        name = call_name(event.number, ia32=event.ia32)
        self._rows.setdefault(name, _Row()).calls += 1
        timing = self._under_way.get(self._pid(event.cpu))
        if timing is not None:
            timing.name = name

    def _sys_exit(self, event: SysExit) -> None:
        if -MAX_ERRNO <= event.value < 0:
            self._rows[call_name(event.number, ia32=event.ia32)].errors += 1

    def _sched_switch(self, event: SchedSwitch) -> None:
        before, after = self._under_way.get(event.prev_pid), self._under_way.get(event.next_pid)
        if before is not None:
            before.spent += event.clock - before.began
        if after is not None:
            after.began = event.clock

    def _returned(self, event: Returned) -> None:
        if event.frame.cpl == 3:
            self._close(self._pid(event.cpu), event.clock)

    def _exit(self, event: SchedProcessExit) -> None:
        self._close(event.pid, event.clock)

    def _close(self, pid: int, clock: int) -> None:
        timing = self._under_way.pop(pid, None)
        if timing is not None and timing.name:
            self._rows[timing.name].instructions += timing.spent + clock - timing.began

    def finish(self) -> None:
        """The table, the costliest first."""
        rows = sorted(self._rows.items(), key=lambda item: (-item[1].instructions, -item[1].calls, item[0]))
        total = _Row()
        for _, row in rows:
            total.instructions += row.instructions
            total.calls += row.calls
            total.errors += row.errors
        lines = [f"== {self._title}"] if self._title else []
        lines += [HEADER, RULE]
        lines += [self._line(name, row, total) for name, row in rows]
        self._write("\n".join([*lines, RULE, self._line("total", total, total)]) + "\n")

    def _line(self, name: str, row: _Row, total: _Row) -> str:
        share = 100 * row.instructions / total.instructions if total.instructions else 0.0
        each = row.instructions // row.calls if row.calls else 0
        errors = row.errors or ""
        return f"{share:6.2f} {row.instructions:12} {each:11} {row.calls:9} {errors:>9} {name}"
