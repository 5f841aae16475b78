"""Softirqs: what interrupts leave to be done with interrupts on (kernel/softirq.c).

They run when the last interrupt handler has ended, on the hard-IRQ stack; what still comes after ten rounds is left to
a kernel thread, ksoftirqd. `open_softirq` stores the id of an action in guest memory; actions are Python functions,
registered by name when their module is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from kernel_stubs import mm
from kernel_stubs.abi import KernelData, TaskState, TaskStruct
from kernel_stubs.binding import Call, Steps, Window, c_function
from kernel_stubs.context import Cpu, Kernel
from kernel_stubs.errno import OutOfMemoryError
from kernel_stubs.kthread import kernel_thread, kthread_create
from kernel_stubs.sched import schedule, sleep_on, wake_up_process
from kernel_stubs.trace import trace_softirq_entry, trace_softirq_exit, trace_softirq_raise

SOFTIRQ_OFFSET = 1 << 8
"""Part of preempt_count; above it are hard interrupts and NMIs."""
MAX_SOFTIRQ_RESTART = 10
_CHANNEL = 8


class Softirq(IntEnum):
    """include/linux/interrupt.h; the first are served first."""

    HI = 0
    TIMER = 1
    NET_TX = 2
    NET_RX = 3
    BLOCK = 4
    IRQ_POLL = 5
    TASKLET = 6
    SCHED = 7
    HRTIMER = 8
    RCU = 9


Action = Callable[[Cpu], None]
_actions: dict[str, Action] = {}


def softirq_action(function: Action) -> Action:
    """Register an action under its own name. Its id is its place, counted from 1."""
    if function.__name__ in _actions:
        raise ValueError(f"softirq action {function.__name__} is defined twice")
    _actions[function.__name__] = function
    return function


def open_softirq(kernel: Kernel, number: Softirq, name: str) -> None:
    """From now on this action serves the softirq."""
    if name not in _actions:
        raise ValueError(f"no softirq action {name!r}; there are {', '.join(_actions)}")
    _vector(kernel).softirq_vec[number] = list(_actions).index(name) + 1


def _vector(kernel: Kernel) -> KernelData:
    return mm.kernel_data(kernel.memory)


def raise_softirq(cpu: Cpu, number: Softirq) -> None:
    """Have it served when the interrupt is over; outside of interrupts, by ksoftirqd."""
    percpu = cpu.percpu
    percpu.softirq_pending |= 1 << number
    trace_softirq_raise(cpu, number)
    if not percpu.preempt_count:
        wakeup_softirqd(cpu)


def invoke_softirq(cpu: Cpu) -> Steps:
    """At the end of an interrupt, IF=0: serve what is pending, unless another handler or softirq was interrupted."""
    percpu = cpu.percpu
    if percpu.softirq_pending and not percpu.preempt_count:
        symbols = cpu.kernel.image.symbols
        yield Call("call_do_softirq_on_irqstack" if "call_do_softirq_on_irqstack" in symbols else "call_softirq")
    return None


@c_function
def __do_softirq(cpu: Cpu) -> Steps:
    """Serve all pending softirqs, with interrupts on in between; IF=0 on entry and exit."""
    percpu, vector = cpu.percpu, _vector(cpu.kernel).softirq_vec
    percpu.preempt_count += SOFTIRQ_OFFSET
    actions = list(_actions.values())
    for _ in range(MAX_SOFTIRQ_RESTART):
        pending, percpu.softirq_pending = percpu.softirq_pending, 0
        yield Window()
        while pending:
            number = (pending & -pending).bit_length() - 1
            pending &= pending - 1
            action = vector[number] if number < len(Softirq) else 0
            if action:
                trace_softirq_entry(cpu, number)
                actions[action - 1](cpu)
                trace_softirq_exit(cpu, number)
            else:
                cpu.note(f"softirq {number} has no action")
        if not percpu.softirq_pending:
            break
    percpu.preempt_count -= SOFTIRQ_OFFSET
    if percpu.softirq_pending:
        wakeup_softirqd(cpu)
    return None


def wakeup_softirqd(cpu: Cpu) -> None:
    """Let this CPU's ksoftirqd run; it is made when it is first needed."""
    percpu = cpu.percpu
    if not percpu.ksoftirqd:
        if cpu.kernel.classic:
            return  # kernel_thread() is called where guest code can be (linux26.kthreads)
        try:
            percpu.ksoftirqd = kthread_create(cpu, ksoftirqd, f"ksoftirqd/{cpu.number}".encode())
        except OutOfMemoryError:
            return
    elif cpu.view(TaskStruct, percpu.ksoftirqd).wait_channel == _CHANNEL:
        wake_up_process(cpu, percpu.ksoftirqd)


@kernel_thread
def ksoftirqd(cpu: Cpu, argument: int) -> Steps:
    """Serve softirqs as a task among others, for ever."""
    while True:
        if cpu.percpu.softirq_pending:
            yield from invoke_softirq(cpu)
        if not cpu.percpu.softirq_pending:
            yield from sleep_on(cpu, _CHANNEL, 0, TaskState.UNINTERRUPTIBLE)
        else:
            yield from schedule(cpu)
