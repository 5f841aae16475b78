"""The end of a process (kernel/exit.c)."""

from __future__ import annotations

from collections.abc import Iterator

from kernel_stubs import mm
from kernel_stubs.abi import THREAD_SIZE, ExitState, TaskState, TaskStruct
from kernel_stubs.binding import Leave, Steps, c_function
from kernel_stubs.context import Cpu, Kernel
from kernel_stubs.fdtable import put_files, put_fs
from kernel_stubs.fork import free_task, leave_mm
from kernel_stubs.futex import exit_robust_list, wake_clear_child_tid
from kernel_stubs.notify import notify_parent, notify_tracer
from kernel_stubs.pipe import ends_changed
from kernel_stubs.ptrace_abi import NR_BREAKPOINTS, Option
from kernel_stubs.sched import (
    address_of,
    all_tasks,
    pick_next_task,
    prepare_switch,
    wake_signalled,
    wake_up,
    wake_up_process,
    wake_up_state,
)
from kernel_stubs.siginfo import Sig, signal_name
from kernel_stubs.signal import send_signal, signal_wake_up
from kernel_stubs.signal_state import release_signals
from kernel_stubs.step import disable_single_step
from kernel_stubs.tick import TIMESLICE, arm_timer
from kernel_stubs.trace import trace_sched_process_exit


def threads(kernel: Kernel, leader: int) -> Iterator[tuple[int, TaskStruct]]:
    """The tasks of a process that have not been freed."""
    return ((address, task) for address, task in all_tasks(kernel) if task.group_leader == leader)


def do_group_exit(cpu: Cpu, code: int) -> None:
    """The current process ends; `code` as wait(2) reports it: status << 8, or the signal that killed it.

    Its tasks end on their way to user mode (`do_exit`).
    """
    kernel, task = cpu.kernel, cpu.current
    leader = kernel.view(TaskStruct, task.group_leader)
    if not leader.group_exit:
        leader.group_exit, leader.group_exit_code = 1, code
    task.exit_code = leader.exit_code = leader.group_exit_code
    zap_other_threads(cpu)
    task.exit_state = ExitState.REQUESTED
    if task.group_leader == mm.kernel_data(kernel.memory).init_task and leader.live_threads == 1:
        _finish(cpu, leader.group_exit_code)


def zap_other_threads(cpu: Cpu) -> None:
    """All other threads of this process are to end."""
    here = cpu.percpu.current_task
    for address, task in threads(cpu.kernel, cpu.current.group_leader):
        if address != here and not task.exit_state:
            task.exit_state = ExitState.REQUESTED
            wake_signalled(cpu, task)


def request_exit(cpu: Cpu, code: int) -> None:
    """Only the current thread ends (exit(2))."""
    task = cpu.current
    if cpu.view(TaskStruct, task.group_leader).live_threads == 1:
        do_group_exit(cpu, code)
    else:
        task.exit_code, task.exit_state = code, ExitState.REQUESTED


def _finish(cpu: Cpu, code: int) -> None:
    if not cpu.core.ended:
        trace_sched_process_exit(cpu, code)
    signal = code & 0x7F
    cpu.core.finish(f"killed by {signal_name(signal)}" if signal else f"exited with status {code >> 8}")


def do_exit(cpu: Cpu) -> Steps:
    """The current task is no more: all that it has goes, its parent is told, another task runs. Does not return."""
    kernel, task, address = cpu.kernel, cpu.current, cpu.percpu.current_task
    data = mm.kernel_data(cpu.memory)
    leader_address = task.group_leader
    leader = kernel.view(TaskStruct, leader_address)
    last = leader.live_threads == 1
    if last and leader_address == data.init_task:
        task.exit_code = leader.exit_code = leader.group_exit_code if leader.group_exit else task.exit_code
        _finish(cpu, task.exit_code)
        return None
    trace_sched_process_exit(cpu, leader.group_exit_code if leader.group_exit else task.exit_code)
    leader.live_threads -= 1
    release_mm(cpu)
    _release_files(cpu, task)
    release_signals(kernel, task)
    task.alarm_time = 0
    if leader.group_exit:
        task.exit_code = leader.group_exit_code
    if last:
        _end_of_group(cpu, leader_address)
    if address != leader_address:
        task.exit_state = ExitState.DEAD
        wake_up(cpu, thread_channel(leader_address))
    elif not last:
        task.exit_state = ExitState.ZOMBIE
    task.state = TaskState.DEAD
    following = pick_next_task(cpu)
    cpu.percpu.slice_end = cpu.core.clock + TIMESLICE
    arm_timer(cpu, idle=following == cpu.percpu.idle_task)
    stack = (task.stack, task.stack + THREAD_SIZE)
    yield Leave("__switch_to_asm", prepare_switch(cpu, following), stack)
    return None


