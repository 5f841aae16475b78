"""A task's signal structures: made, shared, copied, given back, and the queues in them (kernel/fork.c, signal.c)."""

from __future__ import annotations

import ctypes

from kernel_stubs import mm
from kernel_stubs.abi import TaskStruct
from kernel_stubs.context import Cpu, Kernel
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.siginfo import KERNEL_SIGINFO_SIZE, Siginfo
from kernel_stubs.signal_abi import (
    MAX_QUEUED,
    NSIG,
    SIG_DFL,
    SIG_IGN,
    SIGRTMIN,
    KernelSiginfo,
    KSigAction,
    RestartFunction,
    SighandStruct,
    SignalStruct,
    SigQueue,
    Ss,
)


def bit(signal: int) -> int:
    """The signal's bit in a set."""
    return 1 << (signal - 1)


def sighand_of(kernel: Kernel, task: TaskStruct) -> SighandStruct:
    """The task's actions; made when they are first asked for."""
    signals = task.signals
    if not signals.sighand:
        signals.sighand = mm.direct_map(mm.alloc_page(kernel.memory))
        kernel.view(SighandStruct, signals.sighand).count = 1
    return kernel.view(SighandStruct, signals.sighand)


def signal_of(kernel: Kernel, task: TaskStruct) -> SignalStruct:
    """What is pending for the task's process; made when it is first asked for."""
    signals = task.signals
    if not signals.signal:
        signals.signal = mm.direct_map(mm.alloc_page(kernel.memory))
        kernel.view(SignalStruct, signals.signal).count = 1
    return kernel.view(SignalStruct, signals.signal)


def action_of(kernel: Kernel, task: TaskStruct, signal: int) -> KSigAction:
    """The task's action for a signal; a default one, which nothing keeps, as long as none was ever set."""
    if not task.signals.sighand:
        return KSigAction()
    action: KSigAction = sighand_of(kernel, task).action[signal - 1]
    return action


def pending_signals(kernel: Kernel, task: TaskStruct) -> int:
    """All signals that wait for the task or its process, blocked or not."""
    shared = kernel.view(SignalStruct, task.signals.signal).pending if task.signals.signal else 0
    return task.pending | shared


# --- fork, exec, exit -------------------------------------------------------------------------------------------------
CLONE_VM, CLONE_SIGHAND, CLONE_VFORK, CLONE_THREAD = 0x100, 0x800, 0x4000, 0x10000


def copy_signals(kernel: Kernel, parent: TaskStruct, child: TaskStruct, flags: int) -> None:
    """A new task's signals: the parent's mask and actions, nothing pending. `flags` are clone(2)'s."""
    actions, process = sighand_of(kernel, parent), signal_of(kernel, parent)
    child.blocked, child.pending = parent.blocked, 0
    ctypes.memset(ctypes.addressof(child.signals), 0, ctypes.sizeof(child.signals))
    if flags & CLONE_SIGHAND:
        actions.count += 1
        child.signals.sighand = parent.signals.sighand
    else:
        ctypes.memmove(sighand_of(kernel, child).action, actions.action, ctypes.sizeof(actions.action))
    if flags & CLONE_THREAD:
        process.count += 1
        child.signals.signal = parent.signals.signal
    else:
        own = signal_of(kernel, child)
        own.has_rlim = process.has_rlim
        ctypes.memmove(own.rlim, process.rlim, ctypes.sizeof(process.rlim))
    if flags & (CLONE_VM | CLONE_VFORK) == CLONE_VM:
        child.signals.sas_ss_flags = Ss.DISABLE  # the parent may be on that stack in the same memory
    else:
        for field in ("sas_ss_sp", "sas_ss_size", "sas_ss_flags"):
            setattr(child.signals, field, getattr(parent.signals, field))


def exec_signals(kernel: Kernel, task: TaskStruct) -> None:
    """A program starts: handlers go, what was ignored stays so; masks and what is pending stay (flush_signal_handlers).

    Actions shared with another process become the task's own (de_thread, unshare_sighand).
    """
    actions = sighand_of(kernel, task)
    if actions.count > 1:
        actions.count -= 1
        task.signals.sighand = 0
        ctypes.memmove(sighand_of(kernel, task).action, actions.action, ctypes.sizeof(actions.action))
    for action in sighand_of(kernel, task).action:
        if action.handler != SIG_IGN:
            action.handler = SIG_DFL
        action.flags = action.restorer = action.mask = 0
    task.signals.sas_ss_sp = task.signals.sas_ss_size = 0
    task.signals.restart.function = RestartFunction.NONE


def release_signals(kernel: Kernel, task: TaskStruct) -> None:
    """The task is no more: give up its share of the structures."""
    signals = task.signals
    for field, kind in (("sighand", SighandStruct), ("signal", SignalStruct)):
        address = getattr(signals, field)
        if not address:
            continue
        shared = kernel.view(kind, address)
        shared.count -= 1
        if not shared.count:
            mm.free_page(kernel.memory, kernel.physical(address))
        setattr(signals, field, 0)
    signals.queue.count = task.pending = 0


# --- queues -----------------------------------------------------------------------------------------------------------
def enqueue(queue: SigQueue, info: Siginfo) -> bool:
    """Append; False if there is no room."""
    count = min(queue.count, MAX_QUEUED)
    if count == MAX_QUEUED:
        return False
    queue.info[count] = KernelSiginfo.from_buffer_copy(info.to_bytes(KERNEL_SIGINFO_SIZE))
    queue.count = count + 1
    return True


def queued(queue: SigQueue) -> list[Siginfo]:
    """All entries, oldest first."""
    return [Siginfo.from_bytes(bytes(queue.info[index])) for index in range(min(queue.count, MAX_QUEUED))]


def take_first(queue: SigQueue, signal: int) -> tuple[Siginfo, bool]:
    """Remove the signal's oldest entry, and say whether there is another; without one SI_USER from nobody."""
    entries = queued(queue)
    own = [index for index, info in enumerate(entries) if info.signo == signal]
    if not own:
        return Siginfo(signal), False
    _remove(queue, {own[0]})
    return entries[own[0]], len(own) > 1


def drop(queue: SigQueue, signals: int) -> None:
    """Remove all entries of a set of signals."""
    _remove(queue, {index for index, info in enumerate(queued(queue)) if signals & bit(info.signo)})


def _remove(queue: SigQueue, indices: set[int]) -> None:
    keep = [bytes(queue.info[index]) for index in range(min(queue.count, MAX_QUEUED)) if index not in indices]
    queue.count = len(keep)
    for index, raw in enumerate(keep):
        queue.info[index] = KernelSiginfo.from_buffer_copy(raw)


def flush(cpu: Cpu, task: TaskStruct, signals: int) -> None:
    """Forget pending signals of a set (flush_sigqueue_mask)."""
    task.pending &= ~signals
    drop(task.signals.queue, signals)
    if task.signals.signal:
        process = signal_of(cpu.kernel, task)
        process.pending &= ~signals
        drop(process.queue, signals)


def valid_signal(number: int) -> int:
    """A signal's number as a system call gets it; EINVAL if there is none such."""
    if not 1 <= number <= NSIG:
        raise SyscallError(Errno.EINVAL)
    return number


def is_realtime(signal: int) -> bool:
    """Whether each one sent is remembered."""
    return signal >= SIGRTMIN
