"""brk, mmap and friends (mm/mmap.c, mm/mprotect.c)."""

from __future__ import annotations

from dataclasses import replace

from emu.arch import PAGE_SIZE
from kernel_stubs import ramfs, vma
from kernel_stubs.abi import MMAP_MIN_ADDR, TASK_SIZE_MAX, Inode, InodeKind, VmFlags, page_align
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.fdtable import get_file, readable, writable
from kernel_stubs.rlimit import Rlimit, rlimit
from kernel_stubs.smp import flush_tlb_mm
from kernel_stubs.syscalls.table import syscall
from kernel_stubs.vma import Area

PROT_KNOWN = 0x7
PROT_GROWSDOWN = 0x0100_0000
PROT_GROWSUP = 0x0200_0000
MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE = 1, 2, 3
MAP_TYPE = 0xF
MAP_FIXED = 0x10
MAP_ANONYMOUS = 0x20
MAP_GROWSDOWN = 0x100
MAP_FIXED_NOREPLACE = 0x10_0000
MADV_NORMAL_TO_WILLNEED = range(4)
MADV_DONTNEED, MADV_FREE = 4, 8


def _vm_flags(prot: int) -> int:
    """PROT_ bits to VmFlags: the same numbers."""
    return prot & int(VmFlags.READ | VmFlags.WRITE | VmFlags.EXEC)


def _check_commit(cpu: Cpu, length: int) -> None:
    """Refuse what could never be backed (the heuristic overcommit policy)."""
    if length > cpu.memory.size:
        raise SyscallError(Errno.ENOMEM)


def _check_limits(cpu: Cpu, start: int, end: int, flags: int) -> None:
    """RLIMIT_AS, RLIMIT_DATA; what is mapped there already goes, and counts no more (may_expand_vm)."""
    kernel, mm, task = cpu.kernel, cpu.mm, cpu.current
    more = end - start - vma.mapped_bytes(kernel, mm, start, end)
    if vma.mapped_bytes(kernel, mm) + more > rlimit(kernel, task, Rlimit.AS):
        raise SyscallError(Errno.ENOMEM)
    if vma.is_data(flags) and vma.data_bytes(kernel, mm) + more > rlimit(kernel, task, Rlimit.DATA):
        raise SyscallError(Errno.ENOMEM)


@syscall
def sys_brk(cpu: Cpu, address: int) -> int:
    """brk(2): the new end of the heap, or the old one if it cannot be had."""
    kernel, mm = cpu.kernel, cpu.mm
    if address < mm.start_brk:
        return mm.brk
    old, new = page_align(mm.brk), page_align(address)
    try:
        if new < old:
            vma.unmap_range(kernel, mm, new, old)
        elif new > old:
            # The heap keeps a page's distance from what lies above it.
            if new > TASK_SIZE_MAX or vma.overlaps(kernel, mm, old, new + PAGE_SIZE):
                return mm.brk
            _check_commit(cpu, new - old)
            _check_limits(cpu, old, new, VmFlags.WRITE)
            vma.map_area(kernel, mm, Area(old, new, VmFlags.READ | VmFlags.WRITE))
    except SyscallError:
        return mm.brk
    mm.brk = address
    return address


@syscall
def sys_mmap(cpu: Cpu, address: int, length: int, prot: int, flags: int, fd: int, offset: int) -> int:
    """mmap(2) of anonymous memory, and of files that are not written to through the mapping."""
    kernel, mm = cpu.kernel, cpu.mm
    if offset % PAGE_SIZE:
        raise SyscallError(Errno.EINVAL)
    node = None if flags & MAP_ANONYMOUS else _mappable(cpu, fd, prot, flags)
    if not length:
        raise SyscallError(Errno.EINVAL)
    size = page_align(length)
    if size > TASK_SIZE_MAX:
        raise SyscallError(Errno.ENOMEM)
    if flags & MAP_TYPE not in (MAP_SHARED, MAP_PRIVATE):
        raise SyscallError(Errno.EINVAL)
    fixed = flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)
    at = address
    if not fixed and at:
        at = max(at & -PAGE_SIZE, MMAP_MIN_ADDR) if at >= PAGE_SIZE else 0
    if fixed:
        _check_fixed(cpu, at, size, flags)
    elif not MMAP_MIN_ADDR <= at <= TASK_SIZE_MAX - size or vma.overlaps(kernel, mm, at, at + size):
        at = vma.get_unmapped_area(kernel, mm, size)
    _check_commit(cpu, size)
    grows = VmFlags.GROWSDOWN if flags & MAP_GROWSDOWN else 0
    shared = VmFlags.SHARED if flags & MAP_TYPE == MAP_SHARED and node is None else 0
    area = Area(at, at + size, _vm_flags(prot) | grows | shared)
    _check_limits(cpu, area.start, area.end, area.flags)
    if node is not None and node.kind == InodeKind.REGULAR:
        _map_file(cpu, node, area, offset)
    else:
        vma.map_area(kernel, mm, area)
    return at


