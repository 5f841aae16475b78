"""Opening files, and their status (fs/open.c, fs/stat.c)."""

from __future__ import annotations

from emu.arch import PAGE_SIZE
from kernel_stubs import namei, ramfs
from kernel_stubs.abi import FsStruct, Inode, InodeKind
from kernel_stubs.context import Cpu
from kernel_stubs.cred import USER_ID
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.fdtable import (
    AT_FDCWD,
    O_ACCMODE,
    O_CREAT,
    O_DIRECTORY,
    O_EXCL,
    O_NOFOLLOW,
    O_PATH,
    O_RDONLY,
    O_TRUNC,
    O_WRONLY,
    get_file,
    install,
    lowest_free,
)
from kernel_stubs.layout import S64, U32, U64, Struct, layout
from kernel_stubs.netdev import net_open
from kernel_stubs.syscalls.table import s32, syscall
from kernel_stubs.time import BOOT_TIME, NSEC_PER_SEC
from kernel_stubs.uaccess import copy_to_user

FILE_TYPES = {
    InodeKind.REGULAR: 0o100000, InodeKind.DIRECTORY: 0o040000, InodeKind.SYMLINK: 0o120000,
    InodeKind.PROC_EXE: 0o120000, InodeKind.PROC_SELF: 0o120000,
    InodeKind.PIPE: 0o010000, InodeKind.STDIN: 0o010000, InodeKind.STDOUT: 0o010000, InodeKind.STDERR: 0o010000,
}  # fmt: skip
"""S_IFMT by kind; everything else is a character device."""
_CHARACTER_DEVICE = 0o020000
_DEVICE_NUMBERS = {
    InodeKind.NULL: 0x103, InodeKind.ZERO: 0x105, InodeKind.FULL: 0x107, InodeKind.RANDOM: 0x109,
}  # fmt: skip
_KEPT_FLAGS = ~(O_CREAT | O_EXCL | O_TRUNC)


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


def file_mode(node: Inode) -> int:
    """Type and permissions."""
    return FILE_TYPES.get(InodeKind(node.kind), _CHARACTER_DEVICE) | node.mode


