"""Signals: sending them, by choice and by force, and taking the next one (kernel/signal.c)."""

from __future__ import annotations

from kernel_stubs.abi import TaskState, TaskStruct, Tif
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.sched import address_of, is_dead, process_threads, signal_pending, wake_signalled, wake_up_state
from kernel_stubs.siginfo import (
    BUS_ADRALN,
    BUS_OBJERR,
    CLD_CONTINUED,
    CLD_STOPPED,
    FPE_INTDIV,
    ILL_ILLOPN,
    SEGV_ACCERR,
    SEGV_CPERR,
    SEGV_MAPERR,
    SI_KERNEL,
    SI_USER,
    TRAP_BRKPT,
    TRAP_HWBKPT,
    TRAP_TRACE,
    Sig,
    Siginfo,
    code_name,
    signal_name,
)
from kernel_stubs.signal_abi import SIG_DFL, SIG_IGN, SigQueue
from kernel_stubs.signal_state import (
    action_of,
    bit,
    copy_signals,
    enqueue,
    exec_signals,
    flush,
    is_realtime,
    pending_signals,
    release_signals,
    signal_of,
    take_first,
)
from kernel_stubs.trace import trace_signal_generate

IGNORED_BY_DEFAULT = frozenset({Sig.SIGCHLD, Sig.SIGCONT, Sig.SIGURG, Sig.SIGWINCH})
STOPPING_BY_DEFAULT = frozenset({Sig.SIGSTOP, Sig.SIGTSTP, Sig.SIGTTIN, Sig.SIGTTOU})
UNBLOCKABLE = bit(Sig.SIGKILL) | bit(Sig.SIGSTOP)
SYNCHRONOUS = sum(map(bit, (Sig.SIGILL, Sig.SIGTRAP, Sig.SIGBUS, Sig.SIGFPE, Sig.SIGSEGV, Sig.SIGSYS)))
"""Delivered before all others, for they belong to the instruction at RIP."""
CODE_CONTINUED = 0xFFFF
"""In task_struct.stop_code, and as wait4's status: not stopped any more."""
TRACE_SIGNAL_IGNORED, TRACE_SIGNAL_ALREADY_PENDING = 1, 2
_STOP_SET = sum(map(bit, STOPPING_BY_DEFAULT))


def recalc_sigpending(cpu: Cpu, task: TaskStruct) -> None:
    """TIF_SIGPENDING says whether there is a signal that is not blocked, or a stop, to see to."""
    if task.signals.stop_signal or pending_signals(cpu.kernel, task) & ~task.blocked:
        task.thread_info.flags |= Tif.SIGPENDING
    else:
        task.thread_info.flags &= ~Tif.SIGPENDING


def set_current_blocked(cpu: Cpu, mask: int) -> None:
    """A new signal mask for the current task."""
    cpu.current.blocked = mask & ~UNBLOCKABLE & 0xFFFF_FFFF_FFFF_FFFF
    recalc_sigpending(cpu, cpu.current)


def sig_ignored(cpu: Cpu, task: TaskStruct, signal: int) -> bool:
    """Whether nothing would come of the signal."""
    handler = action_of(cpu.kernel, task, signal).handler
    return handler == SIG_IGN or (handler == SIG_DFL and signal in IGNORED_BY_DEFAULT)


