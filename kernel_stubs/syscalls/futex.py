"""futex(2) (kernel/futex/syscalls.c)."""

from __future__ import annotations

from kernel_stubs import futex
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.syscalls.clock import clock_of, read_timespec
from kernel_stubs.syscalls.table import s32, syscall

WAIT, WAKE, CMP_REQUEUE, WAIT_BITSET = 0, 1, 4, 9
PRIVATE, CLOCK_REALTIME = 128, 256
_U32 = 0xFFFF_FFFF


def _deadline(cpu: Cpu, timeout: int, operation: int, *, realtime: bool) -> int:
    """The clock at which a wait ends; 0 for never. FUTEX_WAIT's time is relative, FUTEX_WAIT_BITSET's absolute."""
    if not timeout:
        return 0
    wait = read_timespec(cpu, timeout)
    if operation == WAIT:
        return cpu.core.clock + max(wait, 1)
    return max(1, wait - clock_of(cpu, 0 if realtime else 1) + cpu.core.clock)


@syscall
def sys_futex(cpu: Cpu, address: int, operation: int, value: int, timeout: int, other: int, value3: int) -> Steps:
    """futex(2): waiting, waking, requeueing; no priority inheritance."""
    private, realtime = bool(operation & PRIVATE), bool(operation & CLOCK_REALTIME)
    command = operation & _U32 & ~(PRIVATE | CLOCK_REALTIME)
    value, value3 = value & _U32, value3 & _U32
    if realtime and command != WAIT_BITSET:
        raise SyscallError(Errno.ENOSYS)
    match command:
        case 0 | 9:  # WAIT, WAIT_BITSET
            deadline = _deadline(cpu, timeout, command, realtime=realtime)
            bits = futex.MATCH_ANY if command == WAIT else value3
            return (yield from futex.futex_wait(cpu, address, value, deadline, bits, private=private))
        case 1 | 10:  # WAKE, WAKE_BITSET
            bits = futex.MATCH_ANY if command == WAKE else value3
            return futex.futex_wake(cpu, address, s32(value), bits, private=private)
        case 3 | 4:  # REQUEUE, CMP_REQUEUE
            expected = value3 if command == CMP_REQUEUE else None
            return futex.futex_requeue(cpu, address, s32(value), s32(timeout), other, expected, private=private)
        case 5:  # WAKE_OP
            return futex.futex_wake_op(cpu, address, s32(value), s32(timeout), other, value3, private=private)
    raise SyscallError(Errno.ENOSYS)
