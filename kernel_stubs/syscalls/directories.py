"""Directories and names: listing, making, removing, renaming, the working directory (fs/readdir.c, fs/namei.c)."""

from __future__ import annotations

import struct

from kernel_stubs import namei, ramfs
from kernel_stubs.abi import FsStruct, Inode, InodeKind
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.fdtable import AT_FDCWD, get_file
from kernel_stubs.syscalls.paths import FILE_TYPES, create, writable_directory
from kernel_stubs.syscalls.table import syscall
from kernel_stubs.uaccess import copy_to_user

_DIRENT = struct.Struct("<QqHB")
_CHARACTER_DEVICE = 2


@syscall
def sys_getdents64(cpu: Cpu, fd: int, buffer: int, size: int) -> int:
    """getdents64(2): the position counts entries."""
    file = get_file(cpu, fd)
    inode = file.inode
    node = cpu.view(Inode, inode)
    if node.kind != InodeKind.DIRECTORY:
        raise SyscallError(Errno.ENOTDIR)
    listing = [(b".", inode), (b"..", node.parent or inode), *ramfs.entries(cpu.kernel, node)]
    if file.position < len(listing) and not node.links:
        return 0
    out = bytearray()
    for name, child in listing[file.position :]:
        below = cpu.view(Inode, child)
        length = (_DIRENT.size + len(name) + 1 + 7) & -8
        if len(out) + length > size & 0xFFFF_FFFF:
            if not out:
                raise SyscallError(Errno.EINVAL)
            break
        kind = FILE_TYPES.get(InodeKind(below.kind), 0) >> 12 or _CHARACTER_DEVICE
        file.position += 1
        record = _DIRENT.pack(below.number, file.position, length, kind) + name
        out += record.ljust(length, b"\0")
    copy_to_user(cpu, buffer, bytes(out))
    return len(out)


# --- making and removing ----------------------------------------------------------------------------------------------
def _new_name(cpu: Cpu, dirfd: int, path: int) -> namei.Found:
    found = namei.walk(cpu, dirfd, namei.getname(cpu, path), follow=False)
    if found.inode:
        raise SyscallError(Errno.EEXIST)
    return found


@syscall
def sys_mkdirat(cpu: Cpu, dirfd: int, path: int, mode: int) -> int:
    """mkdirat(2)."""
    create(cpu, _new_name(cpu, dirfd, path), InodeKind.DIRECTORY, mode)
    return 0


@syscall
def sys_mkdir(cpu: Cpu, path: int, mode: int) -> int:
    """mkdir(2)."""
    return sys_mkdirat(cpu, AT_FDCWD, path, mode)


@syscall
def sys_symlinkat(cpu: Cpu, target: int, dirfd: int, path: int) -> int:
    """symlinkat(2)."""
    content = namei.getname(cpu, target)
    if not content:
        raise SyscallError(Errno.ENOENT)
    create(cpu, _new_name(cpu, dirfd, path), InodeKind.SYMLINK, 0o777, content)
    return 0


@syscall
def sys_symlink(cpu: Cpu, target: int, path: int) -> int:
    """symlink(2)."""
    return sys_symlinkat(cpu, target, AT_FDCWD, path)


@syscall
def sys_linkat(cpu: Cpu, olddirfd: int, old: int, newdirfd: int, new: int, flags: int) -> int:
    """linkat(2)."""
    follow = bool(flags & namei.AT_SYMLINK_FOLLOW)
    inode = namei.resolve(cpu, olddirfd, namei.getname(cpu, old), follow=follow)
    node = cpu.view(Inode, inode)
    found = _new_name(cpu, newdirfd, new)
    if node.kind == InodeKind.DIRECTORY:
        raise SyscallError(Errno.EPERM)
    if found.slash or not node.links:
        raise SyscallError(Errno.ENOENT)
    if bool(node.read_only) != bool(cpu.view(Inode, found.directory).read_only):
        raise SyscallError(Errno.EXDEV)
    writable_directory(cpu, found.directory)
    ramfs.link(cpu.kernel, found.directory, found.name, inode)
    return 0


@syscall
def sys_link(cpu: Cpu, old: int, new: int) -> int:
    """link(2)."""
    return sys_linkat(cpu, AT_FDCWD, old, AT_FDCWD, new, 0)


def _existing(cpu: Cpu, dirfd: int, path: int) -> namei.Found:
    found = namei.walk(cpu, dirfd, namei.getname(cpu, path), follow=False)
    if not found.inode:
        raise SyscallError(Errno.ENOENT)
    writable_directory(cpu, found.directory)
    return found


def _rmdir(cpu: Cpu, found: namei.Found) -> int:
    node = cpu.view(Inode, found.inode)
    if node.kind != InodeKind.DIRECTORY:
        raise SyscallError(Errno.ENOTDIR)
    if found.name in (b".", b".."):
        raise SyscallError(Errno.EINVAL if found.name == b"." else Errno.ENOTEMPTY)
    if ramfs.entries(cpu.kernel, node):
        raise SyscallError(Errno.ENOTEMPTY)
    ramfs.unlink(cpu.kernel, found.directory, found.name)
    return 0


