"""Descriptors and open files (fs/file.c, fs/file_table.c)."""

from __future__ import annotations

from emu.arch import PAGE_SIZE
from kernel_stubs import mm, ramfs
from kernel_stubs.abi import NR_OPEN, File, FilesStruct, FsStruct, Inode, InodeKind
from kernel_stubs.context import Cpu, Kernel
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.rlimit import Rlimit, rlimit
from kernel_stubs.slab import alloc_object, free_object

CLOEXEC = 1
"""Bit 0 of an entry."""
O_ACCMODE, O_RDONLY, O_WRONLY, O_RDWR = 3, 0, 1, 2
O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_NONBLOCK = 0o100, 0o200, 0o1000, 0o2000, 0o4000
O_LARGEFILE, O_DIRECTORY, O_NOFOLLOW, O_CLOEXEC, O_PATH = 0o100000, 0o200000, 0o400000, 0o2000000, 0o10000000
AT_FDCWD = -100


# --- open files -------------------------------------------------------------------------------------------------------
def new_file(kernel: Kernel, inode: int, flags: int) -> int:
    """An open file with one owner: its address."""
    address = alloc_object(kernel.memory)
    file = kernel.view(File, address)
    file.count, file.flags, file.inode = 1, flags, inode
    node = kernel.view(Inode, inode)
    node.count += 1
    if node.kind == InodeKind.PIPE:
        node.readers += readable(file)
        node.writers += writable(file)
    return address


def readable(file: File) -> bool:
    """Whether it was opened for reading."""
    return file.flags & O_ACCMODE in (O_RDONLY, O_RDWR) and not file.flags & O_PATH


def writable(file: File) -> bool:
    """Whether it was opened for writing."""
    return file.flags & O_ACCMODE in (O_WRONLY, O_RDWR) and not file.flags & O_PATH


def put_file(kernel: Kernel, address: int) -> int:
    """fput(): an owner less. The inode of a pipe of which an end is now gone, for its sleepers, else 0."""
    file = kernel.view(File, address)
    file.count -= 1
    if file.count:
        return 0
    inode, node = file.inode, kernel.view(Inode, file.inode)
    is_pipe = node.kind == InodeKind.PIPE
    if is_pipe:
        node.readers -= readable(file)
        node.writers -= writable(file)
    free_object(kernel.memory, address)
    ramfs.put_inode(kernel, inode)
    return inode if is_pipe else 0


# --- descriptor tables ------------------------------------------------------------------------------------------------
def new_files(kernel: Kernel) -> int:
    """An empty table."""
    address = mm.direct_map(mm.alloc_page(kernel.memory))
    kernel.view(FilesStruct, address).count = 1
    return address


def copy_files(kernel: Kernel, old: int, *, share: bool) -> int:
    """For a new task: the same table, or one with the same open files."""
    source = kernel.view(FilesStruct, old)
    if share:
        source.count += 1
        return old
    address = new_files(kernel)
    target = kernel.view(FilesStruct, address)
    for number, entry in enumerate(source.fd):
        if entry:
            target.fd[number] = entry
            kernel.view(File, entry & ~CLOEXEC).count += 1
    return address


def put_files(kernel: Kernel, address: int) -> list[int]:
    """A task gives its table up; the last one closes everything. Inodes of pipes of which an end is gone."""
    files = kernel.view(FilesStruct, address)
    files.count -= 1
    if files.count:
        return []
    gone = [put_file(kernel, entry & ~CLOEXEC) for entry in files.fd if entry]
    mm.free_page(kernel.memory, address - mm.direct_map(0))
    kernel.machine.flush_tlb()
    return [inode for inode in gone if inode]


def files_of(cpu: Cpu) -> FilesStruct:
    """The current task's descriptors."""
    return cpu.view(FilesStruct, cpu.current.files)


def get_file(cpu: Cpu, fd: int) -> File:
    """What a descriptor (an int argument) leads to; EBADF if it is closed."""
    fd = (fd & 0xFFFF_FFFF ^ 1 << 31) - (1 << 31)
    entry = files_of(cpu).fd[fd] if 0 <= fd < NR_OPEN else 0
    if not entry:
        raise SyscallError(Errno.EBADF)
    return cpu.view(File, entry & ~CLOEXEC)


def file_limit(cpu: Cpu) -> int:
    """RLIMIT_NOFILE: descriptors from this number on cannot be had."""
    return min(NR_OPEN, rlimit(cpu.kernel, cpu.current, Rlimit.NOFILE))


def lowest_free(cpu: Cpu, first: int = 0) -> int:
    """The first free descriptor from `first`; EMFILE if there is none."""
    for number in range(first, file_limit(cpu)):
        if not files_of(cpu).fd[number]:
            return number
    raise SyscallError(Errno.EMFILE)


def install(cpu: Cpu, inode: int, flags: int) -> int:
    """Open an inode at the lowest free descriptor."""
    number = lowest_free(cpu)
    address = new_file(cpu.kernel, inode, flags & ~O_CLOEXEC)
    files_of(cpu).fd[number] = address | (CLOEXEC if flags & O_CLOEXEC else 0)
    return number


# --- working directory ------------------------------------------------------------------------------------------------
def copy_fs(kernel: Kernel, old: int, *, share: bool) -> int:
    """For a new task: the same working directory and mask, or a copy of them."""
    source = kernel.view(FsStruct, old)
    if share:
        source.count += 1
        return old
    address = alloc_object(kernel.memory)
    target = kernel.view(FsStruct, address)
    target.count, target.umask, target.cwd = 1, source.umask, source.cwd
    kernel.view(Inode, source.cwd).count += 1
    return address


def put_fs(kernel: Kernel, address: int) -> None:
    """A task gives it up."""
    fs = kernel.view(FsStruct, address)
    fs.count -= 1
    if not fs.count:
        ramfs.put_inode(kernel, fs.cwd)
        free_object(kernel.memory, address)


assert FilesStruct.SIZE <= PAGE_SIZE
