"""restart_syscall(2): what user mode makes without knowing, for a call that a signal interrupted (kernel/signal.c)."""

from __future__ import annotations

from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.futex import futex_wait
from kernel_stubs.signal_abi import RestartFunction
from kernel_stubs.syscalls.clock import sleep_until
from kernel_stubs.syscalls.descriptors import poll_until
from kernel_stubs.syscalls.table import syscall


@syscall
def sys_restart_syscall(cpu: Cpu) -> Steps:
    """restart_syscall(2): EINTR if there is nothing to go on with."""
    block = cpu.current.signals.restart
    first, second, third, fourth = (int(value) for value in block.arg)
    match block.function:
        case RestartFunction.NANOSLEEP:
            return (yield from sleep_until(cpu, first, second, third))
        case RestartFunction.POLL:
            return (yield from poll_until(cpu, first, second, third if fourth else None))
        case RestartFunction.FUTEX:
            return (yield from futex_wait(cpu, first, second, third, fourth >> 1, private=bool(fourth & 1)))
    raise SyscallError(Errno.EINTR)
