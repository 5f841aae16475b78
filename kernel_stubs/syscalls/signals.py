"""Sending, blocking, awaiting and handling signals (kernel/signal.c)."""

from __future__ import annotations

from collections.abc import Callable

from kernel_stubs.abi import PtRegs, TaskStruct, WaitResult
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, Restart, SyscallError
from kernel_stubs.sched import all_tasks, sleep_on
from kernel_stubs.siginfo import SI_TKILL, SI_USER, USER_SIGINFO_SIZE, Siginfo
from kernel_stubs.signal import (
    UNBLOCKABLE,
    dequeue_signal,
    send_signal,
    set_current_blocked,
    sig_ignored,
    signal_pending,
)
from kernel_stubs.signal_abi import NSIG, SA_KNOWN, KSigAction
from kernel_stubs.signal_stack import do_sigaltstack, sas_ss_flags
from kernel_stubs.signal_state import action_of, bit, flush, pending_signals, sighand_of, valid_signal
from kernel_stubs.sigreturn import rt_sigreturn
from kernel_stubs.syscalls.table import s32, s64, syscall
from kernel_stubs.syscalls.tasks import USER_ID
from kernel_stubs.time import NSEC_PER_SEC
from kernel_stubs.uaccess import copy_from_user, copy_to_user, get_user, put_user

SIGSET_SIZE = 8
SIGNAL_CHANNEL = 6
"""Nobody wakes it but a signal."""
SS_AUTODISARM = 1 << 31


def task_pt_regs(cpu: Cpu) -> PtRegs:
    """User mode's registers, at the end of the current task's stack."""
    return cpu.view(PtRegs, cpu.percpu.top_of_stack - PtRegs.SIZE)


def _check_size(size: int) -> None:
    if size != SIGSET_SIZE:
        raise SyscallError(Errno.EINVAL)


# --- sending ----------------------------------------------------------------------------------------------------------
def _deliver(cpu: Cpu, task: TaskStruct, info: Siginfo, *, process: bool) -> int:
    if not 0 <= info.signo <= NSIG:
        raise SyscallError(Errno.EINVAL)
    if info.signo:
        send_signal(cpu, task, info, process=process)
    return 0


def _find(cpu: Cpu, tid: int) -> TaskStruct:
    for _, task in all_tasks(cpu.kernel):
        if task.pid == tid:
            return task
    raise SyscallError(Errno.ESRCH)


def _targets(cpu: Cpu, pid: int) -> list[TaskStruct]:
    """The processes that kill(2) means, each by its leader; ESRCH if there is none."""
    current = cpu.current
    leaders = [task for _, task in all_tasks(cpu.kernel) if task.pid == task.tgid and not task.kthread]
    if pid > 0:
        found = [task for task in leaders if task.pid == pid]
    elif pid == -1:
        found = [task for task in leaders if task.pid not in (1, current.tgid)]
    else:
        group = -pid or current.pgrp
        found = [task for task in leaders if task.pgrp == group]
    if not found:
        raise SyscallError(Errno.ESRCH)
    return found


@syscall
def sys_kill(cpu: Cpu, pid: int, signal: int) -> int:
    """kill(2)."""
    info = Siginfo.kill(s32(signal), SI_USER, cpu.current.tgid, USER_ID)
    if not 0 <= info.signo <= NSIG:
        raise SyscallError(Errno.EINVAL)
    for target in _targets(cpu, s32(pid)):
        _deliver(cpu, target, info, process=True)
    return 0


def _tkill(cpu: Cpu, tgid: int, tid: int, info: Siginfo) -> int:
    if tid <= 0:
        raise SyscallError(Errno.EINVAL)
    target = _find(cpu, tid)
    if tgid > 0 and target.tgid != tgid:
        raise SyscallError(Errno.ESRCH)
    return _deliver(cpu, target, info, process=False)


@syscall
def sys_tkill(cpu: Cpu, tid: int, signal: int) -> int:
    """tkill(2)."""
    return _tkill(cpu, 0, s32(tid), Siginfo.kill(s32(signal), SI_TKILL, cpu.current.tgid, USER_ID))


@syscall
def sys_tgkill(cpu: Cpu, tgid: int, tid: int, signal: int) -> int:
    """tgkill(2)."""
    if s32(tgid) <= 0:
        raise SyscallError(Errno.EINVAL)
    return _tkill(cpu, s32(tgid), s32(tid), Siginfo.kill(s32(signal), SI_TKILL, cpu.current.tgid, USER_ID))