def thread_channel(leader: int) -> int:
    """What execve sleeps on until the process's other threads are gone."""
    return leader + 1


def release_mm(cpu: Cpu) -> None:
    """exec and exit: user memory is given up, and whoever waits for a word in it is told."""
    task = cpu.current
    if not task.mm:
        return
    exit_robust_list(cpu)
    wake_clear_child_tid(cpu)
    leave_mm(cpu)
    vfork_done(cpu)


def vfork_done(cpu: Cpu) -> None:
    """The parent that lent its address space may go on."""
    task = cpu.current
    parent, task.vfork_parent = task.vfork_parent, 0
    if parent:
        wake_up_process(cpu, parent)


def _release_files(cpu: Cpu, task: TaskStruct) -> None:
    if task.files:
        gone, task.files = put_files(cpu.kernel, task.files), 0
        for inode in gone:
            ends_changed(cpu, inode)
    if task.fs:
        put_fs(cpu.kernel, task.fs)
        task.fs = 0


def _end_of_group(cpu: Cpu, leader: int) -> None:
    """The last thread of a process ends: the parent is told; orphans will be waited for by nobody that we see.

    The run's first process has pid 1 but is no init: what it did not start does not become its child.
    """
    kernel = cpu.kernel
    exit_ptrace(cpu, leader)
    for address, task in list(all_tasks(kernel)):
        if task.parent == leader:
            task.parent = 0
            if task.ptrace.tracer:
                continue
            if task.group_leader == address and task.exit_state == ExitState.ZOMBIE and not task.live_threads:
                release_task(kernel, address)
    task = kernel.view(TaskStruct, leader)
    if cpu.current.group_leader == leader and cpu.percpu.current_task != leader:
        task.exit_code = cpu.current.exit_code if task.group_exit else task.exit_code
    task.exit_state = ExitState.ZOMBIE
    _notify_parent(cpu, leader)


def _notify_parent(cpu: Cpu, child: int) -> None:
    """A parent that does not care need not wait: the child is gone at once. A tracer that is none hears of it first."""
    task = cpu.view(TaskStruct, child)
    if task.ptrace.tracer not in (0, task.parent):
        notify_tracer(cpu, child)
        return
    if notify_parent(cpu, child):
        release_task(cpu.kernel, child)


def reap(cpu: Cpu, address: int) -> None:
    """A zombie has been waited for, by its parent or its tracer; if that is another, the parent's turn comes now."""
    task = cpu.view(TaskStruct, address)
    tracer, task.ptrace.tracer = task.ptrace.tracer, 0
    if tracer not in (0, task.parent) and task.parent:
        _notify_parent(cpu, address)
    else:
        release_task(cpu.kernel, address)


def exit_ptrace(cpu: Cpu, tracer: int) -> None:
    """A tracer ends: what it traces goes on, or is killed if it wished so (PTRACE_O_EXITKILL)."""
    for address, task in list(all_tasks(cpu.kernel)):
        if task.ptrace.tracer != tracer:
            continue
        if task.exit_state == ExitState.ZOMBIE:
            reap(cpu, address)
            continue
        if task.ptrace.options & Option.EXITKILL:
            send_signal(cpu, task, int(Sig.SIGKILL))
        ptrace_detach(cpu, task)


def ptrace_detach(cpu: Cpu, task: TaskStruct) -> None:
    """A task is traced no more; if it is stopped, it goes on with the signal that is noted for it.

    If its process is stopped, whatever the tracer made of that, it joins it (__ptrace_unlink).
    """
    disable_single_step(cpu.kernel, task)
    task.thread_info.syscall_work = 0
    own = task.ptrace
    own.tracer = own.options = own.dr7 = own.dr6 = 0
    own.addresses[:] = [0] * NR_BREAKPOINTS
    if cpu.view(TaskStruct, task.group_leader).signals.group_stop and not task.exit_state:
        task.signals.stop_signal = task.signals.last_stop or Sig.SIGSTOP
        signal_wake_up(cpu, task)
    if task.state == TaskState.TRACED:
        wake_up_state(cpu, address_of(cpu.kernel, task))


def release_task(kernel: Kernel, address: int) -> None:
    """A zombie has been waited for. If it has not left its stack yet, it is freed when it has."""
    task = kernel.view(TaskStruct, address)
    task.exit_state = ExitState.DEAD
    if not task.on_cpu:
        free_task(kernel, address)


@c_function
def make_task_dead(cpu: Cpu, signal: int) -> Steps:
    """From rewind_stack_and_make_dead: the task's kernel code went wrong."""
    request_exit(cpu, signal & 0x7F)
    yield from do_exit(cpu)
    return None
