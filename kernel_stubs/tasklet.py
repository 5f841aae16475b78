"""Tasklets: functions that run once in a softirq when they are scheduled, never twice at a time (softirq.c)."""

from __future__ import annotations

from collections.abc import Callable

from kernel_stubs.abi import PerCpu
from kernel_stubs.context import Cpu, Kernel
from kernel_stubs.layout import U32, U64, Struct, layout
from kernel_stubs.slab import OBJECT_SIZE, alloc_object
from kernel_stubs.softirq import Softirq, open_softirq, raise_softirq, softirq_action
from kernel_stubs.trace import trace_softirq_raise

Function = Callable[[Cpu, int], None]
"""function(cpu, data)"""
_functions: dict[str, Function] = {}
STATE_SCHED, STATE_RUN = 1, 2


@layout()
class Tasklet(Struct):
    """`struct tasklet_struct`."""

    following: U64
    state: U32
    disabled: U32
    """How often tasklet_disable was called."""
    function: U64
    """Id, counted from 1."""
    data: U64


def tasklet_function(function: Function) -> Function:
    """Register a tasklet's function under its own name."""
    if function.__name__ in _functions:
        raise ValueError(f"tasklet function {function.__name__} is defined twice")
    _functions[function.__name__] = function
    return function


def tasklet_init(kernel: Kernel, name: str, data: int) -> int:
    """A new tasklet: its address."""
    open_softirq(kernel, Softirq.TASKLET, "tasklet_action")
    open_softirq(kernel, Softirq.HI, "tasklet_hi_action")
    address = alloc_object(kernel.memory)
    tasklet = kernel.view(Tasklet, address)
    tasklet.function, tasklet.data = list(_functions).index(name) + 1, data
    return address


def tasklet_schedule(cpu: Cpu, address: int, *, high: bool = False) -> None:
    """Have it run on this CPU; nothing if it is scheduled already."""
    tasklet = cpu.view(Tasklet, address)
    if tasklet.state & STATE_SCHED:
        return
    tasklet.state |= STATE_SCHED
    _append(cpu, cpu.percpu, "tasklet_hi_head" if high else "tasklet_head", address)
    raise_softirq(cpu, Softirq.HI if high else Softirq.TASKLET)


def _append(cpu: Cpu, percpu: PerCpu, head: str, address: int) -> None:
    cpu.view(Tasklet, address).following = 0
    at = getattr(percpu, head)
    if not at:
        setattr(percpu, head, address)
        return
    while following := cpu.view(Tasklet, at).following:
        at = following
    cpu.view(Tasklet, at).following = address


def _run(cpu: Cpu, head: str, softirq: Softirq) -> None:
    percpu = cpu.percpu
    at = getattr(percpu, head)
    setattr(percpu, head, 0)
    functions = list(_functions.values())
    while at:
        tasklet = cpu.view(Tasklet, at)
        address, at = at, tasklet.following
        if tasklet.disabled or tasklet.state & STATE_RUN:  # disabled, or it runs on another CPU: later
            _append(cpu, percpu, head, address)
            percpu.softirq_pending |= 1 << softirq
            trace_softirq_raise(cpu, softirq)
            continue
        tasklet.state = tasklet.state & ~STATE_SCHED | STATE_RUN
        functions[tasklet.function - 1](cpu, tasklet.data)
        tasklet.state &= ~STATE_RUN


@softirq_action
def tasklet_action(cpu: Cpu) -> None:
    """TASKLET_SOFTIRQ."""
    _run(cpu, "tasklet_head", Softirq.TASKLET)


@softirq_action
def tasklet_hi_action(cpu: Cpu) -> None:
    """HI_SOFTIRQ."""
    _run(cpu, "tasklet_hi_head", Softirq.HI)


assert Tasklet.SIZE <= OBJECT_SIZE
