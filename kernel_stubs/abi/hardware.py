"""pt_regs, the task-state segment, and how Linux 6 numbers IST stacks and the vectors of the local APIC."""

from __future__ import annotations

import ctypes
from enum import IntEnum
from typing import Annotated

from kernel_stubs.layout import U16, U32, U64, Struct, layout


@layout()
class PtRegs(Struct):
    """`struct pt_regs` of x86-64: what every entry leaves on the stack for C."""

    r15: U64
    r14: U64
    r13: U64
    r12: U64
    bp: U64
    bx: U64
    r11: U64
    r10: U64
    r9: U64
    r8: U64
    ax: U64
    cx: U64
    dx: U64
    si: U64
    di: U64
    orig_ax: U64
    ip: U64
    cs: U64
    flags: U64
    sp: U64
    ss: U64

    @property
    def user_mode(self) -> bool:
        """Whether the interrupted code was not the kernel's: any CPL but 0, as the assembly tests too."""
        return bool(self.cs & 3)


@layout(pack=1)
class Tss(Struct):
    """64-bit task-state segment (SDM 8.7, figure 8-11)."""

    reserved0: U32
    sp0: U64
    sp1: U64
    sp2: U64
    reserved1: U64
    ist: Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * 7]
    reserved2: U64
    reserved3: U16
    io_bitmap_base: U16


class SystemVector(IntEnum):
    """Vectors that Linux 6 keeps for the local APIC (arch/x86/include/asm/irq_vectors.h), beside those in emu.arch."""

    IRQ_MOVE_CLEANUP = 0x20
    DEFERRED_ERROR = 0xF4
    IRQ_WORK = 0xF6
    X86_PLATFORM_IPI = 0xF7
    REBOOT = 0xF8
    THRESHOLD_APIC = 0xF9
    THERMAL_APIC = 0xFA
    CALL_FUNCTION_SINGLE = 0xFB
    CALL_FUNCTION = 0xFC
    RESCHEDULE = 0xFD


class Ist(IntEnum):
    """IST index of a gate (1-7), as Linux 6 assigns them."""

    DF = 1
    NMI = 2
    DB = 3
    MCE = 4
    VC = 5
