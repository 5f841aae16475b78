"""A stopped task's registers as its tracer sees them: user_regs_struct, of 64-bit and of 32-bit tracers.

(arch/x86/kernel/ptrace.c.)
"""

from __future__ import annotations

import struct

from emu.arch import Rflags
from kernel_stubs.abi import TASK_SIZE_MAX, PtRegs, TaskStruct
from kernel_stubs.context import Kernel, task_pt_regs
from kernel_stubs.errno import Errno, SyscallError

USER_REGS = (
    "r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di", "orig_ax",
    "ip", "cs", "flags", "sp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
)  # fmt: skip
"""The words of user_regs_struct, and the first ones of `struct user`."""
USER_REGS_32 = (
    "bx", "cx", "dx", "si", "di", "bp", "ax", "ds", "es", "fs", "gs", "orig_ax", "ip", "cs", "flags", "sp", "ss",
)  # fmt: skip
USER_SIZE, USER_DEBUGREG = 928, 848
"""`struct user`: its size, and the offset of u_debugreg."""
USER32_SIZE, USER32_DEBUGREG = 284, 252
_U64 = struct.Struct(f"<{len(USER_REGS)}Q")
_U32 = struct.Struct(f"<{len(USER_REGS_32)}I")
FLAG_MASK_32 = int(
    Rflags.CF
    | Rflags.PF
    | Rflags.AF
    | Rflags.ZF
    | Rflags.SF
    | Rflags.TF
    | Rflags.DF
    | Rflags.OF
    | Rflags.RF
    | Rflags.AC
)
FLAG_MASK = FLAG_MASK_32 | int(Rflags.NT)
"""Flags that a tracer may choose."""
_RPL_USER = 3


def get_reg(kernel: Kernel, task: TaskStruct, name: str) -> int:
    """One register; TF is shown only if it is the task's own."""
    regs = task_pt_regs(kernel, task)
    match name:
        case "flags":
            return regs.flags & ~int(Rflags.TF) if task.ptrace.forced_tf else regs.flags
        case "fs_base":
            return task.fsbase
        case "gs_base":
            return task.gsbase
        case "ds" | "es":
            return int(getattr(task.segments, name))
        case "fs" | "gs":
            return task.fsindex if name == "fs" else task.gsindex
        case "cs" | "ss":
            return int(getattr(regs, name)) & 0xFFFF
    return int(getattr(regs, name))


def put_reg(kernel: Kernel, task: TaskStruct, name: str, value: int, mask: int = FLAG_MASK) -> None:
    """Change one register; EIO for what would take the kernel in."""
    regs = task_pt_regs(kernel, task)
    match name:
        case "flags":
            _put_flags(task, regs, value, mask)
        case "fs_base" | "gs_base":
            if value >= TASK_SIZE_MAX:
                raise SyscallError(Errno.EIO)
            setattr(task, name.replace("_", ""), value)
        case "cs" | "ss":
            if value & _RPL_USER != _RPL_USER:
                raise SyscallError(Errno.EIO)
            setattr(regs, name, value & 0xFFFF)
        case "ds" | "es" | "fs" | "gs":
            _put_segment(task, name, value)
        case _:
            setattr(regs, name, value)


def _put_flags(task: TaskStruct, regs: PtRegs, value: int, mask: int) -> None:
    """TF that the tracer sets is the task's own from then on; one that is the tracer's stays."""
    if value & Rflags.TF:
        task.ptrace.forced_tf = 0
    elif task.ptrace.forced_tf:
        value |= Rflags.TF
    regs.flags = regs.flags & ~mask | value & mask


def _put_segment(task: TaskStruct, name: str, value: int) -> None:
    if value & 0xFFFF and value & _RPL_USER != _RPL_USER:
        raise SyscallError(Errno.EIO)
    if name in ("ds", "es"):
        setattr(task.segments, name, value & 0xFFFF)
    else:
        setattr(task, f"{name}index", value & 0xFFFF)


def user_regs(kernel: Kernel, task: TaskStruct, *, ia32: bool) -> bytes:
    """PTRACE_GETREGS."""
    if ia32:
        return _U32.pack(*(get_reg(kernel, task, name) & 0xFFFF_FFFF for name in USER_REGS_32))
    return _U64.pack(*(get_reg(kernel, task, name) for name in USER_REGS))


def regs_size(*, ia32: bool) -> int:
    """Bytes of a user_regs_struct."""
    return _U32.size if ia32 else _U64.size


def set_user_regs(kernel: Kernel, task: TaskStruct, raw: bytes, *, ia32: bool) -> None:
    """PTRACE_SETREGS, SETREGSET: as many registers as there are words, up to the first that may not have its value."""
    names, word = (USER_REGS_32, 4) if ia32 else (USER_REGS, 8)
    for name, at in zip(names, range(0, len(raw), word), strict=False):
        put_user_reg(kernel, task, name, int.from_bytes(raw[at : at + word], "little"), ia32=ia32)


def put_user_reg(kernel: Kernel, task: TaskStruct, name: str, value: int, *, ia32: bool) -> None:
    """One register of a user_regs_struct of either size."""
    if ia32 and name in ("ax", "orig_ax") and value >> 31:  # results are negative there too; -1 is no system call
        value |= 0xFFFF_FFFF_0000_0000
    put_reg(kernel, task, name, value, FLAG_MASK_32 if ia32 else FLAG_MASK)
