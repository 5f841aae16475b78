"""thread_info, at the lowest address of a task's stack, and the PDA: what the assembly knows of the current task."""

from __future__ import annotations

from emu.arch import Rflags, Selector
from kernel_stubs.abi import THREAD_SIZE, ExitState, InactiveTaskFrame, MmStruct, PtRegs, TaskStruct
from kernel_stubs.abi26 import KERNEL_DS, PDA_STACKOFFSET, USER_DS, ThreadInfo26, Tif26, X8664Pda
from kernel_stubs.context import Cpu, Kernel
from kernel_stubs.ptrace_abi import SyscallWork
from kernel_stubs.vdso32 import sysenter_return

SHARED_FLAGS = 1 << Tif26.NOTIFY_RESUME | 1 << Tif26.SIGPENDING | 1 << Tif26.NEED_RESCHED | 1 << Tif26.SINGLESTEP
"""Bits that mean the same in thread_info.flags of both kernels, with the same numbers."""
NOT_PREEMPTIBLE = 1
"""preempt_count of a task that is in no critical section: the kernel is built without preemption. The idle task alone
may be preempted, at any time, for it looks at no flag itself."""


def thread_info(kernel: Kernel, task: TaskStruct) -> ThreadInfo26:
    """A task's thread_info."""
    return kernel.view(ThreadInfo26, task.stack)


def pda(cpu: Cpu) -> X8664Pda:
    """This CPU's PDA, found by CPU number."""
    image = cpu.kernel.image
    table = cpu.kernel.physical(image.symbol("_cpu_pda"))
    return cpu.view(X8664Pda, cpu.memory.read_u64(table + 8 * cpu.number))


def show_work(kernel: Kernel, task: TaskStruct) -> None:
    """Tell the assembly what there is to do for a task before its user mode.

    A task that is to end has a signal, as in Linux, where nothing else makes it end.
    """
    work = task.thread_info.flags & SHARED_FLAGS
    if task.exit_state == ExitState.REQUESTED:
        work |= 1 << Tif26.SIGPENDING
    if task.thread_info.syscall_work & SyscallWork.SYSCALL_TRACE:
        work |= 1 << Tif26.SYSCALL_TRACE
    info = thread_info(kernel, task)
    info.flags = info.flags & ~(SHARED_FLAGS | 1 << Tif26.SYSCALL_TRACE) | work


def init_thread_info(cpu: Cpu, address: int) -> ThreadInfo26:
    """A new task's thread_info."""
    task = cpu.view(TaskStruct, address)
    info = thread_info(cpu.kernel, task)
    info.task, info.cpu = address, task.thread_info.cpu
    info.addr_limit = USER_DS if task.mm else KERNEL_DS
    _set_personality(cpu.kernel, task)
    info.preempt_count = NOT_PREEMPTIBLE if task.mm or task.kthread else 0
    return info


def _set_personality(kernel: Kernel, task: TaskStruct) -> None:
    """Whether the task's program is a 32-bit one, and where SYSENTER of that returns."""
    info = thread_info(kernel, task)
    vdso = kernel.view(MmStruct, task.mm).vdso32 if task.mm else 0
    info.flags = info.flags & ~(1 << Tif26.IA32) | bool(vdso) << Tif26.IA32
    info.sysenter_return = vdso + sysenter_return(kernel) if vdso else 0


def start_thread(cpu: Cpu) -> None:
    """execve(2) has given the current task another program."""
    thread_info(cpu.kernel, cpu.current).addr_limit = USER_DS
    _set_personality(cpu.kernel, cpu.current)


def set_current(cpu: Cpu, address: int) -> None:
    """The PDA and the TSS follow: this is the current task."""
    end = cpu.view(TaskStruct, address).stack + THREAD_SIZE
    area = pda(cpu)
    area.pcurrent, area.kernelstack = address, end - PDA_STACKOFFSET
    cpu.percpu.tss.sp0 = end


def prepare_first_run(cpu: Cpu, address: int) -> None:
    """What copy_thread does here, done when a task is about to run for the first time.

    fork has laid the registers of user mode at the end of its stack, and for linux-6 a frame below them. `switch_to`
    wants RSP at these registers and TIF_FORK; a kernel thread has those that do_fork copied, an idle task has none and
    gets those of its loop in kernel mode.
    """
    task = cpu.view(TaskStruct, address)
    if thread_info(cpu.kernel, task).task == address:
        return
    end = task.stack + THREAD_SIZE
    if not task.mm and not task.kthread:
        entry = cpu.view(InactiveTaskFrame, task.sp).ret_addr
        regs = cpu.view(PtRegs, end - PtRegs.SIZE)
        regs.ip, regs.sp, regs.flags = entry, end, Rflags.FIXED
        regs.cs, regs.ss = Selector.KERNEL_CS, Selector.KERNEL_DS
    task.sp = end - PtRegs.SIZE
    init_thread_info(cpu, address).flags |= 1 << Tif26.FORK
    show_work(cpu.kernel, task)