def _siginfo_from_user(cpu: Cpu, address: int, signal: int) -> Siginfo:
    given = Siginfo.from_bytes(copy_from_user(cpu, address, USER_SIGINFO_SIZE))
    return Siginfo(signal, given.code, given.errno, given.payload)


def _check_honest(cpu: Cpu, given: Siginfo, target: int) -> None:
    """Only the kernel may pretend to be the kernel, or kill(2)."""
    if (given.code >= 0 or given.code == SI_TKILL) and cpu.current.pid != target:
        raise SyscallError(Errno.EPERM)


@syscall
def sys_rt_sigqueueinfo(cpu: Cpu, pid: int, signal: int, info: int) -> int:
    """rt_sigqueueinfo(2)."""
    return sigqueueinfo(cpu, s32(pid), _siginfo_from_user(cpu, info, s32(signal)))


def sigqueueinfo(cpu: Cpu, pid: int, given: Siginfo) -> int:
    """do_rt_sigqueueinfo."""
    _check_honest(cpu, given, pid)
    return _deliver(cpu, _find(cpu, pid), given, process=True)


@syscall
def sys_rt_tgsigqueueinfo(cpu: Cpu, tgid: int, tid: int, signal: int, info: int) -> int:
    """rt_tgsigqueueinfo(2)."""
    return tgsigqueueinfo(cpu, s32(tgid), s32(tid), _siginfo_from_user(cpu, info, s32(signal)))


def tgsigqueueinfo(cpu: Cpu, tgid: int, tid: int, given: Siginfo) -> int:
    """do_rt_tgsigqueueinfo."""
    _check_honest(cpu, given, tid)
    if tgid <= 0:
        raise SyscallError(Errno.EINVAL)
    return _tkill(cpu, tgid, tid, given)


# --- actions and masks ------------------------------------------------------------------------------------------------
@syscall
def sys_rt_sigaction(cpu: Cpu, signal: int, new: int, old: int, size: int) -> int:
    """rt_sigaction(2)."""
    _check_size(size)
    raw = copy_from_user(cpu, new, KSigAction.SIZE) if new else b""
    number = valid_signal(s32(signal))
    if new and bit(number) & UNBLOCKABLE:
        raise SyscallError(Errno.EINVAL)
    action = action_of(cpu.kernel, cpu.current, number)
    before = KSigAction(action.handler, action.flags & SA_KNOWN, action.restorer, action.mask)
    if new:
        set_action(cpu, number, KSigAction.from_buffer_copy(raw))
    if old:
        copy_to_user(cpu, old, bytes(before))
    return 0


def set_action(cpu: Cpu, signal: int, new: KSigAction, extra_flags: int = 0) -> None:
    """do_sigaction: what is pending of a signal that is ignored from now on is forgotten."""
    action: KSigAction = sighand_of(cpu.kernel, cpu.current).action[signal - 1]
    action.handler, action.restorer = new.handler, new.restorer
    action.flags = new.flags & SA_KNOWN | extra_flags
    action.mask = new.mask & ~UNBLOCKABLE
    if sig_ignored(cpu, cpu.current, signal):
        flush(cpu, cpu.current, bit(signal))


@syscall
def sys_rt_sigprocmask(cpu: Cpu, how: int, new: int, old: int, size: int) -> int:
    """rt_sigprocmask(2)."""
    _check_size(size)
    before = cpu.current.blocked
    if new:
        set_current_blocked(cpu, changed_mask(before, s32(how), get_user(cpu, new)))
    if old:
        put_user(cpu, old, before)
    return 0


def changed_mask(before: int, how: int, change: int) -> int:
    """A mask after SIG_BLOCK, SIG_UNBLOCK or SIG_SETMASK."""
    change &= ~UNBLOCKABLE
    match how:
        case 0:
            return before | change
        case 1:
            return before & ~change
        case 2:
            return change
    raise SyscallError(Errno.EINVAL)


@syscall
def sys_rt_sigpending(cpu: Cpu, result: int, size: int) -> int:
    """rt_sigpending(2)."""
    if size > SIGSET_SIZE:
        raise SyscallError(Errno.EINVAL)
    waiting = pending_signals(cpu.kernel, cpu.current) & cpu.current.blocked
    copy_to_user(cpu, result, waiting.to_bytes(8, "little")[:size])
    return 0


