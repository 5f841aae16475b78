"""i386 system calls on signals: the old ones, and those whose structures differ (kernel/signal.c, COMPAT)."""

from __future__ import annotations

import struct

from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, Restart, SyscallError
from kernel_stubs.siginfo import Siginfo
from kernel_stubs.siginfo32 import SIGINFO32_SIZE, from_compat, to_compat
from kernel_stubs.signal import UNBLOCKABLE, set_current_blocked
from kernel_stubs.signal_abi import SA_IA32_ABI, SA_KNOWN, KSigAction, Sa, Ss
from kernel_stubs.signal_frame32 import rt_sigreturn32, sigreturn32
from kernel_stubs.signal_stack import do_sigaltstack, sas_ss_flags
from kernel_stubs.signal_state import action_of, bit, pending_signals, valid_signal
from kernel_stubs.syscalls.compat import compat_syscall
from kernel_stubs.syscalls.signals import (
    SIGSET_SIZE,
    changed_mask,
    deadline_of,
    set_action,
    sigqueueinfo,
    sigtimedwait,
    task_pt_regs,
    tgsigqueueinfo,
    wait_for_signal,
)
from kernel_stubs.syscalls.table import s32, s64
from kernel_stubs.uaccess import copy_from_user, copy_to_user, get_user, put_user

_RT_ACTION = struct.Struct("<IIIQ")
"""`struct compat_sigaction`: handler, flags, restorer, mask."""
_OLD_ACTION = struct.Struct("<IIII")
"""`struct compat_old_sigaction`: handler, mask, flags, restorer."""
_STACK = struct.Struct("<III")
_U32 = 0xFFFF_FFFF


# --- actions ----------------------------------------------------------------------------------------------------------
def _sigaction(cpu: Cpu, signal: int, new: KSigAction | None) -> KSigAction:
    """do_sigaction: the action before, as user mode may see it."""
    number = valid_signal(s32(signal))
    if new and bit(number) & UNBLOCKABLE:
        raise SyscallError(Errno.EINVAL)
    action = action_of(cpu.kernel, cpu.current, number)
    before = KSigAction(action.handler, action.flags & SA_KNOWN, action.restorer, action.mask)
    if new:
        set_action(cpu, number, new, SA_IA32_ABI)
    return before


@compat_syscall
def compat_sys_rt_sigaction(cpu: Cpu, signal: int, new: int, old: int, size: int) -> int:
    """rt_sigaction(2)."""
    if size != SIGSET_SIZE:
        raise SyscallError(Errno.EINVAL)
    wanted = None
    if new:
        wanted = KSigAction(*_RT_ACTION.unpack(copy_from_user(cpu, new, _RT_ACTION.size)))
    before = _sigaction(cpu, signal, wanted)
    if old:
        words = (before.handler & _U32, before.flags & _U32, before.restorer & _U32, before.mask)
        copy_to_user(cpu, old, _RT_ACTION.pack(*words))
    return 0


@compat_syscall
def compat_sys_sigaction(cpu: Cpu, signal: int, new: int, old: int) -> int:
    """The old sigaction(2): masks of 32 signals."""
    wanted = None
    if new:
        handler, mask, flags, restorer = _OLD_ACTION.unpack(copy_from_user(cpu, new, _OLD_ACTION.size))
        wanted = KSigAction(handler, flags, restorer, mask)
    before = _sigaction(cpu, signal, wanted)
    if old:
        words = (before.handler, before.mask, before.flags, before.restorer)
        copy_to_user(cpu, old, _OLD_ACTION.pack(*(word & _U32 for word in words)))
    return 0


@compat_syscall
def compat_sys_signal(cpu: Cpu, signal: int, handler: int) -> int:
    """The old signal(2): System V's, for one signal only. The handler before."""
    return int(_sigaction(cpu, signal, KSigAction(handler, Sa.RESETHAND | Sa.NODEFER, 0, 0)).handler) & _U32


@compat_syscall
def compat_sys_sigaltstack(cpu: Cpu, new: int, old: int) -> int:
    """sigaltstack(2)."""
    task, sp = cpu.current, task_pt_regs(cpu).sp
    signals = task.signals
    wanted = _STACK.unpack(copy_from_user(cpu, new, _STACK.size)) if new else None
    flags = sas_ss_flags(task, sp) | signals.sas_ss_flags & int(Ss.AUTODISARM)
    before = (signals.sas_ss_sp & _U32, flags, signals.sas_ss_size & _U32)
    if wanted:
        do_sigaltstack(task, sp, *wanted)
    if old:
        copy_to_user(cpu, old, _STACK.pack(*before))
    return 0


