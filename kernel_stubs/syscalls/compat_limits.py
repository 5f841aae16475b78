"""Resource limits of 32-bit programs (kernel/sys.c: the compat system calls)."""

from __future__ import annotations

import struct

from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.signal_abi import RLIM_INFINITY
from kernel_stubs.syscalls.compat import compat_syscall, native, user_space
from kernel_stubs.uaccess import copy_from_user, copy_to_user


@compat_syscall
def compat_sys_ugetrlimit(cpu: Cpu, resource: int, result: int) -> Steps:
    """getrlimit(2) with 32-bit limits; what is more counts as infinite."""
    at = user_space(cpu, 16)
    yield from native(cpu, "getrlimit", resource, at)
    limits = struct.unpack("<2Q", copy_from_user(cpu, at, 16))
    copy_to_user(cpu, result, struct.pack("<2I", *(min(limit, 0xFFFF_FFFF) for limit in limits)))
    return 0


@compat_syscall
def compat_sys_setrlimit(cpu: Cpu, resource: int, limit: int) -> Steps:
    """setrlimit(2) with 32-bit limits."""
    values = struct.unpack("<2I", copy_from_user(cpu, limit, 8))
    at = user_space(cpu, 16)
    copy_to_user(cpu, at, struct.pack("<2Q", *(RLIM_INFINITY if value == 0xFFFF_FFFF else value for value in values)))
    return (yield from native(cpu, "setrlimit", resource, at))
