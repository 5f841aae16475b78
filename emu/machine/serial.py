"""A serial port: the 16550 UART of a PC's COM1 (National Semiconductor PC16550D data sheet, section 8).

Sending takes no time. What arrives is given from the start: the next byte is there `interval` instructions after there
was room for it. The interrupt reaches line 4 only while MCR.OUT2 is set, as a PC's boards wire it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from emu.machine.device import Device
from emu.machine.stop import Stop, StopKind

if TYPE_CHECKING:
    from emu.machine.core import Core

COM1, COM1_LINE = 0x3F8, 4
DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR = range(8)
"""Registers by offset. IIR is FCR when written; with DLAB, DATA and IER are the divisor latch."""

IER_RECEIVED, IER_EMPTY = 1 << 0, 1 << 1
IIR_NONE, IIR_EMPTY, IIR_RECEIVED, IIR_FIFOS = 0x01, 0x02, 0x04, 0xC0
FCR_ENABLE, FCR_CLEAR_RECEIVER = 1 << 0, 1 << 1
LCR_DLAB = 1 << 7
MCR_OUT2, MCR_LOOP = 1 << 3, 1 << 4
LSR_READY, LSR_EMPTY = 1 << 0, 0x60
MSR_CONNECTED = 0xB0
"""CTS, DSR and DCD: somebody listens."""
FIFO_DEPTH = 16


@dataclass(slots=True)
class SerialState:
    """The registers, the receiver's bytes, and how much of the log counts."""

    ier: int = 0
    lcr: int = 0
    mcr: int = 0
    scr: int = 0
    divisor: int = 12
    fifos: bool = False
    received: bytes = b""
    taken: int = 0
    """Bytes of the input that have arrived."""
    arrives: int | None = None
    """Clock at which the next byte arrives."""
    empty_interrupt: bool = False
    """The transmitter became empty and nobody has asked yet."""
    written: int = 0
    """Length of the output."""

    def copy(self) -> SerialState:
        """An independent copy."""
        return replace(self)


class SerialPort(Device[SerialState]):
    """`drive` sets the interrupt line; `output` is a log that only grows, and that a restore cuts."""

    def __init__(
        self,
        drive: Callable[[bool], None],
        given: bytes = b"",
        interval: int = 1000,
        listen: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(SerialState(arrives=interval if given else None))
        if interval < 1:
            raise ValueError(f"serial port: a byte every {interval} instructions")
        self.output = bytearray()
        self._drive = drive
        self._given = given
        self._interval = interval
        self._listen = listen

    def attach(self, core: Core, base: int = COM1) -> None:
        """Answer at a CPU's I/O ports."""
        for offset in range(8):
            core.ports[base + offset] = lambda core, stop: self._access(core, stop, (stop.port - base) & 7)

    # --- time -------------------------------------------------------------------------------------------------------
    @property
    def deadline(self) -> int | None:
        """When the next byte of the input arrives."""
        return self.state.arrives

    def tick(self, clock: int) -> None:
        """Take what has arrived by now."""
        state = self.state
        while state.arrives is not None and clock >= state.arrives:
            self._receive(self._given[state.taken : state.taken + 1])
            state.taken += 1
            state.arrives = state.arrives + self._interval if self._wanted() else None
        self._update()

    def _wanted(self) -> bool:
        """Whether another byte could come in: the other side waits while there is no room (RTS and CTS)."""
        room = FIFO_DEPTH if self.state.fifos else 1
        return self.state.taken < len(self._given) and len(self.state.received) < room

    def _receive(self, data: bytes) -> None:
        self.state.received += data

    # --- registers --------------------------------------------------------------------------------------------------
    def _access(self, core: Core, stop: Stop, register: int) -> int:
        if stop.kind is StopKind.IN:
            value = self._read(register, core.clock)
        else:
            value = 0
            self._write(register, stop.value & 0xFF)
        self._update()
        return value

    def _read(self, register: int, clock: int) -> int:
        state = self.state
        if state.lcr & LCR_DLAB and register in (DATA, IER):
            return state.divisor >> 8 * register & 0xFF
        match register:
            case 0:  # RBR
                byte, state.received = state.received[:1], state.received[1:]
                if state.arrives is None and self._wanted():
                    state.arrives = clock + self._interval
                return byte[0] if byte else 0
            case 2:  # IIR
                pending = self._pending()
                if pending == IIR_EMPTY:
                    state.empty_interrupt = False
                return pending | (IIR_FIFOS if state.fifos else 0)
            case 5:
                return LSR_EMPTY | (LSR_READY if state.received else 0)
            case 6:
                return self._modem_status()
        return {IER: state.ier, LCR: state.lcr, MCR: state.mcr, SCR: state.scr}[register]

    def _modem_status(self) -> int:
        mcr = self.state.mcr
        if not mcr & MCR_LOOP:
            return MSR_CONNECTED
        # Loopback: DTR to DSR, RTS to CTS, OUT1 to RI, OUT2 to DCD.
        return (mcr >> 1 & 1) << 4 | (mcr & 1) << 5 | (mcr >> 2 & 1) << 6 | (mcr >> 3 & 1) << 7

    def _write(self, register: int, value: int) -> None:
        state = self.state
        if state.lcr & LCR_DLAB and register in (DATA, IER):
            state.divisor = state.divisor & 0xFF << 8 * (1 - register) | value << 8 * register
            return
        match register:
            case 0:  # THR
                self._send(value)
                state.empty_interrupt = True
            case 1:
                if value & IER_EMPTY and not state.ier & IER_EMPTY:
                    state.empty_interrupt = True  # the transmitter is empty already
                state.ier = value & 0x0F
            case 2:  # FCR
                enable = bool(value & FCR_ENABLE)
                if enable != state.fifos or value & FCR_CLEAR_RECEIVER:
                    state.received = b""
                state.fifos = enable
            case 3:
                state.lcr = value
            case 4:
                state.mcr = value & 0x1F
            case 7:
                state.scr = value

    def _send(self, value: int) -> None:
        if self.state.mcr & MCR_LOOP:
            self._receive(bytes([value]))
            return
        self.output.append(value)
        self.state.written += 1
        if self._listen is not None:
            self._listen(value)

    def _pending(self) -> int:
        """The interrupt of highest priority (data sheet table IV)."""
        state = self.state
        if state.ier & IER_RECEIVED and state.received:
            return IIR_RECEIVED
        if state.ier & IER_EMPTY and state.empty_interrupt:
            return IIR_EMPTY
        return IIR_NONE

    def _update(self) -> None:
        self._drive(self._pending() != IIR_NONE and bool(self.state.mcr & MCR_OUT2))

    # --- snapshot ---------------------------------------------------------------------------------------------------
    def load(self, saved: SerialState) -> None:
        """Back to a saved state; what was written since is cut off."""
        super().load(saved)
        del self.output[saved.written :]
