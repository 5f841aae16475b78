"""What a CPU does when no task can run (kernel/sched/idle.c): `cpu_idle_loop` asks C, then halts."""

from __future__ import annotations

from kernel_stubs import mm
from kernel_stubs.abi import THREAD_SIZE, TaskStruct
from kernel_stubs.binding import Steps, c_function
from kernel_stubs.context import Cpu
from kernel_stubs.fork import make_inactive
from kernel_stubs.sched import schedule


@c_function
def schedule_idle(cpu: Cpu) -> Steps:
    """From the idle loop, IF=0: if a task can run, let it."""
    yield from schedule(cpu)
    return None


def make_idle_task(cpu: Cpu, stack: int = 0) -> TaskStruct:
    """This CPU's idle task, pid 0. Without a stack of its own it gets one, and begins at cpu_idle_loop."""
    address = mm.direct_map(mm.alloc_page(cpu.memory))
    task = cpu.view(TaskStruct, address)
    task.thread_info.cpu = cpu.number
    task.comm = f"swapper/{cpu.number}".encode()
    task.group_leader = address
    cpu.percpu.idle_task = address
    if stack:
        task.stack = stack
    else:
        task.stack = mm.alloc_stack(cpu.memory)
        make_inactive(cpu.kernel, task, task.stack + THREAD_SIZE - 8, cpu.kernel.image.symbol("cpu_idle_loop"))
    return task
