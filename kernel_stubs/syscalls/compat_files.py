"""i386 system calls on memory, files, time and tasks whose arguments differ from the 64-bit ones'."""

from __future__ import annotations

import struct

from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.segments import USER_DESC, load_tls, reload_selector, set_tls, tls_descriptor, user_desc
from kernel_stubs.syscalls.clock import clock_sleep, read_timespec, sleep_until
from kernel_stubs.syscalls.compat import compat_syscall, native, user_space
from kernel_stubs.syscalls.table import s32
from kernel_stubs.uaccess import copy_from_user, copy_to_user, get_user, put_user

_U64 = 0xFFFF_FFFF_FFFF_FFFF
_STAT = struct.Struct("<3Q3I4xQ3q6Q24x")
_STAT64_32 = struct.Struct("<Q4xIIIIIQ4xqIQ6IQ")
_STAT_SIZE = 144
_RUSAGE32_SIZE = 72
_MAX_POINTERS = 1 << 16


def _signed(value: int) -> int:
    """A 32-bit `long` as the 64-bit call has it."""
    return s32(value) & _U64


# --- memory -----------------------------------------------------------------------------------------------------------
@compat_syscall
def compat_sys_mmap2(cpu: Cpu, at: int, length: int, prot: int, flags: int, fd: int, page: int) -> Steps:
    """mmap2(2): the offset is in pages."""
    return native(cpu, "mmap", at, length, prot, flags, _signed(fd), page << 12)


@compat_syscall
def compat_sys_mmap(cpu: Cpu, arguments: int) -> Steps:
    """The old mmap(2): its arguments are in memory."""
    at, length, prot, flags, fd, offset = struct.unpack("<6I", copy_from_user(cpu, arguments, 24))
    return native(cpu, "mmap", at, length, prot, flags, _signed(fd), offset)


# --- files ------------------------------------------------------------------------------------------------------------
def _iovec(cpu: Cpu, vector: int, count: int) -> int:
    if count > 1024:
        raise SyscallError(Errno.EINVAL)
    raw = struct.unpack(f"<{2 * count}I", copy_from_user(cpu, vector, 8 * count))
    if any(length >> 31 for length in raw[1::2]):
        raise SyscallError(Errno.EINVAL)
    at = user_space(cpu, 16 * count)
    copy_to_user(cpu, at, struct.pack(f"<{2 * count}Q", *raw))
    return at


@compat_syscall
def compat_sys_readv(cpu: Cpu, fd: int, vector: int, count: int) -> Steps:
    """readv(2)."""
    return native(cpu, "readv", fd, _iovec(cpu, vector, count), count)


@compat_syscall
def compat_sys_writev(cpu: Cpu, fd: int, vector: int, count: int) -> Steps:
    """writev(2)."""
    return native(cpu, "writev", fd, _iovec(cpu, vector, count), count)


@compat_syscall
def compat_sys_lseek(cpu: Cpu, fd: int, offset: int, whence: int) -> Steps:
    """lseek(2)."""
    return native(cpu, "lseek", fd, _signed(offset), whence)


@compat_syscall
def compat_sys__llseek(cpu: Cpu, fd: int, high: int, low: int, result: int, whence: int) -> Steps:
    """_llseek(2)."""
    position = yield from native(cpu, "lseek", fd, high << 32 | low, whence)
    put_user(cpu, result, position or 0)
    return 0


@compat_syscall
def compat_sys_pread64(cpu: Cpu, fd: int, buffer: int, count: int, low: int, high: int) -> Steps:
    """pread64(2)."""
    return native(cpu, "pread64", fd, buffer, count, high << 32 | low)


@compat_syscall
def compat_sys_pwrite64(cpu: Cpu, fd: int, buffer: int, count: int, low: int, high: int) -> Steps:
    """pwrite64(2)."""
    return native(cpu, "pwrite64", fd, buffer, count, high << 32 | low)


@compat_syscall
def compat_sys_ftruncate64(cpu: Cpu, fd: int, low: int, high: int) -> Steps:
    """ftruncate64(2)."""
    return native(cpu, "ftruncate", fd, high << 32 | low)


