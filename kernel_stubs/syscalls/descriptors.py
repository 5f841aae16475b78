"""Descriptors: closing, duplicating, flags; pipes; waiting until one is ready (fs/fcntl.c, pipe.c, select.c)."""

from __future__ import annotations

from kernel_stubs import mm, pipe
from kernel_stubs.abi import NR_OPEN, File, Inode, InodeKind, WaitResult
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, Restart, SyscallError
from kernel_stubs.fdtable import (
    CLOEXEC,
    O_APPEND,
    O_CLOEXEC,
    O_NONBLOCK,
    O_RDONLY,
    O_WRONLY,
    file_limit,
    files_of,
    get_file,
    install,
    lowest_free,
    put_file,
    readable,
)
from kernel_stubs.ramfs import forget_inode
from kernel_stubs.restart import restart_later
from kernel_stubs.sched import sleep_on
from kernel_stubs.signal_abi import RestartFunction
from kernel_stubs.syscalls.table import s32, s64, syscall
from kernel_stubs.uaccess import copy_from_user, copy_to_user, get_user

O_ASYNC = 0o20000
_SETTABLE = O_APPEND | O_NONBLOCK | O_ASYNC
_LARGEFILE = 0o100000


def close_fd(cpu: Cpu, number: int) -> None:
    """Close an open descriptor."""
    files = files_of(cpu)
    entry, files.fd[number] = files.fd[number], 0
    inode = put_file(cpu.kernel, entry & ~CLOEXEC)
    if inode:
        pipe.ends_changed(cpu, inode)


@syscall
def sys_close(cpu: Cpu, fd: int) -> int:
    """close(2)."""
    get_file(cpu, fd)
    close_fd(cpu, s32(fd))
    return 0


@syscall
def sys_close_range(cpu: Cpu, first: int, last: int, flags: int) -> int:
    """close_range(2)."""
    first, last = first & 0xFFFF_FFFF, last & 0xFFFF_FFFF
    if first > last or flags & 0xFFFF_FFFF & ~4:
        raise SyscallError(Errno.EINVAL)
    files = files_of(cpu)
    for number in range(first, min(last + 1, NR_OPEN)):
        if files.fd[number]:
            if flags & 4:
                files.fd[number] |= CLOEXEC
            else:
                close_fd(cpu, number)
    return 0


def _duplicate(cpu: Cpu, fd: int, new: int, *, cloexec: bool) -> int:
    get_file(cpu, fd)
    files = files_of(cpu)
    address = files.fd[s32(fd)] & ~CLOEXEC
    cpu.view(File, address).count += 1
    if files.fd[new]:
        close_fd(cpu, new)
    files.fd[new] = address | (CLOEXEC if cloexec else 0)
    return new


@syscall
def sys_dup(cpu: Cpu, fd: int) -> int:
    """dup(2)."""
    get_file(cpu, fd)
    return _duplicate(cpu, fd, lowest_free(cpu), cloexec=False)


@syscall
def sys_dup2(cpu: Cpu, fd: int, new: int) -> int:
    """dup2(2)."""
    get_file(cpu, fd)
    if not 0 <= s32(new) < file_limit(cpu):
        raise SyscallError(Errno.EBADF)
    return s32(new) if s32(fd) == s32(new) else _duplicate(cpu, fd, s32(new), cloexec=False)


@syscall
def sys_dup3(cpu: Cpu, fd: int, new: int, flags: int) -> int:
    """dup3(2)."""
    if flags & 0xFFFF_FFFF & ~O_CLOEXEC or s32(fd) == s32(new):
        raise SyscallError(Errno.EINVAL)
    get_file(cpu, fd)
    if not 0 <= s32(new) < file_limit(cpu):
        raise SyscallError(Errno.EBADF)
    return _duplicate(cpu, fd, s32(new), cloexec=bool(flags & O_CLOEXEC))


