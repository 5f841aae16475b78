"""Tasks: the scheduler as the assembly calls it, the C part of a switch, the end of a task (arch/x86/kernel)."""

from __future__ import annotations

from kernel_stubs import process, sched, switch
from kernel_stubs.abi import TaskStruct
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.fpu_lazy import preload, unlazy_fpu
from kernel_stubs.hw_breakpoint import restore_debugregs
from kernel_stubs.linux26.calls import c_function26
from kernel_stubs.linux26.thread_info import pda, set_current, show_work, thread_info
from kernel_stubs.segments import load_segments


@c_function26
def schedule(cpu: Cpu) -> Steps:
    """Let another task run."""
    yield from sched.schedule(cpu)
    return None


@c_function26
def preempt_schedule_irq(cpu: Cpu) -> Steps:
    """The way back from an interrupt to kernel mode that may be preempted: the idle task's."""
    yield from sched.schedule(cpu)
    return None


@c_function26
def __switch_to(cpu: Cpu, prev: int, following: int) -> Steps:
    """The stack is the next task's already: FPU, bases, PDA, TSS.sp0. The user's RSP in the PDA belongs to the task."""
    kernel, area = cpu.kernel, pda(cpu)
    yield from unlazy_fpu(cpu, prev)
    before, after = kernel.view(TaskStruct, prev), kernel.view(TaskStruct, following)
    thread_info(kernel, before).usersp = area.oldrsp
    switch.switch_to_task(cpu, prev, following)
    area.oldrsp = thread_info(kernel, after).usersp
    set_current(cpu, following)
    show_work(kernel, after)
    yield from preload(cpu)
    return prev


@c_function26
def schedule_tail(cpu: Cpu, prev: int) -> Steps:
    """A new task's first C function: like all that come back to schedule(), it sees to the task that ran before."""
    switch.finish_task_switch(cpu.kernel, prev)
    switch.schedule_tail(cpu)
    yield from load_segments(cpu)
    yield from restore_debugregs(cpu)
    return None


@c_function26
def do_exit(cpu: Cpu, code: int) -> Steps:
    """The current task ends: `code` as wait(2) reports it. Does not return."""
    process.request_exit(cpu, code & 0xFFFF)
    yield from process.do_exit(cpu)
    return None
