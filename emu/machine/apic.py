"""The local APIC: request and service registers, priorities, EOI, timer (SDM volume 3A, chapter 10).

Time is the CPU's clock of retired instructions; the timer counts one every `divide` of them. Registers are addressed by
their xAPIC offset; x2APIC MSR 0x800+n is offset 16*n.
"""

from __future__ import annotations

from dataclasses import dataclass

from emu.arch import SPURIOUS_APIC_VECTOR

ID, VERSION, TPR, PPR, EOI, SPURIOUS, ESR = 0x20, 0x30, 0x80, 0xA0, 0xB0, 0xF0, 0x280
ISR, TMR, IRR = 0x100, 0x180, 0x200
LVT_TIMER, LVT_LINT0, LVT_LINT1, LVT_ERROR = 0x320, 0x350, 0x360, 0x370
INITIAL_COUNT, CURRENT_COUNT, DIVIDE = 0x380, 0x390, 0x3E0

MASKED = 1 << 16
PERIODIC = 1 << 17
ENABLED = 1 << 8

_PLAIN = frozenset({TPR, SPURIOUS, LVT_TIMER, LVT_LINT0, LVT_LINT1, LVT_ERROR, DIVIDE})
_READABLE = _PLAIN | {ID, VERSION, PPR, ESR, INITIAL_COUNT, CURRENT_COUNT}


class ApicRegisterError(Exception):
    """No such register, or not writable: #GP for an x2APIC MSR, ignored in the xAPIC page."""


@dataclass(slots=True)
class LocalApic:
    """One CPU's local APIC. Plain values only, so that a snapshot is a copy."""

    apic_id: int
    irr: int = 0
    """Interrupt request register, bit n for vector n."""
    isr: int = 0
    """In-service register."""
    tpr: int = 0
    spurious: int = ENABLED | SPURIOUS_APIC_VECTOR
    lvt_timer: int = MASKED
    lvt_lint0: int = MASKED
    lvt_lint1: int = MASKED
    lvt_error: int = MASKED
    divide_configuration: int = 0xB
    initial_count: int = 0
    deadline: int | None = None
    """Clock at which the timer fires next."""
    esr: int = 0

    # --- interrupts -------------------------------------------------------------------------------------------------
    def request(self, vector: int) -> None:
        """A fixed interrupt arrives; vectors below 16 are illegal and only set the error status (SDM 10.5.3)."""
        if vector < 16 or vector > 255:
            self.esr |= 1 << 6
            return
        self.irr |= 1 << vector

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
            self.isr &= ~(1 << (self.isr.bit_length() - 1))

    # --- timer ------------------------------------------------------------------------------------------------------
    @property
    def divide(self) -> int:
        """Instructions a timer count (SDM figure 10-10)."""
        code = (self.divide_configuration & 3) | (self.divide_configuration & 8) >> 1
        return 1 if code == 7 else 2 << code

    def start_timer(self, clock: int, vector: int, count: int, *, periodic: bool) -> None:
        """Program LVT timer and initial count as software would: fires after `count` counts."""
        self.lvt_timer = vector | (PERIODIC if periodic else 0)
        self.set_initial_count(clock, count)

    def set_initial_count(self, clock: int, count: int) -> None:
        """Write the initial-count register; 0 stops the timer."""
        self.initial_count = count
        self.deadline = clock + count * self.divide if count else None

    def tick(self, clock: int) -> None:
        """Time has come to `clock`: fire the timer if it is due."""
        while self.deadline is not None and clock >= self.deadline:
            if not self.lvt_timer & MASKED:
                self.request(self.lvt_timer & 0xFF)
            period = self.initial_count * self.divide
            self.deadline = self.deadline + period if self.lvt_timer & PERIODIC else None

    # --- registers --------------------------------------------------------------------------------------------------
    def read(self, offset: int, clock: int) -> int:
        """A register's 32-bit value."""
        for base, bits in ((ISR, self.isr), (TMR, 0), (IRR, self.irr)):
            if base <= offset < base + 0x80 and offset % 16 == 0:
                return bits >> (offset - base) * 2 & 0xFFFF_FFFF
        if offset not in _READABLE:
            raise ApicRegisterError(f"local APIC register {offset:#x}")
        if offset == CURRENT_COUNT:
            return 0 if self.deadline is None else -(-(self.deadline - clock) // self.divide)
        values = {
            ID: self.apic_id, VERSION: 0x50014, TPR: self.tpr, PPR: self.ppr, SPURIOUS: self.spurious, ESR: self.esr,
            LVT_TIMER: self.lvt_timer, LVT_LINT0: self.lvt_lint0, LVT_LINT1: self.lvt_lint1, LVT_ERROR: self.lvt_error,
            DIVIDE: self.divide_configuration, INITIAL_COUNT: self.initial_count,
        }  # fmt: skip
        return values[offset]

    def write(self, offset: int, value: int, clock: int) -> None:
        """Write a register."""
        match offset:
            case 0xB0:  # EOI
                self.eoi()
            case 0x80:
                self.tpr = value & 0xFF
            case 0xF0:
                self.spurious = value & 0x1FF
            case 0x280:
                self.esr = 0
            case 0x320:
                self.lvt_timer = value & 0x300FF
            case 0x350:
                self.lvt_lint0 = value & 0x1A7FF
            case 0x360:
                self.lvt_lint1 = value & 0x1A7FF
            case 0x370:
                self.lvt_error = value & 0x100FF
            case 0x380:
                self.set_initial_count(clock, value & 0xFFFF_FFFF)
            case 0x3E0:
                self.divide_configuration = value & 0xB
            case _:
                raise ApicRegisterError(f"local APIC register {offset:#x} is not writable")
