"""The run as ftrace would have written it: text that tools for the kernel's own trace files read.

A line has the layout of /sys/kernel/tracing/trace, an event the format of its TP_printk (include/trace/events). Time is
retired instructions, shown as nanoseconds; with several CPUs each has its own, and the lines stand in the order in
which things happened, as in a trace file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from emu.events import CCalled, Event
from emu.lab.view import View
from emu.machine.machine import Machine
from emu.tracepoints import (
    IrqHandlerEntry,
    IrqHandlerExit,
    IrqVectorEntry,
    IrqVectorExit,
    NmiHandler,
    SchedProcessExec,
    SchedProcessExit,
    SchedProcessFork,
    SchedSwitch,
    SchedWakeup,
    SignalDeliver,
    SignalGenerate,
    SoftirqEntry,
    SoftirqExit,
    SoftirqRaise,
    SysEnter,
    SysExit,
)
from kernel_stubs.abi import PtRegs, Tif
from kernel_stubs.entry_common import HARDIRQ_OFFSET, NMI_OFFSET
from kernel_stubs.siginfo import Siginfo
from kernel_stubs.softirq import SOFTIRQ_OFFSET, Softirq
from kernel_stubs.time import NSEC_PER_SEC

HEADER = """\
# tracer: nop
#
# {title}
#
#                                _-----=> irqs-off
#                               / _----=> need-resched
#                              | / _---=> hardirq/softirq
#                              || / _--=> preempt-depth
#                              ||| /
#           TASK-PID     CPU#  ||||     TIMESTAMP  FUNCTION
#              | |         |   ||||         |         |
"""
PRIORITY = 120
"""Of every task: nice 0."""
PAGE_FAULTS = frozenset({"exc_page_fault", "do_page_fault"})
_SOFTIRQS = HARDIRQ_OFFSET - SOFTIRQ_OFFSET
_HARDIRQS = NMI_OFFSET - HARDIRQ_OFFSET


class Ftrace:
    """Observer. `write` gets whole lines; `title` says what is traced."""

    def __init__(self, view: View, write: Callable[[str], object], title: str) -> None:
        self._view = view
        self._write = write
        self._title = title
        self._formats: Mapping[type[Event], Callable[[Any], tuple[str, str] | None]] = {
            SysEnter: _sys_enter,
            SysExit: lambda e: ("sys_exit", f"NR {e.number} = {e.value}"),
            SignalGenerate: _signal_generate,
            SignalDeliver: _signal_deliver,
            SchedSwitch: _sched_switch,
            SchedWakeup: _sched_wakeup,
            SchedProcessFork: _sched_process_fork,
            SchedProcessExec: _sched_process_exec,
            SchedProcessExit: lambda e: ("sched_process_exit", f"comm={e.comm} pid={e.pid} prio={PRIORITY}"),
            IrqHandlerEntry: lambda e: ("irq_handler_entry", f"irq={e.irq} name={e.name}"),
            IrqHandlerExit: lambda e: ("irq_handler_exit", f"irq={e.irq} ret={'' if e.handled else 'un'}handled"),
            IrqVectorEntry: lambda e: (f"{e.name}_entry", f"vector={e.vector}"),
            IrqVectorExit: lambda e: (f"{e.name}_exit", f"vector={e.vector}"),
            SoftirqRaise: lambda e: _softirq("raise", e.vec),
            SoftirqEntry: lambda e: _softirq("entry", e.vec),
            SoftirqExit: lambda e: _softirq("exit", e.vec),
            NmiHandler: lambda e: ("nmi_handler", f"{e.handler}() delta_ns: {e.delta} handled: {e.handled}"),
            CCalled: self._page_fault,
        }

    def attach(self, machine: Machine) -> None:
        """Begin."""
        self._write(HEADER.format(title=self._title))
        machine.trace(self)

    def finish(self) -> None:
        """A trace file has no end of its own."""

    def __call__(self, event: Event) -> None:
        """Write one event."""
        make = self._formats.get(type(event))
        made = make(event) if make is not None else None
        if made is None:
            return
        name, text = made
        seconds, fraction = divmod(event.clock, NSEC_PER_SEC)
        time = f"{seconds:5}.{fraction:09}"
        self._write(f"{self._task(event.cpu)} [{event.cpu:03}] {self._flags(event.cpu)} {time}: {name}: {text}\n")

    def _task(self, cpu: int) -> str:
        task = self._view.current_task(cpu)
        if task is None or not task.pid:
            return f"{'<idle>':>16}-{0:<7}"
        return f"{task.comm.decode(errors='replace'):>16}-{task.pid:<7}"

    def _flags(self, cpu: int) -> str:
        """Interrupts off, reschedule wanted, interrupt context, depth of disabled preemption."""
        view = self._view
        count = view.percpu_word(cpu, "preempt_count") & 0xFFFF_FFFF
        nmi, hard, soft = count >= NMI_OFFSET, count & _HARDIRQS, count & _SOFTIRQS
        if nmi:
            context = "Z" if hard else "z"
        else:
            context = ("H" if soft else "h") if hard else "s" if soft else "."
        off = "." if view.interrupts_enabled(cpu) else "d"
        resched = "N" if view.work_flags(cpu) & Tif.NEED_RESCHED else "."
        depth = count & (SOFTIRQ_OFFSET - 1)
        return f"{off}{resched}{context}{f'{depth:x}' if depth else '.'}"

    def _page_fault(self, event: CCalled) -> tuple[str, str] | None:
        raw = self._view.pt_regs(event.args[0]) if event.name in PAGE_FAULTS else None
        if raw is None:
            return None
        regs = PtRegs.from_buffer_copy(raw)
        code = event.args[1] & 0xFFFF_FFFF
        places = f"address={self._place(self._view.cr2(event.cpu))} ip={self._place(regs.ip)}"
        return f"page_fault_{'user' if regs.user_mode else 'kernel'}", f"{places} error_code={code:#x}"

    def _place(self, address: int) -> str:
        """%ps: the symbol alone; what is none of the kernel's, as a number."""
        found = self._view.image.locate(address)
        return f"{address:#x}" if found is None else self._view.symbol(address).partition("+")[0]


