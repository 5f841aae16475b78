"""Address spaces: mm_struct and its areas."""

from __future__ import annotations

import ctypes
from enum import IntEnum

from emu.arch import PAGE_SIZE
from kernel_stubs.layout import U32, U64, Struct, layout


@layout()
class MmStruct(Struct):
    """`struct mm_struct`: a page of its own, with its areas behind it."""

    pgd: U64
    """Physical address of the kernel PGD; the user PGD is the next page."""
    start_brk: U64
    brk: U64
    mmap_base: U64
    start_stack: U64
    area_count: U64
    minor_faults: U64
    arg_start: U64
    arg_end: U64
    vdso32: U64
    """Where a 32-bit program finds the vDSO; 0: the program is no 32-bit one."""
    users: U64
    """Tasks that live in it."""
    exe: U64
    """Inode of the program."""
    ldt_entries: U32
    """Size of the local descriptor table."""
    pad0: U32


class VmFlags(IntEnum):
    """vm_area_struct.vm_flags."""

    READ = 1
    WRITE = 2
    EXEC = 4
    SHARED = 8
    GROWSDOWN = 0x100


@layout()
class VmArea(Struct):
    """`struct vm_area_struct`; sorted by address in the mm's page."""

    start: U64
    end: U64
    flags: U64
    file: U64
    """0: anonymous; else 1 + index of the file among the machine's inputs."""
    file_offset: U64
    """Byte offset in the file of `start`."""
    file_bytes: U64
    """How many bytes from `start` come from the file; the rest is zero."""


MAX_AREAS = (PAGE_SIZE - ctypes.sizeof(MmStruct)) // ctypes.sizeof(VmArea)