def send_signal(cpu: Cpu, task: TaskStruct, info: Siginfo | int, *, process: bool = True) -> None:
    """A signal arrives at a task, or at its process; it is dealt with on the way to user mode.

    `info` may be a number: SI_USER from nobody. EAGAIN if a real-time signal finds the queue full.
    """
    if not isinstance(info, Siginfo):
        info = Siginfo(int(info))
    signal = info.signo
    if is_dead(task):
        if not process or (living := next(process_threads(cpu.kernel, task), None)) is None:
            return
        task = living
    _prepare(cpu, task, signal)
    traced = task.ptrace.tracer and signal != Sig.SIGKILL
    if not traced and not (task.blocked | task.signals.real_blocked) & bit(signal) and sig_ignored(cpu, task, signal):
        trace_signal_generate(cpu, task, info, group=process, result=TRACE_SIGNAL_IGNORED)
        return
    if process:
        shared = signal_of(cpu.kernel, task)
        before, shared.pending = shared.pending, _add(shared.pending, shared.queue, info)
    else:
        before, task.pending = task.pending, _add(task.pending, task.signals.queue, info)
    result = TRACE_SIGNAL_ALREADY_PENDING if before & bit(signal) and not is_realtime(signal) else 0
    trace_signal_generate(cpu, task, info, group=process, result=result)
    _complete(cpu, task, signal, process=process)


def _add(pending: int, queue: SigQueue, info: Siginfo) -> int:
    """The set of pending signals with one more; the classical ones are remembered once."""
    realtime = is_realtime(info.signo)
    if not realtime and pending & bit(info.signo):
        return pending
    if not enqueue(queue, info) and realtime and info.code != SI_USER:
        raise SyscallError(Errno.EAGAIN)
    return pending | bit(info.signo)


def threads_of(cpu: Cpu, task: TaskStruct) -> list[TaskStruct]:
    """The living threads of a process, `task` first."""
    return sorted(process_threads(cpu.kernel, task), key=lambda thread: thread.pid != task.pid)


def _prepare(cpu: Cpu, task: TaskStruct, signal: int) -> None:
    """prepare_signal: stops and SIGCONT cancel each other, whatever is done about them; SIGCONT wakes at once."""
    if signal in STOPPING_BY_DEFAULT:
        for thread in threads_of(cpu, task):
            flush(cpu, thread, bit(Sig.SIGCONT))
    elif signal == Sig.SIGCONT:
        _continue(cpu, task)


def _continue(cpu: Cpu, task: TaskStruct) -> None:
    """SIGCONT ends a group stop, or one that has begun; a stop for a tracer is the tracer's to end.

    The parent can wait for that from now on; the SIGCHLD is sent by the process itself when it runs.
    """
    threads = threads_of(cpu, task)
    begun = any(thread.signals.stop_signal for thread in threads)
    leader = cpu.view(TaskStruct, task.group_leader)
    leader.signals.group_stop = 0
    if begun or any(thread.state == TaskState.STOPPED for thread in threads):
        leader.signals.untold = CLD_STOPPED if begun else CLD_CONTINUED
        if leader.state != TaskState.TRACED:
            leader.stop_code = CODE_CONTINUED
    for thread in threads:
        flush(cpu, thread, _STOP_SET)
        thread.signals.stop_signal = 0
        if thread.state == TaskState.STOPPED:
            wake_up_state(cpu, address_of(cpu.kernel, thread))


def _wants(task: TaskStruct, signal: int) -> bool:
    """Whether a task would take the signal now."""
    if task.blocked & bit(signal) or task.exit_state:
        return False
    if signal == Sig.SIGKILL:
        return True
    if task.state in (TaskState.STOPPED, TaskState.TRACED):
        return False
    return bool(task.on_cpu) or not signal_pending(task)


def _complete(cpu: Cpu, task: TaskStruct, signal: int, *, process: bool) -> None:
    """complete_signal: have a task look at it that does not block it; if all do, it waits."""
    candidates = threads_of(cpu, task) if process else [task]
    for thread in candidates:
        if _wants(thread, signal):
            signal_wake_up(cpu, thread, kill=signal == Sig.SIGKILL)
            return
    if process and signal == Sig.SIGKILL:
        return
    for thread in candidates:
        recalc_sigpending(cpu, thread)


def signal_wake_up(cpu: Cpu, task: TaskStruct, *, kill: bool = False) -> None:
    """Have the task look at its signals; to be killed it is also taken out of a stop."""
    task.thread_info.flags |= Tif.SIGPENDING
    if kill and task.state in (TaskState.STOPPED, TaskState.TRACED):
        wake_up_state(cpu, address_of(cpu.kernel, task))
    else:
        wake_signalled(cpu, task)


