"""Linear-address access of one CPU at rest, with the faults that the CPU itself would get."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter

from emu.arch import PAGE_SIZE
from emu.machine.cpu import Cpu
from emu.machine.memory import Memory
from emu.machine.paging import Access, PagingMode, Pte, walk
from emu.machine.saved_cpu import picked

SYSTEM_READ = Access(implicit=True)
"""The CPU reading a descriptor table or the TSS (SDM 4.6.1: implicit supervisor access)."""
SYSTEM_WRITE = Access(implicit=True, write=True)
SUPERVISOR_READ = Access()
SUPERVISOR_WRITE = Access(write=True)

USER_READ = Access(user=True)
USER_FETCH = Access(user=True, fetch=True)
SUPERVISOR_FETCH = Access(fetch=True)

_CONTROLS = picked(("eflags", 2, "c"), ("cr", 0, "8s"), ("cr", 8 * 3, "16s"), ("efer", 0, "8s"))
"""What decides about an access, out of a saved context: RFLAGS bits 16 to 23, with AC; CR0; CR3 and CR4; EFER."""
_LASTING = ~int(Pte.A | Pte.D)
"""The engine sets accessed and dirty bits, which do not matter to a translation."""
_MOST_KNOWN = 4096
_MOST_CONTROLS = 64
_Entries = Callable[[memoryview], tuple[int, ...]]
_Translations = dict[int, tuple[int, _Entries, tuple[int, ...]]]
"""Page and access -> physical page, what reads the table entries that led there, their values."""


class LinearMemory:
    """Reads and writes through the CPU's current page tables; PageFaultError says what would fault."""

    def __init__(self, cpu: Cpu, memory: Memory) -> None:
        self.cpu = cpu
        self.memory = memory
        self._state = cpu.state
        self._all: dict[tuple[bytes, ...], _Translations] = {}
        """By controls."""
        self._controls: tuple[bytes, ...] = ()
        """The present ones, and ..."""
        self._known: _Translations = {}
        """... what belongs to them."""
        self._quadwords = memory.quadwords

    def mode(self) -> PagingMode:
        """The paging controls as they are now."""
        state = self.cpu.state
        return PagingMode.of(state.cr[0], state.cr[4], state.efer, state.eflags)

    def translate(self, address: int, access: Access) -> int:
        """Physical address of a linear one for this access.

        Translations are kept with the table entries that led to them, and hold only while those are the same: guest
        code may change its tables at any time.
        """
        controls = _CONTROLS.unpack_from(self._state)
        if controls != self._controls:
            if len(self._all) >= _MOST_CONTROLS:
                self._all.clear()
            self._controls, self._known = controls, self._all.setdefault(controls, {})
        key = address & -PAGE_SIZE | access.bits
        known = self._known.get(key)
        if known is not None:
            page, entries, values = known
            now = entries(self._quadwords)
            if now == values:
                return page | address & 0xFFF
            if not any((one ^ other) & _LASTING for one, other in zip(now, values, strict=True)):
                self._known[key] = (page, entries, now)
                return page | address & 0xFFF
        found = walk(self.memory, self._state.cr[3], address, access, self.mode())
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        path = [at >> 3 for at, _ in found.path]
        self._known[key] = (found.physical & ~0xFFF, itemgetter(*path), tuple(value for _, value in found.path))
        return found.physical

    def locate(self, address: int) -> int:
        """Physical address of a linear one, whoever may use the page: a breakpoint asks for no rights."""
        mode = PagingMode(nxe=self.mode().nxe)  # without SMAP
        return walk(self.memory, self._state.cr[3], address, SUPERVISOR_READ, mode).physical

    def read(self, address: int, size: int, access: Access = SYSTEM_READ) -> bytes:
        """`size` bytes; whole pages are checked before any is read."""
        if address % PAGE_SIZE + size <= PAGE_SIZE:
            physical = self.translate(address, access)
            return self.memory.ram[physical : physical + size]
        return b"".join(self.memory.read(at, length) for at, length in self._pieces(address, size, access))

    def read_u64(self, address: int, access: Access = SYSTEM_READ) -> int:
        """A little-endian quadword."""
        if address & 0xFFF <= 0xFF8:
            physical = self.translate(address, access)
            return int.from_bytes(self.memory.ram[physical : physical + 8], "little")
        return int.from_bytes(self.read(address, 8, access), "little")

    def write(self, address: int, data: bytes, access: Access = SYSTEM_WRITE) -> None:
        """Store bytes; nothing is stored if any page faults."""
        if address % PAGE_SIZE + len(data) <= PAGE_SIZE and data:
            self.memory.write(self.translate(address & 0xFFFF_FFFF_FFFF_FFFF, access), data)
            return
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
