"""What the C side reports at the places where Linux has tracepoints, under their names (include/trace/events).

They are events like those of `emu.events`, but told only while an observer has asked (`Machine.trace`): like a
tracepoint whose static key is off, one that nobody wants costs a look at a flag.
"""

from __future__ import annotations

from emu.events import Event
from emu.record import record


@record
class SysEnter(Event):
    """raw_syscalls:sys_enter. `args` are the six argument registers, 32 bits wide for an i386 call."""

    number: int
    args: tuple[int, ...]
    ia32: bool = False


@record
class SysExit(Event):
    """raw_syscalls:sys_exit. `value` is signed; one of the ERESTART* codes if user mode is not to see it."""

    number: int
    value: int
    ia32: bool = False


@record
class SignalGenerate(Event):
    """signal:signal_generate: a signal for `pid`. `info` is its kernel_siginfo_t, 48 bytes."""

    info: bytes
    comm: str
    pid: int
    group: bool
    result: int
    """TRACE_SIGNAL_*: 0 delivered, 1 ignored, 2 already pending, 3 no room in the queue, 4 pending without siginfo."""


@record
class SignalDeliver(Event):
    """signal:signal_deliver: the current task takes a signal; what it does about it comes next."""

    info: bytes
    handler: int
    flags: int


@record
class SchedSwitch(Event):
    """sched:sched_switch. The states are the letters of ps(1); R+ for a task that could go on."""

    prev_comm: str
    prev_pid: int
    prev_state: str
    next_comm: str
    next_pid: int


@record
class SchedWakeup(Event):
    """sched:sched_wakeup, and with `new` sched:sched_wakeup_new."""

    comm: str
    pid: int
    target_cpu: int
    new: bool = False


@record
class SchedProcessFork(Event):
    """sched:sched_process_fork, of threads too."""

    comm: str
    pid: int
    child_comm: str
    child_pid: int


@record
class SchedProcessExec(Event):
    """sched:sched_process_exec: the current process has a new program."""

    filename: str
    pid: int
    old_pid: int


@record
class SchedProcessExit(Event):
    """sched:sched_process_exit. `code` is as wait(2) reports it: status << 8, or the signal's number."""

    comm: str
    pid: int
    code: int


@record
class IrqHandlerEntry(Event):
    """irq:irq_handler_entry, one for each handler of a vector's chain."""

    irq: int
    name: str


@record
class IrqHandlerExit(Event):
    """irq:irq_handler_exit."""

    irq: int
    handled: bool


@record
class IrqVectorEntry(Event):
    """irq_vectors:NAME_entry, such as local_timer_entry: an interrupt of the local APIC's own."""

    name: str
    vector: int


@record
class IrqVectorExit(Event):
    """irq_vectors:NAME_exit."""

    name: str
    vector: int


@record
class NmiHandler(Event):
    """nmi:nmi_handler: the C function that handled an NMI, and the instructions that it took."""

    handler: str
    delta: int
    handled: int


@record
class SoftirqRaise(Event):
    """irq:softirq_raise."""

    vec: int


@record
class SoftirqEntry(Event):
    """irq:softirq_entry."""

    vec: int


@record
class SoftirqExit(Event):
    """irq:softirq_exit."""

    vec: int


@record
class ExitWork(Event):
    """What is done before user mode runs, by the TIF_* that asked for it (no tracepoint of Linux)."""

    flags: int
