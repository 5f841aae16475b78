"""The tracepoints of the C side (include/trace/events): each tells observers, if any has asked, and does no more."""

from __future__ import annotations

from emu.tracepoints import (
    ExitWork,
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
from kernel_stubs.abi import ExitState, TaskState, TaskStruct
from kernel_stubs.context import Cpu
from kernel_stubs.siginfo import KERNEL_SIGINFO_SIZE, Siginfo

_STATES: dict[int, str] = {
    TaskState.RUNNING: "R",
    TaskState.INTERRUPTIBLE: "S",
    TaskState.UNINTERRUPTIBLE: "D",
    TaskState.KILLABLE: "D",
    TaskState.STOPPED: "T",
    TaskState.TRACED: "t",
    TaskState.DEAD: "Z",
}


def comm_of(task: TaskStruct) -> str:
    """The task's name."""
    return task.comm.decode(errors="replace")


def _now(cpu: Cpu) -> tuple[int, int, int]:
    core = cpu.core
    return core.clock, core.index, core.cpu.ip


def trace_sys_enter(cpu: Cpu, number: int, args: tuple[int, ...], *, ia32: bool = False) -> None:
    """A system call begins, with what a tracer has made of it."""
    if cpu.kernel.machine.traced:
        cpu.core.emit(SysEnter(*_now(cpu), number, args, ia32))


def trace_sys_exit(cpu: Cpu, number: int, value: int, *, ia32: bool = False) -> None:
    """A system call ends; one that ends its task never does. `value` may be a register's."""
    if cpu.kernel.machine.traced and not cpu.current.exit_state:
        bits = 32 if ia32 else 64
        value &= (1 << bits) - 1
        cpu.core.emit(SysExit(*_now(cpu), number, value - (value >> bits - 1 << bits), ia32))


def trace_signal_generate(cpu: Cpu, task: TaskStruct, info: Siginfo, *, group: bool, result: int) -> None:
    """A signal was sent, whatever became of it."""
    if cpu.kernel.machine.traced:
        raw = info.to_bytes(KERNEL_SIGINFO_SIZE)
        cpu.core.emit(SignalGenerate(*_now(cpu), raw, comm_of(task), task.pid, group, result))


def trace_signal_deliver(cpu: Cpu, info: Siginfo, handler: int, flags: int) -> None:
    """The current task has taken a signal from its queue."""
    if cpu.kernel.machine.traced:
        cpu.core.emit(SignalDeliver(*_now(cpu), info.to_bytes(KERNEL_SIGINFO_SIZE), handler, flags))


def trace_sched_switch(cpu: Cpu, prev: TaskStruct, following: TaskStruct) -> None:
    """The CPU goes from one task to another."""
    if cpu.kernel.machine.traced:
        state = _STATES.get(prev.state, "?")
        if state == "Z" and prev.exit_state != ExitState.ZOMBIE:
            state = "X"
        state = "R+" if state == "R" and prev.pid else state
        cpu.core.emit(
            SchedSwitch(*_now(cpu), comm_of(prev), prev.pid, state, comm_of(following), following.pid)
        )  # fmt: skip


def trace_sched_wakeup(cpu: Cpu, task: TaskStruct, *, new: bool = False) -> None:
    """A task can run again, or for the first time."""
    if cpu.kernel.machine.traced:
        cpu.core.emit(SchedWakeup(*_now(cpu), comm_of(task), task.pid, task.thread_info.cpu, new))


def trace_sched_process_fork(cpu: Cpu, child: TaskStruct) -> None:
    """The current task has made another."""
    if cpu.kernel.machine.traced:
        parent = cpu.current
        cpu.core.emit(SchedProcessFork(*_now(cpu), comm_of(parent), parent.pid, comm_of(child), child.pid))


def trace_sched_process_exec(cpu: Cpu, filename: bytes, old_pid: int) -> None:
    """The current process runs another program."""
    if cpu.kernel.machine.traced:
        cpu.core.emit(SchedProcessExec(*_now(cpu), filename.decode(errors="replace"), cpu.current.pid, old_pid))


def trace_sched_process_exit(cpu: Cpu, code: int) -> None:
    """The current task ends."""
    if cpu.kernel.machine.traced:
        task = cpu.current
        cpu.core.emit(SchedProcessExit(*_now(cpu), comm_of(task), task.pid, code))


def trace_irq_handler_entry(cpu: Cpu, irq: int, name: str) -> None:
    """A device's handler begins."""
    if cpu.kernel.machine.traced:
        cpu.core.emit(IrqHandlerEntry(*_now(cpu), irq, name))


def trace_irq_handler_exit(cpu: Cpu, irq: int, *, handled: bool) -> None:
    """It ends, and has said whether the interrupt was its device's."""
    if cpu.kernel.machine.traced:
        cpu.core.emit(IrqHandlerExit(*_now(cpu), irq, handled))


def trace_irq_vector_entry(cpu: Cpu, name: str, vector: int) -> None:
    """An interrupt of the local APIC's own begins."""
    if cpu.kernel.machine.traced:
        cpu.core.emit(IrqVectorEntry(*_now(cpu), name, vector))


def trace_irq_vector_exit(cpu: Cpu, name: str, vector: int) -> None:
    """It ends; what it has raised comes after it."""
    if cpu.kernel.machine.traced:
        cpu.core.emit(IrqVectorExit(*_now(cpu), name, vector))


def trace_nmi_handler(cpu: Cpu, handler: str, begun: int) -> None:
    """An NMI that came at clock `begun` has been handled."""
    if cpu.kernel.machine.traced:
        cpu.core.emit(NmiHandler(*_now(cpu), handler, cpu.core.clock - begun, 1))


def trace_softirq_raise(cpu: Cpu, vec: int) -> None:
    """A softirq is to be served."""
    if cpu.kernel.machine.traced:
        cpu.core.emit(SoftirqRaise(*_now(cpu), vec))


def trace_softirq_entry(cpu: Cpu, vec: int) -> None:
    """Its action begins."""
    if cpu.kernel.machine.traced:
        cpu.core.emit(SoftirqEntry(*_now(cpu), vec))


def trace_softirq_exit(cpu: Cpu, vec: int) -> None:
    """Its action has ended."""
    if cpu.kernel.machine.traced:
        cpu.core.emit(SoftirqExit(*_now(cpu), vec))


def trace_exit_work(cpu: Cpu, flags: int) -> None:
    """Something is left to be done before user mode."""
    if cpu.kernel.machine.traced:
        cpu.core.emit(ExitWork(*_now(cpu), flags))
