"""The I/O APIC: 24 lines, a redirection entry each (Intel 82093AA data sheet, 290566-001, section 3).

A line is an electrical level, low after reset. An entry's polarity says which level asserts it. An edge-triggered
entry sends one message when its line becomes asserted; a level-triggered one sends while its line is asserted and its
remote IRR is clear, sets remote IRR when a local APIC takes the message, and the EOI of its vector clears that again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING

from emu.machine.apic import Delivery
from emu.machine.device import Device
from emu.record import record

if TYPE_CHECKING:
    from emu.machine.core import Core

LINES = 24
IOREGSEL, IOWIN = 0x00, 0x10
ID, VERSION, ARBITRATION, REDIRECTION = 0x00, 0x01, 0x02, 0x10
VERSION_VALUE = 0x11 | (LINES - 1) << 16

LOGICAL, ACTIVE_LOW, REMOTE_IRR, LEVEL, MASKED = 1 << 11, 1 << 13, 1 << 14, 1 << 15, 1 << 16
WRITABLE = 0xFF << 56 | 0x1AFFF
"""Bits of an entry that software sets; delivery status and remote IRR are read-only (data sheet 3.2.4)."""
ALL_ONES = 0xFFFF_FFFF


@record
class Message:
    """What an entry sends over the APIC bus."""

    delivery: Delivery
    vector: int
    destination: int
    logical: bool
    level: bool


@dataclass(slots=True)
class IoApicState:
    """The registers and the lines."""

    select: int = 0
    id: int = 0
    entries: list[int] = field(default_factory=lambda: [MASKED] * LINES)
    lines: int = 0
    """Bit n: line n is high."""

    def __eq__(self, other: object) -> bool:
        """As a dataclass would, and faster: each restore asks."""
        return isinstance(other, IoApicState) and _values(self) == _values(other)

    def copy(self) -> IoApicState:
        """An independent copy."""
        return IoApicState(self.select, self.id, list(self.entries), self.lines)


_values = attrgetter(*IoApicState.__slots__)


class IoApic(Device[IoApicState]):
    """`send` carries a message and says whether a local APIC took it."""

    base = 0xFEC0_0000
    size = 4096

    def __init__(self, send: Callable[[Message], bool]) -> None:
        super().__init__(IoApicState())
        self._send = send

    # --- lines ------------------------------------------------------------------------------------------------------
    def set_line(self, line: int, *, high: bool) -> None:
        """Drive a line; ValueError if there is no such line."""
        if not 0 <= line < LINES:
            raise ValueError(f"I/O APIC line {line}: there are lines 0 to {LINES - 1}")
        before = self._asserted(line)
        self.state.lines = self.state.lines & ~(1 << line) | high << line
        entry = self.state.entries[line]
        # An edge on a masked line is lost, as is one that ends (data sheet 3.2.4, bit 16).
        if entry & LEVEL or (self._asserted(line) and not before):
            self._deliver(line)

    def _asserted(self, line: int) -> bool:
        return bool(self.state.lines >> line & 1) != bool(self.state.entries[line] & ACTIVE_LOW)

    def _deliver(self, line: int) -> None:
        """Send the line's message if its entry lets it."""
        entry = self.state.entries[line]
        if entry & MASKED or not self._asserted(line) or (entry & LEVEL and entry & REMOTE_IRR):
            return
        try:
            delivery = Delivery(entry >> 8 & 7)
        except ValueError:
            return
        level = bool(entry & LEVEL) and delivery in (Delivery.FIXED, Delivery.LOWEST)
        if level:
            # Before it is sent: the EOI can come back before `send` returns.
            self.state.entries[line] |= REMOTE_IRR
        taken = self._send(Message(delivery, entry & 0xFF, entry >> 56, bool(entry & LOGICAL), level))
        if level and not taken:
            self.state.entries[line] &= ~REMOTE_IRR

    def end_of_interrupt(self, vector: int) -> None:
        """A local APIC broadcasts the EOI of a level-triggered vector; a line still asserted interrupts again."""
        for line, entry in enumerate(self.state.entries):
            if entry & LEVEL and entry & REMOTE_IRR and entry & 0xFF == vector:
                self.state.entries[line] &= ~REMOTE_IRR
                self._deliver(line)

    # --- registers: 32 bits, selected by IOREGSEL, read and written through IOWIN -----------------------------------
    def read(self, _core: Core, address: int, size: int) -> int:
        """IOREGSEL or IOWIN; all ones elsewhere."""
        offset = address - self.base
        if size != 4 or offset not in (IOREGSEL, IOWIN):
            return ALL_ONES
        return self.state.select if offset == IOREGSEL else self._register()

    def _register(self) -> int:
        select = self.state.select
        if select in (ID, ARBITRATION):
            return self.state.id << 24
        if select == VERSION:
            return VERSION_VALUE
        line, high = divmod(select - REDIRECTION, 2)
        if 0 <= line < LINES:
            return self.state.entries[line] >> 32 * high & ALL_ONES
        return ALL_ONES

    def write(self, _core: Core, address: int, size: int, value: int) -> None:
        """IOREGSEL or IOWIN; without effect elsewhere."""
        offset = address - self.base
        if size != 4:
            return
        if offset == IOREGSEL:
            self.state.select = value & 0xFF
        elif offset == IOWIN:
            self._write_register(value)

    def _write_register(self, value: int) -> None:
        select = self.state.select
        if select == ID:
            self.state.id = value >> 24 & 0xF
            return
        line, high = divmod(select - REDIRECTION, 2)
        if not 0 <= line < LINES:
            return
        before = self.state.entries[line]
        mask = WRITABLE & ALL_ONES << 32 * high
        entry = before & ~mask | value << 32 * high & mask
        if not entry & LEVEL:
            entry &= ~REMOTE_IRR  # has a meaning for level-triggered entries only
        self.state.entries[line] = entry
        if entry & LEVEL:
            self._deliver(line)
