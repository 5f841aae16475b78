"""Where everything of the test image lies. Physical addresses are below 640 KiB, so that a BIOS can load them.

Linear: KERNEL + p is physical p, supervisor, for the first 2 MiB. USER + p is physical p for the pages that user mode
may see: the cases' code, UDATA, USTACK and UEXTRA.
"""

from __future__ import annotations

MASK64 = (1 << 64) - 1
KERNEL = 0xFFFF_FFFF_8000_0000
USER = 0x40_0000

IMAGE = 0x1_0000
STUBS = 0x1_1000
"""Entry of vector n at STUBS + 16 * n; the system-call entries follow."""
LSTAR, CSTAR, SYSENTER = (STUBS + 0x1000 + 16 * n for n in range(3))
HANDLER = STUBS + 0x1040
"""Jumps to the case's own handler."""
WORK = 0x1_2800
"""The harness's variables."""
GDT, IDT, TSS, LDT = 0x1_4000, 0x1_5000, 0x1_6000, 0x1_6800
PML4, LOW_PDPT, LOW_PD, LOW_PT, HIGH_PDPT, HIGH_PD, HIGH_PT = (0x1_7000 + 0x1000 * n for n in range(7))
CASES = 0x2_0000
CASES_END = 0x8_0000
HARNESS_STACK = 0x8_2000
KSTACK = 0x8_4000
"""Top of the stack of code that starts at CPL 0."""
SP0 = 0x8_6000
IST = tuple(0x8_7000 + 0x1000 * n for n in range(8))
"""IST[n]: top of stack n (IST[0] is unused)."""
KDATA, UDATA, USTACK, UEXTRA, KEXTRA = 0x8_E000, 0x8_F000, 0x9_0000, 0x9_2000, 0x9_4000
"""KDATA: supervisor data; UDATA: user data; USTACK: the page of the user stack; UEXTRA and KEXTRA: pages that cases may
take away."""
APIC = 0x1F_F000
"""Offset in the kernel map where the local APIC's page is."""
APIC_PHYSICAL = 0xFEE0_0000

KERNEL32_CS, KERNEL_CS, KERNEL_DS, USER32_CS, USER_DS, USER_CS = 0x08, 0x10, 0x18, 0x23, 0x2B, 0x33
SPARE, TSS_SELECTOR, LDT_SELECTOR, SPARE2 = 0x38, 0x40, 0x50, 0x60
"""SPARE and everything from SPARE2 to 0xf8 is empty: cases put descriptors there."""
GDT_WORDS = 32
KDATA_WORDS = 64


def kernel(physical: int) -> int:
    """The supervisor address of a physical one."""
    return KERNEL + physical


def user(physical: int) -> int:
    """The user address of a physical one."""
    return USER + physical
