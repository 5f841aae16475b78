"""The scheduler: run queues, time slices, sleeping and waking (kernel/sched/core.c).

Each CPU has a queue of runnable tasks, first in first out, in guest memory; a task stays on the CPU that it was made
for. `schedule` is a generator: it has the guest execute `__switch_to_asm`, and goes on when somebody switches back.
The kernel is not preemptible: a task gives way when it sleeps, ends, or is about to return to user mode.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from kernel_stubs import mm
from kernel_stubs.abi import INIT_PGD, ExitState, MmStruct, PerCpu, SystemVector, TaskState, TaskStruct, Tif, WaitResult
from kernel_stubs.binding import Call, Steps
from kernel_stubs.context import Cpu, Kernel, percpu_address
from kernel_stubs.fpu import restore_fpu, save_fpu
from kernel_stubs.hw_breakpoint import restore_debugregs
from kernel_stubs.ipi import send_ipi
from kernel_stubs.layout import Struct
from kernel_stubs.segments import load_segments
from kernel_stubs.siginfo import Sig
from kernel_stubs.signal_state import bit, pending_signals
from kernel_stubs.tick import TIMESLICE, arm_timer
from kernel_stubs.trace import trace_sched_switch, trace_sched_wakeup

_SLEEPING = (TaskState.INTERRUPTIBLE, TaskState.UNINTERRUPTIBLE, TaskState.KILLABLE)


def set_need_resched(cpu: Cpu) -> None:
    """The current task has had its turn: it will be asked to give way before it returns to user mode."""
    cpu.current.thread_info.flags |= Tif.NEED_RESCHED


def percpu_of(kernel: Kernel, number: int) -> PerCpu:
    """The per-CPU area of any CPU."""
    return kernel.view(PerCpu, percpu_address(kernel, number))


def all_tasks(kernel: Kernel) -> Iterator[tuple[int, TaskStruct]]:
    """(address, task) of every task but the idle ones, the newest first."""
    address = mm.kernel_data(kernel.memory).task_list
    while address:
        task = kernel.view(TaskStruct, address)
        following = task.next_task
        yield address, task
        address = following


# --- run queues -------------------------------------------------------------------------------------------------------
def enqueue(kernel: Kernel, address: int) -> None:
    """A runnable task joins the end of its CPU's queue."""
    task = kernel.view(TaskStruct, address)
    percpu = percpu_of(kernel, task.thread_info.cpu)
    task.run_next = 0
    if percpu.rq_tail:
        kernel.view(TaskStruct, percpu.rq_tail).run_next = address
    else:
        percpu.rq_head = address
    percpu.rq_tail = address
    percpu.nr_running += 1


def _dequeue(kernel: Kernel, percpu: PerCpu) -> int:
    """The task that has waited longest; 0 for none."""
    address = percpu.rq_head
    if address:
        percpu.rq_head = kernel.view(TaskStruct, address).run_next
        percpu.nr_running -= 1
        if not percpu.rq_head:
            percpu.rq_tail = 0
    return address


def signal_pending(task: TaskStruct) -> bool:
    """Whether a sleep that signals interrupt must end."""
    return bool(task.thread_info.flags & (Tif.SIGPENDING | Tif.NOTIFY_SIGNAL)) or bool(task.exit_state)


def killed(kernel: Kernel, task: TaskStruct) -> bool:
    """fatal_signal_pending(): whether a task is to end and nothing else."""
    return bool(task.exit_state) or bool(pending_signals(kernel, task) & bit(Sig.SIGKILL))


def _interrupted(kernel: Kernel, task: TaskStruct) -> bool:
    """Whether a sleep is to end without what it waits for."""
    if task.state == TaskState.KILLABLE:
        return killed(kernel, task)
    return bool(task.state == TaskState.INTERRUPTIBLE) and signal_pending(task)


def wake_up_process(cpu: Cpu, address: int, result: WaitResult = WaitResult.WOKEN) -> bool:
    """Make a sleeping task runnable; False if it does not sleep."""
    kernel = cpu.kernel
    task = kernel.view(TaskStruct, address)
    if task.state not in _SLEEPING:
        return False
    wake_up_state(cpu, address, result)
    return True


def wake_up_new_task(cpu: Cpu, address: int) -> None:
    """A task that has just been made can run."""
    wake_up_state(cpu, address, new=True)


def wake_up_state(
    cpu: Cpu, address: int, result: WaitResult = WaitResult.WOKEN, *, new: bool = False
) -> None:  # fmt: skip
    """Make a task runnable that is not, whatever it waits for (SIGCONT, the end of a ptrace stop)."""
    kernel = cpu.kernel
    task = kernel.view(TaskStruct, address)
    task.state = TaskState.RUNNING
    task.wait_result = result
    task.wait_channel = task.wake_time = 0
    enqueue(kernel, address)
    trace_sched_wakeup(cpu, task, new=new)
    kick(cpu, task.thread_info.cpu)


def kick(cpu: Cpu, number: int) -> None:
    """Something happened that CPU `number` should look at: a task became runnable there, or has a signal."""
    if number != cpu.number:
        other = Cpu(cpu.kernel, cpu.kernel.machine.cores[number])
        if cpu.kernel.classic and 0 != other.percpu.current_task == other.percpu.idle_task:
            set_need_resched(other)  # its idle loop does not look at the queue
        send_reschedule(cpu, number)
    elif cpu.percpu.current_task == cpu.percpu.idle_task:
        set_need_resched(cpu)
    else:
        arm_timer(cpu, idle=False)


