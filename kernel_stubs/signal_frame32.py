"""Signal frames of 32-bit programs, there and back (arch/x86/kernel/signal_32.c, as 64-bit kernels build it)."""

from __future__ import annotations

import struct

from emu.arch import Selector
from kernel_stubs.abi import FXSAVE_SIZE, MmStruct, PtRegs, TaskStruct
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.fpu import clear_user_fpu, restore_user_fpu, saved_fpu
from kernel_stubs.fsave import FREGS_SIZE, fold_fregs, to_fregs
from kernel_stubs.segments import selectors, set_selectors
from kernel_stubs.siginfo import Siginfo
from kernel_stubs.siginfo32 import SIGINFO32_SIZE, to_compat
from kernel_stubs.signal import set_current_blocked, sigmask_to_save
from kernel_stubs.signal_abi import Action, RestartFunction, Sa
from kernel_stubs.signal_frame64 import USER_RPL
from kernel_stubs.signal_stack import on_sig_stack, restore_altstack, sas_ss_flags, within_sig_stack
from kernel_stubs.sigreturn import FIX_EFLAGS, bad_frame
from kernel_stubs.uaccess import copy_from_user, copy_to_user, get_user
from kernel_stubs.vdso32 import RT_SIGRETURN, SIGRETURN

SIGCONTEXT32 = struct.Struct("<8H8I3I2H2I2H3I")
"""`struct sigcontext_32`."""
_GENERAL = ("di", "si", "bp", "sp", "bx", "dx", "cx", "ax")
_FPSTATE32_SIZE = 624
"""`struct _fpstate_32`: in the old frame there is room for one that nobody uses."""
_OLD_HEAD, _RT_HEAD = struct.Struct("<2I"), struct.Struct("<4I")
_UCONTEXT_HEAD = struct.Struct("<2I3I")
_OLD_CODE = b"\x58\xb8\x77\x00\x00\x00\xcd\x80"
_RT_CODE = b"\xb8\xad\x00\x00\x00\xcd\x80\x00"
"""What __kernel_sigreturn and __kernel_rt_sigreturn do: debuggers know a frame by it."""
_EXTRAMASK = _OLD_HEAD.size + SIGCONTEXT32.size + _FPSTATE32_SIZE
OLD_FRAME_SIZE = _EXTRAMASK + 4 + len(_OLD_CODE)
_SIGINFO = _RT_HEAD.size
_UCONTEXT = _SIGINFO + SIGINFO32_SIZE
_RT_CONTEXT = _UCONTEXT + _UCONTEXT_HEAD.size
_RT_MASK = _RT_CONTEXT + SIGCONTEXT32.size
RT_FRAME_SIZE = _RT_MASK + 8 + len(_RT_CODE)
_U32, _U64 = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF


def setup_frame32(cpu: Cpu, regs: PtRegs, info: Siginfo, action: Action) -> Steps:
    """Write the frame, old or new as SA_SIGINFO says, and point `regs` at the handler; the FPU's state is saved.

    SyscallError if it cannot be written.
    """
    rt = bool(action.flags & Sa.SIGINFO)
    segments, fxsave = selectors(cpu), saved_fpu(cpu)
    size = RT_FRAME_SIZE if rt else OLD_FRAME_SIZE
    fpstate, at = _room(cpu.current, regs, action, size, with_fpu=bool(fxsave))
    if fxsave:
        copy_to_user(cpu, fpstate, to_fregs(fxsave, regs.cs, segments[0]) + fxsave)
    context = _sigcontext(cpu.current, regs, segments, fpstate)
    copy_to_user(cpu, at, (_rt_frame if rt else _old_frame)(cpu, at, info, action, context))
    regs.dx, regs.cx = (at + _SIGINFO, at + _UCONTEXT) if rt else (0, 0)
    regs.ax, regs.sp, regs.ip = info.signo, at, action.handler & _U32
    regs.cs, regs.ss = Selector.USER32_CS, Selector.USER_DS
    yield from set_selectors(cpu, Selector.USER_DS, Selector.USER_DS, *segments[2:])
    return None


def _room(task: TaskStruct, regs: PtRegs, action: Action, size: int, *, with_fpu: bool) -> tuple[int, int]:
    """get_sigframe: where the FPU's state goes, 0 for nowhere, and the frame."""
    sp = regs.sp
    nested, entering = on_sig_stack(task, sp), False
    if action.flags & Sa.ONSTACK:
        if sas_ss_flags(task, sp) == 0:
            sp, entering = task.signals.sas_ss_sp + task.signals.sas_ss_size, True
    elif not nested and regs.ss != Selector.USER_DS and not action.flags & Sa.RESTORER and action.restorer:
        sp, entering = action.restorer, True  # how stacks were switched before there was sigaltstack
    fpstate = (((sp & _U32) - FXSAVE_SIZE) & -64) - FREGS_SIZE if with_fpu else 0
    at = (((fpstate or sp & _U32) - size + 4) & -16) - 4
    if at < 0 or ((nested or entering) and not within_sig_stack(task, at)):
        raise SyscallError(Errno.EFAULT)
    return fpstate, at


def _sigcontext(task: TaskStruct, regs: PtRegs, segments: tuple[int, int, int, int], fpstate: int) -> bytes:
    ds, es, fs, gs = segments
    return SIGCONTEXT32.pack(
        gs, 0, fs, 0, es, 0, ds, 0, *(getattr(regs, name) & _U32 for name in _GENERAL),
        task.trap_nr & _U32, task.error_code & _U32, regs.ip & _U32, regs.cs & 0xFFFF, 0,
        regs.flags & _U32, regs.sp & _U32, regs.ss & 0xFFFF, 0,
        fpstate, sigmask_to_save(task) & _U32, task.cr2 & _U32,
    )  # fmt: skip


