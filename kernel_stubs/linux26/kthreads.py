"""Kernel threads and softirqs: do_fork for kernel_thread(), ksoftirqd behind child_rip (kernel/fork.c, softirq.c).

`kernel_thread` (process.S) makes the frame: child_rip as RIP, the function in RDI, its argument in RSI. The function is
one of the C functions below, by its address in the image.
"""

from __future__ import annotations

from kernel_stubs.abi import THREAD_SIZE, PtRegs, TaskState, TaskStruct
from kernel_stubs.binding import Call, Steps, registered
from kernel_stubs.context import Cpu, KernelOops
from kernel_stubs.errno import Errno, OutOfMemoryError
from kernel_stubs.fdtable import copy_files, copy_fs
from kernel_stubs.fork import Clone, alloc_pid, free_task, new_task, release_parts
from kernel_stubs.kmod import as_error
from kernel_stubs.linux26.calls import c_function26, register26
from kernel_stubs.sched import all_tasks, wake_up_new_task
from kernel_stubs.signal_state import copy_signals
from kernel_stubs.softirq import ksoftirqd as serve
from kernel_stubs.syscalls.names import SYSCALL_NAMES
from kernel_stubs.syscalls.table import invoke
from kernel_stubs.trace import trace_sched_process_fork

_ALL_ONES = 0xFFFF_FFFF_FFFF_FFFF
_CLONE = next(number for number, name in SYSCALL_NAMES.items() if name == "clone")


@c_function26
def do_fork(cpu: Cpu, flags: int, stack: int, regs: PtRegs, size: int, parent_tid: int, child_tid: int) -> Steps:
    """A new task: its pid, or -errno. With the registers of user mode a copy of the process, else a kernel thread."""
    if regs.user_mode:
        return (yield from invoke(cpu, _CLONE, (flags, stack, parent_tid, child_tid, regs.r8)))
    try:
        return _copy_kernel_thread(cpu, regs, flags, stack)
    except OutOfMemoryError:
        return -Errno.ENOMEM


def _copy_kernel_thread(cpu: Cpu, regs: PtRegs, flags: int, stack: int) -> int:
    """copy_process() for a task without user mode: it has the caller's name until it takes another.

    What a kernel thread asks for has its files, its directory and its actions, and is its child. Others have nothing.
    """
    kernel, parent = cpu.kernel, cpu.current
    address = new_task(kernel, cpu.number)
    task = kernel.view(TaskStruct, address)
    task.kthread, task.comm, task.exit_signal = 1, parent.comm, -1
    if parent.kthread and parent.files:
        try:
            task.files = copy_files(kernel, parent.files, share=bool(flags & Clone.FILES))
            task.fs = copy_fs(kernel, parent.fs, share=bool(flags & Clone.FS))
            copy_signals(kernel, parent, task, flags & ~Clone.VM)
        except OutOfMemoryError:
            release_parts(kernel, task)
            free_task(kernel, address)
            raise
        task.parent, task.exit_signal = parent.group_leader, flags & Clone.CSIGNAL
    task.pid = task.tgid = alloc_pid(kernel)
    task.group_leader, task.live_threads = address, 1
    task.blocked = _ALL_ONES  # all signals
    top = task.stack + THREAD_SIZE - PtRegs.SIZE
    kernel.memory.write(kernel.physical(top), bytes(regs))
    own = kernel.view(PtRegs, top)
    own.ax, own.sp = 0, top if stack == _ALL_ONES else stack
    task.state = TaskState.UNINTERRUPTIBLE
    trace_sched_process_fork(cpu, task)
    wake_up_new_task(cpu, address)
    return int(task.pid)


@c_function26
def ksoftirqd(cpu: Cpu, argument: int) -> Steps:
    """The kernel thread that serves softirqs which nobody else does; called by child_rip, never returns."""
    cpu.current.comm = f"ksoftirqd/{cpu.number}".encode()
    yield from serve(cpu, argument)
    return None


def spawn_ksoftirqd(cpu: Cpu) -> Steps:
    """Make this CPU's ksoftirqd if softirqs wait for it and there is none: by kernel_thread()."""
    percpu = cpu.percpu
    if percpu.ksoftirqd or not percpu.softirq_pending or percpu.preempt_count:
        return None
    pid = yield Call("kernel_thread", (cpu.kernel.image.symbol("ksoftirqd"), 0, 0))
    if as_error(pid):
        return None  # no memory: tried again when there are softirqs again
    percpu.ksoftirqd = next((address for address, task in all_tasks(cpu.kernel) if task.pid == pid), 0)
    if not percpu.ksoftirqd:
        raise KernelOops(f"kernel BUG: kernel_thread returned {pid}, which is no task's pid")
    return None


def _do_softirq(cpu: Cpu) -> Steps:
    """Serve all pending softirqs; what does not end is left to ksoftirqd."""
    yield from registered()["__do_softirq"].function(cpu)
    yield from spawn_ksoftirqd(cpu)
    return None


def register_all() -> None:
    """Register what linux-6 has under the same name."""
    register26("__do_softirq", _do_softirq, ())
