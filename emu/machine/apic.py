"""The local APIC: request and service registers, priorities, EOI, timer, LVT, interrupt command register.

SDM volume 3A, chapter 10 (section 10.12 for x2APIC). Time is the CPU's clock of retired instructions; the timer counts
one every `divide` of them. Registers are addressed by their xAPIC offset; x2APIC MSR 0x800+n is offset 16*n. What the
APIC sends (IPIs, the EOI of a level-triggered interrupt) goes to `outbox`; the core hands it to the bus.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import IntEnum
from operator import attrgetter

from emu.arch import SPURIOUS_APIC_VECTOR
from emu.record import record

ID, VERSION, TPR, PPR, EOI, LDR, DFR, SPURIOUS = 0x20, 0x30, 0x80, 0xA0, 0xB0, 0xD0, 0xE0, 0xF0
ISR, TMR, IRR, ESR = 0x100, 0x180, 0x200, 0x280
LVT_CMCI, ICR_LOW, ICR_HIGH = 0x2F0, 0x300, 0x310
LVT_TIMER, LVT_THERMAL, LVT_PERFORMANCE, LVT_LINT0, LVT_LINT1, LVT_ERROR = 0x320, 0x330, 0x340, 0x350, 0x360, 0x370
INITIAL_COUNT, CURRENT_COUNT, DIVIDE, SELF_IPI = 0x380, 0x390, 0x3E0, 0x3F0

MASKED = 1 << 16
LEVEL = 1 << 15
TIMER_MODE = 3 << 17
ONE_SHOT, PERIODIC, TSC_DEADLINE = 0, 1 << 17, 2 << 17
ENABLED = 1 << 8
ESR_SEND_ILLEGAL, ESR_RECEIVE_ILLEGAL, ESR_ILLEGAL_REGISTER = 1 << 5, 1 << 6, 1 << 7

LVT_BITS = {
    LVT_CMCI: 0x107FF, LVT_TIMER: 0x700FF, LVT_THERMAL: 0x107FF, LVT_PERFORMANCE: 0x107FF,
    LVT_LINT0: 0x1A7FF, LVT_LINT1: 0x1A7FF, LVT_ERROR: 0x100FF,
}  # fmt: skip
"""Writable bits of each local vector table entry (SDM figure 10-8)."""
_READABLE = frozenset(
    {ID, VERSION, TPR, PPR, LDR, DFR, SPURIOUS, ESR, ICR_LOW, ICR_HIGH, INITIAL_COUNT, CURRENT_COUNT, DIVIDE}
) | frozenset(LVT_BITS)


class Delivery(IntEnum):
    """Delivery modes of ICR, LVT and I/O APIC entries (SDM 10.6.1)."""

    FIXED = 0
    LOWEST = 1
    SMI = 2
    NMI = 4
    INIT = 5
    STARTUP = 6
    EXTINT = 7


class Shorthand(IntEnum):
    """Destination shorthands of the ICR."""

    NONE = 0
    SELF = 1
    ALL = 2
    OTHERS = 3


@record
class Ipi:
    """An interprocessor interrupt on its way to the bus."""

    delivery: Delivery
    vector: int
    shorthand: Shorthand
    logical: bool
    destination: int
    level: bool
    """Level bit: assert (True) or the de-assert of an INIT."""


@record
class EndOfInterrupt:
    """The EOI of a level-triggered vector, for the I/O APICs."""

    vector: int


class ApicRegisterError(Exception):
    """No such register, or not this access: #GP for an x2APIC MSR, an error-status bit in the xAPIC page."""


def _masked_lvt() -> dict[int, int]:
    return dict.fromkeys(LVT_BITS, MASKED)