@syscall
def sys_fcntl(cpu: Cpu, fd: int, command: int, argument: int) -> int:
    """fcntl(2): duplicating, descriptor flags, status flags."""
    file = get_file(cpu, fd)
    files, number = files_of(cpu), s32(fd)
    match command & 0xFFFF_FFFF:
        case 0 | 1030:  # F_DUPFD, F_DUPFD_CLOEXEC
            if argument >= file_limit(cpu):
                raise SyscallError(Errno.EINVAL)
            return _duplicate(cpu, fd, lowest_free(cpu, argument), cloexec=command & 0xFFFF_FFFF == 1030)
        case 1:  # F_GETFD
            return CLOEXEC if files.fd[number] & CLOEXEC else 0
        case 2:  # F_SETFD
            files.fd[number] = files.fd[number] & ~CLOEXEC | argument & CLOEXEC
            return 0
        case 3:  # F_GETFL
            node = cpu.view(Inode, file.inode)
            large = _LARGEFILE if node.kind in (InodeKind.REGULAR, InodeKind.DIRECTORY) else 0
            return file.flags | large
        case 4:  # F_SETFL
            file.flags = file.flags & ~_SETTABLE | argument & _SETTABLE
            if cpu.view(Inode, file.inode).kind == InodeKind.NET:
                mm.kernel_data(cpu.memory).net_async = bool(argument & O_ASYNC)
            return 0
        case 8 | 9 if cpu.view(Inode, file.inode).kind == InodeKind.NET:  # F_SETOWN, F_GETOWN
            data = mm.kernel_data(cpu.memory)
            if command & 1:
                return data.net_owner
            data.net_owner = s32(argument)
            return 0
        case _:
            raise SyscallError(Errno.EINVAL)


@syscall
def sys_ioctl(cpu: Cpu, fd: int, command: int, argument: int) -> int:
    """ioctl(2): none of the files is a terminal."""
    get_file(cpu, fd)
    raise SyscallError(Errno.ENOTTY)


# --- pipes ------------------------------------------------------------------------------------------------------------
@syscall
def sys_pipe(cpu: Cpu, result: int) -> int:
    """pipe(2)."""
    return sys_pipe2(cpu, result, 0)


@syscall
def sys_pipe2(cpu: Cpu, result: int, flags: int) -> int:
    """pipe2(2)."""
    if flags & 0xFFFF_FFFF & ~(O_CLOEXEC | O_NONBLOCK):
        raise SyscallError(Errno.EINVAL)
    lowest_free(cpu, lowest_free(cpu) + 1)  # two must be free
    inode = pipe.new_pipe(cpu.kernel)
    try:
        ends = [install(cpu, inode, access | flags) for access in (O_RDONLY, O_WRONLY)]
    except SyscallError:
        forget_inode(cpu.kernel, inode)
        raise
    try:
        copy_to_user(cpu, result, b"".join(end.to_bytes(4, "little") for end in ends))
    except SyscallError:
        for end in ends:
            close_fd(cpu, end)
        raise
    return 0


# --- readiness --------------------------------------------------------------------------------------------------------
POLLIN, POLLOUT, POLLERR, POLLHUP, POLLNVAL = 0x1, 0x4, 0x8, 0x10, 0x20


def ready_events(cpu: Cpu, file: File) -> int:
    """What may be done with a file without waiting."""
    node = cpu.view(Inode, file.inode)
    if node.kind == InodeKind.PIPE:
        if readable(file):
            return (POLLIN if node.size else 0) | (0 if node.writers else POLLHUP)
        room = POLLOUT if pipe.CAPACITY - node.size >= pipe.PIPE_BUF else 0
        return room | (0 if node.readers else POLLERR)
    if node.kind == InodeKind.STDIN:
        return POLLIN
    if node.kind == InodeKind.NET:
        return POLLIN if mm.kernel_data(cpu.memory).net_queue else 0
    if node.kind in (InodeKind.STDOUT, InodeKind.STDERR):
        return POLLOUT
    return POLLIN | POLLOUT


def _poll_once(cpu: Cpu, fds: int, count: int) -> int:
    ready = 0
    for entry in range(fds, fds + 8 * count, 8):
        fd, events = s32(get_user(cpu, entry, 4)), get_user(cpu, entry + 4, 2)
        revents = 0
        if fd >= 0:
            try:
                revents = ready_events(cpu, get_file(cpu, fd)) & (events | POLLERR | POLLHUP)
            except SyscallError:
                revents = POLLNVAL
        copy_to_user(cpu, entry + 6, revents.to_bytes(2, "little"))
        ready += bool(revents)
    return ready


