"""New tasks: processes, threads, kernel threads (kernel/fork.c, arch/x86/kernel/process.c)."""

from __future__ import annotations

from enum import IntFlag

from emu.arch import PAGE_SIZE, Rflags
from kernel_stubs import mm, pgtable, ramfs, vma
from kernel_stubs.abi import (
    INIT_PGD,
    TASK_SIZE_MAX,
    THREAD_SIZE,
    InactiveTaskFrame,
    MmStruct,
    PtRegs,
    TaskState,
    TaskStruct,
    Tif,
    VmFlags,
)
from kernel_stubs.context import Cpu, Kernel, in_ia32_syscall
from kernel_stubs.errno import Errno, OutOfMemoryError, SyscallError
from kernel_stubs.fdtable import copy_files, copy_fs, put_files, put_fs
from kernel_stubs.ldt import copy_ldt, free_ldt
from kernel_stubs.rlimit import Rlimit, max_tasks, rlimit
from kernel_stubs.sched import all_tasks
from kernel_stubs.segments import NewTls, child_tls, copy_segments, give_tls
from kernel_stubs.signal_state import copy_signals, release_signals
from kernel_stubs.uaccess import put_user

PID_MAX = 32768


class Clone(IntFlag):
    """clone(2) flags (include/uapi/linux/sched.h)."""

    CSIGNAL = 0xFF
    VM = 0x100
    FS = 0x200
    FILES = 0x400
    SIGHAND = 0x800
    VFORK = 0x4000
    PARENT = 0x8000
    THREAD = 0x10000
    SETTLS = 0x80000
    PARENT_SETTID = 0x100000
    CHILD_CLEARTID = 0x200000
    CHILD_SETTID = 0x1000000


UNSUPPORTED = 0x7E02_2000 | 0x0002_0000
"""PTRACE is the tracer's business; namespaces and NEWTIME need rights that we do not have."""


def alloc_pid(kernel: Kernel) -> int:
    """The next process number that nobody has."""
    data = mm.kernel_data(kernel.memory)
    used = set()
    address = data.task_list
    while address:
        task = kernel.view(TaskStruct, address)
        used |= {task.pid, task.tgid, task.pgrp, task.session}
        address = task.next_task
    while True:
        data.next_pid = data.next_pid + 1 if data.next_pid < PID_MAX else 2
        if data.next_pid not in used:
            return data.next_pid


def new_task(kernel: Kernel, cpu: int) -> int:
    """An empty task with a stack, in the list of all: its address."""
    data = mm.kernel_data(kernel.memory)
    address = mm.direct_map(mm.alloc_page(kernel.memory))
    task = kernel.view(TaskStruct, address)
    try:
        task.stack = mm.alloc_stack(kernel.memory)
    except OutOfMemoryError:
        mm.free_page(kernel.memory, address - mm.direct_map(0))
        raise
    task.thread_info.cpu = cpu
    link_task(kernel, address)
    data.nr_tasks += 1
    return address


def link_task(kernel: Kernel, address: int) -> None:
    """Put a task into the list of all."""
    data = mm.kernel_data(kernel.memory)
    kernel.view(TaskStruct, address).next_task = data.task_list
    data.task_list = address


def free_task(kernel: Kernel, address: int) -> None:
    """A task that nobody will ask about any more and that runs nowhere: its stack and its page go."""
    data = mm.kernel_data(kernel.memory)
    task = kernel.view(TaskStruct, address)
    before, at = 0, data.task_list
    while at and at != address:
        before, at = at, kernel.view(TaskStruct, at).next_task
    if not at:
        raise AssertionError(f"task {address:#x} is freed twice")
    if before:
        kernel.view(TaskStruct, before).next_task = task.next_task
    else:
        data.task_list = task.next_task
    data.nr_tasks -= 1
    mm.free_stack(kernel.memory, task.stack)
    mm.free_page(kernel.memory, address - mm.direct_map(0))
    kernel.machine.flush_tlb()


