"""The threads that start helpers in user mode: khelper, wait_for_helper, ____call_usermodehelper (kernel/kmod.c).

Each is a C function that `child_rip` calls. The last one becomes the program, by `kernel_execve`, and is never returned
to unless that fails.
"""

from __future__ import annotations

from kernel_stubs.abi import TaskState
from kernel_stubs.binding import Call, Steps
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, OutOfMemoryError, SyscallError
from kernel_stubs.fdtable import new_files
from kernel_stubs.fork import Clone
from kernel_stubs.kmod import QUEUE_CHANNEL, SubprocessInfo, as_error, complete, next_request
from kernel_stubs.linux26.calls import c_function26
from kernel_stubs.rootfs import first_fs
from kernel_stubs.sched import sleep_on
from kernel_stubs.siginfo import Sig
from kernel_stubs.signal_abi import SIG_DFL, SIG_IGN
from kernel_stubs.signal_state import exec_signals, sighand_of
from kernel_stubs.wait import Wait, do_wait, report


@c_function26
def khelper(cpu: Cpu, argument: int) -> Steps:
    """Start a waiter for each helper that is asked for, for ever. In Linux it is a work queue's thread."""
    cpu.current.comm = b"khelper"
    while True:
        address = next_request(cpu)
        if not address:
            yield from sleep_on(cpu, QUEUE_CHANNEL, 0, TaskState.UNINTERRUPTIBLE)
            continue
        error: int = -Errno.ENOMEM
        if _has_all(cpu):
            flags = int(Clone.FS | Clone.FILES) | Sig.SIGCHLD
            error = as_error((yield Call("kernel_thread", (_symbol(cpu, "wait_for_helper"), address, flags))))
        if error:
            complete(cpu, address, error)


def _symbol(cpu: Cpu, name: str) -> int:
    return cpu.kernel.image.symbol(name)


def _has_all(cpu: Cpu) -> bool:
    """What init_task has in Linux, and khelper from it: no open file, / as directory, children that nobody waits for.

    Made when it is first needed; False if there is no memory for it.
    """
    kernel, task = cpu.kernel, cpu.current
    try:
        task.fs = task.fs or first_fs(kernel)
        sighand_of(kernel, task).action[Sig.SIGCHLD - 1].handler = SIG_IGN
        task.files = task.files or new_files(kernel)
    except OutOfMemoryError:
        return False
    return True


@c_function26
def wait_for_helper(cpu: Cpu, address: int) -> Steps:
    """Start one helper and tell how it ended: it has to be the parent, so that it can wait."""
    sighand_of(cpu.kernel, cpu.current).action[Sig.SIGCHLD - 1].handler = SIG_DFL
    flags = int(Sig.SIGCHLD)
    pid = yield Call("kernel_thread", (_symbol(cpu, "____call_usermodehelper"), address, flags))
    result = as_error(pid)
    if not result:
        result = (yield from _wait_for(cpu, pid)) or cpu.view(SubprocessInfo, address).retval
    complete(cpu, address, result)
    return 0


def _wait_for(cpu: Cpu, pid: int) -> Steps:
    """How a child ended, as wait4 without __WCLONE tells it: of those that announce their end by SIGCHLD. Or -errno."""
    try:
        child = yield from do_wait(cpu, lambda task: task.pid == pid and task.exit_signal == Sig.SIGCHLD, Wait.EXITED)
    except SyscallError as error:
        return -error.errno
    return report(cpu, child or 0, 0).status


@c_function26
def ____call_usermodehelper(cpu: Cpu, address: int) -> Steps:
    """Become the helper. What is returned here, kernel_execve could not do."""
    info, task = cpu.view(SubprocessInfo, address), cpu.current
    exec_signals(cpu.kernel, task)
    sighand_of(cpu.kernel, task).action[Sig.SIGCHLD - 1].handler = SIG_DFL
    task.blocked = 0
    info.retval = as_error((yield Call("kernel_execve", (info.path, info.argv, info.envp))))
    return 0
