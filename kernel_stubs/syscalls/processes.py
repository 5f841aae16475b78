"""Making processes and threads, ending them, waiting for them (kernel/fork.c, kernel/exit.c, kernel/sys.c)."""

from __future__ import annotations

from kernel_stubs.abi import TaskState, TaskStruct, WaitResult
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.cred import USER_ID
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.fork import Clone, copy_process, forget_vfork_parent, put_parent_tid
from kernel_stubs.fpu import copy_fpu
from kernel_stubs.process import do_group_exit, request_exit
from kernel_stubs.ptrace_abi import Event
from kernel_stubs.ptrace_stop import event_enabled, inherit_tracer, ptrace_event
from kernel_stubs.sched import all_tasks, schedule, sleep_on, wake_up_new_task
from kernel_stubs.siginfo import Sig
from kernel_stubs.switch import task_pt_regs
from kernel_stubs.syscalls.table import s32, syscall
from kernel_stubs.trace import trace_sched_process_fork
from kernel_stubs.uaccess import copy_from_user, copy_to_user, put_user
from kernel_stubs.wait import Report, Wait, Wanted, do_wait, report

CLONE_ARGS_SIZE_VER0 = 64
RUSAGE_SIZE = 144


# --- new tasks --------------------------------------------------------------------------------------------------------
def kernel_clone(cpu: Cpu, flags: int, stack: int, parent_tid: int, child_tid: int, tls: int) -> Steps:
    """A new task that runs: its pid; after CLONE_VFORK only when it has given the address space back."""
    address = copy_process(cpu, task_pt_regs(cpu.kernel, cpu.current), flags, stack, child_tid, tls)
    child = cpu.view(TaskStruct, address)
    pid = child.pid
    trace_sched_process_fork(cpu, child)
    yield from copy_fpu(cpu, address)
    if flags & Clone.PARENT_SETTID:
        put_parent_tid(cpu, parent_tid, pid)
    event = _event(flags)
    traced = event_enabled(cpu.current, event)
    if traced:
        inherit_tracer(cpu, child)
    wake_up_new_task(cpu, address)
    if traced:
        yield from ptrace_event(cpu, event, pid)
    if flags & Clone.VFORK:
        # The child may be gone, and its task_struct another's, before we run again: do not look at it.
        woken = yield from sleep_on(cpu, address, 0, TaskState.KILLABLE)
        if woken == WaitResult.SIGNAL:
            forget_vfork_parent(cpu.kernel, cpu.percpu.current_task)
    return pid


def _event(flags: int) -> Event:
    """What a tracer calls the kind of task that these flags make."""
    if flags & Clone.VFORK:
        return Event.VFORK
    return Event.FORK if flags & int(Clone.CSIGNAL) == Sig.SIGCHLD else Event.CLONE


@syscall
def sys_fork(cpu: Cpu) -> Steps:
    """fork(2)."""
    return (yield from kernel_clone(cpu, int(Sig.SIGCHLD), 0, 0, 0, 0))


@syscall
def sys_vfork(cpu: Cpu) -> Steps:
    """vfork(2)."""
    return (yield from kernel_clone(cpu, int(Clone.VFORK | Clone.VM) | Sig.SIGCHLD, 0, 0, 0, 0))


@syscall
def sys_clone(cpu: Cpu, flags: int, stack: int, parent_tid: int, child_tid: int, tls: int) -> Steps:
    """clone(2)."""
    return (yield from kernel_clone(cpu, flags & 0xFFFF_FFFF, stack, parent_tid, child_tid, tls))


@syscall
def sys_clone3(cpu: Cpu, arguments: int, size: int) -> Steps:
    """clone3(2), without the parts that clone(2) has not either."""
    if size < CLONE_ARGS_SIZE_VER0:
        raise SyscallError(Errno.EINVAL)
    if size > 4096:
        raise SyscallError(Errno.E2BIG)
    raw = copy_from_user(cpu, arguments, size)
    words = [int.from_bytes(raw[at : at + 8], "little") for at in range(0, CLONE_ARGS_SIZE_VER0, 8)]
    flags, _, child_tid, parent_tid, exit_signal, stack, stack_size, tls = words
    if any(raw[CLONE_ARGS_SIZE_VER0:]):
        raise SyscallError(Errno.EINVAL)
    if flags & Clone.CSIGNAL or flags >> 32 or exit_signal > 64 or bool(stack) != bool(stack_size):
        raise SyscallError(Errno.EINVAL)
    if flags & (Clone.THREAD | Clone.PARENT) and exit_signal:
        raise SyscallError(Errno.EINVAL)
    top = (stack + stack_size) & 0xFFFF_FFFF_FFFF_FFFF if stack else 0
    return (yield from kernel_clone(cpu, flags | exit_signal, top, parent_tid, child_tid, tls))


# --- their end --------------------------------------------------------------------------------------------------------
@syscall
def sys_exit(cpu: Cpu, status: int) -> int:
    """exit(2): this thread only."""
    request_exit(cpu, (status & 0xFF) << 8)
    return 0


@syscall
def sys_exit_group(cpu: Cpu, status: int) -> int:
    """exit_group(2)."""
    do_group_exit(cpu, (status & 0xFF) << 8)
    return 0


