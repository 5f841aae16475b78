"""Clocks and sleeping (kernel/time). See kernel_stubs.time for what they count."""

from __future__ import annotations

from kernel_stubs.abi import TaskStruct, WaitResult
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, Restart, SyscallError
from kernel_stubs.restart import restart_later
from kernel_stubs.sched import sleep_on
from kernel_stubs.signal_abi import RestartFunction
from kernel_stubs.syscalls.table import s32, s64, syscall
from kernel_stubs.tick import arm_timer
from kernel_stubs.time import NSEC_PER_SEC, monotonic_ns, realtime_ns
from kernel_stubs.uaccess import copy_from_user, copy_to_user, put_user

REALTIME_CLOCKS = frozenset({0, 5})
MONOTONIC_CLOCKS = frozenset({1, 2, 3, 4, 6, 7})
"""MONOTONIC, the process's and thread's CPU time, RAW, COARSE, BOOTTIME."""
TIMER_ABSTIME = 1
SLEEP_CHANNEL = 4
"""Nobody wakes it."""
_FOREVER = (1 << 63) - 1


def _pair(first: int, second: int) -> bytes:
    return first.to_bytes(8, "little") + second.to_bytes(8, "little")


def clock_of(cpu: Cpu, clock: int) -> int:
    """The time of a clock in nanoseconds."""
    number = s32(clock)
    if number in REALTIME_CLOCKS:
        return realtime_ns(cpu)
    if number in MONOTONIC_CLOCKS:
        return monotonic_ns(cpu)
    raise SyscallError(Errno.EINVAL)


def read_timespec(cpu: Cpu, address: int, unit: int = 1) -> int:
    """A timespec of user mode in nanoseconds; with `unit` 1000 a timeval."""
    raw = copy_from_user(cpu, address, 16)
    seconds, fraction = s64(int.from_bytes(raw[:8], "little")), s64(int.from_bytes(raw[8:], "little"))
    if seconds < 0 or not 0 <= fraction * unit < NSEC_PER_SEC:
        raise SyscallError(Errno.EINVAL)
    return min(seconds * NSEC_PER_SEC + fraction * unit, _FOREVER)


@syscall
def sys_clock_gettime(cpu: Cpu, clock: int, result: int) -> int:
    """clock_gettime(2)."""
    copy_to_user(cpu, result, _pair(*divmod(clock_of(cpu, clock), NSEC_PER_SEC)))
    return 0


@syscall
def sys_clock_getres(cpu: Cpu, clock: int, result: int) -> int:
    """clock_getres(2): a nanosecond."""
    clock_of(cpu, clock)
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


# --- sleeping ---------------------------------------------------------------------------------------------------------
def sleep_until(cpu: Cpu, deadline: int, left: int, word: int = 8) -> Steps:
    """Until a clock; what is left goes to user memory if a signal comes first and `left` is not 0.

    That is a timespec of two words of `word` bytes.
    """
    deadline = min(deadline, _FOREVER)
    if (yield from sleep_on(cpu, SLEEP_CHANNEL, deadline)) == WaitResult.SIGNAL:
        if left:
            parts = divmod(max(0, deadline - cpu.core.clock), NSEC_PER_SEC)
            copy_to_user(cpu, left, b"".join((part & (1 << 8 * word) - 1).to_bytes(word, "little") for part in parts))
        raise restart_later(cpu, RestartFunction.NANOSLEEP, deadline, left, word)
    return 0


@syscall
def sys_nanosleep(cpu: Cpu, wait: int, left: int) -> Steps:
    """nanosleep(2)."""
    return (yield from sleep_until(cpu, cpu.core.clock + read_timespec(cpu, wait), left))


@syscall
def sys_clock_nanosleep(cpu: Cpu, clock: int, flags: int, wait: int, left: int) -> Steps:
    """clock_nanosleep(2)."""
    return (yield from clock_sleep(cpu, clock, flags, wait, left))


def clock_sleep(cpu: Cpu, clock: int, flags: int, wait: int, left: int, word: int = 8) -> Steps:
    """The same, with what is left in words of `word` bytes. An absolute time does not change: simply again."""
    now = clock_of(cpu, clock)
    time = read_timespec(cpu, wait)
    if not flags & TIMER_ABSTIME:
        return (yield from sleep_until(cpu, cpu.core.clock + time, left, word))
    deadline = min(cpu.core.clock + max(0, time - now), _FOREVER)
    if (yield from sleep_on(cpu, SLEEP_CHANNEL, deadline)) == WaitResult.SIGNAL:
        raise SyscallError(Restart.ERESTARTNOHAND)
    return 0


# --- alarms -----------------------------------------------------------------------------------------------------------
def _set_alarm(cpu: Cpu, wait: int, interval: int) -> tuple[int, int]:
    """A new alarm for the process: what was left of the old one, and its interval."""
    leader = cpu.view(TaskStruct, cpu.current.group_leader)
    clock = cpu.core.clock
    left = max(1, leader.alarm_time - clock) if leader.alarm_time else 0
    before = leader.alarm_interval
    leader.alarm_time, leader.alarm_interval = (min(clock + wait, _FOREVER) if wait else 0), interval
    arm_timer(cpu, idle=False)
    return left, before


@syscall
def sys_alarm(cpu: Cpu, seconds: int) -> int:
    """alarm(2): the seconds that were left, rounded up."""
    left, _ = _set_alarm(cpu, (seconds & 0xFFFF_FFFF) * NSEC_PER_SEC, 0)
    return -(-left // NSEC_PER_SEC)


def _timer_value(cpu: Cpu, left: int, interval: int) -> bytes:
    parts = [part for value in (interval, left) for part in divmod(value // 1000, 1_000_000)]
    return b"".join(part.to_bytes(8, "little") for part in parts)


@syscall
def sys_setitimer(cpu: Cpu, which: int, new: int, old: int) -> int:
    """setitimer(2): ITIMER_REAL."""
    if s32(which) != 0:
        raise SyscallError(Errno.EINVAL)
    interval, wait = (read_timespec(cpu, new + at, 1000) for at in (0, 16)) if new else (0, 0)
    left, before = _set_alarm(cpu, wait, interval)
    if old:
        copy_to_user(cpu, old, _timer_value(cpu, left, before))
    return 0


@syscall
def sys_getitimer(cpu: Cpu, which: int, result: int) -> int:
    """getitimer(2): ITIMER_REAL."""
    if s32(which) != 0:
        raise SyscallError(Errno.EINVAL)
    leader = cpu.view(TaskStruct, cpu.current.group_leader)
    left = max(1000, leader.alarm_time - cpu.core.clock) if leader.alarm_time else 0
    copy_to_user(cpu, result, _timer_value(cpu, left, leader.alarm_interval))
    return 0