def _mappable(cpu: Cpu, fd: int, prot: int, flags: int) -> Inode:
    """The inode to map. Changes through a shared mapping would have to reach the file: ENODEV."""
    file = get_file(cpu, fd)
    node = cpu.view(Inode, file.inode)
    if not readable(file):
        raise SyscallError(Errno.EACCES)
    if node.kind not in (InodeKind.REGULAR, InodeKind.ZERO):
        raise SyscallError(Errno.ENODEV)
    if node.kind == InodeKind.REGULAR and flags & MAP_TYPE == MAP_SHARED and prot & VmFlags.WRITE:
        raise SyscallError(Errno.ENODEV if writable(file) else Errno.EACCES)
    return node


def _map_file(cpu: Cpu, node: Inode, area: Area, offset: int) -> None:
    """What the run was given is read page by page when it is touched; what was written in the guest, at once."""
    kernel, mm = cpu.kernel, cpu.mm
    length = max(0, min(area.end - area.start, node.size - offset))
    if node.input:
        vma.map_area(kernel, mm, replace(area, file=node.input, file_offset=offset, file_bytes=length))
    else:
        data = ramfs.read_inode(kernel, node, offset, length)
        vma.map_area(kernel, mm, area)
        vma.populate(kernel, mm, area.start, area.flags, data)


def _check_fixed(cpu: Cpu, at: int, size: int, flags: int) -> None:
    if at > TASK_SIZE_MAX - size:
        raise SyscallError(Errno.ENOMEM)
    if at % PAGE_SIZE:
        raise SyscallError(Errno.EINVAL)
    if at < MMAP_MIN_ADDR:
        raise SyscallError(Errno.EPERM)
    if flags & MAP_FIXED_NOREPLACE and vma.overlaps(cpu.kernel, cpu.mm, at, at + size):
        raise SyscallError(Errno.EEXIST)


@syscall
def sys_munmap(cpu: Cpu, address: int, length: int) -> int:
    """munmap(2)."""
    if address % PAGE_SIZE or address > TASK_SIZE_MAX or not 0 < length <= TASK_SIZE_MAX - address:
        raise SyscallError(Errno.EINVAL)
    vma.unmap_range(cpu.kernel, cpu.mm, address, address + page_align(length))
    flush_tlb_mm(cpu)
    return 0


@syscall
def sys_mprotect(cpu: Cpu, address: int, length: int, prot: int) -> int:
    """mprotect(2)."""
    kernel, mm = cpu.kernel, cpu.mm
    grows = prot & (PROT_GROWSDOWN | PROT_GROWSUP)
    if grows == PROT_GROWSDOWN | PROT_GROWSUP or address % PAGE_SIZE:
        raise SyscallError(Errno.EINVAL)
    if not length:
        return 0
    end = address + page_align(length)
    if end >> 64 or end <= address:
        raise SyscallError(Errno.ENOMEM)
    if prot & ~(PROT_KNOWN | PROT_GROWSDOWN | PROT_GROWSUP):
        raise SyscallError(Errno.EINVAL)
    area = vma.find_vma(kernel, mm, address)
    if grows == PROT_GROWSDOWN:
        if area is None or area.start >= end:
            raise SyscallError(Errno.ENOMEM)
        if not area.flags & VmFlags.GROWSDOWN:
            raise SyscallError(Errno.EINVAL)
        address = area.start
    elif grows:
        raise SyscallError(Errno.EINVAL)
    try:
        vma.protect_range(kernel, mm, address, end, _vm_flags(prot))
    finally:
        flush_tlb_mm(cpu)
    return 0


@syscall
def sys_madvise(cpu: Cpu, address: int, length: int, advice: int) -> int:
    """madvise(2): MADV_DONTNEED and MADV_FREE drop the pages, the usual hints do nothing."""
    if address % PAGE_SIZE or length > TASK_SIZE_MAX or address + length > TASK_SIZE_MAX:
        raise SyscallError(Errno.EINVAL)
    end = address + page_align(length)
    if advice in (MADV_DONTNEED, MADV_FREE):
        vma.zap_range(cpu.kernel, cpu.mm, address, end)
    elif advice not in MADV_NORMAL_TO_WILLNEED:
        raise SyscallError(Errno.EINVAL)
    covered = sum(max(0, min(end, area.end) - max(address, area.start)) for area in vma.areas(cpu.kernel, cpu.mm))
    if covered < end - address:
        raise SyscallError(Errno.ENOMEM)
    return 0
