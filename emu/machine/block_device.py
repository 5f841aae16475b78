"""A block device: registers in physical memory, DMA to RAM, and an interrupt line when a command is done.

Not a device that exists: the least that a driver's interrupt handler needs. Registers, all 32 bits but ADDRESS:

    0x00 SECTOR    first sector               0x10 COMMAND  1 read, 2 write: starts
    0x04 COUNT     sectors                    0x14 STATUS   1 busy, 2 done, 4 failed; write: clears done and failed
    0x08 ADDRESS   physical, 64 bits          0x18 SECTORS  of the disk (read only)

A command completes `latency` instructions after it was given: only then data moves, DONE (and FAILED, for sectors or
memory that are not there) is set and the line goes high. It goes low when STATUS is cleared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from emu.machine.device import Device
from emu.machine.memory import Memory, PhysicalAddressError

if TYPE_CHECKING:
    from emu.machine.core import Core

SECTOR_SIZE = 512
SECTOR, COUNT, ADDRESS, ADDRESS_HIGH, COMMAND, STATUS, SECTORS = range(0, 0x1C, 4)
READ, WRITE = 1, 2
BUSY, DONE, FAILED = 1, 2, 4
ALL_ONES = 0xFFFF_FFFF


@dataclass(slots=True)
class BlockState:
    """Registers, the command under way, and the sectors that were written."""

    sector: int = 0
    count: int = 0
    address: int = 0
    command: int = 0
    status: int = 0
    done_at: int | None = None
    changed: dict[int, bytes] = field(default_factory=dict)

    def copy(self) -> BlockState:
        """An independent copy."""
        return replace(self, changed=dict(self.changed))


class BlockDevice(Device[BlockState]):
    """A disk with the contents `data` (never changed itself), in whole sectors. `drive` sets the interrupt line."""

    size = 4096

    def __init__(
        self, memory: Memory, drive: Callable[[bool], None], data: bytes, latency: int = 1000, base: int = 0xFEB0_0000
    ) -> None:
        super().__init__(BlockState())
        if latency < 1:
            raise ValueError(f"block device: a latency of {latency} instructions")
        self.base = base
        self.sectors = -(-len(data) // SECTOR_SIZE)
        self._memory = memory
        self._drive = drive
        self._data = data.ljust(self.sectors * SECTOR_SIZE, b"\0")
        self._latency = latency

    def contents(self) -> bytes:
        """The disk as it is now."""
        return b"".join(self._sector(n) for n in range(self.sectors))

    def _sector(self, number: int) -> bytes:
        changed = self.state.changed.get(number)
        return self._data[number * SECTOR_SIZE :][:SECTOR_SIZE] if changed is None else changed

    # --- time -------------------------------------------------------------------------------------------------------
    @property
    def deadline(self) -> int | None:
        """When the command is done."""
        return self.state.done_at

    def tick(self, clock: int) -> None:
        """Finish the command if it is time."""
        state = self.state
        if state.done_at is None or clock < state.done_at:
            return
        state.done_at = None
        state.status = DONE if self._transfer() else DONE | FAILED
        self._drive(True)

    def _transfer(self) -> bool:
        """Move the data; nothing moves if any of it cannot."""
        state = self.state
        size = state.count * SECTOR_SIZE
        wanted = range(state.sector, state.sector + state.count)
        if state.command not in (READ, WRITE) or not state.count or wanted.stop > self.sectors:
            return False
        try:
            data = self._memory.read(state.address, size)
        except PhysicalAddressError:
            return False
        if state.command == READ:
            self._memory.write(state.address, b"".join(self._sector(n) for n in wanted))
        else:
            state.changed |= {n: data[i * SECTOR_SIZE :][:SECTOR_SIZE] for i, n in enumerate(wanted)}
        return True

    # --- registers --------------------------------------------------------------------------------------------------
    def read(self, _core: Core, address: int, size: int) -> int:
        """A register; all ones where there is none."""
        state = self.state
        if size == 8 and address - self.base == ADDRESS:
            return state.address
        values = {
            SECTOR: state.sector, COUNT: state.count, ADDRESS: state.address & ALL_ONES,
            ADDRESS_HIGH: state.address >> 32, COMMAND: state.command, STATUS: state.status, SECTORS: self.sectors,
        }  # fmt: skip
        return values.get(address - self.base, ALL_ONES) if size == 4 else ALL_ONES

    def write(self, core: Core, address: int, size: int, value: int) -> None:
        """A register; without effect while a command is under way, as in any other place."""
        state, offset = self.state, address - self.base
        if state.status & BUSY or size not in (4, 8) or (size == 8 and offset != ADDRESS):
            return
        if offset == SECTOR:
            state.sector = value
        elif offset == COUNT:
            state.count = value
        elif offset == ADDRESS:
            state.address = value if size == 8 else state.address & ~ALL_ONES | value
        elif offset == ADDRESS_HIGH:
            state.address = state.address & ALL_ONES | value << 32
        elif offset == COMMAND:
            state.command, state.status = value, BUSY
            self._drive(False)
            state.done_at = core.clock + self._latency
        elif offset == STATUS:
            state.status = 0
            self._drive(False)
