"""Kernel threads: tasks without user mode, whose function is a Python generator (kernel/kthread.c)."""

from __future__ import annotations

from collections.abc import Callable

from kernel_stubs.abi import THREAD_SIZE, PtRegs, TaskState, TaskStruct
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.fork import alloc_pid, make_inactive, new_task
from kernel_stubs.sched import wake_up_new_task
from kernel_stubs.trace import trace_sched_process_fork

Thread = Callable[[Cpu, int], Steps]
"""thread(cpu, argument)"""

_threads: dict[str, Thread] = {}


def kernel_thread(function: Thread) -> Thread:
    """Register a kernel thread's function under its own name. Its id is its place, counted from 1."""
    if function.__name__ in _threads:
        raise ValueError(f"kernel thread {function.__name__} is defined twice")
    _threads[function.__name__] = function
    return function


def thread_function(number: int) -> Thread | None:
    """The function with this id."""
    return list(_threads.values())[number - 1] if 1 <= number <= len(_threads) else None


def kthread_create(cpu: Cpu, function: Thread, comm: bytes, argument: int = 0) -> int:
    """A kernel thread on this CPU, which runs: its address. OutOfMemoryError if there is no room for it."""
    kernel = cpu.kernel
    address = new_task(kernel, cpu.number)
    task = kernel.view(TaskStruct, address)
    task.kthread = 1
    task.comm = comm[:15]
    task.pid = task.tgid = alloc_pid(kernel)
    task.group_leader, task.live_threads, task.exit_signal = address, 1, -1
    task.blocked = 0xFFFF_FFFF_FFFF_FFFF
    top = task.stack + THREAD_SIZE - PtRegs.SIZE
    number = list(_threads).index(function.__name__) + 1
    make_inactive(kernel, task, top, kernel.image.symbol("ret_from_fork_asm"), number, argument)
    task.state = TaskState.UNINTERRUPTIBLE
    trace_sched_process_fork(cpu, task)
    wake_up_new_task(cpu, address)
    return address
