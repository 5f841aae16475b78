"""The alternate signal stack (include/linux/sched/signal.h, kernel/signal.c)."""

from __future__ import annotations

from kernel_stubs.abi import TaskStruct
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.signal_abi import MINSIGSTKSZ, Action, Sa, Ss


def within_sig_stack(task: TaskStruct, sp: int) -> bool:
    """Whether `sp` lies on the alternate stack."""
    signals = task.signals
    return signals.sas_ss_sp < sp <= signals.sas_ss_sp + signals.sas_ss_size


def on_sig_stack(task: TaskStruct, sp: int) -> bool:
    """Whether the alternate stack is in use; with SS_AUTODISARM it never is."""
    return not task.signals.sas_ss_flags & Ss.AUTODISARM and within_sig_stack(task, sp)


def sas_ss_flags(task: TaskStruct, sp: int) -> int:
    """State of the alternate stack: SS_DISABLE, SS_ONSTACK or 0."""
    if not task.signals.sas_ss_size:
        return Ss.DISABLE
    return Ss.ONSTACK if on_sig_stack(task, sp) else 0


def reset_altstack(task: TaskStruct) -> None:
    """No alternate stack."""
    signals = task.signals
    signals.sas_ss_sp = signals.sas_ss_size = 0
    signals.sas_ss_flags = Ss.DISABLE


def stack_for(task: TaskStruct, sp: int, action: Action) -> int:
    """Where the frame's stack begins: the alternate stack's end if the action wants it and it is free."""
    if action.flags & Sa.ONSTACK and sas_ss_flags(task, sp) == 0:
        return task.signals.sas_ss_sp + task.signals.sas_ss_size
    return sp


def do_sigaltstack(task: TaskStruct, sp: int, ss_sp: int, ss_flags: int, ss_size: int) -> None:
    """Change the alternate stack, with the errors of sigaltstack(2)."""
    signals = task.signals
    if on_sig_stack(task, sp):
        raise SyscallError(Errno.EPERM)
    mode = ss_flags & ~int(Ss.AUTODISARM)
    if mode not in (0, Ss.ONSTACK, Ss.DISABLE):
        raise SyscallError(Errno.EINVAL)
    if (ss_sp, ss_flags, ss_size) == (signals.sas_ss_sp, signals.sas_ss_flags, signals.sas_ss_size):
        return
    if mode == Ss.DISABLE:
        ss_sp = ss_size = 0
    elif ss_size < MINSIGSTKSZ:
        raise SyscallError(Errno.ENOMEM)
    signals.sas_ss_sp, signals.sas_ss_flags, signals.sas_ss_size = ss_sp, ss_flags, ss_size


def restore_altstack(task: TaskStruct, ss_sp: int, ss_flags: int, ss_size: int, sp: int) -> None:
    """The alternate stack of a frame, whatever can be had of it."""
    try:
        do_sigaltstack(task, sp, ss_sp, ss_flags, ss_size)
    except SyscallError:
        return
