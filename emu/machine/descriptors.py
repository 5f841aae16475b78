"""Segment descriptors and gates as the CPU reads them (SDM volume 3A, 3.4.5 and 6.14.1)."""

from __future__ import annotations

from emu.arch import Vector
from emu.machine.linear import LinearMemory
from emu.machine.paging import PageFaultError
from emu.record import record


class CpuFault(Exception):
    """An exception that the CPU raises while executing or delivering: a result of the guest, not of ours."""

    def __init__(self, vector: int, error_code: int | None, why: str, cr2: int | None = None) -> None:
        super().__init__(why)
        self.vector = vector
        self.error_code = error_code
        self.why = why
        self.cr2 = cr2

    @classmethod
    def from_page(cls, fault: PageFaultError, what: str, non_canonical: int = Vector.GP) -> CpuFault:
        """#PF, or #GP(0) / #SS(0) for a non-canonical address."""
        if not fault.canonical:
            return cls(non_canonical, 0, f"{what}: non-canonical address {fault.address:#x}")
        return cls(Vector.PF, fault.code, f"{what}: page fault at {fault.address:#x}", fault.address)


@record
class Descriptor:
    """An 8-byte segment descriptor."""

    raw: int

    @property
    def flags(self) -> int:
        """The high doubleword without its base bits, as the engine's segment cache holds it."""
        return (self.raw >> 32) & 0x00FFFF00

    @property
    def base(self) -> int:
        """The 32-bit base."""
        return self.raw >> 16 & 0xFFFFFF | self.raw >> 32 & 0xFF000000

    @property
    def limit(self) -> int:
        """The limit in bytes."""
        limit = self.raw & 0xFFFF | self.raw >> 32 & 0xF0000
        return limit << 12 | 0xFFF if self.raw >> 55 & 1 else limit

    @property
    def present(self) -> bool:
        """P."""
        return bool(self.raw >> 47 & 1)

    @property
    def big(self) -> bool:
        """D/B: as a stack it is addressed by ESP, not SP."""
        return bool(self.raw >> 54 & 1)

    @property
    def dpl(self) -> int:
        """Descriptor privilege level."""
        return self.raw >> 45 & 3

    @property
    def is_code(self) -> bool:
        """A code segment."""
        return self.raw >> 43 & 3 == 3

    @property
    def is_writable_data(self) -> bool:
        """A writable data segment."""
        return self.raw >> 43 & 3 == 2 and bool(self.raw >> 41 & 1)

    @property
    def conforming(self) -> bool:
        """A conforming code segment."""
        return bool(self.raw >> 42 & 1)

    @property
    def long_mode(self) -> bool:
        """L."""
        return bool(self.raw >> 53 & 1)

    @property
    def default_32(self) -> bool:
        """D/B."""
        return bool(self.raw >> 54 & 1)


@record
class Gate:
    """A 16-byte IDT gate of 64-bit mode (SDM figure 6-8)."""

    offset: int
    selector: int
    ist: int
    type: int
    dpl: int
    present: bool

    @classmethod
    def parse(cls, data: bytes) -> Gate:
        """From the 16 bytes in the IDT."""
        low = int.from_bytes(data[:8], "little")
        high = int.from_bytes(data[8:], "little")
        return cls(
            offset=(low & 0xFFFF) | (low >> 48 & 0xFFFF) << 16 | (high & 0xFFFFFFFF) << 32,
            selector=low >> 16 & 0xFFFF,
            ist=low >> 32 & 7,
            type=low >> 40 & 0x1F,
            dpl=low >> 45 & 3,
            present=bool(low >> 47 & 1),
        )


def read_descriptor(linear: LinearMemory, selector: int, ext: int, what: str) -> Descriptor:
    """The GDT or LDT descriptor of a selector; CpuFault #GP(selector) beyond the table's limit."""
    state = linear.cpu.state
    table = state.ldt if selector & 4 else state.gdt
    if (selector & 0xFFF8) + 7 > table.limit or (selector & 4 and not state.ldt.selector & 0xFFFC):
        raise CpuFault(Vector.GP, (selector & 0xFFFC) | ext, f"{what}: selector {selector:#x} beyond its table")
    try:
        return Descriptor(linear.read_u64(table.base + (selector & 0xFFF8)))
    except PageFaultError as fault:
        raise CpuFault.from_page(fault, f"{what}: descriptor of {selector:#x}") from None


def mark_accessed(linear: LinearMemory, selector: int, descriptor: Descriptor) -> None:
    """Set the accessed bit of a code or data segment in its table (SDM 3.4.5.1): it was loaded."""
    if descriptor.raw >> 40 & 1:
        return
    state = linear.cpu.state
    table = state.ldt if selector & 4 else state.gdt
    try:
        linear.write(table.base + (selector & 0xFFF8) + 5, bytes((descriptor.raw >> 40 & 0xFF | 1,)))
    except PageFaultError as fault:
        raise CpuFault.from_page(fault, f"accessed bit of {selector:#x}") from None
