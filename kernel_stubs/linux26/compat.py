"""i386 system calls whose C function gets the pt_regs: `sys32_*` (arch/x86/ia32/sys_ia32.c, ia32_signal.c)."""

from __future__ import annotations

from kernel_stubs.abi import PtRegs
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.linux26.calls import c_function26
from kernel_stubs.linux26.syscalls import traced
from kernel_stubs.syscalls.compat import ia32_call
from kernel_stubs.syscalls.names32 import IA32_SYSCALL_NAMES

_NUMBERS = {name: number for number, name in IA32_SYSCALL_NAMES.items()}
_U32 = 0xFFFF_FFFF


def _call(cpu: Cpu, name: str, regs: PtRegs) -> Steps:
    """The system call with the arguments that INT 0x80 left in the frame."""
    args = tuple(arg & _U32 for arg in (regs.bx, regs.cx, regs.dx, regs.si, regs.di, regs.bp))
    return (yield from traced(cpu, args, ia32_call(cpu, _NUMBERS[name], args)))


@c_function26
def sys32_clone(cpu: Cpu, flags: int, stack: int, regs: PtRegs) -> Steps:
    """clone(2): only two of the arguments are in registers."""
    return (yield from _call(cpu, "clone", regs))


@c_function26
def sys32_execve(cpu: Cpu, path: int, argv: int, envp: int, regs: PtRegs) -> Steps:
    """execve(2): the vectors hold 32-bit pointers."""
    return (yield from _call(cpu, "execve", regs))


@c_function26
def sys32_sigaltstack(cpu: Cpu, new: int, old: int, regs: PtRegs) -> Steps:
    """sigaltstack(2): `stack_t` of i386."""
    return (yield from _call(cpu, "sigaltstack", regs))


@c_function26
def sys32_sigreturn(cpu: Cpu, regs: PtRegs) -> Steps:
    """sigreturn(2): the old signal frame."""
    return (yield from _call(cpu, "sigreturn", regs))


@c_function26
def sys32_rt_sigreturn(cpu: Cpu, regs: PtRegs) -> Steps:
    """rt_sigreturn(2): the signal frame with a siginfo."""
    return (yield from _call(cpu, "rt_sigreturn", regs))
