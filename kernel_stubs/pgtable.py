"""Page tables of a process, with page-table isolation.

A process has two PGDs in neighbouring frames: the kernel's, and the one of user mode behind it. Both lead to the same
tables for the user half, but in the kernel's PGD those entries are NX; the user's PGD has next to nothing of the
kernel half (kernel_stubs.boot decides what).
"""

from __future__ import annotations

import struct

from emu.arch import PAGE_SIZE
from emu.machine.memory import Memory
from emu.machine.paging import ADDRESS_MASK, Pte
from kernel_stubs import mm
from kernel_stubs.abi import INIT_PGD, PTI_USER_PGTABLE, VmFlags

_TABLE = struct.Struct("<512Q")
PROTNONE = 1 << 8
"""A page that is there but not accessible (PROT_NONE): P is clear, this bit set."""


def pgd_alloc(memory: Memory) -> int:
    """A pair of PGDs that share the kernel's half: the physical address of the first."""
    data = mm.kernel_data(memory)
    pgd = data.free_pgds
    if pgd:
        data.free_pgds = memory.read_u64(pgd)
        memory.write_u64(pgd, 0)
    else:
        pgd = mm.alloc_pages(memory, 2, align=2 * PAGE_SIZE)
    half = 8 * mm.KERNEL_HALF
    for offset in (0, PTI_USER_PGTABLE):
        shared = memory.read(INIT_PGD + offset + half, PAGE_SIZE - half)
        memory.write(pgd + offset + half, shared)
    return pgd


def pgd_free(memory: Memory, pgd: int) -> None:
    """Give a pair of PGDs back, with the tables of its user half, which must have no pages any more."""
    for entry in _TABLE.unpack(memory.read(pgd, PAGE_SIZE))[: mm.KERNEL_HALF]:
        if entry & Pte.P:
            _free_tables(memory, entry & ADDRESS_MASK, 2)
    for offset in (0, PTI_USER_PGTABLE):
        memory.write(pgd + offset, bytes(8 * mm.KERNEL_HALF))
    data = mm.kernel_data(memory)
    memory.write_u64(pgd, data.free_pgds)
    data.free_pgds = pgd


def free_slot(memory: Memory, pgd: int, slot: int) -> None:
    """Give back the tables of one entry of the kernel's half, which must have no pages any more."""
    _free_tables(memory, memory.read_u64(pgd + slot) & ADDRESS_MASK, 2)
    for offset in (0, PTI_USER_PGTABLE):
        memory.write_u64(pgd + offset + slot, 0)


def _free_tables(memory: Memory, table: int, level: int) -> None:
    """A table of this level (2: of PDEs' tables, 1: of page tables, 0: of pages) and those below it."""
    if level:
        for entry in _TABLE.unpack(memory.read(table, PAGE_SIZE)):
            if entry & Pte.P:
                _free_tables(memory, entry & ADDRESS_MASK, level - 1)
    mm.release_frame(memory, table)


def count_tables(memory: Memory, pgd: int) -> int:
    """Frames of an address space's tables, its two PGDs among them (mm_pgtables_bytes)."""

    def below(table: int, level: int, entries: int) -> int:
        found = (e & ADDRESS_MASK for e in _TABLE.unpack(memory.read(table, PAGE_SIZE))[:entries] if e & Pte.P)
        return 1 + sum(below(entry, level - 1, 512) if level > 1 else 1 for entry in found)

    return 1 + below(pgd, 3, mm.KERNEL_HALF)


def pte_flags(flags: int) -> int:
    """Leaf bits of a user page with these VmFlags."""
    if not flags & (VmFlags.READ | VmFlags.WRITE | VmFlags.EXEC):
        return PROTNONE | int(Pte.US | Pte.NX | Pte.A)
    bits = Pte.P | Pte.US | Pte.A
    if flags & VmFlags.WRITE:
        bits |= Pte.RW | Pte.D
    if not flags & VmFlags.EXEC:
        bits |= Pte.NX
    return int(bits)


def get_pte(memory: Memory, pgd: int, address: int) -> int:
    """The leaf entry of a user address, 0 if none."""
    return mm.kernel_tables(memory).entry(pgd, address)


def has_frame(pte: int) -> bool:
    """Whether an entry holds a page, accessible or not."""
    return bool(pte & (Pte.P | PROTNONE))


def set_pte(memory: Memory, pgd: int, address: int, frame: int, bits: int) -> None:
    """Map a user page for user mode and kernel; `bits` from `pte_flags`."""
    tables = mm.kernel_tables(memory)
    tables.set_entry(pgd, address, frame | bits)
    if bits & Pte.P and not bits & Pte.NX:
        memory.note_code(frame // PAGE_SIZE)
    slot = pgd + 8 * (address >> 39 & 0x1FF)
    entry = memory.read_u64(slot) & ~Pte.NX | Pte.A
    memory.write_u64(slot, entry if mm.kernel_data(memory).no_isolation else entry | Pte.NX)
    memory.write_u64(slot + PTI_USER_PGTABLE, entry)


def clear_pte(memory: Memory, pgd: int, address: int) -> int | None:
    """Unmap a user page: the frame that it had."""
    pte = get_pte(memory, pgd, address)
    if not has_frame(pte):
        return None
    mm.kernel_tables(memory).set_entry(pgd, address, 0)
    return pte & ADDRESS_MASK


def next_table_boundary(memory: Memory, pgd: int, address: int) -> int:
    """The next address above `address` that may have a page: skips what has no tables at all."""
    table = pgd
    for shift in (39, 30, 21):
        entry = memory.read_u64(table + 8 * (address >> shift & 0x1FF))
        if not entry & Pte.P:
            return ((address >> shift) + 1) << shift
        table = entry & ADDRESS_MASK
    return (address | PAGE_SIZE - 1) + 1