# --- address spaces ---------------------------------------------------------------------------------------------------
def copy_mm(kernel: Kernel, old: int) -> int:
    """dup_mm(): the same areas, and the same pages, which both now own: to be copied before either writes."""
    memory = kernel.memory
    new = mm.direct_map(mm.alloc_page(memory))
    source, target = kernel.view(MmStruct, old), kernel.view(MmStruct, new)
    memory.write(new - mm.direct_map(0), memory.read(old - mm.direct_map(0), PAGE_SIZE))
    target.users, target.pgd, target.ldt_entries = 1, 0, 0
    if target.exe:
        ramfs.get_inode(kernel, target.exe)
    try:
        target.pgd = pgtable.pgd_alloc(memory)
        for area in vma.areas(kernel, source):
            _copy_area(kernel, source, target, area)
        copy_ldt(kernel, source, target)
    except OutOfMemoryError:
        put_mm(kernel, new)
        raise
    finally:
        kernel.machine.flush_tlb()
    return new


def _copy_area(kernel: Kernel, source: MmStruct, target: MmStruct, area: vma.Area) -> None:
    from kernel_stubs.page_fault import handle_mm_fault  # above this module

    memory = kernel.memory
    if area.flags & VmFlags.SHARED:  # what is not there yet would become two pages
        for page in range(area.start, area.end, PAGE_SIZE):
            if not pgtable.has_frame(pgtable.get_pte(memory, source.pgd, page)):
                handle_mm_fault(kernel, source, page, write=bool(area.flags & VmFlags.WRITE), protection=False)
    for page in vma.present_pages(kernel, source, area.start, area.end):
        frame = mm.frame_of(pgtable.get_pte(memory, source.pgd, page))
        mm.get_page(memory, frame)
        bits = vma.page_bits(kernel, area.flags, frame)
        try:
            pgtable.set_pte(memory, target.pgd, page, frame, bits)
        except OutOfMemoryError:
            mm.put_page(memory, frame)
            raise
        pgtable.set_pte(memory, source.pgd, page, frame, bits)


def put_mm(kernel: Kernel, address: int) -> None:
    """mmput(): one user less; the last one takes everything along. No CPU may still run on its tables."""
    space = kernel.view(MmStruct, address)
    space.users -= 1
    if space.users:
        return
    if space.pgd:
        for area in vma.areas(kernel, space):
            vma.zap_range(kernel, space, area.start, area.end)
        free_ldt(kernel, space)
        pgtable.pgd_free(kernel.memory, space.pgd)
    if space.exe:
        ramfs.put_inode(kernel, space.exe)
    mm.free_page(kernel.memory, address - mm.direct_map(0))
    kernel.machine.flush_tlb()


def leave_mm(cpu: Cpu) -> None:
    """The current task gives up its address space."""
    task = cpu.current
    space, task.mm = task.mm, 0
    if space:
        cpu.core.cpu.set_control(cr3=INIT_PGD)
        put_mm(cpu.kernel, space)


# --- copy_process -----------------------------------------------------------------------------------------------------
def check_clone(flags: int) -> None:
    """EINVAL for combinations that make no sense."""
    thread, sighand, vm = flags & Clone.THREAD, flags & Clone.SIGHAND, flags & Clone.VM
    if (thread and not sighand) or (sighand and not vm) or flags & UNSUPPORTED & ~0x0002_0000:
        raise SyscallError(Errno.EINVAL)


def copy_process(cpu: Cpu, regs: PtRegs, flags: int, stack: int = 0, child_tid: int = 0, tls: int = 0) -> int:
    """A copy of the current task, which cannot run yet: its address."""
    kernel, parent = cpu.kernel, cpu.current
    check_clone(flags)
    compat = in_ia32_syscall(kernel, parent)
    new_tls = child_tls(cpu, tls) if compat and flags & Clone.SETTLS else None
    if flags & Clone.SETTLS and not compat and tls >= TASK_SIZE_MAX:
        raise SyscallError(Errno.EPERM)
    data = mm.kernel_data(kernel.memory)
    if data.nr_tasks >= max_tasks(kernel) or _user_tasks(kernel) >= rlimit(kernel, parent, Rlimit.NPROC):
        raise SyscallError(Errno.EAGAIN)
    data.next_cpu += 1
    address = new_task(kernel, data.next_cpu % len(kernel.machine.cores))
    child = kernel.view(TaskStruct, address)
    child.state = TaskState.UNINTERRUPTIBLE
    try:
        _copy_parts(cpu, parent, child, flags)
    except OutOfMemoryError:
        release_parts(kernel, child)
        free_task(kernel, address)
        raise
    child.pid = alloc_pid(kernel)
    _set_family(kernel, parent, address, child, flags)
    _copy_thread(cpu, regs, child, flags, stack, tls, new_tls)
    child.clear_child_tid = child_tid if flags & Clone.CHILD_CLEARTID else 0
    child.set_child_tid = child_tid if flags & Clone.CHILD_SETTID else 0
    if flags & Clone.VFORK:
        child.vfork_parent = cpu.percpu.current_task
    return address


