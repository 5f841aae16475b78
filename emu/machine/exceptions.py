"""Exceptions of one logical processor: those that the engine reports, that our semantics find, that somebody raises.

All end in `deliver`, which takes any event through the IDT.
"""

from __future__ import annotations

from emu.arch import Efer, Rflags, Vector
from emu.events import EventType, Shutdown
from emu.machine import delivery, engine_faults
from emu.machine.alignment import AlignmentCheck
from emu.machine.debug_unit import DebugUnit
from emu.machine.delivery import Interruption
from emu.machine.descriptors import CpuFault
from emu.machine.end import End, EndKind
from emu.machine.processor import Board, CoreSnapshot, Processor
from emu.machine.stop import Stop

_RF, _LMA = int(Rflags.RF), int(Efer.LMA)
MAX_DELIVERIES_AT_ONCE = 1000
"""At one clock. A fault whose handler cannot be fetched repeats until the stack is full; on an IST stack, for ever."""


class Exceptions(Processor):
    """A processor to which events can be delivered."""

    def __init__(self, index: int, board: Board) -> None:
        super().__init__(index, board)
        self.debug = DebugUnit(self)
        self.alignment = AlignmentCheck(self)
        self.instruction_start = 0
        """Start of the software interrupt being delivered."""
        self.delivered = 0
        """Events that were delivered, or tried to be, since power-on; a restore does not take any back."""
        self._deliveries = 0
        """Since the clock was `_delivered_at`, without an instruction in between."""
        self._delivered_at = -1

    def deliver(self, event: Interruption) -> None:
        """Through the IDT; a triple fault shuts the CPU down, and so does getting nowhere."""
        if not self.cpu.state.efer & _LMA:
            self.crash(f"vector {event.vector} at {event.ip:#x} outside long mode, where events are not delivered")
            return
        self.delivered += 1
        self._deliveries = self._deliveries + 1 if self.clock == self._delivered_at else 0
        self._delivered_at = self.clock
        if self._deliveries > MAX_DELIVERIES_AT_ONCE:
            where = f"vector {event.vector} at {event.ip:#x}"
            self._end = End(EndKind.STUCK, event.ip, f"endless faults: no instruction retires any more, {where}")
            return
        if not delivery.deliver(self, event):
            self._end = End(EndKind.SHUTDOWN, self.cpu.ip, "triple fault")
        elif self.debug.busy:
            self.debug.trap_of_delivery()

    def _shutdown(self, vector: int, why: str) -> None:
        self.emit(Shutdown(self.clock, self.index, self.cpu.ip, vector, why))
        self._end = End(EndKind.SHUTDOWN, self.cpu.ip, why)

    def _fault(self, stop: Stop) -> None:
        vector, error_code = stop.vector, stop.error_code
        if vector == Vector.UD and self.code_byte(stop.ip) == 0xF1:
            self.clock += 1  # ICEBP, which the engine does not know: a trap (SDM volume 2, INT1)
            self.instruction_start = stop.ip
            self.debug.faulted()
            self.cpu.flags &= ~_RF
            self.deliver(Interruption(Vector.DB, EventType.PRIV_SWEXC, stop.ip + 1))
            return
        if vector == Vector.DB:
            self.debug.reported(stop)
            return
        self.debug.faulted()
        vector, error_code = engine_faults.correct(self, stop)
        cr2 = self.cpu.cr2 if vector == Vector.PF else None
        has_code = delivery.default_error_code(vector) is not None
        self.deliver(Interruption(vector, EventType.HWEXC, stop.ip, error_code if has_code else None, cr2))

    def _raise(self, fault: CpuFault) -> None:
        """An exception that our semantics found, at RIP."""
        self.debug.faulted()
        self.deliver(Interruption(fault.vector, EventType.HWEXC, self.cpu.ip, fault.error_code, fault.cr2))

    def raise_exception(self, vector: int, error_code: int | None = None, cr2: int | None = None) -> None:
        """Deliver an exception here and now, as if the instruction at RIP had caused it."""
        if error_code is None:
            error_code = delivery.default_error_code(vector)
        self.deliver(Interruption(vector, EventType.HWEXC, self.cpu.ip, error_code, cr2, injected=True))

    def restore(self, saved: CoreSnapshot) -> None:
        """Back to a snapshot of this core."""
        super().restore(saved)
        self._delivered_at, self._deliveries = -1, 0
