"""The scheduler (kernel/sched). With one task a CPU there is nothing to choose yet."""

from __future__ import annotations

from kernel_stubs.abi import Tif
from kernel_stubs.context import Cpu


def set_need_resched(cpu: Cpu) -> None:
    """The current task has had its turn: it will be asked to give way before it returns to user mode."""
    cpu.current.thread_info.flags |= Tif.NEED_RESCHED


def schedule(cpu: Cpu) -> None:
    """Let the next task run; that is the current one."""
    cpu.current.thread_info.flags &= ~Tif.NEED_RESCHED
