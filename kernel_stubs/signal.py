"""Signals: sending them by force, and what they do on the way to user mode (kernel/signal.c).

There are no handlers yet: every signal takes its default action.
"""

from __future__ import annotations

from enum import IntEnum

from kernel_stubs.abi import PtRegs, TaskStruct, Tif
from kernel_stubs.context import Cpu
from kernel_stubs.process import do_group_exit


class Sig(IntEnum):
    """Signal numbers (include/uapi/asm-generic/signal.h)."""

    SIGHUP = 1
    SIGINT = 2
    SIGQUIT = 3
    SIGILL = 4
    SIGTRAP = 5
    SIGABRT = 6
    SIGBUS = 7
    SIGFPE = 8
    SIGKILL = 9
    SIGUSR1 = 10
    SIGSEGV = 11
    SIGUSR2 = 12
    SIGPIPE = 13
    SIGALRM = 14
    SIGTERM = 15
    SIGSTKFLT = 16
    SIGCHLD = 17
    SIGCONT = 18
    SIGSTOP = 19
    SIGTSTP = 20
    SIGTTIN = 21
    SIGTTOU = 22
    SIGURG = 23
    SIGXCPU = 24
    SIGXFSZ = 25
    SIGVTALRM = 26
    SIGPROF = 27
    SIGWINCH = 28
    SIGIO = 29
    SIGPWR = 30
    SIGSYS = 31


# si_code (include/uapi/asm-generic/siginfo.h)
SI_KERNEL = 0x80
ILL_ILLOPN = 2
FPE_INTDIV = 1
FPE_FLTUNK = 14
SEGV_MAPERR = 1
SEGV_ACCERR = 2
SEGV_CPERR = 10
BUS_ADRALN = 1
BUS_OBJERR = 3
TRAP_BRKPT = 1
TRAP_TRACE = 2
TRAP_HWBKPT = 4

_CODE_NAMES: dict[tuple[int, int], str] = {
    (Sig.SIGILL, ILL_ILLOPN): "ILL_ILLOPN",
    (Sig.SIGFPE, FPE_INTDIV): "FPE_INTDIV",
    (Sig.SIGFPE, FPE_FLTUNK): "FPE_FLTUNK",
    (Sig.SIGSEGV, SEGV_MAPERR): "SEGV_MAPERR",
    (Sig.SIGSEGV, SEGV_ACCERR): "SEGV_ACCERR",
    (Sig.SIGSEGV, SEGV_CPERR): "SEGV_CPERR",
    (Sig.SIGBUS, BUS_ADRALN): "BUS_ADRALN",
    (Sig.SIGBUS, BUS_OBJERR): "BUS_OBJERR",
    (Sig.SIGTRAP, TRAP_BRKPT): "TRAP_BRKPT",
    (Sig.SIGTRAP, TRAP_TRACE): "TRAP_TRACE",
    (Sig.SIGTRAP, TRAP_HWBKPT): "TRAP_HWBKPT",
}

IGNORED_BY_DEFAULT = frozenset({Sig.SIGCHLD, Sig.SIGCONT, Sig.SIGURG, Sig.SIGWINCH})
STOPPING_BY_DEFAULT = frozenset({Sig.SIGSTOP, Sig.SIGTSTP, Sig.SIGTTIN, Sig.SIGTTOU})
SYNCHRONOUS = (Sig.SIGSEGV, Sig.SIGBUS, Sig.SIGILL, Sig.SIGTRAP, Sig.SIGFPE, Sig.SIGSYS)
"""Delivered before all others, for they belong to the instruction at RIP."""


def signal_name(number: int) -> str:
    """SIGSEGV, or SIGRTMIN+n."""
    return Sig(number).name if number in Sig._value2member_map_ else f"SIGRTMIN+{number - 32}"


def code_name(signal: int, code: int) -> str:
    """Name of a si_code."""
    if code == SI_KERNEL:
        return "SI_KERNEL"
    return _CODE_NAMES.get((signal, code), str(code))


def _bit(signal: int) -> int:
    return 1 << (signal - 1)


def recalc_sigpending(task: TaskStruct) -> None:
    """TIF_SIGPENDING says whether a signal waits that is not blocked."""
    if task.pending & ~task.blocked:
        task.thread_info.flags |= Tif.SIGPENDING
    else:
        task.thread_info.flags &= ~Tif.SIGPENDING


def send_signal(task: TaskStruct, signal: int) -> None:
    """A signal arrives at a task; it is dealt with on its way to user mode."""
    task.pending |= _bit(signal)
    recalc_sigpending(task)


def force_sig(cpu: Cpu, signal: int, code: int, address: int) -> None:
    """A signal that the current task brought about itself; blocking it does not help."""
    task = cpu.current
    task.blocked &= ~_bit(signal)
    task.last_signal, task.last_si_code, task.last_si_addr = int(signal), code, address
    send_signal(task, signal)
    cpu.note(f"{signal_name(signal)} ({code_name(signal, code)}, address {address:#x}) sent to pid {task.pid}")


def dequeue_signal(task: TaskStruct) -> int:
    """Take the next signal that is not blocked; 0 for none."""
    ready = task.pending & ~task.blocked
    if not ready:
        return 0
    first = next((int(s) for s in SYNCHRONOUS if ready & _bit(s)), (ready & -ready).bit_length())
    if ready & _bit(Sig.SIGKILL):
        first = int(Sig.SIGKILL)
    task.pending &= ~_bit(first)
    return first


def do_signal(cpu: Cpu, regs: PtRegs) -> None:
    """Deal with the pending signals of the current task, which is about to go to the user mode of `regs`."""
    task = cpu.current
    while not task.exit_state and (signal := dequeue_signal(task)):
        if signal in IGNORED_BY_DEFAULT:
            continue
        if signal in STOPPING_BY_DEFAULT:
            cpu.note(f"{signal_name(signal)} ignored: nobody could continue the process")
            continue
        do_group_exit(cpu, signal)
    task.thread_info.flags &= ~Tif.NOTIFY_SIGNAL
    recalc_sigpending(task)
