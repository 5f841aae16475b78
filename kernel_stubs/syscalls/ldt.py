"""modify_ldt(2) (arch/x86/kernel/ldt.c)."""

from __future__ import annotations

from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.ldt import LDT_ENTRIES, LDT_ENTRY_SIZE, load_ldt, read_entry, supported, write_entry
from kernel_stubs.segments import EMPTY_FLAGS, USER_DESC, selectors, set_selectors
from kernel_stubs.smp import call_users_of_mm
from kernel_stubs.syscalls.compat import compat_syscall
from kernel_stubs.syscalls.table import s32, syscall
from kernel_stubs.uaccess import copy_from_user, copy_to_user

_DEFAULT_SIZE = 128
_U32 = 0xFFFF_FFFF
_CONFORMING, _USEABLE = 3, 1 << 6
_TI = 4


def _descriptor(base: int, limit: int, bits: int) -> int:
    """fill_ldt: any user segment but a 64-bit one, accessed."""
    contents, read_only, not_present = bits >> 1 & 3, bits >> 3 & 1, bits >> 5 & 1
    access = 0x71 | (read_only ^ 1) << 1 | contents << 2 | (not_present ^ 1) << 7
    flags = bits >> 6 & 1 | (bits & 1) << 2 | (bits >> 4 & 1) << 3
    return (
        limit & 0xFFFF | (base & 0xFF_FFFF) << 16 | access << 40 | (limit >> 16 & 0xF) << 48 | flags << 52
        | (base >> 24 & 0xFF) << 56
    )  # fmt: skip


def _read(cpu: Cpu, address: int, size: int) -> int:
    space = cpu.mm
    if not space.ldt_entries:
        return 0
    size = min(size, LDT_ENTRIES * LDT_ENTRY_SIZE)
    words = (read_entry(cpu.kernel, space, number) for number in range(space.ldt_entries))
    copy_to_user(cpu, address, b"".join(word.to_bytes(8, "little") for word in words)[:size].ljust(size, b"\0"))
    return size


def _write(cpu: Cpu, address: int, size: int, *, old: bool) -> Steps:
    if size != USER_DESC.size:
        raise SyscallError(Errno.EINVAL)
    number, base, limit, bits = USER_DESC.unpack(copy_from_user(cpu, address, size))
    bits &= 0x7F
    if not 0 <= number < LDT_ENTRIES:
        raise SyscallError(Errno.EINVAL)
    if bits >> 1 & 3 == _CONFORMING and (old or not bits >> 5 & 1):
        raise SyscallError(Errno.EINVAL)
    empty = base == limit == 0 and (old or bits == EMPTY_FLAGS)
    descriptor = 0 if empty else _descriptor(base, limit, bits & ~_USEABLE if old else bits)
    write_entry(cpu.kernel, cpu.mm, number, descriptor)
    yield from load_ldt(cpu)
    present = selectors(cpu)
    if any(selector & _TI for selector in present[:2]):
        yield from set_selectors(cpu, *present, again=True)
    call_users_of_mm(cpu)
    return 0


def _modify_ldt(cpu: Cpu, function: int, address: int, size: int) -> Steps:
    match s32(function):
        case 0:
            return _read(cpu, address, size)
        case 1:
            return (yield from _write(cpu, address, size, old=True))
        case 2:
            copy_to_user(cpu, address, bytes(length := min(size, _DEFAULT_SIZE)))
            return length
        case 0x11:
            return (yield from _write(cpu, address, size, old=False))
    raise SyscallError(Errno.ENOSYS)


@syscall
def sys_modify_ldt(cpu: Cpu, function: int, address: int, size: int) -> Steps:
    """modify_ldt(2). Its result is an int, which 64-bit programs see without its sign."""
    if not supported(cpu.kernel):
        raise SyscallError(Errno.ENOSYS)
    try:
        result = yield from _modify_ldt(cpu, function, address, size)
    except SyscallError as error:
        return -error.errno & _U32
    return result


@compat_syscall
def compat_sys_modify_ldt(cpu: Cpu, function: int, address: int, size: int) -> Steps:
    """modify_ldt(2)."""
    return sys_modify_ldt(cpu, function, address, size)
