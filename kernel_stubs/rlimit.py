"""Resource limits of processes (kernel/sys.c, include/asm-generic/resource.h)."""

from __future__ import annotations

from enum import IntEnum

from kernel_stubs.abi import NR_OPEN, THREAD_SIZE, MmStruct, TaskStruct
from kernel_stubs.context import Kernel
from kernel_stubs.sched import address_of, all_tasks
from kernel_stubs.signal_abi import RLIM_INFINITY, SignalStruct
from kernel_stubs.signal_state import signal_of

STACK_LIMIT = 8 << 20
"""RLIMIT_STACK of the first process."""


class Rlimit(IntEnum):
    """What is limited."""

    CPU = 0
    FSIZE = 1
    DATA = 2
    STACK = 3
    CORE = 4
    RSS = 5
    NPROC = 6
    NOFILE = 7
    MEMLOCK = 8
    AS = 9
    LOCKS = 10
    SIGPENDING = 11
    MSGQUEUE = 12
    NICE = 13
    RTPRIO = 14
    RTTIME = 15


def max_tasks(kernel: Kernel) -> int:
    """threads-max: half of what would fill memory with stacks and page tables."""
    return max(16, min(1024, kernel.memory.size // (16 * THREAD_SIZE)))


def first_limit(kernel: Kernel, which: int) -> tuple[int, int]:
    """(soft, hard) of the first process (INIT_RLIMITS)."""
    match which:
        case Rlimit.STACK:
            return STACK_LIMIT, RLIM_INFINITY
        case Rlimit.CORE:
            return 0, RLIM_INFINITY
        case Rlimit.NOFILE:
            return NR_OPEN, NR_OPEN
        case Rlimit.NPROC:
            return max_tasks(kernel), max_tasks(kernel)
    return RLIM_INFINITY, RLIM_INFINITY


def limits(kernel: Kernel, task: TaskStruct, which: int) -> tuple[int, int]:
    """(soft, hard) of a task's process."""
    if not task.signals.signal:
        return first_limit(kernel, which)
    shared = kernel.view(SignalStruct, task.signals.signal)
    if not shared.has_rlim:
        return first_limit(kernel, which)
    return int(shared.rlim[2 * which]), int(shared.rlim[2 * which + 1])


def rlimit(kernel: Kernel, task: TaskStruct, which: Rlimit) -> int:
    """The soft limit."""
    return limits(kernel, task, which)[0]


def set_limits(kernel: Kernel, task: TaskStruct, which: int, soft: int, hard: int) -> None:
    """New limits for a task's process."""
    shared = signal_of(kernel, task)
    if not shared.has_rlim:
        shared.rlim[:] = [value for each in Rlimit for value in first_limit(kernel, each)]
        shared.has_rlim = 1
    shared.rlim[2 * which], shared.rlim[2 * which + 1] = soft, hard


def limit_of_mm(kernel: Kernel, mm: MmStruct, which: Rlimit) -> int:
    """The soft limit of the process that lives in an address space; the first process's as long as none does."""
    address = address_of(kernel, mm)
    owner = next((task for _, task in all_tasks(kernel) if task.mm == address), None)
    return rlimit(kernel, owner, which) if owner else first_limit(kernel, which)[0]
