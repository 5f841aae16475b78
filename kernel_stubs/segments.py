"""Segment registers and TLS descriptors of tasks (arch/x86/kernel/process_64.c, tls.c)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from emu.arch import Msr, Selector
from emu.machine.registers import DS, ES, FS, GS
from kernel_stubs.abi import GDT_ENTRY_TLS_MIN, NR_TLS_ENTRIES, TaskStruct, cpu_entry_area
from kernel_stubs.binding import Call, Steps
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.ldt import load_ldt
from kernel_stubs.uaccess import copy_from_user

_LOADER = "load_user_segments"
"""Guest code of the images that have 32-bit programs."""
_GS_LOADER, _GS_LOADER_26 = "asm_load_gs_index", "load_gs_index"
USER_DESC = struct.Struct("<iIII")
"""`struct user_desc`: entry number, base, limit, bits."""
EMPTY_FLAGS = 0x28
"""The bits of a user_desc that stands for an empty entry: read_exec_only and seg_not_present."""


def selectors(cpu: Cpu) -> tuple[int, int, int, int]:
    """DS, ES, FS and GS as user mode has them: the kernel changes none of them."""
    return tuple(cpu.core.cpu.selector(segment) for segment in (DS, ES, FS, GS))  # type: ignore[return-value]


def save_segments(cpu: Cpu, task: TaskStruct) -> None:
    """A task leaves the CPU, or a child is to have the same selectors."""
    task.segments.ds, task.segments.es, task.fsindex, task.gsindex = selectors(cpu)


def copy_segments(cpu: Cpu, child: TaskStruct) -> None:
    """fork(2)."""
    save_segments(cpu, child)
    for index in range(NR_TLS_ENTRIES):
        child.segments.tls[index] = cpu.current.segments.tls[index]


def load_segments(cpu: Cpu) -> Steps:
    """The current task, which comes to this CPU, gets its descriptors and selectors back."""
    task = cpu.current
    if not task.mm or _LOADER not in cpu.kernel.image.symbols:
        return None
    load_tls(cpu, task)
    yield from load_ldt(cpu)
    wanted = (task.segments.ds, task.segments.es, task.fsindex, task.gsindex)
    own = any(selector & ~3 and selector != Selector.USER_DS for selector in wanted[:2])
    if own or wanted != selectors(cpu):  # the same selector may mean another descriptor
        yield from set_selectors(cpu, *wanted, again=own)
        cpu.core.write_msr(Msr.FS_BASE, task.fsbase)
        cpu.core.write_msr(Msr.KERNEL_GS_BASE, task.gsbase)
    return None


def load_tls(cpu: Cpu, task: TaskStruct) -> None:
    """Write a task's TLS descriptors into this CPU's GDT."""
    at = cpu.kernel.physical(cpu_entry_area(cpu.number)) + 8 * GDT_ENTRY_TLS_MIN
    cpu.memory.write(at, bytes(task.segments.tls))


def set_selectors(cpu: Cpu, ds: int, es: int, fs: int, gs: int, *, again: bool = False) -> Steps:
    """Have the guest load those that differ, or `again` all; bases that were set by MSR stay for null selectors."""
    if _LOADER not in cpu.kernel.image.symbols:
        return None
    engine = cpu.core.cpu
    fs_base, gs_base, before = engine.fs_base, engine.kernel_gs_base, selectors(cpu)
    if again or (ds, es, fs) != before[:3]:
        yield Call(_LOADER, (ds, es, fs))
        if not fs & ~3:
            cpu.core.write_msr(Msr.FS_BASE, fs_base)
    if again or gs != before[3]:
        yield Call(_GS_LOADER_26 if cpu.kernel.classic else _GS_LOADER, (gs,))
        if not gs & ~3:
            cpu.core.write_msr(Msr.KERNEL_GS_BASE, gs_base)
    return None


def start_segments(cpu: Cpu, *, ia32: bool) -> Steps:
    """start_thread(): flat data segments for a 32-bit program, null ones for a 64-bit one; no TLS; bases 0."""
    task = cpu.current
    for index in range(NR_TLS_ENTRIES):
        task.segments.tls[index] = 0
    if _LOADER in cpu.kernel.image.symbols:
        load_tls(cpu, task)
        yield from load_ldt(cpu)
        data = int(Selector.USER_DS) if ia32 else 0
        yield from set_selectors(cpu, data, data, 0, 0)
    task.fsbase = task.gsbase = 0
    cpu.core.write_msr(Msr.FS_BASE, 0)
    cpu.core.write_msr(Msr.KERNEL_GS_BASE, 0)
    return None


@dataclass(frozen=True, slots=True)
class NewTls:
    """A TLS descriptor that a new task is to have."""

    number: int
    base: int
    descriptor: int

    @property
    def selector(self) -> int:
        """The one that leads to it."""
        return self.number << 3 | 3


def child_tls(cpu: Cpu, address: int) -> NewTls:
    """What CLONE_SETTLS of a 32-bit system call wants: `address` is that of a user_desc."""
    number, base, limit, bits = USER_DESC.unpack(copy_from_user(cpu, address, USER_DESC.size))
    if not 0 <= number - GDT_ENTRY_TLS_MIN < NR_TLS_ENTRIES:
        raise SyscallError(Errno.EINVAL)
    return NewTls(number, base, tls_descriptor(base, limit, bits))


def give_tls(child: TaskStruct, new: NewTls) -> None:
    """do_set_thread_area for a task that does not run: a base that comes from the descriptor follows it."""
    set_tls(child, new.number, new.descriptor)
    if child.fsindex == new.selector:
        child.fsbase = new.base
    if child.gsindex == new.selector:
        child.gsbase = new.base


def reload_selector(cpu: Cpu, selector: int) -> Steps:
    """Have the guest load those segments again whose descriptor has changed."""
    present = selectors(cpu)
    if selector in present:
        yield from set_selectors(cpu, *present, again=True)
    return None


# --- set_thread_area --------------------------------------------------------------------------------------------------
def tls_descriptor(base: int, limit: int, bits: int) -> int:
    """The descriptor for a user_desc; EINVAL if Linux does not take it. An empty one is 0."""
    if (base, limit) == (0, 0) and bits in (0, EMPTY_FLAGS):
        return 0
    seg_32bit, contents, read_only = bits & 1, bits >> 1 & 3, bits >> 3 & 1
    in_pages, not_present, useable = bits >> 4 & 1, bits >> 5 & 1, bits >> 6 & 1
    if not seg_32bit or contents > 1 or not_present:
        raise SyscallError(Errno.EINVAL)
    access = 0xF1 | (read_only ^ 1) << 1 | contents << 2
    flags = useable | seg_32bit << 2 | in_pages << 3
    return (
        limit & 0xFFFF | (base & 0xFF_FFFF) << 16 | access << 40 | (limit >> 16 & 0xF) << 48 | flags << 52
        | (base >> 24 & 0xFF) << 56
    )  # fmt: skip


def user_desc(number: int, descriptor: int) -> bytes:
    """The user_desc for a descriptor."""
    base = descriptor >> 16 & 0xFF_FFFF | descriptor >> 32 & 0xFF00_0000
    limit = descriptor & 0xFFFF | descriptor >> 32 & 0xF_0000
    access, flags = descriptor >> 40, descriptor >> 52
    if not descriptor:
        return USER_DESC.pack(number, 0, 0, EMPTY_FLAGS)
    bits = flags >> 2 & 1 | (access >> 2 & 3) << 1 | (~access >> 1 & 1) << 3 | (flags >> 3 & 1) << 4 | (flags & 1) << 6
    return USER_DESC.pack(number, base, limit, bits)


def set_tls(task: TaskStruct, number: int, descriptor: int) -> int:
    """Store a descriptor in a task; number -1 takes the first empty entry. The entry's number in the GDT."""
    tls = task.segments.tls
    if number == -1:
        number = next((GDT_ENTRY_TLS_MIN + n for n in range(NR_TLS_ENTRIES) if not tls[n]), -1)
        if number < 0:
            raise SyscallError(Errno.ESRCH)
    if not 0 <= number - GDT_ENTRY_TLS_MIN < NR_TLS_ENTRIES:
        raise SyscallError(Errno.EINVAL)
    tls[number - GDT_ENTRY_TLS_MIN] = descriptor
    return number