def _restorer(cpu: Cpu, action: Action, entry: int, code: int) -> int:
    """Where the handler returns to: its own way, the vDSO's, or without one the code in the frame."""
    if action.flags & Sa.RESTORER:
        return action.restorer & _U32
    vdso = cpu.view(MmStruct, cpu.current.mm).vdso32
    return (vdso + entry if vdso else code) & _U32


def _old_frame(cpu: Cpu, at: int, info: Siginfo, action: Action, context: bytes) -> bytes:
    head = _OLD_HEAD.pack(_restorer(cpu, action, SIGRETURN, at + _EXTRAMASK + 4), info.signo)
    extra = sigmask_to_save(cpu.current) >> 32
    return head + context + bytes(_FPSTATE32_SIZE) + extra.to_bytes(4, "little") + _OLD_CODE


def _rt_frame(cpu: Cpu, at: int, info: Siginfo, action: Action, context: bytes) -> bytes:
    signals = cpu.current.signals
    back = _restorer(cpu, action, RT_SIGRETURN, at + RT_FRAME_SIZE - len(_RT_CODE))
    head = _RT_HEAD.pack(back, info.signo, at + _SIGINFO, at + _UCONTEXT)
    stack = (signals.sas_ss_sp & _U32, signals.sas_ss_flags & _U32, signals.sas_ss_size & _U32)
    mask = sigmask_to_save(cpu.current).to_bytes(8, "little")
    return head + to_compat(info) + _UCONTEXT_HEAD.pack(0, 0, *stack) + context + mask + _RT_CODE


# --- back -------------------------------------------------------------------------------------------------------------
def sigreturn32(cpu: Cpu, regs: PtRegs) -> Steps:
    """sigreturn(2): ESP is past the return address and the signal's number."""
    at = (regs.sp - _OLD_HEAD.size) & _U32
    try:
        context = copy_from_user(cpu, at + _OLD_HEAD.size, SIGCONTEXT32.size)
        extra = get_user(cpu, at + _EXTRAMASK, 4)
    except SyscallError:
        return bad_frame(cpu, regs, at, "32bit sigreturn")
    set_current_blocked(cpu, SIGCONTEXT32.unpack(context)[-2] | extra << 32)
    if not (yield from _restore(cpu, regs, context)):
        return bad_frame(cpu, regs, at, "32bit sigreturn")
    return regs.ax


def rt_sigreturn32(cpu: Cpu, regs: PtRegs) -> Steps:
    """rt_sigreturn(2) of a 32-bit program: ESP is past the return address."""
    at = (regs.sp - 4) & _U32
    try:
        frame = copy_from_user(cpu, at, RT_FRAME_SIZE - len(_RT_CODE))
    except SyscallError:
        return bad_frame(cpu, regs, at, "32bit rt_sigreturn")
    set_current_blocked(cpu, int.from_bytes(frame[_RT_MASK : _RT_MASK + 8], "little"))
    if not (yield from _restore(cpu, regs, frame[_RT_CONTEXT:_RT_MASK])):
        return bad_frame(cpu, regs, at, "32bit rt_sigreturn")
    _, _, ss_sp, ss_flags, ss_size = _UCONTEXT_HEAD.unpack_from(frame, _UCONTEXT)
    restore_altstack(cpu.current, ss_sp, ss_flags, ss_size, regs.sp)
    return regs.ax


def _usrseg(selector: int) -> int:
    return selector if selector <= USER_RPL else selector | USER_RPL


def _restore(cpu: Cpu, regs: PtRegs, context: bytes) -> Steps:
    """Everything that a sigcontext holds; 0 if the FPU's state cannot be had."""
    cpu.current.signals.restart.function = RestartFunction.NONE
    gs, _, fs, _, es, _, ds, _, *words = SIGCONTEXT32.unpack(context)
    for name, value in zip(_GENERAL, words, strict=False):
        setattr(regs, name, value)
    _trap, _error, regs.ip, cs, _, flags, _sp, ss, _, fpstate, _mask, _cr2 = words[len(_GENERAL) :]
    regs.cs, regs.ss = cs | USER_RPL, ss | USER_RPL
    regs.flags = regs.flags & ~FIX_EFLAGS | flags & FIX_EFLAGS
    regs.orig_ax = _U64
    yield from set_selectors(cpu, *(_usrseg(selector) for selector in (ds, es, fs, gs)))
    return (yield from _restore_fpstate(cpu, fpstate))


def _restore_fpstate(cpu: Cpu, address: int) -> Steps:
    """The FPU's state from a 32-bit frame: of the x87 part what the FSAVE layout says; 0 if it cannot be had."""
    if not address:
        yield from clear_user_fpu(cpu)
        return 1
    try:
        state = copy_from_user(cpu, address, FREGS_SIZE + FXSAVE_SIZE)
    except SyscallError:
        state = b""
    if state and (yield from restore_user_fpu(cpu, fold_fregs(state[:FREGS_SIZE], state[FREGS_SIZE:]))):
        return 1
    yield from clear_user_fpu(cpu)
    return 0


__all__ = ["OLD_FRAME_SIZE", "RT_FRAME_SIZE", "rt_sigreturn32", "setup_frame32", "sigreturn32"]