def _fill(cpu: Cpu, inode: int, buffer: int) -> int:
    node = cpu.view(Inode, inode)
    size = node.size if node.kind in (InodeKind.REGULAR, InodeKind.SYMLINK, InodeKind.DIRECTORY) else 0
    seconds, fraction = divmod(BOOT_TIME * NSEC_PER_SEC + node.changed, NSEC_PER_SEC)
    status = Stat(
        st_dev=1, st_ino=node.number, st_nlink=node.links, st_mode=file_mode(node), st_uid=USER_ID, st_gid=USER_ID,
        st_rdev=_DEVICE_NUMBERS.get(InodeKind(node.kind), 0),
        st_size=size, st_blksize=PAGE_SIZE, st_blocks=-(-size // PAGE_SIZE) * 8,
        st_atime=seconds, st_mtime=seconds, st_ctime=seconds,
        st_atime_nsec=fraction, st_mtime_nsec=fraction, st_ctime_nsec=fraction,
    )  # fmt: skip
    copy_to_user(cpu, buffer, bytes(status))
    return 0


# --- status -----------------------------------------------------------------------------------------------------------
@syscall
def sys_fstat(cpu: Cpu, fd: int, buffer: int) -> int:
    """fstat(2)."""
    return _fill(cpu, get_file(cpu, fd).inode, buffer)


@syscall
def sys_newfstatat(cpu: Cpu, dirfd: int, path: int, buffer: int, flags: int) -> int:
    """newfstatat(2)."""
    name = namei.getname(cpu, path)
    if not name and flags & namei.AT_EMPTY_PATH:
        return _fill(cpu, namei.start_directory(cpu, dirfd), buffer)
    return _fill(cpu, namei.resolve(cpu, dirfd, name, follow=not flags & namei.AT_SYMLINK_NOFOLLOW), buffer)


@syscall
def sys_stat(cpu: Cpu, path: int, buffer: int) -> int:
    """stat(2)."""
    return sys_newfstatat(cpu, AT_FDCWD, path, buffer, 0)


@syscall
def sys_lstat(cpu: Cpu, path: int, buffer: int) -> int:
    """lstat(2)."""
    return sys_newfstatat(cpu, AT_FDCWD, path, buffer, namei.AT_SYMLINK_NOFOLLOW)


def allowed(node: Inode, mask: int) -> bool:
    """Whether the owner's permissions grant all of R 4, W 2, X 1."""
    return not mask & ~(node.mode >> 6 & 7) and not (mask & 2 and node.read_only)


@syscall
def sys_faccessat(cpu: Cpu, dirfd: int, path: int, mode: int) -> int:
    """faccessat(2)."""
    if mode & 0xFFFF_FFFF & ~7:
        raise SyscallError(Errno.EINVAL)
    node = cpu.view(Inode, namei.resolve(cpu, dirfd, namei.getname(cpu, path)))
    if mode & 2 and node.read_only:
        raise SyscallError(Errno.EROFS)
    if not allowed(node, mode & 7):
        raise SyscallError(Errno.EACCES)
    return 0


@syscall
def sys_faccessat2(cpu: Cpu, dirfd: int, path: int, mode: int, flags: int) -> int:
    """faccessat2(2)."""
    return sys_faccessat(cpu, dirfd, path, mode)


@syscall
def sys_access(cpu: Cpu, path: int, mode: int) -> int:
    """access(2)."""
    return sys_faccessat(cpu, AT_FDCWD, path, mode)


# --- opening ----------------------------------------------------------------------------------------------------------
@syscall
def sys_open(cpu: Cpu, path: int, flags: int, mode: int) -> int:
    """open(2)."""
    return sys_openat(cpu, AT_FDCWD, path, flags, mode)


@syscall
def sys_creat(cpu: Cpu, path: int, mode: int) -> int:
    """creat(2)."""
    return sys_openat(cpu, AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode)


@syscall
def sys_openat(cpu: Cpu, dirfd: int, path: int, flags: int, mode: int) -> int:
    """openat(2)."""
    flags &= 0xFFFF_FFFF
    name = namei.getname(cpu, path)
    lowest_free(cpu)
    exclusive = flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL
    found = namei.walk(cpu, dirfd, name, follow=not flags & O_NOFOLLOW and not exclusive)
    inode = found.inode
    if inode and exclusive:
        raise SyscallError(Errno.EEXIST)
    if not inode:
        if not flags & O_CREAT:
            raise SyscallError(Errno.ENOENT)
        if found.slash:
            raise SyscallError(Errno.EISDIR)
        inode = create(cpu, found, InodeKind.REGULAR, mode)
    else:
        _check_open(cpu.view(Inode, inode), flags)
    if flags & O_TRUNC and cpu.view(Inode, inode).kind == InodeKind.REGULAR and not flags & O_PATH:
        ramfs.truncate(cpu.kernel, cpu.view(Inode, inode), 0)
    if cpu.view(Inode, inode).kind == InodeKind.NET:
        net_open(cpu.kernel)
    return install(cpu, inode, flags & _KEPT_FLAGS)


def _check_open(node: Inode, flags: int) -> None:
    writing = bool(flags & O_ACCMODE) or bool(flags & O_TRUNC)
    if node.kind in (InodeKind.SYMLINK, InodeKind.PROC_EXE) and not flags & O_PATH:
        raise SyscallError(Errno.ELOOP)
    if flags & O_DIRECTORY and node.kind != InodeKind.DIRECTORY:
        raise SyscallError(Errno.ENOTDIR)
    if node.kind == InodeKind.DIRECTORY and (writing or flags & O_CREAT) and not flags & O_PATH:
        raise SyscallError(Errno.EISDIR)
    if flags & O_PATH:
        return
    mask = {O_RDONLY: 4, O_WRONLY: 2}.get(flags & O_ACCMODE, 6) | (2 if flags & O_TRUNC else 0)
    if mask & 2 and node.read_only:
        raise SyscallError(Errno.EROFS)
    if not allowed(node, mask):
        raise SyscallError(Errno.EACCES)


def create(cpu: Cpu, found: namei.Found, kind: InodeKind, mode: int, content: bytes = b"") -> int:
    """Make what a path names and nobody has; the umask takes permissions away."""
    writable_directory(cpu, found.directory)
    umask = cpu.view(FsStruct, cpu.current.fs).umask
    permissions = 0o777 if kind == InodeKind.SYMLINK else mode & 0o7777 & ~umask
    return ramfs.make(cpu.kernel, found.directory, found.name, kind, permissions, content)


def writable_directory(cpu: Cpu, directory: int) -> None:
    """Refuse to change a directory that is not to be changed, or is gone."""
    node = cpu.view(Inode, directory)
    if node.read_only:
        raise SyscallError(Errno.EROFS)
    if not node.links:
        raise SyscallError(Errno.ENOENT)
    if not allowed(node, 3):
        raise SyscallError(Errno.EACCES)


# --- links ------------------------------------------------------------------------------------------------------------
@syscall
def sys_readlinkat(cpu: Cpu, dirfd: int, path: int, buffer: int, size: int) -> int:
    """readlinkat(2)."""
    if s32(size) <= 0:
        raise SyscallError(Errno.EINVAL)
    node_at = namei.walk_link(cpu, dirfd, namei.getname(cpu, path))
    target = namei.link_target(cpu, cpu.view(Inode, node_at))[: s32(size)]
    copy_to_user(cpu, buffer, target)
    return len(target)


@syscall
def sys_readlink(cpu: Cpu, path: int, buffer: int, size: int) -> int:
    """readlink(2)."""
    return sys_readlinkat(cpu, AT_FDCWD, path, buffer, size)
