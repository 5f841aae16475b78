"""Clocks (kernel/time/posix-timers.c). See kernel_stubs.time for what they count."""

from __future__ import annotations

from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.syscalls.table import s32, syscall
from kernel_stubs.time import NSEC_PER_SEC, monotonic_ns, realtime_ns
from kernel_stubs.uaccess import copy_to_user, put_user

REALTIME_CLOCKS = frozenset({0, 5})
MONOTONIC_CLOCKS = frozenset({1, 2, 3, 4, 6, 7})
"""MONOTONIC, the process's and thread's CPU time (nothing else runs), RAW, COARSE, BOOTTIME."""


def _pair(first: int, second: int) -> bytes:
    return first.to_bytes(8, "little") + second.to_bytes(8, "little")


def _clock(cpu: Cpu, clock: int) -> int:
    number = s32(clock)
    if number in REALTIME_CLOCKS:
        return realtime_ns(cpu)
    if number in MONOTONIC_CLOCKS:
        return monotonic_ns(cpu)
    raise SyscallError(Errno.EINVAL)


@syscall
def sys_clock_gettime(cpu: Cpu, clock: int, result: int) -> int:
    """clock_gettime(2)."""
    copy_to_user(cpu, result, _pair(*divmod(_clock(cpu, clock), NSEC_PER_SEC)))
    return 0


@syscall
def sys_clock_getres(cpu: Cpu, clock: int, result: int) -> int:
    """clock_getres(2): a nanosecond."""
    _clock(cpu, clock)
    if result:
        copy_to_user(cpu, result, _pair(0, 1))
    return 0


@syscall
def sys_gettimeofday(cpu: Cpu, result: int, timezone: int) -> int:
    """gettimeofday(2); the time zone is UTC."""
    if result:
        seconds, nanoseconds = divmod(realtime_ns(cpu), NSEC_PER_SEC)
        copy_to_user(cpu, result, _pair(seconds, nanoseconds // 1000))
    if timezone:
        copy_to_user(cpu, timezone, bytes(8))
    return 0


@syscall
def sys_time(cpu: Cpu, result: int) -> int:
    """time(2)."""
    seconds = realtime_ns(cpu) // NSEC_PER_SEC
    if result:
        put_user(cpu, result, seconds)
    return seconds
