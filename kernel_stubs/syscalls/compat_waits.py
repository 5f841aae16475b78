"""i386 system calls that wait for files, children and times (fs/select.c, kernel/exit.c, kernel/time, COMPAT)."""

from __future__ import annotations

import struct

from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.siginfo import USER_SIGINFO_SIZE, Siginfo
from kernel_stubs.siginfo32 import SIGINFO32_SIZE, to_compat
from kernel_stubs.syscalls.compat import compat_syscall, native, user_space
from kernel_stubs.syscalls.descriptors import select_files
from kernel_stubs.uaccess import copy_from_user, copy_to_user

_NSEC = 1_000_000_000
_ITIMERVAL32, _ITIMERVAL = struct.Struct("<4i"), struct.Struct("<4q")
_RUSAGE32_SIZE = 72


def _deadline(cpu: Cpu, address: int, unit: int) -> int | None:
    """The clock at which a 32-bit timespec (`unit` 1) or timeval (1000) ends; None for a null pointer."""
    if not address:
        return None
    seconds, fraction = struct.unpack("<2i", copy_from_user(cpu, address, 8))
    if seconds < 0 or not 0 <= fraction * unit < _NSEC:
        raise SyscallError(Errno.EINVAL)
    return int(cpu.core.clock + seconds * _NSEC + fraction * unit)


@compat_syscall
def compat_sys__newselect(cpu: Cpu, count: int, read: int, write: int, errors: int, timeout: int) -> Steps:
    """_newselect(2)."""
    return select_files(cpu, count, (read, write, errors), _deadline(cpu, timeout, 1000), word=4)


@compat_syscall
def compat_sys_select(cpu: Cpu, arguments: int) -> Steps:
    """The old select(2): its arguments are in memory."""
    count, read, write, errors, timeout = struct.unpack("<5I", copy_from_user(cpu, arguments, 20))
    return select_files(cpu, count, (read, write, errors), _deadline(cpu, timeout, 1000), word=4)


@compat_syscall
def compat_sys_pselect6(cpu: Cpu, count: int, read: int, write: int, errors: int, timeout: int, mask: int) -> Steps:
    """pselect6(2) with a 32-bit timespec; the signal mask is not changed."""
    return select_files(cpu, count, (read, write, errors), _deadline(cpu, timeout, 1), word=4)


@compat_syscall
def compat_sys_waitid(cpu: Cpu, which: int, pid: int, info: int, options: int, usage: int) -> Steps:
    """waitid(2)."""
    at = user_space(cpu, USER_SIGINFO_SIZE)
    result = yield from native(cpu, "waitid", which, pid, at, options, 0)
    found = Siginfo.from_bytes(copy_from_user(cpu, at, USER_SIGINFO_SIZE))
    if info:
        copy_to_user(cpu, info, to_compat(found) if found.signo else bytes(SIGINFO32_SIZE))
    if usage and found.signo:
        copy_to_user(cpu, usage, bytes(_RUSAGE32_SIZE))
    return result


# --- alarms -----------------------------------------------------------------------------------------------------------
def _timer_out(cpu: Cpu, at: int, result: int) -> None:
    copy_to_user(cpu, result, _ITIMERVAL32.pack(*_ITIMERVAL.unpack(copy_from_user(cpu, at, _ITIMERVAL.size))))


@compat_syscall
def compat_sys_setitimer(cpu: Cpu, which: int, new: int, old: int) -> Steps:
    """setitimer(2)."""
    at = user_space(cpu, 2 * _ITIMERVAL.size)
    if new:
        copy_to_user(cpu, at, _ITIMERVAL.pack(*_ITIMERVAL32.unpack(copy_from_user(cpu, new, _ITIMERVAL32.size))))
    before = at + _ITIMERVAL.size
    result = yield from native(cpu, "setitimer", which, at if new else 0, before if old else 0)
    if old:
        _timer_out(cpu, before, old)
    return result


@compat_syscall
def compat_sys_getitimer(cpu: Cpu, which: int, result: int) -> Steps:
    """getitimer(2)."""
    at = user_space(cpu, _ITIMERVAL.size)
    yield from native(cpu, "getitimer", which, at)
    _timer_out(cpu, at, result)
    return 0


@compat_syscall
def compat_sys_ppoll(cpu: Cpu, fds: int, count: int, timeout: int, mask: int, size: int) -> Steps:
    """ppoll(2) with a 32-bit timespec; the signal mask is not changed."""
    at = 0
    if timeout:
        at = user_space(cpu, 16)
        copy_to_user(cpu, at, struct.pack("<2q", *struct.unpack("<2i", copy_from_user(cpu, timeout, 8))))
    return native(cpu, "ppoll", fds, count, at, mask, size)
