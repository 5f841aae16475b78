"""Linear-address access of one CPU at rest, with the faults that the CPU itself would get."""

from __future__ import annotations

from emu.arch import PAGE_SIZE
from emu.machine.cpu import Cpu
from emu.machine.memory import Memory
from emu.machine.paging import Access, PageFaultError, PagingMode, walk

SYSTEM_READ = Access(implicit=True)
"""The CPU reading a descriptor table or the TSS (SDM 4.6.1: implicit supervisor access)."""
SYSTEM_WRITE = Access(implicit=True, write=True)
SUPERVISOR_READ = Access()
SUPERVISOR_WRITE = Access(write=True)


class LinearMemory:
    """Reads and writes through the CPU's current page tables; PageFaultError says what would fault."""

    def __init__(self, cpu: Cpu, memory: Memory) -> None:
        self.cpu = cpu
        self.memory = memory

    def mode(self) -> PagingMode:
        """The paging controls as they are now."""
        state = self.cpu.state
        return PagingMode.of(state.cr[0], state.cr[4], state.efer, state.eflags)

    def translate(self, address: int, access: Access) -> int:
        """Physical address of a linear one for this access."""
        return walk(self.memory, self.cpu.state.cr[3], address, access, self.mode()).physical

    def read(self, address: int, size: int, access: Access = SYSTEM_READ) -> bytes:
        """`size` bytes; whole pages are checked before any is read."""
        if address % PAGE_SIZE + size <= PAGE_SIZE:
            physical = self.translate(address, access)
            return self.memory.ram[physical : physical + size]
        return b"".join(self.memory.read(at, length) for at, length in self._pieces(address, size, access))

    def read_u64(self, address: int, access: Access = SYSTEM_READ) -> int:
        """A little-endian quadword."""
        return int.from_bytes(self.read(address, 8, access), "little")

    def write(self, address: int, data: bytes, access: Access = SYSTEM_WRITE) -> None:
        """Store bytes; nothing is stored if any page faults."""
        done = 0
        for at, length in self._pieces(address, len(data), access):
            self.memory.write(at, data[done : done + length])
            done += length

    def _pieces(self, address: int, size: int, access: Access) -> list[tuple[int, int]]:
        pieces = []
        while size:
            length = min(size, PAGE_SIZE - address % PAGE_SIZE)
            pieces.append((self.translate(address & 0xFFFF_FFFF_FFFF_FFFF, access), length))
            address, size = address + length, size - length
        return pieces


__all__ = ["SUPERVISOR_READ", "SUPERVISOR_WRITE", "SYSTEM_READ", "SYSTEM_WRITE", "LinearMemory", "PageFaultError"]
