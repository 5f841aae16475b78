"""4-level paging: build page tables in guest RAM, and walk them as the hardware does (SDM volume 3A, chapter 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import field
from enum import IntEnum
from struct import Struct

from emu.arch import PAGE_SIZE, Cr0, Cr4, Efer, PageFault, Rflags, is_canonical
from emu.machine.memory import Memory
from emu.record import record


class Pte(IntEnum):
    """Page-table entry bits (SDM table 4-19)."""

    P = 1 << 0
    RW = 1 << 1
    US = 1 << 2
    PWT = 1 << 3
    PCD = 1 << 4
    A = 1 << 5
    D = 1 << 6
    PS = 1 << 7
    G = 1 << 8
    NX = 1 << 63


_TABLE = Struct("<512Q")
ADDRESS_MASK = 0x000F_FFFF_FFFF_F000
RESERVED_MASK = 0x000F_FF00_0000_0000 & ~0x000000FFFFFFFFFF
"""Physical-address bits above MAXPHYADDR = 40, which must be 0."""
LARGE_RESERVED = {2: 0x3FFFE000, 1: 0x1FE000}
"""Bits 29:13 of a 1 GiB entry and 20:13 of a 2 MiB entry must be 0."""


@record
class Access:
    """What a memory access is, as far as paging cares."""

    write: bool = False
    user: bool = False
    fetch: bool = False
    implicit: bool = False
    """A supervisor access that the CPU makes itself (descriptor tables, TSS, interrupt frame): SMAP ignores AC."""
    bits: int = field(init=False, default=0)
    """The four above in one number."""

    def __post_init__(self) -> None:
        """Work out `bits`."""
        object.__setattr__(self, "bits", self.write | self.user << 1 | self.fetch << 2 | self.implicit << 3)


@record
class PagingMode:
    """The control bits that decide about an access."""

    wp: bool = True
    nxe: bool = True
    smep: bool = False
    smap: bool = False
    ac: bool = False

    @classmethod
    def of(cls, cr0: int, cr4: int, efer: int, flags: int) -> PagingMode:
        """From the registers."""
        return cls(
            bool(cr0 & Cr0.WP),
            bool(efer & Efer.NXE),
            bool(cr4 & Cr4.SMEP),
            bool(cr4 & Cr4.SMAP),
            bool(flags & Rflags.AC),
        )


@record
class Translation:
    """Where a linear address leads."""

    physical: int
    writable: bool
    user: bool
    executable: bool
    path: tuple[tuple[int, int], ...] = ()
    """(physical address, value) of each entry that led there, from the PML4 down."""


class PageFaultError(Exception):
    """The access faults with #PF error code `code`; `canonical` is False where hardware raises #GP or #SS instead."""

    def __init__(self, address: int, code: int, *, canonical: bool = True) -> None:
        super().__init__(f"page fault at {address:#x}, error code {code:#x}")
        self.address = address
        self.code = code
        self.canonical = canonical


def walk(memory: Memory, root: int, address: int, access: Access, mode: PagingMode) -> Translation:
    """Translate one linear address, or raise PageFaultError with the error code of SDM 4.7."""
    code = (
        (PageFault.W if access.write else 0)
        | (PageFault.U if access.user else 0)
        | (PageFault.I if access.fetch and (mode.nxe or mode.smep) else 0)
    )
    if not is_canonical(address):
        raise PageFaultError(address, int(code), canonical=False)
    table = root & ADDRESS_MASK
    writable = user = True
    executable = True
    path = []
    for level, shift in ((3, 39), (2, 30), (1, 21), (0, 12)):
        if table + PAGE_SIZE > memory.size:
            raise PageFaultError(address, int(code | PageFault.P | PageFault.RSVD))
        at = table + ((address >> shift) & 0x1FF) * 8
        entry = memory.read_u64(at)
        path.append((at, entry))
        if not entry & Pte.P:
            raise PageFaultError(address, int(code))
        large = bool(entry & Pte.PS) and level in (1, 2)
        reserved = RESERVED_MASK | (LARGE_RESERVED[level] if large else 0) | (0 if mode.nxe else int(Pte.NX))
        if entry & reserved or (level == 3 and entry & Pte.PS):
            raise PageFaultError(address, int(code | PageFault.P | PageFault.RSVD))
        writable = writable and bool(entry & Pte.RW)
        user = user and bool(entry & Pte.US)
        executable = executable and not entry & Pte.NX
        if large or level == 0:
            span = (1 << shift) - 1
            physical = (entry & ADDRESS_MASK & ~span) | (address & span)
            break
        table = entry & ADDRESS_MASK
    if not _permitted(access, mode, writable, user, executable):
        raise PageFaultError(address, int(code | PageFault.P))
    return Translation(physical, writable, user, executable, tuple(path))