@compat_syscall
def compat_sys_truncate64(cpu: Cpu, path: int, low: int, high: int) -> Steps:
    """truncate64(2)."""
    return native(cpu, "truncate", path, high << 32 | low)


@compat_syscall
def compat_sys_ftruncate(cpu: Cpu, fd: int, length: int) -> Steps:
    """ftruncate(2)."""
    return native(cpu, "ftruncate", fd, _signed(length))


@compat_syscall
def compat_sys_truncate(cpu: Cpu, path: int, length: int) -> Steps:
    """truncate(2)."""
    return native(cpu, "truncate", path, _signed(length))


def _stat64(cpu: Cpu, result: int, name: str, *args: int) -> Steps:
    """A 64-bit stat call into the user's stack, from there into `struct stat64` of i386."""
    at = user_space(cpu, _STAT_SIZE)
    yield from native(cpu, name, *(at if arg == -1 else arg for arg in args))
    dev, ino, nlink, mode, uid, gid, rdev, size, block, blocks, *times = _STAT.unpack(
        copy_from_user(cpu, at, _STAT_SIZE)
    )
    times32 = (time & 0xFFFF_FFFF for time in times)
    packed = _STAT64_32.pack(
        dev, ino & 0xFFFF_FFFF, mode, nlink & 0xFFFF_FFFF, uid, gid, rdev, size, block, blocks, *times32, ino
    )
    copy_to_user(cpu, result, packed)
    return 0


@compat_syscall
def compat_sys_stat64(cpu: Cpu, path: int, result: int) -> Steps:
    """stat64(2)."""
    return _stat64(cpu, result, "stat", path, -1)


@compat_syscall
def compat_sys_lstat64(cpu: Cpu, path: int, result: int) -> Steps:
    """lstat64(2)."""
    return _stat64(cpu, result, "lstat", path, -1)


@compat_syscall
def compat_sys_fstat64(cpu: Cpu, fd: int, result: int) -> Steps:
    """fstat64(2)."""
    return _stat64(cpu, result, "fstat", fd, -1)


@compat_syscall
def compat_sys_fstatat64(cpu: Cpu, fd: int, path: int, result: int, flags: int) -> Steps:
    """fstatat64(2)."""
    return _stat64(cpu, result, "newfstatat", fd, path, -1, flags)


# --- time -------------------------------------------------------------------------------------------------------------
def _pair_out(cpu: Cpu, at: int, result: int) -> None:
    words = struct.unpack("<2Q", copy_from_user(cpu, at, 16))
    copy_to_user(cpu, result, struct.pack("<2I", *(word & 0xFFFF_FFFF for word in words)))


def _pair_in(cpu: Cpu, address: int) -> int:
    """A 32-bit timespec or timeval as a 64-bit one on the user's stack."""
    at = user_space(cpu, 16)
    copy_to_user(cpu, at, struct.pack("<2q", *struct.unpack("<2i", copy_from_user(cpu, address, 8))))
    return at


@compat_syscall
def compat_sys_time(cpu: Cpu, result: int) -> Steps:
    """time(2)."""
    seconds = yield from native(cpu, "time", 0)
    if result:
        put_user(cpu, result, seconds or 0, 4)
    return seconds


@compat_syscall
def compat_sys_gettimeofday(cpu: Cpu, result: int, zone: int) -> Steps:
    """gettimeofday(2)."""
    at = user_space(cpu, 16)
    yield from native(cpu, "gettimeofday", at, zone)
    if result:
        _pair_out(cpu, at, result)
    return 0


@compat_syscall
def compat_sys_clock_gettime(cpu: Cpu, clock: int, result: int) -> Steps:
    """clock_gettime(2)."""
    at = user_space(cpu, 16)
    yield from native(cpu, "clock_gettime", clock, at)
    _pair_out(cpu, at, result)
    return 0


@compat_syscall
def compat_sys_nanosleep(cpu: Cpu, wait: int, left: int) -> Steps:
    """nanosleep(2)."""
    return (yield from sleep_until(cpu, cpu.core.clock + read_timespec(cpu, _pair_in(cpu, wait)), left, 4))