def send_reschedule(cpu: Cpu, number: int) -> None:
    """smp_send_reschedule(): an IPI, at whose end the other CPU looks at its queue."""
    send_ipi(cpu, number, SystemVector.RESCHEDULE)


def address_of(kernel: Kernel, view: Struct) -> int:
    """Where a structure lies that is seen through this view: its address in the direct map."""
    return mm.direct_map(ctypes.addressof(view) - kernel.memory.host_address)


def process_threads(kernel: Kernel, task: TaskStruct) -> Iterator[TaskStruct]:
    """The threads of a task's process that have not ended, the newest first."""
    return (other for _, other in all_tasks(kernel) if other.tgid == task.tgid and not is_dead(other))


def wake_signalled(cpu: Cpu, task: TaskStruct) -> None:
    """A task has got a signal, or is to end: it shall look soon, wherever it is."""
    address = address_of(cpu.kernel, task)
    if _interrupted(cpu.kernel, task):
        wake_up_process(cpu, address, WaitResult.SIGNAL)
    elif task.exit_state and task.state in (TaskState.STOPPED, TaskState.TRACED):
        wake_up_state(cpu, address)
    elif task.on_cpu and task.thread_info.cpu != cpu.number:
        kick(cpu, task.thread_info.cpu)


def wake_interrupted(cpu: Cpu) -> None:
    """Make those tasks of this CPU runnable whose sleep a signal has interrupted, or that are to end."""
    for address, task in all_tasks(cpu.kernel):
        if task.thread_info.cpu == cpu.number and _interrupted(cpu.kernel, task):
            wake_up_process(cpu, address, WaitResult.SIGNAL)


# --- sleeping ---------------------------------------------------------------------------------------------------------
def sleep_on(cpu: Cpu, channel: int, deadline: int = 0, state: TaskState = TaskState.INTERRUPTIBLE) -> Steps:
    """The current task waits for `wake_up(channel)`; until `deadline` (a clock) if that is not 0: a WaitResult.

    Whoever is woken must look again at what he waited for.
    """
    task = cpu.current
    if state == TaskState.INTERRUPTIBLE and signal_pending(task):
        return WaitResult.SIGNAL
    if state == TaskState.KILLABLE and killed(cpu.kernel, task):
        return WaitResult.SIGNAL
    if deadline and deadline <= cpu.core.clock:
        return WaitResult.TIMEOUT
    data = mm.kernel_data(cpu.memory)
    data.wait_counter += 1
    task.wait_number = data.wait_counter
    task.wait_channel, task.wake_time = channel, deadline
    task.wait_result = WaitResult.WOKEN
    task.state = state
    yield from schedule(cpu)
    return task.wait_result


def sleepers(kernel: Kernel, channel: int) -> list[int]:
    """Who sleeps on a channel, the longest first."""
    found = [
        (task.wait_number, address)
        for address, task in all_tasks(kernel)
        if task.wait_channel == channel and task.state in _SLEEPING
    ]
    return [address for _, address in sorted(found)]


def wake_up(cpu: Cpu, channel: int, count: int = 1 << 32) -> int:
    """Wake up to `count` of the tasks that sleep on a channel, the longest first: how many."""
    chosen = sleepers(cpu.kernel, channel)[:count]
    for address in chosen:
        wake_up_process(cpu, address)
    return len(chosen)


# --- switching --------------------------------------------------------------------------------------------------------
def switch_mm(cpu: Cpu, space: int) -> None:
    """Load CR3 with an address space's kernel tables; the kernel's own for tasks that have none."""
    pgd = cpu.view(MmStruct, space).pgd if space else INIT_PGD
    if cpu.core.cpu.cr3 != pgd:
        cpu.core.cpu.set_control(cr3=pgd)


def pick_next_task(cpu: Cpu) -> int:
    """The task to run now: the first in the queue, else the idle task."""
    wake_interrupted(cpu)
    percpu = cpu.percpu
    return _dequeue(cpu.kernel, percpu) or percpu.idle_task


def schedule(cpu: Cpu) -> Steps:
    """Let the next task run. The current one goes to the end of the queue if it can run; it comes back from here."""
    kernel, percpu = cpu.kernel, cpu.percpu
    before = percpu.current_task
    current = kernel.view(TaskStruct, before)
    current.thread_info.flags &= ~Tif.NEED_RESCHED
    if current.state == TaskState.RUNNING and before != percpu.idle_task:
        enqueue(kernel, before)
    following = pick_next_task(cpu)
    percpu.slice_end = cpu.core.clock + TIMESLICE
    arm_timer(cpu, idle=following == percpu.idle_task)
    if following == before:
        return None
    yield from save_fpu(cpu)
    yield Call("__switch_to_asm", prepare_switch(cpu, following))
    yield from restore_fpu(cpu)
    yield from load_segments(cpu)
    yield from restore_debugregs(cpu)
    return None


def prepare_switch(cpu: Cpu, following: int) -> tuple[int, int]:
    """The address space and the bookkeeping of a switch: the arguments of __switch_to_asm."""
    percpu = cpu.percpu
    percpu.nr_switches += 1
    percpu.next_task = following
    trace_sched_switch(cpu, cpu.current, cpu.view(TaskStruct, following))
    switch_mm(cpu, cpu.view(TaskStruct, following).mm)
    return percpu.current_task, following


def is_dead(task: TaskStruct) -> bool:
    """Whether a task has ended, reaped or not."""
    return task.exit_state in (ExitState.DEAD, ExitState.ZOMBIE)
