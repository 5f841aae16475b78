"""i386 system calls: those with a C function of their own, and those that get the pt_regs (arch/x86/ia32)."""

from __future__ import annotations

from kernel_stubs.abi import PtRegs
from kernel_stubs.abi26 import STUBS_32, ia32_syscall_rows
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.linux26.calls import Body, c_function26, register26
from kernel_stubs.linux26.syscalls import traced
from kernel_stubs.linux26.thread_info import start_thread
from kernel_stubs.syscalls.compat import argument_count, functions, ia32_call
from kernel_stubs.syscalls.names32 import IA32_SYSCALL_NAMES

_NUMBERS = {name: number for number, name in IA32_SYSCALL_NAMES.items()}
_U32 = 0xFFFF_FFFF


def _call(cpu: Cpu, name: str, regs: PtRegs) -> Steps:
    """The system call with the arguments that INT 0x80 left in the frame."""
    args = tuple(arg & _U32 for arg in (regs.bx, regs.cx, regs.dx, regs.si, regs.di, regs.bp))
    return (yield from traced(cpu, args, ia32_call(cpu, _NUMBERS[name], args)))


def _body(number: int) -> Body:
    def body(cpu: Cpu, *args: int) -> Steps:
        return (yield from traced(cpu, None, ia32_call(cpu, number, tuple(arg & _U32 for arg in args))))

    return body


def register_all() -> None:
    """Register what ia32_sys_call_table leads to and the 64-bit table does not."""
    own = functions()
    for number, symbol in ia32_syscall_rows(own).items():
        if number not in STUBS_32 and own[number].startswith("compat_sys_"):
            register26(symbol, _body(number), (int,) * argument_count(number))


# --- with the pt_regs, from ia32entry.S -------------------------------------------------------------------------------
@c_function26
def sys32_clone(cpu: Cpu, flags: int, stack: int, regs: PtRegs) -> Steps:
    """clone(2): only two of the arguments are in registers."""
    return (yield from _call(cpu, "clone", regs))


@c_function26
def sys32_execve(cpu: Cpu, path: int, argv: int, envp: int, regs: PtRegs) -> Steps:
    """execve(2): the vectors hold 32-bit pointers."""
    result = yield from _call(cpu, "execve", regs)
    if not result:
        start_thread(cpu)
    return result


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