def force_sig_info(cpu: Cpu, info: Siginfo) -> None:
    """A signal that the current task brought about itself: one that blocks or ignores it gets the default action."""
    task, signal = cpu.current, info.signo
    blocked = task.blocked & bit(signal)
    if blocked or action_of(cpu.kernel, task, signal).handler == SIG_IGN:
        action_of(cpu.kernel, task, signal).handler = SIG_DFL
    task.blocked &= ~bit(signal)
    task.pending = _add(task.pending, task.signals.queue, info)
    trace_signal_generate(cpu, task, info, group=False, result=0)
    recalc_sigpending(cpu, task)
    task.last_signal, task.last_si_code, task.last_si_addr = signal, info.code, info.address
    text = f"{signal_name(signal)} ({code_name(signal, info.code)}, address {info.address:#x})"
    cpu.note(f"{text} sent to pid {task.pid}")


def force_sig(cpu: Cpu, signal: int, code: int = SI_KERNEL, address: int = 0) -> None:
    """force_sig_fault."""
    force_sig_info(cpu, Siginfo.fault(int(signal), code, address))


def force_sigsegv(cpu: Cpu, signal: int) -> None:
    """The frame of a handler could not be made. If it was SIGSEGV's own, there is no way on."""
    if signal == Sig.SIGSEGV:
        action_of(cpu.kernel, cpu.current, signal).handler = SIG_DFL
    force_sig(cpu, Sig.SIGSEGV)


def next_signal(pending: int, blocked: int) -> int:
    """The signal to take first; 0 for none."""
    ready = pending & ~blocked
    if ready & bit(Sig.SIGKILL):
        return int(Sig.SIGKILL)
    if ready & SYNCHRONOUS:
        ready &= SYNCHRONOUS
    return (ready & -ready).bit_length()


def dequeue_signal(cpu: Cpu, task: TaskStruct, blocked: int) -> Siginfo | None:
    """Take the next signal that is not in `blocked`: SIGKILL before all, then the task's own before its process's."""
    taken = None
    killed = pending_signals(cpu.kernel, task) & ~task.pending & bit(Sig.SIGKILL)
    if not killed and (signal := next_signal(task.pending, blocked)):
        taken, more = take_first(task.signals.queue, signal)
        if not more:
            task.pending &= ~bit(signal)
    elif task.signals.signal:
        shared = signal_of(cpu.kernel, task)
        if signal := next_signal(shared.pending, blocked):
            taken, more = take_first(shared.queue, signal)
            if not more:
                shared.pending &= ~bit(signal)
    recalc_sigpending(cpu, task)
    return taken


def restore_saved_sigmask(cpu: Cpu) -> None:
    """No handler ran for the call that had changed the mask (rt_sigsuspend): back to what it was."""
    signals = cpu.current.signals
    if signals.restore_sigmask:
        signals.restore_sigmask = 0
        set_current_blocked(cpu, signals.saved_sigmask)


def sigmask_to_save(task: TaskStruct) -> int:
    """The mask that a handler's frame is to restore."""
    return task.signals.saved_sigmask if task.signals.restore_sigmask else task.blocked


__all__ = [
    "BUS_ADRALN", "BUS_OBJERR", "FPE_INTDIV", "ILL_ILLOPN", "SEGV_ACCERR", "SEGV_CPERR", "SEGV_MAPERR", "SI_KERNEL",
    "TRAP_BRKPT", "TRAP_HWBKPT", "TRAP_TRACE", "Sig", "Siginfo", "code_name", "copy_signals", "dequeue_signal",
    "exec_signals", "force_sig", "force_sig_info", "force_sigsegv", "recalc_sigpending", "release_signals",
    "send_signal", "signal_name", "signal_pending",
]  # fmt: skip
