"""The part of a task switch that is C (arch/x86/kernel/process_64.c), and where a new task begins."""

from __future__ import annotations

from contextlib import suppress

from emu.arch import Msr
from kernel_stubs.abi import THREAD_SIZE, ExitState, PtRegs, TaskStruct
from kernel_stubs.binding import Steps, c_function
from kernel_stubs.context import Cpu, Kernel, KernelOops
from kernel_stubs.context import task_pt_regs as task_pt_regs
from kernel_stubs.entry_common import exit_to_user_mode_loop
from kernel_stubs.errno import SyscallError
from kernel_stubs.fork import free_task
from kernel_stubs.fpu import restore_fpu
from kernel_stubs.hw_breakpoint import restore_debugregs
from kernel_stubs.kthread import thread_function
from kernel_stubs.segments import load_segments, save_segments
from kernel_stubs.uaccess import put_user


@c_function
def __switch_to(cpu: Cpu, prev: int, following: int) -> int:
    """The stack is the next task's already: its segment bases, its name in the per-CPU area."""
    switch_to_task(cpu, prev, following)
    finish_task_switch(cpu.kernel, prev)
    return prev


def switch_to_task(cpu: Cpu, prev: int, following: int) -> None:
    """What belongs to the current task, but for its stack and the address space, is the next one's."""
    kernel, core, percpu = cpu.kernel, cpu.core, cpu.percpu
    before, after = kernel.view(TaskStruct, prev), kernel.view(TaskStruct, following)
    before.fsbase, before.gsbase = core.cpu.fs_base, core.cpu.kernel_gs_base
    save_segments(cpu, before)
    if core.cpu.fs_base != after.fsbase:
        core.write_msr(Msr.FS_BASE, after.fsbase)
    if core.cpu.kernel_gs_base != after.gsbase:
        core.write_msr(Msr.KERNEL_GS_BASE, after.gsbase)
    percpu.current_task = following
    percpu.top_of_stack = after.stack + THREAD_SIZE
    percpu.next_task = 0
    after.on_cpu = 1


def finish_task_switch(kernel: Kernel, prev: int) -> None:
    """The CPU has left a task's stack: if the task is dead and waited for, it is freed."""
    before = kernel.view(TaskStruct, prev)
    before.on_cpu = 0
    if before.exit_state == ExitState.DEAD:
        free_task(kernel, prev)


def schedule_tail(cpu: Cpu) -> None:
    """What is left to do for a new task once it runs: its own pid into its memory (CLONE_CHILD_SETTID)."""
    task = cpu.current
    if task.set_child_tid:
        with suppress(SyscallError):  # as Linux ignores it
            put_user(cpu, task.set_child_tid, task.pid, 4)


@c_function
def ret_from_fork(cpu: Cpu, prev: int, regs: PtRegs, function: int, argument: int) -> Steps:
    """A new task's first C function; it returns when the task goes to user mode."""
    schedule_tail(cpu)
    yield from restore_fpu(cpu)
    yield from load_segments(cpu)
    yield from restore_debugregs(cpu)
    if function:
        thread = thread_function(function)
        if thread is None:
            raise KernelOops(f"kernel BUG: a kernel thread with the unknown function {function:#x}")
        yield from thread(cpu, argument)
    yield from exit_to_user_mode_loop(cpu, regs)
    return None
