"""The table of system calls, and the C function that SYSCALL leads to (arch/x86/entry/common.c)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from kernel_stubs.abi import MAX_SYSCALLS, SYSCALL_COUNTS, PtRegs, SyscallCounts
from kernel_stubs.binding import Steps, Window, c_function
from kernel_stubs.context import Cpu, Kernel
from kernel_stubs.entry_common import (
    exit_to_user_mode_loop,
    syscall_exit_work,
    syscall_trace_enter,
    sysret_allowed,
)
from kernel_stubs.errno import Errno, OutOfMemoryError, SyscallError
from kernel_stubs.oom_kill import out_of_memory
from kernel_stubs.syscalls.names import SYSCALL_NAMES, syscall_name
from kernel_stubs.syscalls.names32 import ia32_syscall_name
from kernel_stubs.trace import trace_sys_enter, trace_sys_exit

Body = Callable[..., int | Steps]
"""body(cpu, up to six unsigned 64-bit arguments) -> result; SyscallError for a failure. Generators as in binding."""

B = TypeVar("B", bound=Body)


@dataclass(frozen=True, slots=True)
class SystemCallEntry:
    """A row of sys_call_table."""

    number: int
    name: str
    body: Body
    argument_count: int


_table: dict[int, SystemCallEntry] = {}
_NUMBERS = {name: number for number, name in SYSCALL_NAMES.items()}


def syscall(function: B) -> B:
    """Register a system call: the function's name is `sys_` and the system call's."""
    name = function.__name__.removeprefix("sys_")
    number = _NUMBERS[name]
    if number in _table:
        raise ValueError(f"system call {name} is defined twice")
    _table[number] = SystemCallEntry(number, name, function, len(inspect.signature(function).parameters) - 1)
    return function


def implemented() -> dict[int, str]:
    """Number -> name of the system calls that we have."""
    return {number: entry.name for number, entry in sorted(_table.items())}


def parameter_count(number: int) -> int:
    """How many arguments a system call that we have takes."""
    return _table[number].argument_count


def s32(value: int) -> int:
    """An argument of C type int."""
    value &= 0xFFFF_FFFF
    return value - (1 << 32) if value >> 31 else value


def s64(value: int) -> int:
    """An argument of C type long."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    return value - (1 << 64) if value >> 63 else value


def not_implemented(cpu: Cpu, number: int) -> int:
    """-ENOSYS, and a note of who asked."""
    counts = SyscallCounts.from_buffer(cpu.memory.ram, SYSCALL_COUNTS).count
    counts[min(number, MAX_SYSCALLS - 1)] += 1
    cpu.note(f"system call {syscall_name(number)} is not implemented")
    return -Errno.ENOSYS


def not_implemented32(cpu: Cpu, number: int) -> int:
    """The same for an i386 system call."""
    counts = SyscallCounts.from_buffer(cpu.memory.ram, SYSCALL_COUNTS).count32
    counts[min(number, MAX_SYSCALLS - 1)] += 1
    cpu.note(f"32-bit system call {ia32_syscall_name(number)} is not implemented")
    return -Errno.ENOSYS


def invoke(cpu: Cpu, number: int, args: tuple[int, ...]) -> Steps:
    """Run one system call: its result, or -errno."""
    entry = _table.get(number)
    if entry is None:
        return not_implemented(cpu, number)
    try:
        result = entry.body(cpu, *args[: entry.argument_count])
        return result if isinstance(result, int) else (yield from result)
    except OutOfMemoryError as error:
        out_of_memory(cpu)
        return -error.errno
    except SyscallError as error:
        return -error.errno


def call(cpu: Cpu, number: int, args: tuple[int, ...]) -> int:
    """A system call that needs no guest code and waits for nothing, outside of a run."""
    try:
        next(invoke(cpu, number, args))
    except StopIteration as end:
        return int(end.value)
    raise RuntimeError(f"{syscall_name(number)} cannot be run here: it wants the guest")


def unknown_syscalls(kernel: Kernel) -> dict[str, int]:
    """Name -> how often a system call was asked for that we do not have; those of i386 have `ia32 ` before the name."""
    counts = SyscallCounts.from_buffer(kernel.memory.ram, SYSCALL_COUNTS)
    found = {syscall_name(number): int(counts.count[number]) for number in range(MAX_SYSCALLS) if counts.count[number]}
    for number in range(MAX_SYSCALLS):
        if counts.count32[number]:
            found[f"ia32 {ia32_syscall_name(number)}"] = int(counts.count32[number])
    return found


@c_function
def do_syscall_64(cpu: Cpu, regs: PtRegs, nr: int) -> Steps:
    """SYSCALL from 64-bit mode. IF=0 on entry and exit, on in between; 1 if SYSRETQ can return."""
    yield Window()
    # Linux compares 32 bits, unsigned: what is negative is out of range, and -1 leaves regs.ax as a tracer set it.
    if cpu.current.thread_info.syscall_work:
        nr = (yield from syscall_trace_enter(cpu, regs, nr)) or 0
    if s64(nr) != -1:
        args = (regs.di, regs.si, regs.dx, regs.r10, regs.r8, regs.r9)
        trace_sys_enter(cpu, nr & 0xFFFF_FFFF, args)
        result = yield from invoke(cpu, nr & 0xFFFF_FFFF, args)
        regs.ax = result or 0
        trace_sys_exit(cpu, nr & 0xFFFF_FFFF, regs.ax)
    if cpu.current.thread_info.syscall_work:
        yield from syscall_exit_work(cpu, regs)
    yield from exit_to_user_mode_loop(cpu, regs)
    return int(sysret_allowed(regs))
