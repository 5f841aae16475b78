"""rt_sigreturn: from a handler's frame back to what it interrupted (arch/x86/kernel/signal_64.c)."""

from __future__ import annotations

from emu.arch import Rflags, Selector
from kernel_stubs.abi import FXSAVE_SIZE, PtRegs
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.errno import SyscallError, UserFaultError
from kernel_stubs.fpu import clear_user_fpu, restore_user_fpu
from kernel_stubs.siginfo import Sig
from kernel_stubs.signal import force_sig, set_current_blocked
from kernel_stubs.signal_abi import RestartFunction
from kernel_stubs.signal_frame64 import (
    FRAME_SIZE,
    RET_ADDRESS_AND_UCONTEXT,
    SIGCONTEXT,
    SIGCONTEXT_REGISTERS,
    UC_MCONTEXT,
    UC_SIGMASK,
    UCONTEXT,
    USER_RPL,
    Uc,
    force_valid_ss,
)
from kernel_stubs.signal_stack import restore_altstack
from kernel_stubs.uaccess import copy_from_user

_ARITHMETIC = Rflags.OF | Rflags.SF | Rflags.ZF | Rflags.AF | Rflags.PF | Rflags.CF
FIX_EFLAGS = int(_ARITHMETIC | Rflags.AC | Rflags.DF | Rflags.TF | Rflags.RF)
"""The flags that user mode may choose."""
_U64 = 0xFFFF_FFFF_FFFF_FFFF


def rt_sigreturn(cpu: Cpu, regs: PtRegs) -> Steps:
    """Restore the frame that RSP is just above; SIGSEGV if it is none. The result is the RAX that it holds."""
    at = (regs.sp - 8) & _U64
    try:
        frame = copy_from_user(cpu, at, FRAME_SIZE)
    except SyscallError:
        return bad_frame(cpu, regs, at, "rt_sigreturn")
    _, flags, _, ss_sp, ss_flags, _, ss_size = RET_ADDRESS_AND_UCONTEXT.unpack_from(frame)
    mask_at = UCONTEXT + UC_SIGMASK
    set_current_blocked(cpu, int.from_bytes(frame[mask_at : mask_at + 8], "little"))
    fpstate = _restore_registers(cpu, regs, frame[UCONTEXT + UC_MCONTEXT :], flags)
    if not (yield from restore_fpstate(cpu, fpstate)):
        return bad_frame(cpu, regs, at, "rt_sigreturn")
    restore_altstack(cpu.current, ss_sp, ss_flags, ss_size, regs.sp)
    return regs.ax


def _restore_registers(cpu: Cpu, regs: PtRegs, context: bytes, uc_flags: int) -> int:
    """Everything of a sigcontext but the FPU's state, whose address is returned."""
    cpu.current.signals.restart.function = RestartFunction.NONE
    words = SIGCONTEXT.unpack_from(context)
    flags = regs.flags
    for name, value in zip(SIGCONTEXT_REGISTERS, words, strict=False):
        setattr(regs, name, value)
    cs, _gs, _fs, ss, _err, _trapno, _oldmask, _cr2, fpstate = words[len(SIGCONTEXT_REGISTERS) :]
    regs.flags = flags & ~FIX_EFLAGS | regs.flags & FIX_EFLAGS
    regs.cs, regs.ss = cs | USER_RPL, ss | USER_RPL
    regs.orig_ax = _U64
    if not uc_flags & Uc.STRICT_RESTORE_SS and regs.cs == Selector.USER_CS:
        force_valid_ss(cpu, regs)
    return int(fpstate)


def restore_fpstate(cpu: Cpu, address: int) -> Steps:
    """The FPU's state from a frame; 0 if it cannot be had."""
    if not address:
        yield from clear_user_fpu(cpu)
        return 1
    state = b""
    if address % 16 == 0:
        try:
            state = copy_from_user(cpu, address, FXSAVE_SIZE)
        except UserFaultError:
            state = b""
    if state and (yield from restore_user_fpu(cpu, state)):
        return 1
    yield from clear_user_fpu(cpu)
    return 0


def bad_frame(cpu: Cpu, regs: PtRegs, at: int, name: str) -> int:
    """signal_fault: what should be a frame is none."""
    cpu.note(f"bad frame in {name}: frame {at:#x} ip {regs.ip:#x} sp {regs.sp:#x} orax {regs.orig_ax:#x}")
    force_sig(cpu, Sig.SIGSEGV)
    return 0
