"""What the kernel remembers about tracing, and ptrace(2)'s numbers (include/uapi/linux/ptrace.h, asm/thread_info.h)."""

from __future__ import annotations

import ctypes
from enum import IntEnum, IntFlag
from typing import Annotated

from kernel_stubs.layout import S32, U32, U64, Struct, layout
from kernel_stubs.signal_abi import KernelSiginfo

NR_BREAKPOINTS = 4


class SyscallWork(IntFlag):
    """thread_info.syscall_work (include/linux/thread_info.h)."""

    SYSCALL_TRACE = 1 << 2
    """A stop at entry and exit of each system call."""
    SYSCALL_EXIT_TRAP = 1 << 6
    """SIGTRAP at the exit: a tracer's single step over SYSCALL, whose TF the CPU had cleared."""


SYSCALL_WORK_ENTER = int(SyscallWork.SYSCALL_TRACE)
SYSCALL_WORK_EXIT = int(SyscallWork.SYSCALL_TRACE | SyscallWork.SYSCALL_EXIT_TRAP)


class Request(IntEnum):
    """First argument of ptrace(2)."""

    TRACEME = 0
    PEEKTEXT = 1
    PEEKDATA = 2
    PEEKUSER = 3
    POKETEXT = 4
    POKEDATA = 5
    POKEUSER = 6
    CONT = 7
    KILL = 8
    SINGLESTEP = 9
    GETREGS = 12
    SETREGS = 13
    GETFPREGS = 14
    SETFPREGS = 15
    ATTACH = 16
    DETACH = 17
    SYSCALL = 24
    SETOPTIONS = 0x4200
    GETEVENTMSG = 0x4201
    GETSIGINFO = 0x4202
    SETSIGINFO = 0x4203
    GETREGSET = 0x4204
    SETREGSET = 0x4205


class RegSet(IntEnum):
    """NT_*: which registers PTRACE_GETREGSET means (include/uapi/linux/elf.h)."""

    PRSTATUS = 1
    PRFPREG = 2


class Event(IntEnum):
    """PTRACE_EVENT_*: bits 8 and up of a stop's code; its option is 1 << event."""

    FORK = 1
    VFORK = 2
    CLONE = 3
    EXEC = 4


class Option(IntFlag):
    """PTRACE_O_*, those that there are here."""

    TRACESYSGOOD = 1
    TRACEFORK = 1 << Event.FORK
    TRACEVFORK = 1 << Event.VFORK
    TRACECLONE = 1 << Event.CLONE
    TRACEEXEC = 1 << Event.EXEC
    EXITKILL = 1 << 20


OPTIONS = int(
    Option.TRACESYSGOOD | Option.TRACEFORK | Option.TRACEVFORK | Option.TRACECLONE | Option.TRACEEXEC | Option.EXITKILL
)
EVENTMSG_SYSCALL_ENTRY, EVENTMSG_SYSCALL_EXIT = 1, 2


@layout()
class TaskPtrace(Struct):
    """A task's own part."""

    tracer: U64
    """Group leader of the process that traces this task, 0 for none: what one of its threads asks for is granted."""
    options: U32
    stopped_for: S32
    """While it is stopped: the stop's code, and afterwards the signal that the tracer put in its place."""
    message: U64
    """PTRACE_GETEVENTMSG."""
    has_siginfo: U32
    forced_tf: U32
    """TIF_FORCED_TF: the TF in user mode's flags is the tracer's; neither task nor tracer see it there."""
    siginfo: KernelSiginfo
    """Of the signal that it is stopped for, if has_siginfo."""
    addresses: Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * NR_BREAKPOINTS]
    """DR0-DR3: hardware has them while the task runs."""
    dr6: U64
    """virtual_dr6: 1 for yes in all bits, as #DB found them last."""
    dr7: U64
    """As the tracer wrote it."""