def _permitted(access: Access, mode: PagingMode, writable: bool, user: bool, executable: bool) -> bool:
    """Access rights (SDM 4.6)."""
    if access.user:
        return user and (writable or not access.write) and (executable or not access.fetch)
    if access.fetch:
        return executable and not (user and mode.smep)
    if user and mode.smap and (access.implicit or not mode.ac):
        return False
    return writable or not access.write or not mode.wp


class PageTables:
    """Builds tables below a root. Frames for new tables come from `allocate`, zeroed, as physical addresses."""

    def __init__(self, memory: Memory, allocate: Callable[[], int]) -> None:
        self.memory = memory
        self.allocate = allocate

    def _slot(self, root: int, address: int, create: bool) -> int | None:
        table = root & ADDRESS_MASK
        for shift in (39, 30, 21):
            at = table + ((address >> shift) & 0x1FF) * 8
            entry = self.memory.read_u64(at)
            if not entry & Pte.P:
                if not create:
                    return None
                entry = self.allocate() | Pte.P | Pte.RW | Pte.US
                self.memory.write_u64(at, entry)
            table = entry & ADDRESS_MASK
        return table + ((address >> 12) & 0x1FF) * 8

    def leaf(self, root: int, address: int) -> int | None:
        """Physical address of the leaf entry of an address, present or not; None if a table above is missing."""
        return self._slot(root, address, create=False)

    def map(self, root: int, address: int, physical: int, flags: int) -> None:
        """Map one 4 KiB page; `flags` are the leaf's Pte bits (P is added)."""
        slot = self._slot(root, address, create=True)
        assert slot is not None
        self.memory.write_u64(slot, (physical & ADDRESS_MASK) | Pte.P | flags)
        self.memory.reach(physical + PAGE_SIZE)
        if not flags & Pte.NX:
            self.memory.note_code(physical // PAGE_SIZE)

    def unmap(self, root: int, address: int) -> int | None:
        """Remove a 4 KiB mapping; the physical address that it had, or None."""
        slot = self._slot(root, address, create=False)
        if slot is None:
            return None
        entry = self.memory.read_u64(slot)
        if not entry & Pte.P:
            return None
        self.memory.write_u64(slot, 0)
        return entry & ADDRESS_MASK

    def entry(self, root: int, address: int) -> int:
        """The leaf entry of an address, 0 if none."""
        slot = self._slot(root, address, create=False)
        return 0 if slot is None else self.memory.read_u64(slot)

    def set_entry(self, root: int, address: int, entry: int) -> None:
        """Overwrite the leaf entry of an address that has tables."""
        slot = self._slot(root, address, create=True)
        assert slot is not None
        self.memory.write_u64(slot, entry)


def mappings(memory: Memory, root: int) -> Iterator[tuple[int, int, int]]:
    """(linear address, leaf entry, size) of every present leaf, in address order."""

    def visit(table: int, level: int, base: int) -> Iterator[tuple[int, int, int]]:
        for index, entry in enumerate(_TABLE.unpack(memory.read(table, PAGE_SIZE))):
            if not entry & Pte.P:
                continue
            address = base | index << (12 + 9 * level)
            if level == 3 and index >= 256:
                address |= 0xFFFF << 48
            if level == 0 or entry & Pte.PS:
                yield address, entry, 1 << (12 + 9 * level)
            else:
                yield from visit(entry & ADDRESS_MASK, level - 1, address)

    yield from visit(root & ADDRESS_MASK, 3, 0)
