"""The tree that a run begins with: the program, devices, /tmp, /proc/self/exe, and the files that the run was given."""

from __future__ import annotations

import os

from kernel_stubs import mm, ramfs
from kernel_stubs.abi import FilesStruct, FsStruct, Inode, InodeKind
from kernel_stubs.context import InputFile, Kernel
from kernel_stubs.fdtable import O_RDONLY, O_WRONLY, new_file, new_files
from kernel_stubs.slab import alloc_object

PROGRAM_INPUT, STDIN_INPUT, FIRST_FILE = 0, 1, 2
"""Indices in Kernel.files."""
MOUNT_POINT = "/host"
"""Where a folder of the host is seen."""
UMASK = 0o022
DEVICES = (
    (b"null", InodeKind.NULL), (b"zero", InodeKind.ZERO), (b"full", InodeKind.FULL),
    (b"random", InodeKind.RANDOM), (b"urandom", InodeKind.RANDOM), (b"net", InodeKind.NET),
)  # fmt: skip


def program_name(kernel: Kernel) -> bytes:
    """The program's name in /: the last part of what it was called on the host."""
    return kernel.files[PROGRAM_INPUT].name.encode().rpartition(b"/")[2][: ramfs.NAME_MAX] or b"program"


def make_root(kernel: Kernel) -> None:
    """Build the tree."""
    data = mm.kernel_data(kernel.memory)
    root = data.root_inode = ramfs.new_inode(kernel, InodeKind.DIRECTORY, 0o755)
    node = kernel.view(Inode, root)
    node.links, node.count, node.parent = 2, 1, root
    folders = {name: ramfs.make(kernel, root, name, InodeKind.DIRECTORY, 0o755) for name in (b"dev", b"proc")}
    ramfs.make(kernel, root, b"tmp", InodeKind.DIRECTORY, 0o1777)
    for name, kind in DEVICES:
        ramfs.make(kernel, folders[b"dev"], name, kind, 0o666)
    itself = ramfs.make(kernel, folders[b"proc"], b"self", InodeKind.DIRECTORY, 0o555)
    ramfs.make(kernel, itself, b"exe", InodeKind.PROC_EXE, 0o777)
    for index, file in enumerate(kernel.files[FIRST_FILE:], FIRST_FILE):
        add_file(kernel, file, 1 + index)
    name = program_name(kernel)
    if not ramfs.lookup(kernel, node, name):
        ramfs.make(kernel, root, name, InodeKind.REGULAR, 0o755, source=1 + PROGRAM_INPUT)


_KINDS = {"file": InodeKind.REGULAR, "link": InodeKind.SYMLINK, "directory": InodeKind.DIRECTORY}


def add_file(kernel: Kernel, file: InputFile, source: int) -> None:
    """A file that the run was given, with the directories that lead to it. `source`: 1 + index in Kernel.files."""
    *folders, name = [part for part in os.fsencode(file.name).split(b"/") if part]
    at = mm.kernel_data(kernel.memory).root_inode
    for folder in folders:
        below = ramfs.lookup(kernel, kernel.view(Inode, at), folder)
        at = below or ramfs.make(kernel, at, folder, InodeKind.DIRECTORY, 0o755)
    inode = ramfs.lookup(kernel, kernel.view(Inode, at), name)
    if not inode:
        kind = _KINDS[file.kind]
        content = file.data if kind == InodeKind.SYMLINK else b""
        inode = ramfs.make(kernel, at, name, kind, file.mode, content, source if kind == InodeKind.REGULAR else 0)
    kernel.view(Inode, inode).read_only = file.read_only


def first_files(kernel: Kernel) -> int:
    """Descriptors 0, 1 and 2 of the first process: a new FilesStruct."""
    table = new_files(kernel)
    files = kernel.view(FilesStruct, table)
    for descriptor, (kind, flags) in enumerate(
        ((InodeKind.STDIN, O_RDONLY), (InodeKind.STDOUT, O_WRONLY), (InodeKind.STDERR, O_WRONLY))
    ):
        inode = ramfs.new_inode(kernel, kind, 0o600)
        kernel.view(Inode, inode).links = 1
        files.fd[descriptor] = new_file(kernel, inode, flags)
    return table


def first_fs(kernel: Kernel) -> int:
    """The first process's working directory: the host's folder if there is one, else /."""
    address = alloc_object(kernel.memory)
    fs = kernel.view(FsStruct, address)
    root = mm.kernel_data(kernel.memory).root_inode
    folder = ramfs.lookup(kernel, kernel.view(Inode, root), MOUNT_POINT[1:].encode())
    fs.count, fs.umask, fs.cwd = 1, UMASK, ramfs.get_inode(kernel, folder or root)
    return address
