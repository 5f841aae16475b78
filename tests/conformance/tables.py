"""Descriptor tables, TSS and page tables of the test image, and helpers for cases that change them."""

from __future__ import annotations

import struct

from conformance import layout
from conformance.layout import KERNEL, KERNEL_CS, kernel

P, RW, US, ACCESSED, DIRTY, LARGE = 1, 2, 4, 0x20, 0x40, 0x80
NX = 1 << 63

KERNEL32_CODE = 0x00CF9B000000FFFF
KERNEL_CODE = 0x00AF9B000000FFFF
KERNEL_DATA = 0x00CF93000000FFFF
USER32_CODE = 0x00CFFB000000FFFF
USER_DATA = 0x00CFF3000000FFFF
USER_CODE = 0x00AFFB000000FFFF
PRESENT = 1 << 47
LONG, DEFAULT_32 = 1 << 53, 1 << 54
ACCESSED_BIT, CONFORMING = 1 << 40, 1 << 42
TSS_LIMIT = 0x68 + 0x20


def dpl(raw: int, level: int) -> int:
    """A descriptor with another DPL."""
    return raw & ~(3 << 45) | level << 45


def based(raw: int, base: int) -> int:
    """A descriptor with another base."""
    return raw & ~0xFF0000FFFFFF0000 | (base & 0xFFFFFF) << 16 | (base >> 24 & 0xFF) << 56


def kind(raw: int, code: int) -> int:
    """A descriptor with other type and S bits (the low five of its access byte)."""
    return raw & ~(0x1F << 40) | code << 40


def system(base: int, limit: int, code: int) -> tuple[int, int]:
    """The two words of a present 16-byte system descriptor."""
    low = limit & 0xFFFF | (base & 0xFFFFFF) << 16 | (0x80 | code) << 40 | (limit >> 16 & 15) << 48
    return low | (base >> 24 & 0xFF) << 56, base >> 32


def stub(vector: int) -> int:
    """Address of the entry of a vector."""
    return kernel(layout.STUBS) + 16 * vector


def gate(
    handler: int, *, selector: int = KERNEL_CS, ist: int = 0, kind: int = 14, level: int = 0, present: bool = True
) -> bytes:
    """An IDT entry; kind 14 is an interrupt gate, 15 a trap gate."""
    access = kind | level << 5 | present << 7
    return struct.pack("<HHBBHII", handler & 0xFFFF, selector, ist, access, handler >> 16 & 0xFFFF, handler >> 32, 0)


def default_gate(vector: int) -> bytes:
    """Interrupt gates of DPL 0; #DF on IST 2; 0xFE and 0xFF for every level, 0xFF on IST 7."""
    return gate(stub(vector), ist={8: 2, 0xFF: 7}.get(vector, 0), level=3 if vector >= 0xFE else 0)


def gdt() -> bytes:
    """The GDT."""
    words = [0, KERNEL32_CODE, KERNEL_CODE, KERNEL_DATA, USER32_CODE, USER_DATA, USER_CODE, 0]
    words += system(kernel(layout.TSS), TSS_LIMIT, 9)
    words += system(kernel(layout.LDT), 0x3F, 2)
    words += [0] * (layout.GDT_WORDS - len(words))
    return struct.pack(f"<{len(words)}Q", *words)


def idt() -> bytes:
    """The IDT."""
    return b"".join(default_gate(vector) for vector in range(256))


SP_OFFSET = 4
IST_OFFSET = 36
"""Offsets in the TSS of RSP0 and IST1."""
IO_MAP = 102


def tss() -> bytes:
    """The TSS: stacks, and an I/O bitmap for ports 0-0xff that denies everything."""
    ist = [kernel(top) for top in layout.IST[1:]]
    body = struct.pack("<IQQQQ7QQHH", 0, kernel(layout.SP0), 0, 0, 0, *ist, 0, 0, 0x68)
    return body + b"\xff" * 0x21


def ldt() -> bytes:
    """The LDT: null, user data, kernel data."""
    return struct.pack("<4Q", 0, USER_DATA, KERNEL_DATA, 0)


USER_PAGES = (layout.UDATA, layout.USTACK, layout.UEXTRA)


def leaf(linear: int) -> int:
    """The page-table entry that a linear address has by default."""
    physical = linear - KERNEL if linear >= KERNEL else linear - layout.USER
    if linear >= KERNEL:
        return layout.APIC_PHYSICAL | 0x13 if physical == layout.APIC else physical | P | RW
    is_user = layout.CASES <= physical < layout.CASES_END or physical in USER_PAGES
    return physical | P | RW | US if is_user else 0


def leaf_slot(linear: int) -> int:
    """Kernel address of the page-table entry of a page."""
    high = linear >= KERNEL
    return kernel(layout.HIGH_PT if high else layout.LOW_PT) + ((linear >> 12) & 0x1FF) * 8


def page_tables() -> bytes:
    """PML4 to the page tables, from layout.PML4 on."""
    pages = [[0] * 512 for _ in range(7)]
    pages[0][0], pages[0][511] = layout.LOW_PDPT | 7, layout.HIGH_PDPT | 3
    pages[1][0] = layout.LOW_PD | 7
    pages[2][layout.USER >> 21] = layout.LOW_PT | 7
    pages[4][510] = layout.HIGH_PD | 3
    pages[5][0] = layout.HIGH_PT | 3
    for n in range(512):
        pages[3][n] = leaf(layout.USER + 4096 * n)
        pages[6][n] = leaf(KERNEL + 4096 * n)
    return b"".join(struct.pack("<512Q", *page) for page in pages)


def regions() -> dict[int, bytes]:
    """Physical address -> contents."""
    return {
        layout.GDT: gdt(), layout.IDT: idt(), layout.TSS: tss(), layout.LDT: ldt(), layout.PML4: page_tables(),
    }  # fmt: skip