# --- masks ------------------------------------------------------------------------------------------------------------
@compat_syscall
def compat_sys_sigprocmask(cpu: Cpu, how: int, new: int, old: int) -> int:
    """The old sigprocmask(2): the first 32 signals; the others stay as they are."""
    before = cpu.current.blocked
    if new:
        change = get_user(cpu, new, 4)
        after = changed_mask(before & _U32, s32(how), change)
        set_current_blocked(cpu, before & ~_U32 | after)
    if old:
        put_user(cpu, old, before, 4)
    return 0


@compat_syscall
def compat_sys_sgetmask(cpu: Cpu) -> int:
    """sgetmask(2)."""
    return int(cpu.current.blocked) & _U32


@compat_syscall
def compat_sys_ssetmask(cpu: Cpu, mask: int) -> int:
    """ssetmask(2)."""
    before = int(cpu.current.blocked) & _U32
    set_current_blocked(cpu, mask)
    return before


@compat_syscall
def compat_sys_sigpending(cpu: Cpu, result: int) -> int:
    """The old sigpending(2)."""
    put_user(cpu, result, pending_signals(cpu.kernel, cpu.current) & cpu.current.blocked, 4)
    return 0


@compat_syscall
def compat_sys_sigsuspend(cpu: Cpu, unused1: int, unused2: int, mask: int) -> Steps:
    """The old sigsuspend(2): its mask is the third argument."""
    signals = cpu.current.signals
    signals.saved_sigmask, signals.restore_sigmask = cpu.current.blocked, 1
    set_current_blocked(cpu, mask)
    yield from wait_for_signal(cpu)
    raise SyscallError(Restart.ERESTARTNOHAND)


# --- siginfo ----------------------------------------------------------------------------------------------------------
def _given(cpu: Cpu, info: int, signal: int) -> Siginfo:
    return from_compat(copy_from_user(cpu, info, SIGINFO32_SIZE), s32(signal))


@compat_syscall
def compat_sys_rt_sigqueueinfo(cpu: Cpu, pid: int, signal: int, info: int) -> int:
    """rt_sigqueueinfo(2)."""
    return sigqueueinfo(cpu, s32(pid), _given(cpu, info, signal))


@compat_syscall
def compat_sys_rt_tgsigqueueinfo(cpu: Cpu, tgid: int, tid: int, signal: int, info: int) -> int:
    """rt_tgsigqueueinfo(2)."""
    return tgsigqueueinfo(cpu, s32(tgid), s32(tid), _given(cpu, info, signal))


def _sigtimedwait(cpu: Cpu, wanted: int, info: int, timespec: tuple[int, int] | None, size: int) -> Steps:
    if size != SIGSET_SIZE:
        raise SyscallError(Errno.EINVAL)
    awaited = get_user(cpu, wanted) & ~UNBLOCKABLE
    deadline = deadline_of(cpu, *timespec) if timespec else None

    def hand_over(taken: Siginfo) -> None:
        if info:
            copy_to_user(cpu, info, to_compat(taken))

    return (yield from sigtimedwait(cpu, awaited, deadline, hand_over))


@compat_syscall
def compat_sys_rt_sigtimedwait(cpu: Cpu, wanted: int, info: int, timeout: int, size: int) -> Steps:
    """rt_sigtimedwait(2) with a 32-bit timespec."""
    timespec = struct.unpack("<2i", copy_from_user(cpu, timeout, 8)) if timeout else None
    return _sigtimedwait(cpu, wanted, info, timespec, size)


@compat_syscall
def compat_sys_rt_sigtimedwait_time64(cpu: Cpu, wanted: int, info: int, timeout: int, size: int) -> Steps:
    """rt_sigtimedwait(2) with a 64-bit time; what is above 32 bits of its nanoseconds is padding."""
    timespec = None
    if timeout:
        seconds, nanoseconds = struct.unpack("<qI4x", copy_from_user(cpu, timeout, 16))
        timespec = s64(seconds), s32(nanoseconds)
    return _sigtimedwait(cpu, wanted, info, timespec, size)


# --- going back -------------------------------------------------------------------------------------------------------
@compat_syscall
def compat_sys_sigreturn(cpu: Cpu) -> Steps:
    """sigreturn(2)."""
    return sigreturn32(cpu, task_pt_regs(cpu))


@compat_syscall
def compat_sys_rt_sigreturn(cpu: Cpu) -> Steps:
    """rt_sigreturn(2)."""
    return rt_sigreturn32(cpu, task_pt_regs(cpu))
