"""Calls about the task itself: its segment bases, its registrations with the C library."""

from __future__ import annotations

from emu.arch import Msr
from kernel_stubs.abi import TASK_SIZE_MAX, Tif
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.cred import USER_ID
from kernel_stubs.errno import Errno, SyscallError, UserFaultError
from kernel_stubs.rseq import CPU_ID_UNINITIALIZED, RSEQ_SIZE, write_cpu_id
from kernel_stubs.segments import selectors, set_selectors
from kernel_stubs.syscalls.table import s32, syscall
from kernel_stubs.uaccess import access_ok, copy_to_user, put_user, strncpy_from_user

ROBUST_LIST_HEAD_SIZE = 24
RSEQ_FLAG_UNREGISTER = 1


@syscall
def sys_arch_prctl(cpu: Cpu, option: int, address: int) -> Steps:
    """arch_prctl(2): FS and GS bases. The user's GS base is in KERNEL_GS_BASE while the kernel runs.

    A base that is set makes the selector null.
    """
    task, engine = cpu.current, cpu.core.cpu
    ds, es, fs, gs = selectors(cpu)
    match s32(option):
        case 0x1002:  # ARCH_SET_FS
            _check_base(address)
            yield from set_selectors(cpu, ds, es, 0, gs)
            task.fsbase = address
            cpu.core.write_msr(Msr.FS_BASE, address)
        case 0x1001:  # ARCH_SET_GS
            _check_base(address)
            yield from set_selectors(cpu, ds, es, fs, 0)
            task.gsbase = address
            cpu.core.write_msr(Msr.KERNEL_GS_BASE, address)
        case 0x1003:  # ARCH_GET_FS
            put_user(cpu, address, engine.fs_base)
        case 0x1004:  # ARCH_GET_GS
            put_user(cpu, address, engine.kernel_gs_base)
        case _:
            raise SyscallError(Errno.EINVAL)
    return 0


def _check_base(address: int) -> None:
    if address >= TASK_SIZE_MAX:
        raise SyscallError(Errno.EPERM)


@syscall
def sys_set_tid_address(cpu: Cpu, address: int) -> int:
    """set_tid_address(2)."""
    cpu.current.clear_child_tid = address
    return cpu.current.pid


@syscall
def sys_set_robust_list(cpu: Cpu, head: int, length: int) -> int:
    """set_robust_list(2)."""
    if length != ROBUST_LIST_HEAD_SIZE:
        raise SyscallError(Errno.EINVAL)
    cpu.current.robust_list = head
    return 0


@syscall
def sys_rseq(cpu: Cpu, area: int, length: int, flags: int, signature: int) -> int:
    """rseq(2): the area is filled in on the way back to user mode."""
    task = cpu.current
    flags &= 0xFFFF_FFFF
    if flags == RSEQ_FLAG_UNREGISTER:
        if not task.rseq or area != task.rseq or length != RSEQ_SIZE:
            raise SyscallError(Errno.EINVAL)
        if task.rseq_sig != signature & 0xFFFF_FFFF:
            raise SyscallError(Errno.EPERM)
        write_cpu_id(cpu, area, CPU_ID_UNINITIALIZED)
        task.rseq = 0
        return 0
    if flags or (task.rseq and area != task.rseq):
        raise SyscallError(Errno.EINVAL)
    if task.rseq:
        same = task.rseq_sig == signature & 0xFFFF_FFFF
        raise SyscallError(Errno.EBUSY if same else Errno.EPERM)
    if area % RSEQ_SIZE or length != RSEQ_SIZE:
        raise SyscallError(Errno.EINVAL)
    if not access_ok(area, length):
        raise UserFaultError(area)
    task.rseq, task.rseq_sig = area, signature & 0xFFFF_FFFF
    task.thread_info.flags |= Tif.NOTIFY_RESUME
    return 0


@syscall
def sys_prctl(cpu: Cpu, option: int, argument: int) -> int:
    """prctl(2): the name only."""
    task = cpu.current
    match s32(option):
        case 15:  # PR_SET_NAME
            task.comm = strncpy_from_user(cpu, argument, 15)
        case 16:  # PR_GET_NAME
            copy_to_user(cpu, argument, task.comm.ljust(16, b"\0"))
        case _:
            raise SyscallError(Errno.EINVAL)
    return 0


__all__ = ["USER_ID"]
