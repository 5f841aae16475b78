"""32-bit system calls: INT 0x80, SYSENTER and AMD's SYSCALL (arch/x86/entry/common.c)."""

from __future__ import annotations

from emu.arch import Rflags, Selector
from kernel_stubs.abi import TS_COMPAT, PtRegs
from kernel_stubs.binding import Steps, Window, c_function
from kernel_stubs.context import Cpu
from kernel_stubs.entry_common import exit_to_user_mode_loop, syscall_exit_work, syscall_trace_enter
from kernel_stubs.errno import Errno, UserFaultError
from kernel_stubs.syscalls.compat import ia32_call
from kernel_stubs.trace import trace_sys_enter, trace_sys_exit
from kernel_stubs.uaccess import get_user
from kernel_stubs.vdso32 import LANDING_PAD

_U32 = 0xFFFF_FFFF


def _do_syscall_32(cpu: Cpu, regs: PtRegs) -> Steps:
    """Run the system call; arguments are 32 bits wide, orig_ax has the number."""
    cpu.current.thread_info.status |= TS_COMPAT
    number = ((yield from syscall_trace_enter(cpu, regs, regs.orig_ax)) or 0) & _U32
    args = tuple(arg & _U32 for arg in (regs.bx, regs.cx, regs.dx, regs.si, regs.di, regs.bp))
    if number != _U32:  # a tracer's way to skip it
        trace_sys_enter(cpu, number, args, ia32=True)
        result = yield from ia32_call(cpu, number, args)
        regs.ax = result or 0
        trace_sys_exit(cpu, number, regs.ax, ia32=True)
    yield from syscall_exit_work(cpu, regs)
    return None


def _exit_to_user_mode(cpu: Cpu, regs: PtRegs) -> Steps:
    yield from exit_to_user_mode_loop(cpu, regs)
    cpu.current.thread_info.status &= ~TS_COMPAT
    return None


@c_function
def do_int80_syscall_32(cpu: Cpu, regs: PtRegs) -> Steps:
    """INT 0x80, from compatibility mode or from 64-bit mode."""
    yield Window()
    yield from _do_syscall_32(cpu, regs)
    yield from _exit_to_user_mode(cpu, regs)
    return None


@c_function
def do_fast_syscall_32(cpu: Cpu, regs: PtRegs) -> Steps:
    """SYSCALL from compatibility mode, by the vDSO, which pushed EBP last. 1 if SYSRETL can return."""
    yield Window()
    landing_pad = (cpu.mm.vdso32 + LANDING_PAD) & _U32
    regs.ip = landing_pad
    try:
        regs.bp = get_user(cpu, regs.sp & _U32, 4)
    except UserFaultError:
        regs.ax = -Errno.EFAULT
    else:
        yield from _do_syscall_32(cpu, regs)
    yield from _exit_to_user_mode(cpu, regs)
    return int(
        regs.cs == Selector.USER32_CS
        and regs.ss == Selector.USER_DS
        and regs.ip == landing_pad
        and not regs.flags & (Rflags.RF | Rflags.TF | Rflags.VM)
    )


@c_function
def do_SYSENTER_32(cpu: Cpu, regs: PtRegs) -> Steps:
    """SYSENTER, by the vDSO: EBP holds ESP, and IF was on."""
    regs.sp = regs.bp
    regs.flags |= Rflags.IF
    return (yield from do_fast_syscall_32(cpu, regs))
