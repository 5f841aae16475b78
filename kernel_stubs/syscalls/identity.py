"""Who the process is: user, group, process group, session."""

from __future__ import annotations

from kernel_stubs.context import Cpu
from kernel_stubs.cred import USER_ID
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.syscalls.table import s32, syscall
from kernel_stubs.uaccess import put_user


@syscall
def sys_getuid(cpu: Cpu) -> int:
    """getuid(2)."""
    return USER_ID


@syscall
def sys_geteuid(cpu: Cpu) -> int:
    """geteuid(2)."""
    return USER_ID


@syscall
def sys_getgid(cpu: Cpu) -> int:
    """getgid(2)."""
    return USER_ID


@syscall
def sys_getegid(cpu: Cpu) -> int:
    """getegid(2)."""
    return USER_ID


@syscall
def sys_setuid(cpu: Cpu, user: int) -> int:
    """setuid(2): only to what one is already."""
    if user & 0xFFFF_FFFF != USER_ID:
        raise SyscallError(Errno.EPERM)
    return 0


@syscall
def sys_setgid(cpu: Cpu, group: int) -> int:
    """setgid(2)."""
    return sys_setuid(cpu, group)


def _three(cpu: Cpu, *addresses: int) -> int:
    for address in addresses:
        put_user(cpu, address, USER_ID, 4)
    return 0


@syscall
def sys_getresuid(cpu: Cpu, real: int, effective: int, saved: int) -> int:
    """getresuid(2)."""
    return _three(cpu, real, effective, saved)


@syscall
def sys_getresgid(cpu: Cpu, real: int, effective: int, saved: int) -> int:
    """getresgid(2)."""
    return _three(cpu, real, effective, saved)


@syscall
def sys_getgroups(cpu: Cpu, size: int, groups: int) -> int:
    """getgroups(2): no others."""
    if s32(size) < 0:
        raise SyscallError(Errno.EINVAL)
    return 0
