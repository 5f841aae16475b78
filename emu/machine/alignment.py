"""Alignment checks: #AC at CPL 3 under CR0.AM and RFLAGS.AC (SDM volume 3A, 6.15, interrupt 17, and table 6-7).

The engine has none. While they are on, the CPU executes one instruction at a time, with every access noted; if one of
them was misaligned, the instruction is undone, and faults. What the CPU accesses by itself (frames of events, page
tables) is at the kernel's privilege, and not noted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from emu.arch import PAGE_SIZE, Cr0, Rflags, Vector
from emu.machine.cpu import MAX_INSTRUCTION
from emu.machine.linear import USER_READ
from emu.machine.operands import MemoryOperand, memory_operands
from emu.machine.paging import PageFaultError
from emu.machine.registers import CS, SS
from emu.machine.stop import Stop, StopKind

if TYPE_CHECKING:
    from emu.machine.exceptions import Exceptions

_AC, _AM = int(Rflags.AC), int(Cr0.AM)
_USER = 3
_LARGEST = 16
"""Bytes of an access."""
_ANY_ADDRESS = frozenset({"movups", "movupd", "movdqu", "lddqu"})


class AlignmentCheck:
    """One core's alignment checks."""

    def __init__(self, core: Exceptions) -> None:
        self._core = core
        self.on = False
        """Whether the next instruction is checked."""
        self._before = b""
        self._operands: list[MemoryOperand] = []
        self._next_pages: list[tuple[int, bytes]] = []

    def begin(self) -> bool:
        """Before an instruction: whether it is to be checked, so that no other may run with it."""
        cpu = self._core.cpu
        state = cpu.state
        self.on = bool(state.eflags & _AC and state.hflags & _USER == _USER and state.cr[0] & _AM)
        cpu.keeps_overwritten = self.on
        if self.on:
            self._before = cpu.save()
            code = self._core.read_code(state.segs[CS].base + cpu.ip, MAX_INSTRUCTION)
            self._operands = list(memory_operands(cpu, code, cpu.ip))
            self._next_pages = list(self._what_follows())
        return self.on

    def _what_follows(self) -> Iterator[tuple[int, bytes]]:
        """The first bytes of each page into which an access might reach from the one before: they are not noted."""
        core = self._core
        cpu = core.cpu
        reached = [(operand.address, operand.size) for operand in self._operands]
        stack = cpu.state.segs[SS].base + cpu.sp
        for address, size in (*reached, (stack - _LARGEST, 2 * _LARGEST)):
            following = (address | PAGE_SIZE - 1) + 1
            if address + size > following:
                with suppress(PageFaultError):
                    physical = core.linear.translate(following, USER_READ)
                    yield physical, core.memory.read(physical, _LARGEST)

    def judge(self, stop: Stop) -> Stop:
        """After the instruction: as the engine ended it, or #AC(0) with nothing done."""
        cpu = self._core.cpu
        self.on = False
        if stop.kind is not StopKind.COUNT or not self._misaligned():
            cpu.overwritten.clear()
            return stop
        for address, old in (*self._next_pages, *reversed(cpu.overwritten)):
            self._core.memory.write(address, old)
        cpu.overwritten.clear()
        cpu.load(self._before)
        return Stop(StopKind.FAULT, 0, cpu.ip, Vector.AC)

    def _misaligned(self) -> bool:
        """The engine's accesses are those of table 6-7, but for 16 bytes, which it reads and writes by halves.

        Of these only the moves that allow any address could come to #AC: AMD's CPUs raise it, and Intel's may.
        """
        for operand in self._operands:
            if operand.size == _LARGEST and operand.mnemonic != "cmpxchg16b":
                unaligned = operand.mnemonic in _ANY_ADDRESS and bool(operand.address % _LARGEST)
                return unaligned and self._core.profile.vendor == "amd"
        return any(address & (size - 1) for address, size, _ in self._core.cpu.accesses)