@dataclass(slots=True)
class LocalApic:
    """One CPU's local APIC. Plain values only; `copy` for a snapshot."""

    apic_id: int
    irr: int = 0
    """Interrupt request register, bit n for vector n."""
    isr: int = 0
    """In-service register."""
    tmr: int = 0
    """Trigger mode register: 1 for level."""
    tpr: int = 0
    spurious: int = ENABLED | SPURIOUS_APIC_VECTOR
    lvt: dict[int, int] = field(default_factory=_masked_lvt)
    x2apic: bool = False
    logical_id: int = 0
    destination_format: int = 0xFFFF_FFFF
    icr: int = 0
    divide_configuration: int = 0xB
    initial_count: int = 0
    deadline: int | None = None
    """Clock at which the timer fires next."""
    esr: int = 0
    esr_latched: int = 0
    outbox: list[Ipi | EndOfInterrupt] = field(default_factory=list)
    nmi_requests: int = 0
    """NMIs that an LVT entry has raised; the core takes them."""

    def __eq__(self, other: object) -> bool:
        """As a dataclass would, and faster: each restore asks."""
        return isinstance(other, LocalApic) and _values(self) == _values(other)

    def copy(self) -> LocalApic:
        """An independent copy."""
        fresh = object.__new__(LocalApic)  # several times as fast as copy.copy, and done at each restore
        for name in LocalApic.__slots__:
            setattr(fresh, name, getattr(self, name))
        fresh.lvt, fresh.outbox = dict(self.lvt), list(self.outbox)
        return fresh

    def reset(self) -> None:
        """INIT: everything but the id and the mode (SDM 10.4.7.3)."""
        fresh = LocalApic(self.apic_id, x2apic=self.x2apic, spurious=0xFF)
        for item in dataclasses.fields(self):
            setattr(self, item.name, getattr(fresh, item.name))

    # --- interrupts -------------------------------------------------------------------------------------------------
    def request(self, vector: int, *, level: bool = False) -> None:
        """A fixed interrupt arrives; vectors below 16 are illegal and only set the error status (SDM 10.5.3)."""
        if vector < 16 or vector > 255:
            self._error(ESR_RECEIVE_ILLEGAL)
            return
        self.irr |= 1 << vector
        self.tmr = self.tmr | 1 << vector if level else self.tmr & ~(1 << vector)

    def _error(self, bit: int) -> None:
        first = not self.esr & bit
        self.esr |= bit
        entry = self.lvt[LVT_ERROR]
        if first and not entry & MASKED and entry & 0xFF >= 16:
            self.irr |= 1 << (entry & 0xFF)

    def local_event(self, register: int) -> None:
        """A local source fires: thermal, performance counter, LINT0, LINT1, CMCI (SDM 10.5.1)."""
        entry = self.lvt[register]
        if entry & MASKED:
            return
        delivery = entry >> 8 & 7
        if delivery == Delivery.NMI:
            self.nmi_requests += 1
        elif delivery == Delivery.FIXED:
            self.request(entry & 0xFF, level=bool(entry & LEVEL))
        if register == LVT_PERFORMANCE:
            self.lvt[register] |= MASKED  # a performance interrupt masks its entry (SDM 18.6.3)

    @property
    def ppr(self) -> int:
        """Processor priority (SDM 10.8.3.1)."""
        in_service = self.isr.bit_length() - 1 if self.isr else 0
        return self.tpr if self.tpr >> 4 >= in_service >> 4 else in_service & 0xF0

    def deliverable(self) -> int | None:
        """The vector that would be delivered now if the CPU took interrupts, or None."""
        if not self.irr or not self.spurious & ENABLED:
            return None
        vector = self.irr.bit_length() - 1
        return vector if vector >> 4 > self.ppr >> 4 else None

    def acknowledge(self) -> int:
        """The CPU takes the interrupt: IRR to ISR. The spurious vector if there is none any more (SDM 10.9)."""
        vector = self.deliverable()
        if vector is None:
            return self.spurious & 0xFF
        self.irr &= ~(1 << vector)
        self.isr |= 1 << vector
        return vector

    def eoi(self) -> None:
        """End of interrupt: the highest vector in service is done."""
        if self.isr:
            vector = self.isr.bit_length() - 1
            self.isr &= ~(1 << vector)
            if self.tmr >> vector & 1:
                self.outbox.append(EndOfInterrupt(vector))

    def accepts(self, destination: int, *, logical: bool) -> bool:
        """Whether an IPI or device message to this destination is for us (SDM 10.6.2)."""
        if not logical:
            broadcast = 0xFFFF_FFFF if self.x2apic else 0xFF
            return destination in (self.apic_id, broadcast)
        if self.x2apic:
            mine = self._x2apic_logical_id
            return destination >> 16 == mine >> 16 and bool(destination & mine & 0xFFFF)
        mine = self.logical_id >> 24
        if self.destination_format >> 28 == 0xF:  # flat model
            return bool(destination & mine)
        return destination >> 4 in (mine >> 4, 0xF) and bool(destination & mine & 0xF)

    @property
    def _x2apic_logical_id(self) -> int:
        return self.apic_id >> 4 << 16 | 1 << (self.apic_id & 0xF)

    # --- timer ------------------------------------------------------------------------------------------------------
    @property
    def divide(self) -> int:
        """Instructions a timer count (SDM figure 10-10)."""
        code = (self.divide_configuration & 3) | (self.divide_configuration & 8) >> 1
        return 1 if code == 7 else 2 << code

    def start_timer(self, clock: int, vector: int, count: int, *, periodic: bool) -> None:
        """Program LVT timer and initial count as software would: fires after `count` counts."""
        self.lvt[LVT_TIMER] = vector | (PERIODIC if periodic else ONE_SHOT)
        self.set_initial_count(clock, count)

    def set_initial_count(self, clock: int, count: int) -> None:
        """Write the initial-count register; 0 stops the timer. Without effect in TSC-deadline mode."""
        if self.lvt[LVT_TIMER] & TIMER_MODE == TSC_DEADLINE:
            return
        self.initial_count = count
        self.deadline = clock + count * self.divide if count else None

    def set_tsc_deadline(self, clock: int) -> None:
        """Write IA32_TSC_DEADLINE, given as a clock; 0 disarms. Only in TSC-deadline mode (SDM 10.5.4.1)."""
        if self.lvt[LVT_TIMER] & TIMER_MODE == TSC_DEADLINE:
            self.deadline = clock or None

    def tick(self, clock: int) -> None:
        """Time has come to `clock`: fire the timer if it is due."""
        while self.deadline is not None and clock >= self.deadline:
            entry = self.lvt[LVT_TIMER]
            if not entry & MASKED:
                self.request(entry & 0xFF)
            if entry & TIMER_MODE == PERIODIC:
                # What was missed while nobody looked (HLT, a long C function) is one interrupt, not many.
                period = self.initial_count * self.divide
                self.deadline += period * (1 + (clock - self.deadline) // period)
            else:
                self.deadline = None

    # --- registers --------------------------------------------------------------------------------------------------
    def read(self, offset: int, clock: int) -> int:
        """A register's value: 32 bits, but 64 for the ICR of an x2APIC."""
        for base, bits in ((ISR, self.isr), (TMR, self.tmr), (IRR, self.irr)):
            if base <= offset < base + 0x80 and offset % 16 == 0:
                return bits >> (offset - base) * 2 & 0xFFFF_FFFF
        if offset not in _READABLE or (self.x2apic and offset in (DFR, ICR_HIGH)):
            self._error(ESR_ILLEGAL_REGISTER)
            raise ApicRegisterError(f"local APIC register {offset:#x} cannot be read")
        if offset in LVT_BITS:
            return self.lvt[offset]
        if offset == CURRENT_COUNT:
            running = self.deadline is not None and self.lvt[LVT_TIMER] & TIMER_MODE != TSC_DEADLINE
            return -(-((self.deadline or 0) - clock) // self.divide) if running else 0
        x2 = self.x2apic
        values = {
            ID: self.apic_id if x2 else self.apic_id << 24, VERSION: 0x60015, TPR: self.tpr, PPR: self.ppr,
            LDR: self._x2apic_logical_id if x2 else self.logical_id, DFR: self.destination_format,
            SPURIOUS: self.spurious, ESR: self.esr_latched,
            ICR_LOW: self.icr if x2 else self.icr & 0xFFFF_FFFF, ICR_HIGH: self.icr >> 32,
            DIVIDE: self.divide_configuration, INITIAL_COUNT: self.initial_count,
        }  # fmt: skip
        return values[offset]

    def write(self, offset: int, value: int, clock: int) -> None:
        """Write a register; `value` has 64 bits for the ICR of an x2APIC."""
        if offset in LVT_BITS:
            self._write_lvt(offset, value)
        elif offset == TPR:
            self.tpr = value & 0xFF
        elif offset == EOI and not (self.x2apic and value):
            self.eoi()
        elif offset == SPURIOUS:
            self.spurious = value & 0x11FF
            if not self.spurious & ENABLED:
                for entry in self.lvt:
                    self.lvt[entry] |= MASKED  # a disabled APIC's entries are masked (SDM 10.4.7.2)
        elif offset == ESR and not (self.x2apic and value):
            self.esr_latched, self.esr = self.esr, 0
        elif offset == ICR_LOW:
            high = value & ~0xFFFF_FFFF if self.x2apic else self.icr & ~0xFFFF_FFFF
            self.icr = high | value & 0xCCFFF
            self._send()
        elif offset == ICR_HIGH and not self.x2apic:
            self.icr = self.icr & 0xFFFF_FFFF | (value & 0xFF00_0000) << 32
        elif offset == SELF_IPI and self.x2apic:
            self.request(value & 0xFF)
        elif offset == INITIAL_COUNT:
            self.set_initial_count(clock, value & 0xFFFF_FFFF)
        elif offset == DIVIDE:
            self.divide_configuration = value & 0xB
        elif offset == LDR and not self.x2apic:
            self.logical_id = value & 0xFF00_0000
        elif offset == DFR and not self.x2apic:
            self.destination_format = value | 0x0FFF_FFFF
        else:
            self._error(ESR_ILLEGAL_REGISTER)
            raise ApicRegisterError(f"local APIC register {offset:#x} cannot be written with {value:#x}")

    def _write_lvt(self, offset: int, value: int) -> None:
        before = self.lvt[offset]
        entry = value & LVT_BITS[offset] | (0 if self.spurious & ENABLED else MASKED)
        if offset == LVT_TIMER and (entry ^ before) & TIMER_MODE:
            self.deadline = None  # a change of mode disarms the timer (SDM 10.5.4.1)
        self.lvt[offset] = entry

    def _send(self) -> None:
        """The ICR was written: an IPI leaves (SDM 10.6.1)."""
        icr = self.icr
        try:
            delivery = Delivery(icr >> 8 & 7)
        except ValueError:
            return
        if delivery in (Delivery.FIXED, Delivery.LOWEST) and icr & 0xFF < 16:
            self._error(ESR_SEND_ILLEGAL)
            return
        destination = icr >> 32 if self.x2apic else icr >> 56
        self.outbox.append(
            Ipi(delivery, icr & 0xFF, Shorthand(icr >> 18 & 3), bool(icr >> 11 & 1), destination, bool(icr >> 14 & 1))
        )


_values = attrgetter(*LocalApic.__slots__)
