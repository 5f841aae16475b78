"""Resource limits, asked for and set (kernel/sys.c)."""

from __future__ import annotations

import struct

from kernel_stubs.abi import NR_OPEN, TaskStruct
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.rlimit import Rlimit, limits, set_limits
from kernel_stubs.sched import all_tasks, is_dead
from kernel_stubs.syscalls.table import s32, syscall
from kernel_stubs.uaccess import copy_from_user, copy_to_user

_RLIMIT64 = struct.Struct("<2Q")


def _task_of(cpu: Cpu, pid: int) -> TaskStruct:
    if not pid:
        return cpu.current
    found = next((task for _, task in all_tasks(cpu.kernel) if task.pid == pid and not is_dead(task)), None)
    if found is None or found.kthread:
        raise SyscallError(Errno.ESRCH)
    return found


def _check_new(which: int, new: tuple[int, ...], before: int) -> None:
    soft, hard = new
    if soft > hard:
        raise SyscallError(Errno.EINVAL)
    if hard > before or (which == Rlimit.NOFILE and hard > NR_OPEN):
        raise SyscallError(Errno.EPERM)


@syscall
def sys_prlimit64(cpu: Cpu, pid: int, resource: int, new: int, old: int) -> int:
    """prlimit64(2) of any process. Those of CPU time, locks and queues are kept, and limit nothing."""
    wanted = _RLIMIT64.unpack(copy_from_user(cpu, new, _RLIMIT64.size)) if new else None
    task = _task_of(cpu, s32(pid))
    which = resource & 0xFFFF_FFFF
    if which >= len(Rlimit):
        raise SyscallError(Errno.EINVAL)
    before = limits(cpu.kernel, task, which)
    if wanted:
        _check_new(which, wanted, before[1])
        set_limits(cpu.kernel, task, which, *wanted)
    if old:
        copy_to_user(cpu, old, _RLIMIT64.pack(*before))
    return 0


@syscall
def sys_getrlimit(cpu: Cpu, resource: int, limit: int) -> int:
    """getrlimit(2)."""
    if not limit:
        copy_to_user(cpu, limit, bytes(_RLIMIT64.size))
    return sys_prlimit64(cpu, 0, resource, 0, limit)


@syscall
def sys_setrlimit(cpu: Cpu, resource: int, limit: int) -> int:
    """setrlimit(2)."""
    if not limit:
        copy_from_user(cpu, limit, _RLIMIT64.size)
    return sys_prlimit64(cpu, 0, resource, limit, 0)
