"""Error numbers of Linux (include/uapi/asm-generic/errno-base.h, errno.h), and the exceptions that carry one.

Inside the C side an error travels as an exception; `do_syscall_64` turns it into a negative result. It never leaves a
C function.
"""

from __future__ import annotations

from enum import IntEnum


class Errno(IntEnum):
    """Error numbers that our system calls return."""

    EPERM = 1
    ENOENT = 2
    ESRCH = 3
    EINTR = 4
    EIO = 5
    E2BIG = 7
    ENOEXEC = 8
    EBADF = 9
    ECHILD = 10
    EAGAIN = 11
    ENOMEM = 12
    EACCES = 13
    EFAULT = 14
    EBUSY = 16
    EEXIST = 17
    EXDEV = 18
    ENODEV = 19
    ENOTDIR = 20
    EISDIR = 21
    EINVAL = 22
    EMFILE = 24
    ENOTTY = 25
    EFBIG = 27
    ENOSPC = 28
    ESPIPE = 29
    EROFS = 30
    EMLINK = 31
    EPIPE = 32
    ERANGE = 34
    ENAMETOOLONG = 36
    ENOSYS = 38
    ENOTEMPTY = 39
    ELOOP = 40
    EOPNOTSUPP = 95
    ETIMEDOUT = 110


class Restart(IntEnum):
    """Results that user mode never sees (include/linux/errno.h): the call is made again, or has failed with EINTR."""

    ERESTARTSYS = 512
    """Again, if the handler has SA_RESTART."""
    ERESTARTNOINTR = 513
    """Always again."""
    ERESTARTNOHAND = 514
    """Again, if there is no handler."""
    ERESTART_RESTARTBLOCK = 516
    """By restart_syscall(2), if there is no handler."""


class SyscallError(Exception):
    """A system call fails with this error number."""

    def __init__(self, errno: Errno | Restart) -> None:
        super().__init__(errno.name)
        self.errno = errno


class UserFaultError(SyscallError):
    """A user address that cannot be read or written: -EFAULT."""

    def __init__(self, address: int) -> None:
        super().__init__(Errno.EFAULT)
        self.address = address


class OutOfMemoryError(SyscallError):
    """No page frame is left: -ENOMEM in a system call, SIGKILL in a page fault."""

    def __init__(self) -> None:
        super().__init__(Errno.ENOMEM)