def poll_until(cpu: Cpu, fds: int, count: int, deadline: int | None) -> Steps:
    """poll(2) up to a clock, or for ever; a signal without a handler does not end it."""
    try:
        return (yield from _poll(cpu, fds, count, deadline))
    except SyscallError as error:
        if error.errno != Restart.ERESTARTNOHAND:
            raise
        raise restart_later(cpu, RestartFunction.POLL, fds, count, deadline or 0, deadline is not None) from None


def _poll(cpu: Cpu, fds: int, count: int, deadline: int | None) -> Steps:
    if count > file_limit(cpu):
        raise SyscallError(Errno.EINVAL)
    while True:
        ready = _poll_once(cpu, fds, count)
        if ready or (deadline is not None and deadline <= cpu.core.clock):
            return ready
        if (yield from sleep_on(cpu, pipe.POLL_CHANNEL, deadline or 0)) == WaitResult.SIGNAL:
            raise SyscallError(Restart.ERESTARTNOHAND)


@syscall
def sys_poll(cpu: Cpu, fds: int, count: int, timeout: int) -> Steps:
    """poll(2)."""
    wait = s32(timeout)
    return (yield from poll_until(cpu, fds, count, None if wait < 0 else cpu.core.clock + wait * 1_000_000))


def deadline_from(cpu: Cpu, address: int, unit: int) -> int | None:
    """The clock at which a relative timespec (`unit` 1) or timeval (1000) ends; None for a null pointer."""
    if not address:
        return None
    raw = copy_from_user(cpu, address, 16)
    seconds, fraction = s64(int.from_bytes(raw[:8], "little")), s64(int.from_bytes(raw[8:], "little"))
    if seconds < 0 or not 0 <= fraction * unit < 1_000_000_000:
        raise SyscallError(Errno.EINVAL)
    return int(min(cpu.core.clock + seconds * 1_000_000_000 + fraction * unit, (1 << 63) - 1))


@syscall
def sys_ppoll(cpu: Cpu, fds: int, count: int, timeout: int, mask: int, size: int) -> Steps:
    """ppoll(2); the signal mask is not changed."""
    return (yield from _poll(cpu, fds, count, deadline_from(cpu, timeout, 1)))


def select_files(cpu: Cpu, count: int, sets: tuple[int, int, int], deadline: int | None, word: int = 8) -> Steps:
    """core_sys_select; the sets are whole words of `word` bytes."""
    number = s32(count)
    if number < 0:
        raise SyscallError(Errno.EINVAL)
    number = min(number, NR_OPEN)
    size = -(-number // (8 * word)) * word
    wanted = [int.from_bytes(copy_from_user(cpu, at, size), "little") if at else 0 for at in sets]
    while True:
        found = [0, 0, 0]
        for fd in range(number):
            if not any(bits >> fd & 1 for bits in wanted):
                continue
            events = ready_events(cpu, get_file(cpu, fd))
            for index, mask in enumerate((POLLIN | POLLHUP | POLLERR, POLLOUT | POLLERR, 0)):
                found[index] |= bool(events & mask and wanted[index] >> fd & 1) << fd
        total = sum(bits.bit_count() for bits in found)
        if total or (deadline is not None and deadline <= cpu.core.clock):
            for at, bits in zip(sets, found, strict=True):
                if at:
                    copy_to_user(cpu, at, bits.to_bytes(size, "little"))
            return total
        if (yield from sleep_on(cpu, pipe.POLL_CHANNEL, deadline or 0)) == WaitResult.SIGNAL:
            raise SyscallError(Restart.ERESTARTNOHAND)


@syscall
def sys_select(cpu: Cpu, count: int, read: int, write: int, errors: int, timeout: int) -> Steps:
    """select(2)."""
    return (yield from select_files(cpu, count, (read, write, errors), deadline_from(cpu, timeout, 1000)))


@syscall
def sys_pselect6(cpu: Cpu, count: int, read: int, write: int, errors: int, timeout: int, mask: int) -> Steps:
    """pselect6(2); the signal mask is not changed."""
    return (yield from select_files(cpu, count, (read, write, errors), deadline_from(cpu, timeout, 1)))
