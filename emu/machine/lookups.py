"""What the CPU finds by looking into its tables in memory (IDT, GDT, LDT, TSS), kept with all that it has read there.

Each event and each IRET looks at the same few entries. What was found once holds for as long as the registers that lead
to the tables, and every quadword that was read on the way, page-table entries included, are what they were: guest code
may write to any of them at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import sizeof
from operator import itemgetter
from typing import Any, TypeVar, TypeVarTuple

from emu.arch import PAGE_SIZE
from emu.machine.cpu import Cpu
from emu.machine.linear import SYSTEM_READ, LinearMemory
from emu.machine.memory import Memory
from emu.machine.paging import Access, walk
from emu.machine.saved_cpu import Segment, picked

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_TABLES = 4 * sizeof(Segment)
_REGISTERS = picked(
    ("eflags", 2, "c"), ("ldt", 0, f"{_TABLES}s"), ("cr", 0, "8s"), ("cr", 8 * 3, "16s"), ("efer", 0, "8s")
)
"""What leads to the tables: RFLAGS bits 16 to 23, with AC; LDTR, TR, GDTR and IDTR; CR0; CR3 and CR4; EFER."""
_MOST_KNOWN = 4096


class _NotedMemory(LinearMemory):
    """Notes which quadwords of physical memory are read."""

    def __init__(self, cpu: Cpu, memory: Memory) -> None:
        super().__init__(cpu, memory)
        self.seen: set[int] = set()
        """Their numbers."""

    def translate(self, address: int, access: Access) -> int:
        """Always by a walk."""
        found = walk(self.memory, self.cpu.cr3, address, access, self.mode())
        self.seen.update(at >> 3 for at, _ in found.path)
        return found.physical

    def read(self, address: int, size: int, access: Access = SYSTEM_READ) -> bytes:
        """As ever."""
        end, at = address + size, address
        while at < end:
            last = min(end, (at & -PAGE_SIZE) + PAGE_SIZE) - 1
            physical = self.translate(at & 0xFFFF_FFFF_FFFF_FFFF, access)
            self.seen.update(range(physical >> 3, (physical + last - at >> 3) + 1))
            at = last + 1
        return super().read(address, size, access)

    def read_u64(self, address: int, access: Access = SYSTEM_READ) -> int:
        """As ever."""
        return int.from_bytes(self.read(address, 8, access), "little")


class Lookups:
    """Of one CPU."""

    def __init__(self, cpu: Cpu, memory: Memory) -> None:
        self._state = cpu.state
        self._quadwords = memory.quadwords
        self._memory = _NotedMemory(cpu, memory)
        # By what is looked for and the registers: what reads the quadwords that led there, their values, the result.
        # Of any type: each kind of lookup has its own.
        self._known: dict[tuple[object, ...], tuple[Callable[[memoryview], tuple[int, ...]], tuple[int, ...], Any]] = {}

    def find(self, look: Callable[[LinearMemory, *Ts], T], *what: *Ts) -> T:
        """`look(memory, *what)`, or what that has found before.

        Besides its arguments `look` may depend on the registers that lead to the tables and the paging controls, and on
        memory as `memory` reads it, at more than one place. What it raises is not kept, nor what comes from no RAM.
        """
        key = (look, what, _REGISTERS.unpack_from(self._state))
        known = self._known.get(key)
        if known is not None and known[0](self._quadwords) == known[1]:
            result: T = known[2]
            return result
        self._memory.seen.clear()
        result = look(self._memory, *what)
        if max(self._memory.seen) >= len(self._quadwords):
            return result
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        read = itemgetter(*sorted(self._memory.seen))
        self._known[key] = read, read(self._quadwords), result
        return result
