"""From a path to an inode (fs/namei.c). Links, `.` and `..` are followed inside the tree, which has no way out."""

from __future__ import annotations

from dataclasses import dataclass

from kernel_stubs import mm, ramfs
from kernel_stubs.abi import FsStruct, Inode, InodeKind
from kernel_stubs.context import Cpu, Kernel
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.fdtable import AT_FDCWD, get_file
from kernel_stubs.uaccess import strncpy_from_user

PATH_MAX = 4096
MAX_LINKS = 40
AT_SYMLINK_NOFOLLOW, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH = 0x100, 0x200, 0x400, 0x1000


@dataclass(frozen=True, slots=True)
class Found:
    """Where a path leads: the directory of its last part, that part, and the inode, 0 if it does not exist."""

    directory: int
    name: bytes
    inode: int
    slash: bool = False
    """The path ended in a slash: only a directory will do."""


def getname(cpu: Cpu, address: int) -> bytes:
    """A path from user memory."""
    path = strncpy_from_user(cpu, address, PATH_MAX)
    if len(path) >= PATH_MAX:
        raise SyscallError(Errno.ENAMETOOLONG)
    return path


def root_inode(kernel: Kernel) -> int:
    """/"""
    return mm.kernel_data(kernel.memory).root_inode


def start_directory(cpu: Cpu, dirfd: int) -> int:
    """Where a relative path begins."""
    fd = (dirfd & 0xFFFF_FFFF ^ 1 << 31) - (1 << 31)
    if fd == AT_FDCWD:
        return cpu.view(FsStruct, cpu.current.fs).cwd
    return get_file(cpu, fd).inode


def link_target(cpu: Cpu, node: Inode) -> bytes:
    """What a symbolic link says."""
    if node.kind == InodeKind.PROC_EXE:
        return path_of(cpu.kernel, cpu.mm.exe)
    if node.kind == InodeKind.PROC_SELF:
        return str(cpu.current.tgid).encode()
    return ramfs.read_inode(cpu.kernel, node, 0, node.size)


def walk(cpu: Cpu, dirfd: int, path: bytes, *, follow: bool = True) -> Found:
    """Look a path up, all but its last part, which need not exist; `follow` a link there too."""
    if not path:
        raise SyscallError(Errno.ENOENT)
    links = 0
    at = root_inode(cpu.kernel) if path.startswith(b"/") else start_directory(cpu, dirfd)
    rest = path
    while True:
        parts = [part for part in rest.split(b"/") if part]
        slash = rest.endswith(b"/")
        if not parts:
            return Found(at, b".", at, slash)
        directory = at
        name = parts[0]
        inode = _step(cpu.kernel, directory, name)
        node = cpu.view(Inode, inode) if inode else None
        last = len(parts) == 1
        if node and node.kind in _LINKS and (not last or follow or slash):
            if node.kind == InodeKind.PROC_EXE and last:
                inode = cpu.mm.exe
                return Found(directory, name, inode, slash)
            links += 1
            if links > MAX_LINKS:
                raise SyscallError(Errno.ELOOP)
            target = link_target(cpu, node)
            if not target:
                raise SyscallError(Errno.ENOENT)
            rest = b"/".join([target, *parts[1:]]) + (b"/" if slash and not last else b"")
            if slash and last:
                rest += b"/"
            at = root_inode(cpu.kernel) if target.startswith(b"/") else directory
            continue
        if last:
            if slash and node and node.kind != InodeKind.DIRECTORY:
                raise SyscallError(Errno.ENOTDIR)
            return Found(directory, name, inode, slash)
        if not inode:
            raise SyscallError(Errno.ENOENT)
        at, rest = inode, b"/".join(parts[1:]) + (b"/" if slash else b"")


_LINKS = (InodeKind.SYMLINK, InodeKind.PROC_EXE, InodeKind.PROC_SELF)


def _step(kernel: Kernel, directory: int, name: bytes) -> int:
    folder = kernel.view(Inode, directory)
    if folder.kind != InodeKind.DIRECTORY:
        raise SyscallError(Errno.ENOTDIR)
    if len(name) > ramfs.NAME_MAX:
        raise SyscallError(Errno.ENAMETOOLONG)
    if not folder.mode & 0o111:
        raise SyscallError(Errno.EACCES)
    if name == b".":
        return directory
    if name == b"..":
        return folder.parent or directory
    return ramfs.lookup(kernel, folder, name)


def resolve(cpu: Cpu, dirfd: int, path: bytes, *, follow: bool = True) -> int:
    """The inode of a path; ENOENT if there is none."""
    found = walk(cpu, dirfd, path, follow=follow)
    if not found.inode:
        raise SyscallError(Errno.ENOENT)
    return found.inode


def walk_link(cpu: Cpu, dirfd: int, path: bytes) -> int:
    """The inode of a path that must be a link; EINVAL if it is something else."""
    inode = resolve(cpu, dirfd, path, follow=False)
    if cpu.view(Inode, inode).kind not in _LINKS:
        raise SyscallError(Errno.EINVAL)
    return inode


def path_of(kernel: Kernel, inode: int) -> bytes:
    """An absolute path of an inode (the first found); a note of its removal if it has none."""
    if not inode:
        return b"/"
    root = root_inode(kernel)
    if inode == root:
        return b"/"
    node = kernel.view(Inode, inode)
    if node.kind == InodeKind.DIRECTORY:
        parent = node.parent
        name = next((n for n, i in ramfs.entries(kernel, kernel.view(Inode, parent)) if i == inode), b"")
        return path_of(kernel, parent).rstrip(b"/") + b"/" + name if name else b"(unreachable)"
    return _find(kernel, root, b"", inode) or b"/ (deleted)"


def _find(kernel: Kernel, directory: int, prefix: bytes, inode: int) -> bytes:
    for name, child in ramfs.entries(kernel, kernel.view(Inode, directory)):
        if child == inode:
            return prefix + b"/" + name
        if kernel.view(Inode, child).kind == InodeKind.DIRECTORY:
            found = _find(kernel, child, prefix + b"/" + name, inode)
            if found:
                return found
    return b""