def _by_pid(cpu: Cpu, pid: int) -> Wanted:
    """Which children wait4(2) means."""
    if pid == -1:
        return lambda task: True
    if pid > 0:
        return lambda task: task.pid == pid
    group = cpu.current.pgrp if pid == 0 else -pid
    return lambda task: task.pgrp == group


@syscall
def sys_wait4(cpu: Cpu, pid: int, status: int, options: int, usage: int) -> Steps:
    """wait4(2); nothing is known of the child's use of resources."""
    if options & 0xFFFF_FFFF & ~(Wait.NOHANG | Wait.STOPPED | Wait.CONTINUED | Wait.NOTHREAD | Wait.ALL | Wait.CLONE):
        raise SyscallError(Errno.EINVAL)
    if s32(pid) == -(1 << 31):
        raise SyscallError(Errno.ESRCH)
    found = yield from do_wait(cpu, _by_pid(cpu, s32(pid)), options | Wait.EXITED)
    told = report(cpu, found or 0, options)
    if told.pid:
        if status:
            put_user(cpu, status, told.status, 4)
        if usage:
            copy_to_user(cpu, usage, bytes(RUSAGE_SIZE))
    return told.pid


@syscall
def sys_waitid(cpu: Cpu, which: int, pid: int, info: int, options: int, usage: int) -> Steps:
    """waitid(2)."""
    kinds = Wait.EXITED | Wait.STOPPED | Wait.CONTINUED
    others = Wait.NOHANG | Wait.NOWAIT | Wait.NOTHREAD | Wait.ALL | Wait.CLONE
    if options & 0xFFFF_FFFF & ~(kinds | others) or not options & kinds:
        raise SyscallError(Errno.EINVAL)
    number = s32(pid)
    match s32(which):
        case 0:
            wanted = _by_pid(cpu, -1)
        case 1 if number > 0:
            wanted = _by_pid(cpu, number)
        case 2 if number >= 0:
            wanted = _by_pid(cpu, -number)
        case _:
            raise SyscallError(Errno.EINVAL)
    found = yield from do_wait(cpu, wanted, options)
    told = report(cpu, found or 0, options)
    if usage and told.pid:
        copy_to_user(cpu, usage, bytes(RUSAGE_SIZE))
    if info:
        _put_siginfo(cpu, info, told)
    return 0


def _put_siginfo(cpu: Cpu, info: int, told: Report) -> None:
    signal = int(Sig.SIGCHLD) if told.pid else 0
    words = (signal, 0, told.code, 0, told.pid, USER_ID if told.pid else 0, told.detail)
    copy_to_user(cpu, info, b"".join(word.to_bytes(4, "little", signed=True) for word in words))


# --- identity ---------------------------------------------------------------------------------------------------------
@syscall
def sys_getpid(cpu: Cpu) -> int:
    """getpid(2)."""
    return cpu.current.tgid


@syscall
def sys_gettid(cpu: Cpu) -> int:
    """gettid(2)."""
    return cpu.current.pid


@syscall
def sys_getppid(cpu: Cpu) -> int:
    """getppid(2): the kernel started the first process; orphans say 1, as everywhere."""
    leader = cpu.view(TaskStruct, cpu.current.group_leader)
    if leader.parent:
        return cpu.view(TaskStruct, leader.parent).tgid
    return 0 if leader.tgid == 1 else 1


def _process(cpu: Cpu, pid: int) -> list[TaskStruct]:
    """All threads of a process, 0 for the current one; ESRCH if there is none."""
    number = pid or cpu.current.tgid
    found = [task for _, task in all_tasks(cpu.kernel) if task.tgid == number]
    if not found:
        raise SyscallError(Errno.ESRCH)
    return found


@syscall
def sys_getpgid(cpu: Cpu, pid: int) -> int:
    """getpgid(2)."""
    return _process(cpu, s32(pid))[0].pgrp


@syscall
def sys_getpgrp(cpu: Cpu) -> int:
    """getpgrp(2)."""
    return cpu.current.pgrp


@syscall
def sys_getsid(cpu: Cpu, pid: int) -> int:
    """getsid(2)."""
    return _process(cpu, s32(pid))[0].session


@syscall
def sys_setpgid(cpu: Cpu, pid: int, group: int) -> int:
    """setpgid(2)."""
    if s32(group) < 0:
        raise SyscallError(Errno.EINVAL)
    tasks = _process(cpu, s32(pid))
    mine = cpu.current
    leader = cpu.view(TaskStruct, tasks[0].group_leader)
    if leader.tgid != mine.tgid and leader.parent != mine.group_leader:
        raise SyscallError(Errno.ESRCH)
    number = s32(group) or leader.tgid
    if leader.session != mine.session or leader.session == leader.tgid:
        raise SyscallError(Errno.EPERM)
    others = any(task.pgrp == number and task.session == mine.session for _, task in all_tasks(cpu.kernel))
    if number != leader.tgid and not others:
        raise SyscallError(Errno.EPERM)
    for task in tasks:
        task.pgrp = number
    return 0


@syscall
def sys_setsid(cpu: Cpu) -> int:
    """setsid(2)."""
    number = cpu.current.tgid
    if any(task.pgrp == number for _, task in all_tasks(cpu.kernel)):
        raise SyscallError(Errno.EPERM)
    for task in _process(cpu, 0):
        task.pgrp = task.session = number
    return number


@syscall
def sys_sched_yield(cpu: Cpu) -> Steps:
    """sched_yield(2)."""
    yield from schedule(cpu)
    return 0
