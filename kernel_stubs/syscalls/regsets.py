"""PTRACE_GETREGSET and PTRACE_SETREGSET (ptrace_regset in kernel/ptrace.c)."""

from __future__ import annotations

from emu.arch import Selector
from kernel_stubs.abi import TaskStruct
from kernel_stubs.context import Cpu, task_pt_regs
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.ptrace_abi import RegSet, Request
from kernel_stubs.ptrace_regs import set_user_regs, user_regs
from kernel_stubs.syscalls.fpregs import read_fpregs, write_fpregs
from kernel_stubs.uaccess import copy_from_user, copy_to_user, get_user, put_user


def ptrace_regset(cpu: Cpu, task: TaskStruct, request: int, kind: int, iov: int, *, ia32: bool) -> None:
    """One set of a stopped task's registers; `iov` is the tracer's iovec, whose length becomes what was copied.

    The form is that of the code which the task runs, whatever the tracer is.
    """
    word = 4 if ia32 else 8
    base, length = get_user(cpu, iov, word), get_user(cpu, iov + word, word)
    wide = task_pt_regs(cpu.kernel, task).cs == Selector.USER_CS
    if length % (8 if wide else 4):
        raise SyscallError(Errno.EINVAL)
    match kind:
        case RegSet.PRSTATUS:
            now = user_regs(cpu.kernel, task, ia32=not wide)
        case RegSet.PRFPREG if wide:
            now = read_fpregs(cpu, task)
        case _:
            raise SyscallError(Errno.EINVAL)
    count = min(length, len(now))
    if request == Request.GETREGSET:
        copy_to_user(cpu, base, now[:count])
    elif kind == RegSet.PRSTATUS:
        set_user_regs(cpu.kernel, task, copy_from_user(cpu, base, count), ia32=not wide)
    elif count == len(now):
        write_fpregs(cpu, task, copy_from_user(cpu, base, count))
    else:
        raise SyscallError(Errno.EINVAL)
    put_user(cpu, iov + word, count, word)
