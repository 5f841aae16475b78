"""espfix64: words to return from to a 16-bit stack segment, at an address with the user's bits 31:16 (espfix_64.c).

IRETQ loads only SP from such a frame and leaves the rest of RSP as it was. So each CPU has 64 bytes of one page, which
the tables show at every address `base | bits 31:16`, read-only, to the kernel and in the user's tables alike.
"""

from __future__ import annotations

from emu.arch import PAGE_SIZE
from emu.machine.memory import Memory
from emu.machine.paging import ADDRESS_MASK, Pte
from kernel_stubs import mm
from kernel_stubs.abi import INIT_PGD, PTI_USER_PGTABLE

ESPFIX_BASE = 0xFFFF_FF00_0000_0000
STACK_SIZE = 64
_PGD_INDEX = ESPFIX_BASE >> 39 & 0x1FF
_PUD_CLONES = 4
"""Bits 31:30."""
_PTE_STRIDE = 0x1_0000 // PAGE_SIZE
"""A page of every 64 KiB."""
_TABLE = int(Pte.P | Pte.RW | Pte.US | Pte.A)


def make_espfix_stack(memory: Memory, cpu: int) -> tuple[int, int]:
    """(address to return from, where it can be written) of a CPU. The first one makes the tables."""
    if not memory.read_u64(INIT_PGD + 8 * _PGD_INDEX) & Pte.P:
        _make_tables(memory)
    offset = cpu * STACK_SIZE
    return ESPFIX_BASE + offset, mm.direct_map(_frame(memory)) + offset


def _frame(memory: Memory) -> int:
    """The page, by way of the tables."""
    entry = INIT_PGD + 8 * _PGD_INDEX
    for _ in range(3):
        entry = memory.read_u64(entry) & ADDRESS_MASK
    return memory.read_u64(entry) & ADDRESS_MASK


def _make_tables(memory: Memory) -> None:
    page = mm.alloc_page(memory)
    pud, pmd, ptes = (mm.take_frame(memory) for _ in range(3))
    for index in range(0, 512, _PTE_STRIDE):
        memory.write_u64(ptes + 8 * index, page | mm.PAGE_KERNEL_RO)
    for index in range(512):
        memory.write_u64(pmd + 8 * index, ptes | _TABLE)
    for index in range(_PUD_CLONES):
        memory.write_u64(pud + 8 * index, pmd | _TABLE)
    for pgd in (INIT_PGD, INIT_PGD + PTI_USER_PGTABLE):
        memory.write_u64(pgd + 8 * _PGD_INDEX, pud | _TABLE)


def is_espfix(address: int) -> bool:
    """Whether an address lies in that part of the address space."""
    return address >> 39 == ESPFIX_BASE >> 39
