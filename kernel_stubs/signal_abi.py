"""What the kernel remembers about signals, as structures in guest memory (include/linux/signal.h, sched/signal.h)."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Annotated

from kernel_stubs.layout import S32, U32, U64, Struct, layout

NSIG = 64
SIGRTMIN = 32
SIG_DFL, SIG_IGN = 0, 1
MINSIGSTKSZ = 2048


class Sa(IntFlag):
    """sigaction.sa_flags (include/uapi/asm-generic/signal-defs.h, arch/x86/include/uapi/asm/signal.h)."""

    NOCLDSTOP = 1
    NOCLDWAIT = 2
    SIGINFO = 4
    EXPOSE_TAGBITS = 0x800
    RESTORER = 0x0400_0000
    ONSTACK = 0x0800_0000
    RESTART = 0x1000_0000
    NODEFER = 0x4000_0000
    RESETHAND = 0x8000_0000


SA_KNOWN = 0xDC00_0807
"""All of them: what a program may ask for and find again."""
SA_IA32_ABI = 0x0200_0000
"""Kept with an action that a 32-bit system call set: its frames have the 32-bit form. User mode never sees it."""


class Ss(IntFlag):
    """stack_t.ss_flags (include/uapi/linux/signal.h)."""

    ONSTACK = 1
    DISABLE = 2
    AUTODISARM = 1 << 31


@layout()
class KSigAction(Struct):
    """`struct k_sigaction`, as rt_sigaction(2) hands it over in 64-bit mode."""

    handler: U64
    flags: U64
    restorer: U64
    mask: U64


@layout()
class KernelSiginfo(Struct):
    """`kernel_siginfo_t`: the part of a siginfo_t that is ever in use."""

    signo: S32
    errno: S32
    code: S32
    pad0: U32
    payload: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * 32]


MAX_QUEUED = 24
RLIM_INFINITY = 0xFFFF_FFFF_FFFF_FFFF


@layout()
class SigQueue(Struct):
    """The siginfos of pending signals, oldest first."""

    count: U32
    pad0: U32
    info: Annotated[ctypes.Array[KernelSiginfo], KernelSiginfo * MAX_QUEUED]


@layout()
class SighandStruct(Struct):
    """`struct sighand_struct`: a page of its own, shared by the threads of a process."""

    count: U32
    """Tasks that use it."""
    pad0: U32
    action: Annotated[ctypes.Array[KSigAction], KSigAction * NSIG]
    """By signal number - 1."""


@layout()
class SignalStruct(Struct):
    """`struct signal_struct`: what is sent to a process, for any of its threads to take; its limits."""

    count: U32
    has_rlim: U32
    """Whether `rlim` counts: nobody in the family has set a limit as long as it does not."""
    pending: U64
    queue: SigQueue
    rlim: Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * 32]
    """Soft and hard limit of each resource (kernel_stubs.rlimit)."""


@dataclass(frozen=True, slots=True)
class Action:
    """A k_sigaction as it was when the signal was taken."""

    handler: int
    flags: int
    restorer: int
    mask: int


class RestartFunction(IntEnum):
    """What restart_syscall(2) goes on with."""

    NONE = 0
    NANOSLEEP = 1
    POLL = 2
    FUTEX = 3


@layout()
class RestartBlock(Struct):
    """`struct restart_block`: a system call that goes on with other arguments than it was called with."""

    function: U32
    """RestartFunction."""
    pad0: U32
    arg: Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * 4]


@layout()
class TaskSignals(Struct):
    """A task's own part; its masks are in task_struct."""

    sighand: U64
    """SighandStruct."""
    signal: U64
    """SignalStruct."""
    saved_sigmask: U64
    """The mask to go back to, if `restore_sigmask`."""
    real_blocked: U64
    """What sigtimedwait has unblocked to be woken by it: not ignored, whatever its action."""
    restore_sigmask: U32
    sas_ss_flags: U32
    sas_ss_sp: U64
    sas_ss_size: U64
    restart: RestartBlock
    stop_signal: U32
    """The signal for which the whole process stops; this task has yet to. 0: none."""
    last_stop: U32
    """The signal of this task's last group stop: what a tracer that comes later is told."""
    untold: U32
    """In a leader: si_code of the SIGCHLD by which the process, now that it goes on, is to tell so. 0: none."""
    group_stop: U32
    """In a leader: the signal for which the whole process has stopped, until SIGCONT, even if a tracer has it run."""
    queue: SigQueue