@syscall
def sys_sigaltstack(cpu: Cpu, new: int, old: int) -> int:
    """sigaltstack(2)."""
    task, sp = cpu.current, task_pt_regs(cpu).sp
    signals = task.signals
    raw = copy_from_user(cpu, new, 24) if new else b""
    before = (signals.sas_ss_sp, sas_ss_flags(task, sp) | signals.sas_ss_flags & SS_AUTODISARM, signals.sas_ss_size)
    if new:
        ss_sp, ss_size = int.from_bytes(raw[:8], "little"), int.from_bytes(raw[16:], "little")
        do_sigaltstack(task, sp, ss_sp, int.from_bytes(raw[8:12], "little"), ss_size)
    if old:
        copy_to_user(cpu, old, b"".join(word.to_bytes(8, "little") for word in before))
    return 0


# --- waiting ----------------------------------------------------------------------------------------------------------
def wait_for_signal(cpu: Cpu, deadline: int | None = None) -> Steps:
    """Until a signal is to be looked at, or the clock has passed the deadline."""
    task = cpu.current
    while not signal_pending(task) and (deadline is None or cpu.core.clock < deadline):
        if (yield from sleep_on(cpu, SIGNAL_CHANNEL, deadline or 0)) == WaitResult.SIGNAL:
            return None
    return None


@syscall
def sys_pause(cpu: Cpu) -> Steps:
    """pause(2)."""
    yield from wait_for_signal(cpu)
    raise SyscallError(Restart.ERESTARTNOHAND)


@syscall
def sys_rt_sigsuspend(cpu: Cpu, mask: int, size: int) -> Steps:
    """rt_sigsuspend(2): the mask before is the one that a handler goes back to."""
    _check_size(size)
    wanted = get_user(cpu, mask)
    signals = cpu.current.signals
    signals.saved_sigmask, signals.restore_sigmask = cpu.current.blocked, 1
    set_current_blocked(cpu, wanted)
    yield from wait_for_signal(cpu)
    raise SyscallError(Restart.ERESTARTNOHAND)


@syscall
def sys_rt_sigtimedwait(cpu: Cpu, wanted: int, info: int, timeout: int, size: int) -> Steps:
    """rt_sigtimedwait(2)."""
    _check_size(size)
    awaited = get_user(cpu, wanted) & ~UNBLOCKABLE
    deadline = _deadline(cpu, copy_from_user(cpu, timeout, 16)) if timeout else None
    signal = yield from sigtimedwait(cpu, awaited, deadline, lambda taken: _hand_over(cpu, info, taken))
    return signal


def _hand_over(cpu: Cpu, info: int, taken: Siginfo) -> None:
    if info:
        copy_to_user(cpu, info, taken.to_bytes())


def sigtimedwait(cpu: Cpu, awaited: int, deadline: int | None, hand_over: Callable[[Siginfo], None]) -> Steps:
    """do_sigtimedwait: take one of these signals, wait for it until the clock says `deadline`. The signal's number."""
    task = cpu.current
    taken = dequeue_signal(cpu, task, ~awaited)
    if taken is None and deadline != cpu.core.clock:
        blocked = task.signals.real_blocked = task.blocked
        set_current_blocked(cpu, blocked & ~awaited)
        yield from wait_for_signal(cpu, deadline)
        task.signals.real_blocked = 0
        set_current_blocked(cpu, blocked)
        taken = dequeue_signal(cpu, task, ~awaited)
    if taken is None:
        raise SyscallError(Errno.EINTR if signal_pending(task) else Errno.EAGAIN)
    hand_over(taken)
    return taken.signo


def _deadline(cpu: Cpu, timespec: bytes) -> int:
    return deadline_of(cpu, s64(int.from_bytes(timespec[:8], "little")), s64(int.from_bytes(timespec[8:], "little")))


def deadline_of(cpu: Cpu, seconds: int, nanoseconds: int) -> int:
    """When the clock will have gone on by a timespec; EINVAL if it is none."""
    if seconds < 0 or not 0 <= nanoseconds < NSEC_PER_SEC:
        raise SyscallError(Errno.EINVAL)
    return cpu.core.clock + min(seconds * NSEC_PER_SEC + nanoseconds, 1 << 62)


# --- going back -------------------------------------------------------------------------------------------------------
@syscall
def sys_rt_sigreturn(cpu: Cpu) -> Steps:
    """rt_sigreturn(2)."""
    return rt_sigreturn(cpu, task_pt_regs(cpu))
