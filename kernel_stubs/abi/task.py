"""task_struct and what belongs to it."""

from __future__ import annotations

import ctypes
from enum import IntEnum
from typing import Annotated

from emu.arch import PAGE_SIZE
from kernel_stubs.layout import S32, S64, U16, U32, U64, Struct, layout
from kernel_stubs.ptrace_abi import TaskPtrace
from kernel_stubs.signal_abi import TaskSignals


class Tif(IntEnum):
    """thread_info.flags (arch/x86/include/asm/thread_info.h)."""

    NOTIFY_RESUME = 1 << 1
    SIGPENDING = 1 << 2
    NEED_RESCHED = 1 << 3
    SINGLESTEP = 1 << 4
    UPROBE = 1 << 12
    PATCH_PENDING = 1 << 13
    NOTIFY_SIGNAL = 1 << 17


EXIT_TO_USER_MODE_WORK = int(
    Tif.NOTIFY_RESUME | Tif.SIGPENDING | Tif.NEED_RESCHED | Tif.UPROBE | Tif.PATCH_PENDING | Tif.NOTIFY_SIGNAL
)
TS_COMPAT = 2
"""thread_info.status: the current system call is a 32-bit one."""


@layout()
class ThreadInfo(Struct):
    """The head of a task_struct."""

    flags: U64
    syscall_work: U64
    status: U32
    cpu: U32


GDT_ENTRY_TLS_MIN = 12
NR_TLS_ENTRIES = 3


@layout()
class TaskSegments(Struct):
    """The part of `struct thread_struct` about segments, while the task does not run; FS and GS are in task_struct."""

    ds: U16
    es: U16
    pad0: U32
    tls: Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * NR_TLS_ENTRIES]
    """Descriptors that set_thread_area(2) made: the GDT's entries from GDT_ENTRY_TLS_MIN while the task runs."""


@layout()
class TaskStruct(Struct):
    """`struct task_struct`: one page of its own."""

    thread_info: ThreadInfo
    state: S64
    stack: U64
    """Lowest address of the task's stack."""
    sp: U64
    """Saved RSP while the task does not run."""
    mm: U64
    pid: S32
    tgid: S32
    fsbase: U64
    gsbase: U64
    fsindex: U16
    gsindex: U16
    pad0: U32
    # The same here, down to ret_count (see PerCpu).
    cr2: U64
    trap_nr: U64
    error_code: U64
    ret_count: U64
    """Returns to user mode that ran the work loop (for tests and reports)."""
    exit_code: S32
    """As wait(2) reports it: status << 8, or the signal's number."""
    exit_state: U32
    pending: U64
    """Pending signals, bit n-1 for signal n."""
    blocked: U64
    clear_child_tid: U64
    robust_list: U64
    rseq: U64
    comm: Annotated[bytes, ctypes.c_char * 16]
    files: U64
    """FilesStruct."""
    last_signal: S32
    """The signal that was last forced on the task, with its siginfo's code and address."""
    last_si_code: S32
    last_si_addr: U64
    rseq_sig: U32
    pad1: U32
    signals: TaskSignals
    next_task: U64
    """All tasks (KernelData.task_list)."""
    run_next: U64
    """Run queue (PerCpu.rq_head)."""
    on_cpu: U32
    """Runs on a CPU, or has not left its stack yet."""
    exit_signal: S32
    """What the parent gets when the process ends."""
    group_leader: U64
    """The process: the task whose pid is its tgid."""
    parent: U64
    """Group leader of the parent process."""
    live_threads: U32
    """In a leader: threads of the group that have not ended."""
    group_exit: U32
    """In a leader: the whole group is ending, with group_exit_code."""
    group_exit_code: S32
    stop_code: S32
    """A stopped task's signal that no wait4 has reported yet (WUNTRACED); CODE_CONTINUED after SIGCONT."""
    set_child_tid: U64
    vfork_parent: U64
    """Sleeps until this task gives up the address space that it borrowed."""
    wait_channel: U64
    """What a sleeping task waits for: any number that sleepers and wakers agree on."""
    wait_space: U64
    """Second half of a futex's key."""
    wait_bits: U32
    wait_result: U32
    """WaitResult: why the last sleep ended."""
    wait_number: U64
    wake_time: U64
    """Clock at which a sleep ends by itself; 0: never."""
    alarm_time: U64
    """In a leader: clock at which SIGALRM is due; 0: never."""
    alarm_interval: U64
    fs: U64
    """FsStruct."""
    pgrp: S32
    session: S32
    used_math: U32
    """PF_USED_MATH, where the FPU is switched lazily: the task has used it, or has got a state."""
    fpu_counter: U32
    """Turns on end in which it did."""
    kthread: U64
    """1: a kernel thread."""
    segments: TaskSegments
    ptrace: TaskPtrace


FXSAVE_SIZE = 512
TASK_FPU = PAGE_SIZE - FXSAVE_SIZE
"""Offset in a task_struct's page of where its FPU registers are saved."""


@layout()
class InactiveTaskFrame(Struct):
    """What `__switch_to_asm` leaves on the stack of a task that does not run, at task.sp. A new task's returns to
    `ret_from_fork_asm`, with its pt_regs above."""

    r15: U64
    r14: U64
    r13: U64
    r12: U64
    """Argument of a new kernel thread's function."""
    bx: U64
    """That function; 0 for a user task."""
    bp: U64
    ret_addr: U64


class TaskState(IntEnum):
    """task.state (include/linux/sched.h)."""

    RUNNING = 0
    INTERRUPTIBLE = 1
    UNINTERRUPTIBLE = 2
    KILLABLE = 0x102
    """Uninterruptible, but not for what ends the task (TASK_WAKEKILL)."""
    STOPPED = 4
    TRACED = 8
    DEAD = 0x80


class ExitState(IntEnum):
    """task.exit_state. REQUESTED: the task will end instead of going to user mode."""

    ALIVE = 0
    REQUESTED = 1
    DEAD = 0x10
    ZOMBIE = 0x20


class WaitResult(IntEnum):
    """task.wait_result."""

    WOKEN = 0
    TIMEOUT = 1
    SIGNAL = 2
