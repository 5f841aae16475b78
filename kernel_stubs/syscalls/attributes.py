"""Permissions, times and sizes of files by their names (fs/attr.c, fs/utimes.c)."""

from __future__ import annotations

from kernel_stubs import namei, ramfs
from kernel_stubs.abi import FsStruct, Inode, InodeKind
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.fdtable import AT_FDCWD, get_file
from kernel_stubs.syscalls.files import check_file_size
from kernel_stubs.syscalls.table import s64, syscall
from kernel_stubs.uaccess import copy_from_user


def _changeable(cpu: Cpu, inode: int) -> Inode:
    node = cpu.view(Inode, inode)
    if node.read_only:
        raise SyscallError(Errno.EROFS)
    return node


@syscall
def sys_fchmodat(cpu: Cpu, dirfd: int, path: int, mode: int) -> int:
    """fchmodat(2)."""
    _changeable(cpu, namei.resolve(cpu, dirfd, namei.getname(cpu, path))).mode = mode & 0o7777
    return 0


@syscall
def sys_chmod(cpu: Cpu, path: int, mode: int) -> int:
    """chmod(2)."""
    return sys_fchmodat(cpu, AT_FDCWD, path, mode)


@syscall
def sys_fchmod(cpu: Cpu, fd: int, mode: int) -> int:
    """fchmod(2)."""
    _changeable(cpu, get_file(cpu, fd).inode).mode = mode & 0o7777
    return 0


@syscall
def sys_umask(cpu: Cpu, mask: int) -> int:
    """umask(2)."""
    fs = cpu.view(FsStruct, cpu.current.fs)
    before, fs.umask = fs.umask, mask & 0o777
    return before


@syscall
def sys_utimensat(cpu: Cpu, dirfd: int, path: int, times: int, flags: int) -> int:
    """utimensat(2): times are those of this machine's clock; a file can only be touched."""
    if times:
        copy_from_user(cpu, times, 32)
    if path:
        inode = namei.resolve(cpu, dirfd, namei.getname(cpu, path), follow=not flags & namei.AT_SYMLINK_NOFOLLOW)
    else:
        inode = get_file(cpu, dirfd).inode
    _changeable(cpu, inode).changed = cpu.core.clock
    return 0


@syscall
def sys_truncate(cpu: Cpu, path: int, size: int) -> int:
    """truncate(2)."""
    if s64(size) < 0:
        raise SyscallError(Errno.EINVAL)
    node = _changeable(cpu, namei.resolve(cpu, AT_FDCWD, namei.getname(cpu, path)))
    if node.kind == InodeKind.DIRECTORY:
        raise SyscallError(Errno.EISDIR)
    if node.kind != InodeKind.REGULAR:
        raise SyscallError(Errno.EINVAL)
    check_file_size(cpu, size)
    ramfs.truncate(cpu.kernel, node, size)
    return 0
