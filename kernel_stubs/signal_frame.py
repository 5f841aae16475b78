"""A handler's frame on the user's stack, and what signals do on the way to user mode (arch/x86/kernel/signal*.c)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntFlag

from emu.arch import Rflags, Selector
from emu.machine.descriptors import CpuFault, Descriptor, read_descriptor
from kernel_stubs.abi import FXSAVE_SIZE, PtRegs, TaskStruct, Tif
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, Restart, SyscallError
from kernel_stubs.fpu import clear_user_fpu, save_user_fpu, saved_fpu
from kernel_stubs.jobctl import start_group_stop, stop_here
from kernel_stubs.process import do_group_exit
from kernel_stubs.siginfo import Siginfo, signal_name
from kernel_stubs.signal import (
    IGNORED_BY_DEFAULT,
    STOPPING_BY_DEFAULT,
    dequeue_signal,
    force_sigsegv,
    restore_saved_sigmask,
    set_current_blocked,
    sigmask_to_save,
)
from kernel_stubs.signal_abi import SIG_DFL, SIG_IGN, Sa, Ss
from kernel_stubs.signal_state import action_of, bit
from kernel_stubs.syscalls.names import SYSCALL_NAMES
from kernel_stubs.uaccess import copy_to_user

USER_RPL = 3
RED_ZONE = 128
SYSCALL_SIZE = 2
"""Bytes of SYSCALL, SYSENTER and INT 0x80 alike."""
RESTART_SYSCALL = {name: number for number, name in SYSCALL_NAMES.items()}["restart_syscall"]
FLAGS_CLEARED_FOR_HANDLER = int(Rflags.DF | Rflags.RF | Rflags.TF)
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


@dataclass(frozen=True, slots=True)
class Action:
    """A k_sigaction as it was when the signal was taken."""

    handler: int
    flags: int
    restorer: int
    mask: int


def do_signal(cpu: Cpu, regs: PtRegs) -> Steps:
    """Deal with one pending signal of the current task, which is about to go to the user mode of `regs`.

    With none to handle, a system call that gave up for nothing is made again (arch_do_signal_or_restart).
    """
    task = cpu.current
    task.thread_info.flags &= ~Tif.NOTIFY_SIGNAL
    while not task.exit_state:
        if task.signals.stop_signal:
            yield from stop_here(cpu)
            continue
        info = dequeue_signal(cpu, task, task.blocked)
        if info is None:
            break
        action = _take_action(cpu, task, info.signo)
        if action.handler == SIG_IGN:
            continue
        if action.handler != SIG_DFL:
            yield from handle_signal(cpu, regs, info, action)
            return None
        if info.signo in IGNORED_BY_DEFAULT:
            continue
        if info.signo in STOPPING_BY_DEFAULT:
            start_group_stop(cpu, info.signo)
            continue
        do_group_exit(cpu, info.signo)
        return None
    _restart_without_handler(regs, task)
    restore_saved_sigmask(cpu)
    return None


def _take_action(cpu: Cpu, task: TaskStruct, signal: int) -> Action:
    stored = action_of(cpu.kernel, task, signal)
    action = Action(stored.handler, stored.flags, stored.restorer, stored.mask)
    if action.flags & Sa.RESETHAND and action.handler not in (SIG_DFL, SIG_IGN):
        stored.handler = SIG_DFL
    return action


# --- restart ----------------------------------------------------------------------------------------------------------
def _syscall_error(regs: PtRegs) -> int:
    """What the system call that is under way is to be restarted for; 0 if there is none."""
    in_syscall = regs.orig_ax & 0xFFFF_FFFF != 0xFFFF_FFFF
    error = -regs.ax & 0xFFFF_FFFF_FFFF_FFFF
    return error if in_syscall and error in Restart._value2member_map_ else 0


def _restart_without_handler(regs: PtRegs, task: TaskStruct) -> None:
    error = _syscall_error(regs)
    if not error:
        return
    regs.ax = RESTART_SYSCALL if error == Restart.ERESTART_RESTARTBLOCK else regs.orig_ax
    regs.ip -= SYSCALL_SIZE


def _restart_before_handler(regs: PtRegs, action: Action) -> None:
    error = _syscall_error(regs)
    if not error:
        return
    if error == Restart.ERESTARTNOINTR or (error == Restart.ERESTARTSYS and action.flags & Sa.RESTART):
        regs.ax = regs.orig_ax
        regs.ip -= SYSCALL_SIZE
    else:
        regs.ax = -Errno.EINTR


# --- the frame --------------------------------------------------------------------------------------------------------
def handle_signal(cpu: Cpu, regs: PtRegs, info: Siginfo, action: Action) -> Steps:
    """Have user mode go on in the handler."""
    task, signal = cpu.current, info.signo
    _restart_before_handler(regs, action)
    yield from save_user_fpu(cpu)
    try:
        setup_rt_frame(cpu, regs, info, action)
    except SyscallError:
        cpu.note(f"the frame for {signal_name(signal)} cannot be written")
        force_sigsegv(cpu, signal)
        return None
    regs.flags &= ~FLAGS_CLEARED_FOR_HANDLER
    yield from clear_user_fpu(cpu)
    task.signals.restore_sigmask = 0
    own = 0 if action.flags & Sa.NODEFER else bit(signal)
    set_current_blocked(cpu, task.blocked | action.mask | own)
    if task.signals.sas_ss_flags & Ss.AUTODISARM:
        reset_altstack(task)
    cpu.note(f"{signal_name(signal)} goes to its handler at {action.handler:#x}")
    return None


def setup_rt_frame(cpu: Cpu, regs: PtRegs, info: Siginfo, action: Action) -> None:
    """Write the 64-bit frame and point `regs` at the handler; SyscallError if it cannot be written."""
    if not action.flags & Sa.RESTORER:
        raise SyscallError(Errno.EFAULT)  # the ABI has no other way back
    task = cpu.current
    sp = _stack_for(task, regs.sp - RED_ZONE, action)
    on_stack = on_sig_stack(task, regs.sp) or sp != regs.sp - RED_ZONE
    fpstate = (sp - FXSAVE_SIZE) & -64
    at = ((fpstate - FRAME_SIZE) & -16) - 8
    if on_stack and not within_sig_stack(task, at):
        raise SyscallError(Errno.EFAULT)  # the alternate stack is too small
    copy_to_user(cpu, fpstate & _U64, saved_fpu(cpu))
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


# --- the alternate stack ----------------------------------------------------------------------------------------------
def within_sig_stack(task: TaskStruct, sp: int) -> bool:
    """Whether `sp` lies on the alternate stack."""
    signals = task.signals
    return signals.sas_ss_sp < sp <= signals.sas_ss_sp + signals.sas_ss_size


def on_sig_stack(task: TaskStruct, sp: int) -> bool:
    """Whether the alternate stack is in use; with SS_AUTODISARM it never is."""
    return not task.signals.sas_ss_flags & Ss.AUTODISARM and within_sig_stack(task, sp)


def sas_ss_flags(task: TaskStruct, sp: int) -> int:
    """State of the alternate stack: SS_DISABLE, SS_ONSTACK or 0."""
    if not task.signals.sas_ss_size:
        return Ss.DISABLE
    return Ss.ONSTACK if on_sig_stack(task, sp) else 0


def reset_altstack(task: TaskStruct) -> None:
    """No alternate stack."""
    signals = task.signals
    signals.sas_ss_sp = signals.sas_ss_size = 0
    signals.sas_ss_flags = Ss.DISABLE


def _stack_for(task: TaskStruct, sp: int, action: Action) -> int:
    if action.flags & Sa.ONSTACK and sas_ss_flags(task, sp) == 0:
        return task.signals.sas_ss_sp + task.signals.sas_ss_size
    return sp
