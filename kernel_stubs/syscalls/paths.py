"""Names and file status. There is no file system: every path is unknown, but for /proc/self/exe."""

from __future__ import annotations

from emu.arch import PAGE_SIZE
from kernel_stubs.abi import OpenFile
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.layout import S64, U32, U64, Struct, layout
from kernel_stubs.syscalls.files import open_file
from kernel_stubs.syscalls.table import s32, syscall
from kernel_stubs.uaccess import copy_to_user, strncpy_from_user

PATH_MAX = 4096
AT_EMPTY_PATH = 0x1000
S_IFIFO = 0o010000


@layout()
class Stat(Struct):
    """`struct stat` of x86-64."""

    st_dev: U64
    st_ino: U64
    st_nlink: U64
    st_mode: U32
    st_uid: U32
    st_gid: U32
    pad0: U32
    st_rdev: U64
    st_size: S64
    st_blksize: S64
    st_blocks: S64
    st_atime: U64
    st_atime_nsec: U64
    st_mtime: U64
    st_mtime_nsec: U64
    st_ctime: U64
    st_ctime_nsec: U64
    unused0: U64
    unused1: U64
    unused2: U64


def _path(cpu: Cpu, address: int) -> bytes:
    path = strncpy_from_user(cpu, address, PATH_MAX)
    if len(path) >= PATH_MAX:
        raise SyscallError(Errno.ENAMETOOLONG)
    return path


def _fill(cpu: Cpu, fd: int, buffer: int) -> int:
    kind = open_file(cpu, fd)
    mode = 0o600 if kind is OpenFile.STDIN else 0o200
    status = Stat(st_ino=int(kind), st_nlink=1, st_mode=S_IFIFO | mode, st_blksize=PAGE_SIZE)
    copy_to_user(cpu, buffer, bytes(status))
    return 0


@syscall
def sys_fstat(cpu: Cpu, fd: int, buffer: int) -> int:
    """fstat(2)."""
    return _fill(cpu, fd, buffer)


@syscall
def sys_newfstatat(cpu: Cpu, dirfd: int, path: int, buffer: int, flags: int) -> int:
    """newfstatat(2)."""
    if not _path(cpu, path) and flags & AT_EMPTY_PATH:
        return _fill(cpu, dirfd, buffer)
    raise SyscallError(Errno.ENOENT)


@syscall
def sys_stat(cpu: Cpu, path: int, buffer: int) -> int:
    """stat(2)."""
    _path(cpu, path)
    raise SyscallError(Errno.ENOENT)


@syscall
def sys_lstat(cpu: Cpu, path: int, buffer: int) -> int:
    """lstat(2)."""
    _path(cpu, path)
    raise SyscallError(Errno.ENOENT)


@syscall
def sys_access(cpu: Cpu, path: int, mode: int) -> int:
    """access(2)."""
    _path(cpu, path)
    raise SyscallError(Errno.ENOENT)


@syscall
def sys_open(cpu: Cpu, path: int, flags: int, mode: int) -> int:
    """open(2)."""
    _path(cpu, path)
    raise SyscallError(Errno.ENOENT)


@syscall
def sys_openat(cpu: Cpu, dirfd: int, path: int, flags: int, mode: int) -> int:
    """openat(2)."""
    _path(cpu, path)
    raise SyscallError(Errno.ENOENT)


def _readlink(cpu: Cpu, path: int, buffer: int, size: int) -> int:
    if s32(size) <= 0:
        raise SyscallError(Errno.EINVAL)
    if _path(cpu, path) != b"/proc/self/exe":
        raise SyscallError(Errno.ENOENT)
    target = program_path(cpu)[: s32(size)]
    copy_to_user(cpu, buffer, target)
    return len(target)


def program_path(cpu: Cpu) -> bytes:
    """Where the program seems to lie: its name below the root, whatever it was on the host."""
    return b"/" + cpu.kernel.files[0].name.encode().rpartition(b"/")[2]


@syscall
def sys_readlink(cpu: Cpu, path: int, buffer: int, size: int) -> int:
    """readlink(2)."""
    return _readlink(cpu, path, buffer, size)


@syscall
def sys_readlinkat(cpu: Cpu, dirfd: int, path: int, buffer: int, size: int) -> int:
    """readlinkat(2)."""
    return _readlink(cpu, path, buffer, size)


@syscall
def sys_getcwd(cpu: Cpu, buffer: int, size: int) -> int:
    """getcwd(2): the root."""
    if size < 2:
        raise SyscallError(Errno.ERANGE)
    copy_to_user(cpu, buffer, b"/\0")
    return 2
