"""System calls that go on where they were after a signal without a handler (include/linux/restart_block.h).

A relative time must not begin anew, so such a call is not made again with its own arguments: it notes others.
"""

from __future__ import annotations

from kernel_stubs.context import Cpu
from kernel_stubs.errno import Restart, SyscallError
from kernel_stubs.signal_abi import RestartFunction


def restart_later(cpu: Cpu, function: RestartFunction, *args: int) -> SyscallError:
    """The error of a call that restart_syscall(2) goes on with, unless a handler runs: then it is EINTR."""
    block = cpu.current.signals.restart
    block.function = function
    for index, value in enumerate(args):
        block.arg[index] = value
    return SyscallError(Restart.ERESTART_RESTARTBLOCK)
