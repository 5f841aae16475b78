"""When this CPU's timer is to fire next (kernel/time/tick-sched.c).

With a timer period in the boot options the tick is periodic, and all that is due is done at a tick. Without one the
timer is set for the next sleep that ends or, if other tasks wait for the CPU, for the end of the current one's turn;
a single task that never sleeps runs without any interrupt.
"""

from __future__ import annotations

from kernel_stubs import mm
from kernel_stubs.abi import TaskState, TaskStruct, Tif
from kernel_stubs.context import Cpu

TIMESLICE = 100_000
"""Instructions that a task may run while others wait."""
MIN_GRANULARITY = 500
"""Instructions before a tick ends a turn: however fast ticks come, tasks get on (sysctl_sched_min_granularity)."""
_DIVIDE_BY_1 = 0xB


def start_tick(cpu: Cpu) -> None:
    """Set this CPU's APIC timer to the period that the boot options ask for."""
    apic = cpu.core.apic
    period = mm.kernel_data(cpu.memory).timer_period
    if period:
        apic.divide_configuration = _DIVIDE_BY_1
        apic.start_timer(cpu.core.clock, cpu.kernel.timer_vector, period, periodic=True)


def deadlines(cpu: Cpu) -> list[int]:
    """Clocks at which this CPU's tasks have something due."""
    found = []
    address = mm.kernel_data(cpu.memory).task_list
    while address:
        task = cpu.view(TaskStruct, address)
        address = task.next_task
        if task.thread_info.cpu == cpu.number:
            if task.wake_time and task.state != TaskState.RUNNING:
                found.append(task.wake_time)
            if task.alarm_time:
                found.append(task.alarm_time)
    return found


def arm_timer(cpu: Cpu, *, idle: bool) -> None:
    """Set the one-shot timer anew, or stop it. `idle`: the idle task runs, whose turn never ends."""
    if mm.kernel_data(cpu.memory).timer_period:
        return
    percpu = cpu.percpu
    due = deadlines(cpu)
    asked = cpu.current.thread_info.flags & Tif.NEED_RESCHED
    if percpu.rq_head and not idle and not asked:
        due.append(percpu.slice_end)
    clock, apic = cpu.core.clock, cpu.core.apic
    if due:
        when = max(min(due), clock + 1)
        if percpu.timer_armed != when or apic.deadline != when:
            apic.divide_configuration = _DIVIDE_BY_1
            apic.start_timer(clock, cpu.kernel.timer_vector, when - clock, periodic=False)
            percpu.timer_armed = when
    elif percpu.timer_armed:
        apic.set_initial_count(clock, 0)
        percpu.timer_armed = 0
