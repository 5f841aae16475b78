"""Open files, descriptors, inodes."""

from __future__ import annotations

import ctypes
from enum import IntEnum
from typing import Annotated

from kernel_stubs.layout import U32, U64, Struct, layout

NR_OPEN = 256


@layout()
class FilesStruct(Struct):
    """`struct files_struct`: what each descriptor stands for. A page of its own."""

    count: U32
    """Tasks that use it."""
    pad0: U32
    fd: Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * NR_OPEN]
    """Address of a File, or 0; bit 0: close on exec."""


@layout()
class FsStruct(Struct):
    """`struct fs_struct`."""

    count: U32
    umask: U32
    cwd: U64
    """Inode."""


@layout()
class File(Struct):
    """`struct file`: an open file, which several descriptors may share."""

    count: U32
    flags: U32
    """O_ flags as open(2) got them."""
    inode: U64
    position: U64


class InodeKind(IntEnum):
    """What an inode is; the mode's file type follows from it."""

    REGULAR = 1
    DIRECTORY = 2
    SYMLINK = 3
    PIPE = 4
    STDIN = 5
    STDOUT = 6
    STDERR = 7
    NULL = 8
    ZERO = 9
    FULL = 10
    RANDOM = 11
    PROC_EXE = 12
    """/proc/self/exe: a link whose target is the program of whoever asks."""
    PROC_SELF = 13
    NET = 14
    """/dev/net: packets of the network card."""


@layout()
class Inode(Struct):
    """`struct inode`, with its directory's or pipe's part."""

    kind: U32
    mode: U32
    """Permission bits."""
    number: U64
    links: U32
    count: U32
    """Open files, working directories, and pipes' ends that keep it alive."""
    size: U64
    """Bytes; of a pipe: those that wait to be read."""
    input: U32
    """1 + index of its content among the run's files, as long as nobody has written to it; else 0."""
    read_only: U32
    """Lies in a folder that may not be changed."""
    index: U64
    """Physical address of the page of page addresses, 0 for none."""
    parent: U64
    """A directory's parent."""
    changed: U64
    """Clock of the last change."""
    head: U64
    """A pipe's: offset in the ring of the first byte that waits."""
    readers: U32
    writers: U32
