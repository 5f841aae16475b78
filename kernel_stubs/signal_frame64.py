"""A handler's frame on the stack of a 64-bit program (arch/x86/kernel/signal_64.c)."""

from __future__ import annotations

import struct
from enum import IntFlag

from emu.arch import Selector
from emu.machine.descriptors import CpuFault, Descriptor, read_descriptor
from kernel_stubs.abi import FXSAVE_SIZE, PtRegs, TaskStruct
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.fpu import saved_fpu
from kernel_stubs.siginfo import Siginfo
from kernel_stubs.signal import sigmask_to_save
from kernel_stubs.signal_abi import Action, Sa
from kernel_stubs.signal_stack import on_sig_stack, stack_for, within_sig_stack
from kernel_stubs.uaccess import copy_to_user

USER_RPL = 3
RED_ZONE = 128
RET_ADDRESS_AND_UCONTEXT = struct.Struct("<Q 2Q QIIQ")
SIGCONTEXT = struct.Struct("<18Q 4H 5Q 64x")
SIGCONTEXT_REGISTERS = (
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "di", "si", "bp", "bx", "dx", "ax", "cx", "sp", "ip", "flags",
)  # fmt: skip
UCONTEXT = 8
"""Offsets in `struct rt_sigframe`: return address, ucontext, siginfo."""
UC_MCONTEXT = 40
UC_SIGMASK = UC_MCONTEXT + SIGCONTEXT.size
SIGINFO = UCONTEXT + UC_SIGMASK + 8
FRAME_SIZE = SIGINFO + 128


class Uc(IntFlag):
    """ucontext.uc_flags (arch/x86/include/uapi/asm/ucontext.h)."""

    FP_XSTATE = 1
    SIGCONTEXT_SS = 2
    STRICT_RESTORE_SS = 4


def setup_rt_frame(cpu: Cpu, regs: PtRegs, info: Siginfo, action: Action) -> None:
    """Write the 64-bit frame and point `regs` at the handler; SyscallError if it cannot be written."""
    if not action.flags & Sa.RESTORER:
        raise SyscallError(Errno.EFAULT)  # the ABI has no other way back
    task = cpu.current
    sp = stack_for(task, regs.sp - RED_ZONE, action)
    on_stack = on_sig_stack(task, regs.sp) or sp != regs.sp - RED_ZONE
    state = saved_fpu(cpu)
    fpstate = (sp - FXSAVE_SIZE) & -64 if state else 0
    at = (((fpstate or sp) - FRAME_SIZE) & -16) - 8
    if on_stack and not within_sig_stack(task, at):
        raise SyscallError(Errno.EFAULT)  # the alternate stack is too small
    copy_to_user(cpu, fpstate & _U64, state)
    copy_to_user(cpu, at & _U64, _frame(task, regs, info, action, fpstate))
    regs.di, regs.si, regs.dx, regs.ax = info.signo, at + SIGINFO, at + UCONTEXT, 0
    regs.ip, regs.sp = action.handler, at
    regs.cs = Selector.USER_CS
    force_valid_ss(cpu, regs)


_U64 = 0xFFFF_FFFF_FFFF_FFFF


def _frame(task: TaskStruct, regs: PtRegs, info: Siginfo, action: Action, fpstate: int) -> bytes:
    flags = Uc.SIGCONTEXT_SS | (Uc.STRICT_RESTORE_SS if regs.cs == Selector.USER_CS else 0)
    signals = task.signals
    head = RET_ADDRESS_AND_UCONTEXT.pack(
        action.restorer, flags, 0, signals.sas_ss_sp, signals.sas_ss_flags, 0, signals.sas_ss_size
    )
    mask = sigmask_to_save(task)
    context = SIGCONTEXT.pack(
        *(getattr(regs, name) for name in SIGCONTEXT_REGISTERS),
        regs.cs & 0xFFFF, 0, 0, regs.ss & 0xFFFF,
        task.error_code, task.trap_nr, mask, task.cr2, fpstate,
    )  # fmt: skip
    return head + context + mask.to_bytes(8, "little") + info.to_bytes()


def force_valid_ss(cpu: Cpu, regs: PtRegs) -> None:
    """64-bit mode runs with any SS, but IRETQ does not load any."""
    if regs.ss == Selector.USER_DS:
        return
    try:
        descriptor = read_descriptor(cpu.core.linear, regs.ss & 0xFFFF, 0, "SS")
    except CpuFault:
        descriptor = None
    if not regs.ss & 0xFFFC or descriptor is None or not _is_user_stack(descriptor):
        regs.ss = Selector.USER_DS


def _is_user_stack(descriptor: Descriptor) -> bool:
    return descriptor.present and descriptor.dpl == USER_RPL and descriptor.is_writable_data
