"""Pipes (fs/pipe.c): a ring of 64 KiB in an inode's pages; readers and writers sleep on the inode."""

from __future__ import annotations

from contextlib import suppress

from kernel_stubs import ramfs
from kernel_stubs.abi import File, Inode, InodeKind, WaitResult
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu, Kernel
from kernel_stubs.cred import USER_ID
from kernel_stubs.errno import Errno, OutOfMemoryError, Restart, SyscallError
from kernel_stubs.fdtable import O_NONBLOCK
from kernel_stubs.sched import sleep_on, wake_up
from kernel_stubs.siginfo import SI_USER, Sig, Siginfo
from kernel_stubs.signal import send_signal

CAPACITY = 65536
PIPE_BUF = 4096
"""Writes up to this size are not mixed with others."""


def new_pipe(kernel: Kernel) -> int:
    """An empty pipe's inode."""
    return ramfs.new_inode(kernel, InodeKind.PIPE, 0o600)


def read_channel(inode: int) -> int:
    """What readers sleep on."""
    return inode


def write_channel(inode: int) -> int:
    """What writers sleep on."""
    return inode + 1


def ends_changed(cpu: Cpu, inode: int) -> None:
    """An end was closed: whoever waits for the other has to look."""
    wake_up(cpu, read_channel(inode))
    wake_up(cpu, write_channel(inode))
    wake_up(cpu, POLL_CHANNEL)


POLL_CHANNEL = 2
"""What poll and select sleep on, for anything that may have become ready."""


def read_pipe(cpu: Cpu, file: File, length: int) -> Steps:
    """Wait until there is something to read: how much of it, up to `length`; 0 if no writer is left."""
    inode = file.inode
    pipe = cpu.view(Inode, inode)
    while not pipe.size:
        if not pipe.writers or not length:
            return 0
        if file.flags & O_NONBLOCK:
            raise SyscallError(Errno.EAGAIN)
        if (yield from sleep_on(cpu, read_channel(inode))) == WaitResult.SIGNAL:
            raise SyscallError(Restart.ERESTARTSYS)
    return min(length, pipe.size)


def peek(kernel: Kernel, pipe: Inode, length: int) -> bytes:
    """The first bytes that wait."""
    first = min(length, CAPACITY - pipe.head)
    data = ramfs.read_pages(kernel, pipe, pipe.head, first)
    return data + ramfs.read_pages(kernel, pipe, 0, length - first) if length > first else data


def consume(cpu: Cpu, inode: int, length: int) -> None:
    """They have been read."""
    pipe = cpu.view(Inode, inode)
    pipe.head = (pipe.head + length) % CAPACITY
    pipe.size -= length
    wake_up(cpu, write_channel(inode))
    wake_up(cpu, POLL_CHANNEL)


def write_pipe(cpu: Cpu, file: File, data: bytes) -> Steps:
    """Write all of it, waiting for room; SIGPIPE and EPIPE if nobody can read it."""
    inode = file.inode
    pipe = cpu.view(Inode, inode)
    done = 0
    while done < len(data):
        if not pipe.readers:
            if done:
                return done
            info = Siginfo.kill(Sig.SIGPIPE, SI_USER, cpu.current.tgid, USER_ID)
            send_signal(cpu, cpu.current, info, process=False)
            raise SyscallError(Errno.EPIPE)
        room = CAPACITY - pipe.size
        left = len(data) - done
        if room and (room >= left or left > PIPE_BUF):
            done += _put(cpu, inode, data[done : done + room])
            continue
        if file.flags & O_NONBLOCK:
            if done:
                return done
            raise SyscallError(Errno.EAGAIN)
        if (yield from sleep_on(cpu, write_channel(inode))) == WaitResult.SIGNAL:
            if done:
                return done
            raise SyscallError(Restart.ERESTARTSYS)
    return done


def _put(cpu: Cpu, inode: int, data: bytes) -> int:
    pipe = cpu.view(Inode, inode)
    at = (pipe.head + pipe.size) % CAPACITY
    first = min(len(data), CAPACITY - at)
    try:
        done = ramfs.write_pages(cpu.kernel, pipe, at, data[:first])
    except SyscallError:  # no space is left, where a file would be
        raise OutOfMemoryError from None
    if done == first and len(data) > first:
        with suppress(SyscallError):  # so this was all
            done += ramfs.write_pages(cpu.kernel, pipe, 0, data[first:])
    pipe.size += done
    wake_up(cpu, read_channel(inode))
    wake_up(cpu, POLL_CHANNEL)
    return done
