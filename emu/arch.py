"""The x86-64 architecture in tables: vectors, selectors, MSR numbers, flag and control bits.

Sections are those of the Intel SDM volume 3A (combined edition) and of the AMD APM volume 2.
Everything here is a constant of the hardware or of the Linux x86-64 ABI; nothing here has state. Bits are IntEnum, not
IntFlag: combining them gives plain integers, which is several times faster where the machine does it at every stop.
"""

from __future__ import annotations

from enum import IntEnum

PAGE_SIZE = 4096
KERNEL_HALF = 1 << 63
"""Bit of all linear addresses that are the kernel's, and of no other canonical ones."""


class Vector(IntEnum):
    """Exception vectors 0-31 (SDM 6.3.1, table 6-1; APM 8.2)."""

    DE = 0
    DB = 1
    NMI = 2
    BP = 3
    OF = 4
    BR = 5
    UD = 6
    NM = 7
    DF = 8
    OLD_MF = 9
    TS = 10
    NP = 11
    SS = 12
    GP = 13
    PF = 14
    SPURIOUS = 15
    MF = 16
    AC = 17
    MC = 18
    XF = 19
    VE = 20
    CP = 21
    VC = 29


ERROR_CODE_VECTORS = frozenset(
    {Vector.DF, Vector.TS, Vector.NP, Vector.SS, Vector.GP, Vector.PF, Vector.AC, Vector.CP, Vector.VC}
)
"""Vectors that push an error code (SDM 6.13)."""

CONTRIBUTORY_VECTORS = frozenset({Vector.DE, Vector.TS, Vector.NP, Vector.SS, Vector.GP, Vector.CP})
"""Contributory exceptions for the double-fault table (SDM table 6-4)."""

PAGE_FAULT_VECTORS = frozenset({Vector.PF, Vector.VE})
"""Vectors of the page-fault class of the double-fault table (SDM table 6-4)."""

INT80_VECTOR = 0x80
FIRST_EXTERNAL_VECTOR = 0x20
LOCAL_TIMER_VECTOR = 0xEC
SPURIOUS_APIC_VECTOR = 0xFF
ERROR_APIC_VECTOR = 0xFE


class Rflags(IntEnum):
    """RFLAGS bits (SDM 2.3)."""

    CF = 1 << 0
    FIXED = 1 << 1
    PF = 1 << 2
    AF = 1 << 4
    ZF = 1 << 6
    SF = 1 << 7
    TF = 1 << 8
    IF = 1 << 9
    DF = 1 << 10
    OF = 1 << 11
    IOPL = 3 << 12
    NT = 1 << 14
    RF = 1 << 16
    VM = 1 << 17
    AC = 1 << 18
    VIF = 1 << 19
    VIP = 1 << 20
    ID = 1 << 21


ARITHMETIC_FLAGS = 0x8D5
"""CF PF AF ZF SF OF."""


class Cr0(IntEnum):
    """CR0 bits (SDM 2.5)."""

    PE = 1 << 0
    MP = 1 << 1
    EM = 1 << 2
    TS = 1 << 3
    ET = 1 << 4
    NE = 1 << 5
    WP = 1 << 16
    AM = 1 << 18
    PG = 1 << 31


class Cr4(IntEnum):
    """CR4 bits (SDM 2.5)."""

    DE = 1 << 3
    PSE = 1 << 4
    PAE = 1 << 5
    MCE = 1 << 6
    PGE = 1 << 7
    OSFXSR = 1 << 9
    OSXMMEXCPT = 1 << 10
    UMIP = 1 << 11
    FSGSBASE = 1 << 16
    OSXSAVE = 1 << 18
    SMEP = 1 << 20
    SMAP = 1 << 21


class Efer(IntEnum):
    """IA32_EFER bits (SDM 2.2.1; APM 3.1.7)."""

    SCE = 1 << 0
    LME = 1 << 8
    LMA = 1 << 10
    NXE = 1 << 11


