"""32-bit system calls through INT 0x80 (arch/x86/entry/common.c): some that need no structure of their own."""

from __future__ import annotations

from kernel_stubs.abi import PtRegs
from kernel_stubs.binding import Steps, Window, c_function
from kernel_stubs.context import Cpu
from kernel_stubs.entry_common import exit_to_user_mode_loop
from kernel_stubs.errno import Errno
from kernel_stubs.syscalls import table
from kernel_stubs.syscalls.names import SYSCALL_NAMES

_NUMBERS = {name: number for number, name in SYSCALL_NAMES.items()}
IA32_SYSCALLS = {
    1: "exit", 3: "read", 4: "write", 6: "close", 13: "time", 20: "getpid", 24: "getuid", 37: "kill", 41: "dup",
    45: "brk", 54: "ioctl", 63: "dup2", 64: "getppid", 91: "munmap", 122: "uname", 125: "mprotect",
    158: "sched_yield", 172: "prctl", 219: "madvise", 224: "gettid", 238: "tkill", 252: "exit_group",
    258: "set_tid_address", 270: "tgkill", 355: "getrandom",
}  # fmt: skip
"""Number in 32-bit mode -> name."""


@c_function
def do_int80_syscall_32(cpu: Cpu, regs: PtRegs) -> Steps:
    """INT 0x80, from compatibility mode or from 64-bit mode. Arguments are 32 bits wide; orig_ax has the number."""
    yield Window()
    number = regs.orig_ax & 0xFFFF_FFFF
    name = IA32_SYSCALLS.get(number)
    if name is None:
        cpu.note(f"32-bit system call {number} is not implemented")
        regs.ax = -Errno.ENOSYS
    else:
        args = (regs.bx, regs.cx, regs.dx, regs.si, regs.di, regs.bp)
        result = yield from table.invoke(cpu, _NUMBERS[name], tuple(arg & 0xFFFF_FFFF for arg in args))
        regs.ax = result or 0
    yield from exit_to_user_mode_loop(cpu, regs)
    return None
