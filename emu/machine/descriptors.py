"""Segment descriptors and gates as the CPU reads them (SDM volume 3A, 3.4.5 and 6.14.1)."""

from __future__ import annotations

from functools import lru_cache

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


class Descriptor:
    """An 8-byte segment descriptor (SDM figure 3-8), taken apart."""

    __slots__ = (
        "base", "big", "conforming", "default_32", "dpl", "flags", "is_code", "is_writable_data", "limit", "long_mode",
        "present", "raw",
    )  # fmt: skip

    def __init__(self, raw: int) -> None:
        limit = raw & 0xFFFF | raw >> 32 & 0xF0000
        kind = raw >> 43 & 3
        self.raw = raw
        self.flags = (raw >> 32) & 0x00FFFF00
        """The high doubleword without its base bits, as the engine's segment cache holds it."""
        self.base = raw >> 16 & 0xFFFFFF | raw >> 32 & 0xFF000000
        """The 32-bit base."""
        self.limit = limit << 12 | 0xFFF if raw >> 55 & 1 else limit
        """In bytes."""
        self.present = bool(raw >> 47 & 1)
        self.dpl = raw >> 45 & 3
        self.is_code = kind == 3
        self.is_writable_data = kind == 2 and bool(raw >> 41 & 1)
        self.conforming = bool(raw >> 42 & 1)
        """Of a code segment: C."""
        self.long_mode = bool(raw >> 53 & 1)
        """L."""
        self.default_32 = self.big = bool(raw >> 54 & 1)
        """D/B; as a stack, a big segment is addressed by ESP, not SP."""


descriptor = lru_cache(maxsize=256)(Descriptor)
"""The descriptor of 8 bytes; few differ, and events and returns look at two each."""


@record
class Gate:
    """A 16-byte IDT gate of 64-bit mode (SDM figure 6-8)."""

    offset: int
    selector: int
    ist: int
    type: int
    dpl: int
    present: bool

    @staticmethod
    @lru_cache(maxsize=512)
    def parse(data: bytes) -> Gate:
        """From the 16 bytes in the IDT."""
        low = int.from_bytes(data[:8], "little")
        high = int.from_bytes(data[8:], "little")
        return Gate(
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
        return descriptor(linear.read_u64(table.base + (selector & 0xFFF8)))
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
