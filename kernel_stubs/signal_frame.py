"""A handler's frame on the user's stack, and what signals do on the way to user mode (arch/x86/kernel/signal*.c)."""

from __future__ import annotations

from emu.arch import Rflags
from kernel_stubs.abi import PtRegs, TaskStruct, Tif
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu, Kernel, in_ia32_syscall
from kernel_stubs.errno import Errno, OutOfMemoryError, Restart, SyscallError
from kernel_stubs.fpu import clear_user_fpu, save_user_fpu
from kernel_stubs.jobctl import start_group_stop, stop_here, tell_of_continuing
from kernel_stubs.oom_kill import out_of_memory
from kernel_stubs.process import do_group_exit
from kernel_stubs.ptrace_stop import ptrace_notify, ptrace_signal
from kernel_stubs.siginfo import Sig, Siginfo, signal_name
from kernel_stubs.signal import (
    IGNORED_BY_DEFAULT,
    STOPPING_BY_DEFAULT,
    dequeue_signal,
    force_sigsegv,
    restore_saved_sigmask,
    set_current_blocked,
)
from kernel_stubs.signal_abi import SA_IA32_ABI, SIG_DFL, SIG_IGN, Action, Sa, Ss
from kernel_stubs.signal_frame32 import setup_frame32
from kernel_stubs.signal_frame64 import setup_rt_frame
from kernel_stubs.signal_stack import reset_altstack
from kernel_stubs.signal_state import action_of, bit
from kernel_stubs.step import disable_single_step
from kernel_stubs.syscalls.names import SYSCALL_NAMES
from kernel_stubs.trace import trace_signal_deliver

SYSCALL_SIZE = 2
"""Bytes of SYSCALL, SYSENTER and INT 0x80 alike."""
RESTART_SYSCALL = {name: number for number, name in SYSCALL_NAMES.items()}["restart_syscall"]
RESTART_SYSCALL32 = 0
FLAGS_CLEARED_FOR_HANDLER = int(Rflags.DF | Rflags.RF | Rflags.TF)


def do_signal(cpu: Cpu, regs: PtRegs) -> Steps:
    """Deal with one pending signal of the current task, which is about to go to the user mode of `regs`.

    With none to handle, a system call that gave up for nothing is made again (arch_do_signal_or_restart).
    """
    task = cpu.current
    task.thread_info.flags &= ~Tif.NOTIFY_SIGNAL
    while not task.exit_state:
        tell_of_continuing(cpu)
        if task.signals.stop_signal:
            yield from stop_here(cpu)
            continue
        info = dequeue_signal(cpu, task, task.blocked)
        if info is None:
            break
        if task.ptrace.tracer and info.signo != Sig.SIGKILL:
            if not (yield from ptrace_signal(cpu, info)):
                continue
            info = Siginfo.from_bytes(bytes(task.ptrace.siginfo))
        action = _take_action(cpu, task, info.signo)
        trace_signal_deliver(cpu, info, action.handler, action.flags)
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
    _restart_without_handler(cpu.kernel, regs, task)
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


def _restart_without_handler(kernel: Kernel, regs: PtRegs, task: TaskStruct) -> None:
    error = _syscall_error(regs)
    if not error:
        return
    number = RESTART_SYSCALL32 if in_ia32_syscall(kernel, task) else RESTART_SYSCALL
    regs.ax = number if error == Restart.ERESTART_RESTARTBLOCK else regs.orig_ax
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
    stepping = task.thread_info.flags & Tif.SINGLESTEP
    if stepping:  # the frame is to have the task's own TF
        disable_single_step(cpu.kernel, task)
    yield from save_user_fpu(cpu)
    try:
        if action.flags & SA_IA32_ABI:
            yield from setup_frame32(cpu, regs, info, action)
        else:
            setup_rt_frame(cpu, regs, info, action)
    except SyscallError as error:
        if isinstance(error, OutOfMemoryError):
            out_of_memory(cpu)
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
    if stepping:
        yield from ptrace_notify(cpu, Sig.SIGTRAP)
    return None