@syscall
def sys_unlinkat(cpu: Cpu, dirfd: int, path: int, flags: int) -> int:
    """unlinkat(2)."""
    if flags & 0xFFFF_FFFF & ~namei.AT_REMOVEDIR:
        raise SyscallError(Errno.EINVAL)
    found = _existing(cpu, dirfd, path)
    if flags & namei.AT_REMOVEDIR:
        return _rmdir(cpu, found)
    if cpu.view(Inode, found.inode).kind == InodeKind.DIRECTORY:
        raise SyscallError(Errno.EISDIR)
    ramfs.unlink(cpu.kernel, found.directory, found.name)
    return 0


@syscall
def sys_unlink(cpu: Cpu, path: int) -> int:
    """unlink(2)."""
    return sys_unlinkat(cpu, AT_FDCWD, path, 0)


@syscall
def sys_rmdir(cpu: Cpu, path: int) -> int:
    """rmdir(2)."""
    return sys_unlinkat(cpu, AT_FDCWD, path, namei.AT_REMOVEDIR)


@syscall
def sys_renameat2(cpu: Cpu, olddirfd: int, old: int, newdirfd: int, new: int, flags: int) -> int:
    """renameat2(2), with RENAME_NOREPLACE."""
    if flags & 0xFFFF_FFFF & ~1:
        raise SyscallError(Errno.EINVAL)
    kernel = cpu.kernel
    source = _existing(cpu, olddirfd, old)
    target = namei.walk(cpu, newdirfd, namei.getname(cpu, new), follow=False)
    writable_directory(cpu, target.directory)
    if source.name in (b".", b"..") or target.name in (b".", b".."):
        raise SyscallError(Errno.EBUSY)
    moved = cpu.view(Inode, source.inode)
    is_directory = moved.kind == InodeKind.DIRECTORY
    if (source.slash or target.slash) and not is_directory:
        raise SyscallError(Errno.ENOTDIR)
    if is_directory and _is_below(cpu, target.directory, source.inode):
        raise SyscallError(Errno.EINVAL)
    if target.inode:
        if flags & 1:
            raise SyscallError(Errno.EEXIST)
        if target.inode == source.inode:
            return 0
        _replace(cpu, target, is_directory=is_directory)
    ramfs.get_inode(kernel, source.inode)
    ramfs.unlink(kernel, source.directory, source.name)
    ramfs.link(kernel, target.directory, target.name, source.inode)
    ramfs.put_inode(kernel, source.inode)
    return 0


def _replace(cpu: Cpu, target: namei.Found, *, is_directory: bool) -> None:
    """Make room for what is renamed."""
    if cpu.view(Inode, target.inode).kind == InodeKind.DIRECTORY:
        if not is_directory:
            raise SyscallError(Errno.EISDIR)
        _rmdir(cpu, target)
    else:
        if is_directory:
            raise SyscallError(Errno.ENOTDIR)
        ramfs.unlink(cpu.kernel, target.directory, target.name)


def _is_below(cpu: Cpu, directory: int, ancestor: int) -> bool:
    at = directory
    while True:
        if at == ancestor:
            return True
        parent = cpu.view(Inode, at).parent
        if not parent or parent == at:
            return False
        at = parent


@syscall
def sys_renameat(cpu: Cpu, olddirfd: int, old: int, newdirfd: int, new: int) -> int:
    """renameat(2)."""
    return sys_renameat2(cpu, olddirfd, old, newdirfd, new, 0)


@syscall
def sys_rename(cpu: Cpu, old: int, new: int) -> int:
    """rename(2)."""
    return sys_renameat2(cpu, AT_FDCWD, old, AT_FDCWD, new, 0)


# --- working directory ------------------------------------------------------------------------------------------------
def _change_directory(cpu: Cpu, inode: int) -> int:
    node = cpu.view(Inode, inode)
    if node.kind != InodeKind.DIRECTORY:
        raise SyscallError(Errno.ENOTDIR)
    if not node.mode & 0o100:
        raise SyscallError(Errno.EACCES)
    fs = cpu.view(FsStruct, cpu.current.fs)
    before, fs.cwd = fs.cwd, ramfs.get_inode(cpu.kernel, inode)
    ramfs.put_inode(cpu.kernel, before)
    return 0


@syscall
def sys_chdir(cpu: Cpu, path: int) -> int:
    """chdir(2)."""
    return _change_directory(cpu, namei.resolve(cpu, AT_FDCWD, namei.getname(cpu, path)))


@syscall
def sys_fchdir(cpu: Cpu, fd: int) -> int:
    """fchdir(2)."""
    return _change_directory(cpu, get_file(cpu, fd).inode)


@syscall
def sys_getcwd(cpu: Cpu, buffer: int, size: int) -> int:
    """getcwd(2)."""
    inode = cpu.view(FsStruct, cpu.current.fs).cwd
    if not cpu.view(Inode, inode).links:
        raise SyscallError(Errno.ENOENT)
    path = namei.path_of(cpu.kernel, inode) + b"\0"
    if size < len(path):
        raise SyscallError(Errno.ERANGE)
    copy_to_user(cpu, buffer, path)
    return len(path)
