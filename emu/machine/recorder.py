"""Records which instructions retire, for Executed events. Costs a callback an instruction, so it is off by default."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from emu.events import Event, Executed
from emu.machine.cpu import Cpu
from emu.machine.registers import GS, RSP

_REGISTERS = 16 * 8


class Recorder:
    """Notes addresses while the engine runs; `flush` turns what really retired into one event.

    RSP and GS_BASE are sampled at the first instruction of each run and after each instruction of `moves` (those that
    may change the stack or the GS base); with `registers`, the general registers before every instruction.
    """

    def __init__(
        self, index: int, cpu: Cpu, emit: Callable[[Event], None], *, moves: frozenset[int], registers: bool
    ) -> None:
        self._index = index
        self._cpu = cpu
        self._emit = emit
        self._moves = moves
        self._addresses: list[int] = []
        self._samples: list[tuple[int, int, int]] = []
        self._rows: list[bytes] = []
        self._sample = True
        self._registers = registers
        self.note = self._with_registers() if registers else self._plain()

    def _plain(self) -> Callable[[int], None]:
        addresses, samples, moves, peek = self._addresses, self._samples, self._moves, self._cpu.peek

        def note(address: int) -> None:
            if self._sample:
                state = peek()
                samples.append((len(addresses), state.regs[RSP], state.segs[GS].base))
                self._sample = False
            addresses.append(address)
            if address in moves:
                self._sample = True

        return note

    def _with_registers(self) -> Callable[[int], None]:
        addresses, samples, moves, rows = self._addresses, self._samples, self._moves, self._rows
        peek, where, copy = self._cpu.peek, ctypes.addressof(self._cpu.state.regs), ctypes.string_at

        def note(address: int) -> None:
            state = peek()
            rows.append(copy(where, _REGISTERS))
            if self._sample:
                samples.append((len(addresses), state.regs[RSP], state.segs[GS].base))
                self._sample = False
            addresses.append(address)
            if address in moves:
                self._sample = True

        return note

    def flush(self, clock: int, retired: int) -> None:
        """The run ended after `retired` instructions: what was noted beyond them did not happen."""
        if retired > 0 and self._addresses:
            addresses = tuple(self._addresses[:retired])
            samples = tuple(s for s in self._samples if s[0] < retired)
            rows = tuple(self._rows[:retired])
            self._emit(Executed(clock, self._index, addresses[0], addresses, samples, rows))
        self._addresses.clear()
        self._samples.clear()
        self._rows.clear()
        self._sample = True

    def single(self, clock: int, address: int) -> None:
        """An instruction that retired without the engine."""
        state = self._cpu.state
        row = (ctypes.string_at(ctypes.addressof(state.regs), _REGISTERS),) if self._registers else ()
        sample = ((0, int(state.regs[RSP]), state.segs[GS].base),)
        self._emit(Executed(clock, self._index, address, (address,), sample, row))