def _sys_enter(event: SysEnter) -> tuple[str, str]:
    return "sys_enter", f"NR {event.number} ({', '.join(f'{arg:x}' for arg in event.args)})"


def _signal_generate(event: SignalGenerate) -> tuple[str, str]:
    info = Siginfo.from_bytes(event.info)
    whom = f"comm={event.comm} pid={event.pid} grp={int(event.group)} res={event.result}"
    return "signal_generate", f"sig={info.signo} errno={info.errno} code={info.code} {whom}"


def _signal_deliver(event: SignalDeliver) -> tuple[str, str]:
    info = Siginfo.from_bytes(event.info)
    what = f"sig={info.signo} errno={info.errno} code={info.code}"
    return "signal_deliver", f"{what} sa_handler={event.handler:x} sa_flags={event.flags:x}"


def _sched_switch(event: SchedSwitch) -> tuple[str, str]:
    before = f"prev_comm={event.prev_comm} prev_pid={event.prev_pid} prev_prio={PRIORITY} prev_state={event.prev_state}"
    after = f"next_comm={event.next_comm} next_pid={event.next_pid} next_prio={PRIORITY}"
    return "sched_switch", f"{before} ==> {after}"


def _sched_wakeup(event: SchedWakeup) -> tuple[str, str]:
    name = "sched_wakeup_new" if event.new else "sched_wakeup"
    return name, f"comm={event.comm} pid={event.pid} prio={PRIORITY} target_cpu={event.target_cpu:03}"


def _sched_process_fork(event: SchedProcessFork) -> tuple[str, str]:
    parent = f"comm={event.comm} pid={event.pid}"
    return "sched_process_fork", f"{parent} child_comm={event.child_comm} child_pid={event.child_pid}"


def _sched_process_exec(event: SchedProcessExec) -> tuple[str, str]:
    return "sched_process_exec", f"filename={event.filename} pid={event.pid} old_pid={event.old_pid}"


def _softirq(what: str, vec: int) -> tuple[str, str]:
    name = Softirq(vec).name if vec in Softirq._value2member_map_ else str(vec)
    return f"softirq_{what}", f"vec={vec} [action={name}]"


@dataclass(frozen=True, slots=True)
class FtraceText:
    """Where an ftrace goes, and its title (emu.lab.rig.Tracing)."""

    write: Callable[[str], object]
    title: str
    boot: bool = False

    def begin(self, view: View) -> Ftrace:
        """The observer that writes it."""
        return Ftrace(view, self.write, self.title)
