"""The debug unit: what DR0-7 and RFLAGS.TF and RF do (SDM volume 3B, 17.2-17.3; volume 3A, 6.8.3).

The engine does single steps and instruction breakpoints of code that it executes. Ours: DR6, data and I/O breakpoints,
RF that lasts one instruction, single steps over instructions that are executed at rest, and the trap of a data
breakpoint on the operand of MOV SS, which waits for the instruction behind it. While a data breakpoint is enabled the
CPU executes one instruction at a time.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from emu.arch import Cr4, Rflags, Vector
from emu.events import EventType
from emu.machine.delivery import Interruption
from emu.machine.operands import iterates, repetitions
from emu.machine.paging import Access, PageFaultError
from emu.machine.stop import Stop

if TYPE_CHECKING:
    from emu.machine.exceptions import Exceptions

DR6_BS = 1 << 14
_ENABLED = 0xFF
_TF, _RF = int(Rflags.TF), int(Rflags.RF)
_TF_RF_AC = _TF | _RF | int(Rflags.AC)
_EXECUTE, _WRITE, _IO, _ACCESS = range(4)
_PUSHF = 0x9C
_LENGTHS = (1, 2, 8, 4)


class DebugUnit:
    """One core's debug unit. Its registers are in the saved context; here is what hardware keeps out of sight."""

    def __init__(self, core: Exceptions) -> None:
        self.core = core
        self.delayed = 0
        """DR6 bits of a trap that MOV SS or POP SS caused: it waits for the next instruction."""
        self._noted = 0
        """DR6 bits found outside the engine: I/O ports, the frame of an event."""
        self._start = self._dr6 = self._flags = 0
        self._armed = False
        """Whether data breakpoints or alignment checks were enabled when the last instruction began."""
        self._dr7 = ctypes.c_uint64.from_address(ctypes.addressof(core.cpu.state.dr) + 7 * 8)

    @property
    def busy(self) -> bool:
        """Whether a breakpoint is enabled or a trap waits."""
        return bool(self._dr7.value & _ENABLED or self.delayed)

    # --- around the execution of one instruction --------------------------------------------------------------------
    def begin(self) -> int:
        """Before the engine runs: how many boundaries it may pass until we must look again; 0: any number."""
        state = self.core.cpu.state
        if not (self._dr7.value & _ENABLED or self.delayed or self._armed or state.eflags & _TF_RF_AC):
            return 0
        armed = self._armed = self.core.alignment.begin() or bool(self._breakpoints(_WRITE, _ACCESS))
        self.core.cpu.watch_memory(armed)
        self._start, self._dr6, self._flags = state.rip, state.dr[6], state.eflags
        if armed or self.delayed or state.eflags & _TF:
            return 1
        # RF alone lasts until the instruction is done, which for a REP is after its last iteration.
        return repetitions(self.core.cpu, self.core.read_code(state.rip, 15)) if state.eflags & _RF else 0

    def executed(self) -> None:
        """The engine has executed the one instruction, or the iterations of one, that it was allowed."""
        cpu = self.core.cpu
        if cpu.flags & _RF and not self._within():
            cpu.flags &= ~_RF
            if self.core.code_byte(self._start) == _PUSHF:  # pushes RF as 0; the engine does not
                stack = Access(write=True, user=cpu.cpl == 3)  # as the PUSHF just had
                pushed = self.core.linear.read_u64(cpu.sp, stack)
                self.core.linear.write(cpu.sp, (pushed & ~_RF).to_bytes(8, "little"), stack)
        # The engine traps single steps itself, but not those over PAUSE. Behind MOV SS none is due yet.
        self.retired(steps=0 if cpu.shadow else self._flags)

    def passed(self) -> None:
        """The engine has passed an instruction that is ours, and stepped it in its way: forget that."""
        state = self.core.cpu.state
        state.eflags &= ~_RF
        state.dr[6] = self._dr6
        self.core.cpu.mark_dirty()

    def retired(self, *, steps: int = 0) -> None:
        """An instruction is done: deliver the traps that it or the one before caused. `steps`: flags that hold TF."""
        if not (steps & _TF or self._noted or self.delayed or self.core.cpu.accesses):
            return
        hits = self._hits()
        if hits and self.core.cpu.shadow:
            self.delayed = hits
            return
        self._trap(hits | self.delayed | (DR6_BS if steps & _TF else 0))

    def faulted(self) -> None:
        """An instruction did not complete: the traps that wait are lost (SDM 6.9: lower priority)."""
        self.delayed = self._noted = 0
        self.core.cpu.accesses.clear()

    def _within(self) -> bool:
        """Whether RIP is where it was because a REP instruction has iterations left; a branch to itself is done."""
        start = self._start
        return self.core.cpu.ip == start and iterates(self.core.read_code(start, 15))

    def _trap(self, bits: int) -> None:
        self.delayed = 0
        if bits:
            cpu = self.core.cpu
            cpu.state.dr[6] |= bits
            cpu.mark_dirty()
            within = not bits & DR6_BS and self._within()
            self.core.deliver(Interruption(Vector.DB, EventType.HWEXC, cpu.ip, resume=within))

    def reported(self, stop: Stop) -> None:
        """The engine reports vector 1: a single step is a trap, an instruction breakpoint a fault."""
        cpu, state = self.core.cpu, self.core.cpu.state
        matches = sum(1 << n for n in self._breakpoints(_EXECUTE) if state.dr[n] == stop.ip)
        if matches and cpu.shadow:
            state.dr[6] = self._dr6
            cpu.flags |= _RF  # suppressed behind MOV SS, as if RF were set (SDM 17.3.1.1)
            return
        stepped = bool(cpu.flags & _TF)
        if stepped and cpu.flags & _RF and not self._within():
            cpu.flags &= ~_RF
        bits = matches | self._hits() | self.delayed | (DR6_BS if stepped else 0)
        self.delayed = 0
        state.dr[6] |= bits
        cpu.mark_dirty()
        self.core.deliver(Interruption(Vector.DB, EventType.HWEXC, stop.ip))

    # --- what the engine does not see -------------------------------------------------------------------------------
    def note_port(self, port: int, size: int) -> None:
        """An I/O port was accessed (breakpoints on ports need CR4.DE)."""
        state = self.core.cpu.state
        if state.dr[7] & _ENABLED and self.core.cpu.cr4 & Cr4.DE:
            for n in self._breakpoints(_IO):
                length = self._length(n)
                first = state.dr[n] & ~(length - 1)
                if first < port + size and port < first + length:
                    self._noted |= 1 << n

    def note_frame(self, address: int, size: int) -> None:
        """The frame of an event was written."""
        state = self.core.cpu.state
        for n in self._breakpoints(_WRITE, _ACCESS):
            length = self._length(n)
            first = state.dr[n] & ~(length - 1)
            if first < address + size and address < first + length:
                self._noted |= 1 << n

    def trap_of_delivery(self) -> None:
        """The event is delivered: a data breakpoint on its frame traps before the handler's first instruction."""
        bits, self._noted = self._noted, 0
        if bits:
            self._start = -1
            self._trap(bits)

    # --- matching ---------------------------------------------------------------------------------------------------
    def _breakpoints(self, *kinds: int) -> list[int]:
        """Numbers of the enabled breakpoints of these kinds."""
        dr7 = self.core.cpu.state.dr[7]
        return [n for n in range(4) if dr7 >> 2 * n & 3 and dr7 >> 16 + 4 * n & 3 in kinds]

    def _length(self, n: int) -> int:
        return _LENGTHS[self.core.cpu.state.dr[7] >> 18 + 4 * n & 3]

    def _hits(self) -> int:
        """DR6 bits of what the last instruction accessed."""
        bits, self._noted = self._noted, 0
        accesses = self.core.cpu.accesses
        if accesses:
            state = self.core.cpu.state
            for n in self._breakpoints(_WRITE, _ACCESS):
                length = self._length(n)
                try:
                    first = self.core.linear.locate(state.dr[n] & ~(length - 1))
                except PageFaultError:
                    continue
                reads_too = state.dr[7] >> 16 + 4 * n & 3 == _ACCESS
                if any(
                    first < at + size and at < first + length and (writes or reads_too) for at, size, writes in accesses
                ):
                    bits |= 1 << n
            accesses.clear()
        return bits