def _user_tasks(kernel: Kernel) -> int:
    """Tasks of the user, whose all processes are: all but the kernel's threads."""
    return sum(not task.kthread for _, task in all_tasks(kernel))


def _copy_parts(cpu: Cpu, parent: TaskStruct, child: TaskStruct, flags: int) -> None:
    kernel = cpu.kernel
    child.comm = parent.comm
    child.pgrp, child.session = parent.pgrp, parent.session
    child.files = copy_files(kernel, parent.files, share=bool(flags & Clone.FILES))
    child.fs = copy_fs(kernel, parent.fs, share=bool(flags & Clone.FS))
    copy_signals(kernel, parent, child, flags)
    if flags & Clone.VM:
        kernel.view(MmStruct, parent.mm).users += 1
        child.mm = parent.mm
    else:
        child.mm = copy_mm(kernel, parent.mm)
        child.rseq, child.rseq_sig, child.robust_list = parent.rseq, parent.rseq_sig, parent.robust_list


def release_parts(kernel: Kernel, child: TaskStruct) -> None:
    """Of a task that never ran: what it has a share in, but for its memory."""
    if child.files:
        put_files(kernel, child.files)
    if child.fs:
        put_fs(kernel, child.fs)
    release_signals(kernel, child)


def _set_family(kernel: Kernel, parent: TaskStruct, address: int, child: TaskStruct, flags: int) -> None:
    if flags & Clone.THREAD:
        child.tgid, child.group_leader, child.parent = parent.tgid, parent.group_leader, parent.parent
        child.exit_signal = -1
        kernel.view(TaskStruct, parent.group_leader).live_threads += 1
        return
    child.tgid, child.group_leader, child.live_threads = child.pid, address, 1
    child.parent = parent.parent if flags & Clone.PARENT else parent.group_leader
    child.exit_signal = flags & Clone.CSIGNAL


def _copy_thread(
    cpu: Cpu, regs: PtRegs, child: TaskStruct, flags: int, stack: int, tls: int, new_tls: NewTls | None
) -> None:
    """The child's registers: the parent's, but for RAX, and its own stack if it got one."""
    kernel, engine = cpu.kernel, cpu.core.cpu
    top = child.stack + THREAD_SIZE - PtRegs.SIZE
    kernel.memory.write(kernel.physical(top), bytes(regs))
    own = kernel.view(PtRegs, top)
    own.ax = 0
    if cpu.current.ptrace.forced_tf:  # the tracer's, not the parent's
        own.flags &= ~Rflags.TF
    if stack:
        own.sp = stack
    child.fsbase, child.gsbase = engine.fs_base, engine.kernel_gs_base
    copy_segments(cpu, child)
    if new_tls:
        give_tls(child, new_tls)
    elif flags & Clone.SETTLS:
        child.fsbase = tls
    if child.rseq:
        child.thread_info.flags |= Tif.NOTIFY_RESUME
    entry = "ret_from_fork_asm" if "ret_from_fork_asm" in kernel.image.symbols else "ret_from_fork"
    make_inactive(kernel, child, top, kernel.image.symbol(entry))


def make_inactive(kernel: Kernel, task: TaskStruct, sp: int, entry: int, function: int = 0, argument: int = 0) -> None:
    """Lay the frame below `sp` with which __switch_to_asm will bring a new task to `entry`."""
    task.sp = sp - InactiveTaskFrame.SIZE
    frame = kernel.view(InactiveTaskFrame, task.sp)
    frame.r15 = frame.r14 = frame.r13 = frame.bp = 0
    frame.bx, frame.r12, frame.ret_addr = function, argument, entry


def forget_vfork_parent(kernel: Kernel, parent: int) -> None:
    """A task that lent its address space does not wait any more: it was killed."""
    for _, task in all_tasks(kernel):
        if task.vfork_parent == parent:
            task.vfork_parent = 0


def put_parent_tid(cpu: Cpu, address: int, pid: int) -> None:
    """CLONE_PARENT_SETTID; an address that cannot be written is ignored, as Linux does."""
    try:
        put_user(cpu, address, pid, 4)
    except SyscallError:
        return
