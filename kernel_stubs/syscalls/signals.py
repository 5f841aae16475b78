"""Sending and blocking signals. There are no handlers yet."""

from __future__ import annotations

from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.signal import Sig, recalc_sigpending, send_signal
from kernel_stubs.syscalls.table import s32, syscall
from kernel_stubs.uaccess import get_user, put_user

NSIG = 64
_UNBLOCKABLE = 1 << (Sig.SIGKILL - 1) | 1 << (Sig.SIGSTOP - 1)


def _kill(cpu: Cpu, pid: int, signal: int) -> int:
    number = s32(signal)
    if not 0 <= number <= NSIG:
        raise SyscallError(Errno.EINVAL)
    if pid not in (0, -1, cpu.current.pid, -cpu.current.pid):
        raise SyscallError(Errno.ESRCH)
    if number:
        send_signal(cpu.current, number)
    return 0


@syscall
def sys_kill(cpu: Cpu, pid: int, signal: int) -> int:
    """kill(2)."""
    return _kill(cpu, s32(pid), signal)


@syscall
def sys_tkill(cpu: Cpu, tid: int, signal: int) -> int:
    """tkill(2)."""
    if s32(tid) <= 0:
        raise SyscallError(Errno.EINVAL)
    return _kill(cpu, s32(tid), signal)


@syscall
def sys_tgkill(cpu: Cpu, tgid: int, tid: int, signal: int) -> int:
    """tgkill(2)."""
    if s32(tgid) <= 0 or s32(tid) <= 0:
        raise SyscallError(Errno.EINVAL)
    if s32(tgid) != cpu.current.tgid:
        raise SyscallError(Errno.ESRCH)
    return _kill(cpu, s32(tid), signal)


@syscall
def sys_rt_sigprocmask(cpu: Cpu, how: int, new: int, old: int, size: int) -> int:
    """rt_sigprocmask(2)."""
    if size != 8:
        raise SyscallError(Errno.EINVAL)
    task = cpu.current
    before = task.blocked
    if new:
        change = get_user(cpu, new) & ~_UNBLOCKABLE
        match s32(how):
            case 0:  # SIG_BLOCK
                task.blocked = before | change
            case 1:  # SIG_UNBLOCK
                task.blocked = before & ~change
            case 2:  # SIG_SETMASK
                task.blocked = change
            case _:
                raise SyscallError(Errno.EINVAL)
        recalc_sigpending(task)
    if old:
        put_user(cpu, old, before)
    return 0