@compat_syscall
def compat_sys_clock_nanosleep(cpu: Cpu, clock: int, flags: int, wait: int, left: int) -> Steps:
    """clock_nanosleep(2)."""
    return (yield from clock_sleep(cpu, clock, flags, _pair_in(cpu, wait), left, 4))


@compat_syscall
def compat_sys_clock_getres(cpu: Cpu, clock: int, result: int) -> Steps:
    """clock_getres(2)."""
    at = user_space(cpu, 16)
    yield from native(cpu, "clock_getres", clock, at)
    if result:
        _pair_out(cpu, at, result)
    return 0


@compat_syscall
def compat_sys_futex(cpu: Cpu, word: int, op: int, value: int, wait: int, word2: int, value3: int) -> Steps:
    """futex(2)."""
    at = _pair_in(cpu, wait) if wait and op & 0x7F in (0, 9) else wait
    return native(cpu, "futex", word, op, value, at, word2, value3)


# --- tasks ------------------------------------------------------------------------------------------------------------
@compat_syscall
def compat_sys_set_thread_area(cpu: Cpu, description: int) -> Steps:
    """set_thread_area(2)."""
    number, base, limit, bits = USER_DESC.unpack(copy_from_user(cpu, description, USER_DESC.size))
    chosen = set_tls(cpu.current, number, tls_descriptor(base, limit, bits))
    load_tls(cpu, cpu.current)
    if number == -1:
        put_user(cpu, description, chosen, 4)
    yield from reload_selector(cpu, chosen << 3 | 3)
    return 0


@compat_syscall
def compat_sys_get_thread_area(cpu: Cpu, description: int) -> int:
    """get_thread_area(2)."""
    number = s32(get_user(cpu, description, 4))
    if not 12 <= number < 15:
        raise SyscallError(Errno.EINVAL)
    copy_to_user(cpu, description, user_desc(number, int(cpu.current.segments.tls[number - 12])))
    return 0


@compat_syscall
def compat_sys_clone(cpu: Cpu, flags: int, stack: int, parent_tid: int, tls: int, child_tid: int) -> Steps:
    """clone(2): with CLONE_SETTLS `tls` is the address of a user_desc for the child."""
    return native(cpu, "clone", flags, stack, parent_tid, child_tid, tls)


def _pointers(cpu: Cpu, address: int) -> list[int]:
    """A vector of 32-bit pointers that ends with null."""
    found = []
    while address and (at := get_user(cpu, address, 4)):
        found.append(at)
        address += 4
        if len(found) > _MAX_POINTERS:
            raise SyscallError(Errno.E2BIG)
    return found


@compat_syscall
def compat_sys_execve(cpu: Cpu, path: int, argv: int, envp: int) -> Steps:
    """execve(2)."""
    both = _pointers(cpu, argv), _pointers(cpu, envp)
    at = user_space(cpu, 8 * (len(both[0]) + len(both[1]) + 2))
    words = (*both[0], 0, *both[1], 0)
    copy_to_user(cpu, at, struct.pack(f"<{len(words)}Q", *words))
    return native(cpu, "execve", path, at, at + 8 * (len(both[0]) + 1))


@compat_syscall
def compat_sys_waitpid(cpu: Cpu, pid: int, status: int, options: int) -> Steps:
    """waitpid(2)."""
    return native(cpu, "wait4", pid, status, options, 0)


@compat_syscall
def compat_sys_wait4(cpu: Cpu, pid: int, status: int, options: int, usage: int) -> Steps:
    """wait4(2)."""
    found = yield from native(cpu, "wait4", pid, status, options, 0)
    if found and usage:
        copy_to_user(cpu, usage, bytes(_RUSAGE32_SIZE))
    return found


@compat_syscall
def compat_sys_set_robust_list(cpu: Cpu, head: int, length: int) -> int:
    """set_robust_list(2): known, and not walked at exit."""
    if length != 12:
        raise SyscallError(Errno.EINVAL)
    return 0
