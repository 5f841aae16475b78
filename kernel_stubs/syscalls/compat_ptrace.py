"""ptrace(2) of 32-bit tracers (compat_arch_ptrace)."""

from __future__ import annotations

from kernel_stubs.context import Cpu
from kernel_stubs.syscalls.compat import compat_syscall
from kernel_stubs.syscalls.ptrace import Call, ptrace
from kernel_stubs.syscalls.table import s32


@compat_syscall
def compat_sys_ptrace(cpu: Cpu, request: int, pid: int, address: int, data: int) -> int:
    """ptrace(2), of tasks of either kind; a 64-bit one's registers are shown by halves."""
    return ptrace(cpu, s32(pid), Call(s32(request), address, data, ia32=True))