class PageFault(IntEnum):
    """Page-fault error code bits (SDM 4.7)."""

    P = 1 << 0
    W = 1 << 1
    U = 1 << 2
    RSVD = 1 << 3
    I = 1 << 4  # noqa: E741  the manual's name
    PK = 1 << 5


class Msr(IntEnum):
    """Model-specific registers (SDM volume 4; APM appendix A)."""

    TSC = 0x10
    APIC_BASE = 0x1B
    SYSENTER_CS = 0x174
    SYSENTER_ESP = 0x175
    SYSENTER_EIP = 0x176
    MCG_CAP = 0x179
    MCG_STATUS = 0x17A
    MISC_ENABLE = 0x1A0
    DEBUGCTL = 0x1D9
    PAT = 0x277
    TSC_DEADLINE = 0x6E0
    X2APIC_BASE = 0x800
    EFER = 0xC0000080
    STAR = 0xC0000081
    LSTAR = 0xC0000082
    CSTAR = 0xC0000083
    SYSCALL_MASK = 0xC0000084
    FS_BASE = 0xC0000100
    GS_BASE = 0xC0000101
    KERNEL_GS_BASE = 0xC0000102
    TSC_AUX = 0xC0000103


class Selector(IntEnum):
    """Segment selectors of the Linux x86-64 GDT (arch/x86/include/asm/segment.h)."""

    KERNEL32_CS = 0x08
    KERNEL_CS = 0x10
    KERNEL_DS = 0x18
    USER32_CS = 0x23
    USER_DS = 0x2B
    USER_CS = 0x33
    TSS = 0x40
    LDT = 0x50
    CPU_NODE = 0x7B


STAR_VALUE = (Selector.KERNEL_CS << 32) | (Selector.USER32_CS << 48)
"""IA32_STAR: SYSCALL loads CS 0x10 / SS 0x18, SYSRETQ loads CS 0x33 / SS 0x2b."""

SYSCALL_MASK_VALUE = int(
    Rflags.CF | Rflags.PF | Rflags.AF | Rflags.ZF | Rflags.SF | Rflags.TF | Rflags.IF | Rflags.DF
    | Rflags.OF | Rflags.IOPL | Rflags.NT | Rflags.RF | Rflags.AC | Rflags.ID
)  # fmt: skip
"""RFLAGS bits that Linux 6 has SYSCALL clear (arch/x86/kernel/cpu/common.c, syscall_init)."""

KERNEL_SYMBOLS: dict[str, int] = {
    "__KERNEL_CS": Selector.KERNEL_CS,
    "__KERNEL_DS": Selector.KERNEL_DS,
    "__USER32_CS": Selector.USER32_CS,
    "__USER_DS": Selector.USER_DS,
    "__USER_CS": Selector.USER_CS,
    "GDT_ENTRY_TSS_SELECTOR": Selector.TSS,
    "__CPUNODE_SEG": Selector.CPU_NODE,
    "LOCAL_TIMER_VECTOR": LOCAL_TIMER_VECTOR,
    "SPURIOUS_APIC_VECTOR": SPURIOUS_APIC_VECTOR,
    "ERROR_APIC_VECTOR": ERROR_APIC_VECTOR,
    "FIRST_EXTERNAL_VECTOR": FIRST_EXTERNAL_VECTOR,
    **{f"MSR_{msr.name}": msr.value for msr in Msr},
    **{f"X86_EFLAGS_{flag.name}": flag.value for flag in Rflags if flag.name},
    **{f"X86_TRAP_{vector.name}": vector.value for vector in Vector},
}
"""Names under which the assembly sources know these constants (emitted by kernel_stubs.abi)."""


def is_canonical(address: int) -> bool:
    """Whether bits 63..47 of a 64-bit address are all equal (SDM volume 1, 3.3.7.1; 4-level paging)."""
    return address < 0x0000_8000_0000_0000 or 0xFFFF_8000_0000_0000 <= address <= 0xFFFF_FFFF_FFFF_FFFF
