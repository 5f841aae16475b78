"""The state of one logical processor: registers, clock, local APIC, what is pending; and how events reach it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from emu.arch import PAGE_SIZE, Cr0, Cr4, Efer, Vector
from emu.events import Event, EventType, Pended
from emu.machine import msr
from emu.machine.apic import EndOfInterrupt, Ipi, LocalApic
from emu.machine.device import Device
from emu.machine.end import End, EndKind
from emu.machine.glide import GlidingCpu
from emu.machine.linear import SUPERVISOR_FETCH, USER_FETCH, LinearMemory
from emu.machine.lookups import Lookups
from emu.machine.memory import Memory
from emu.machine.paging import PageFaultError
from emu.machine.profile import Profile
from emu.machine.registers import DS, ES, FS, GS, RDI
from emu.record import record

_KERNEL_CODE = 0x00AF9B00
_KERNEL_DATA = 0x00CF9300
DR6_RESET = 0xFFFF0FF0


@record
class CoreSnapshot:
    """Everything of a core that changes, except RAM."""

    context: bytes
    clock: int
    apic: LocalApic
    msrs: dict[int, int]
    tsc_offset: int
    nmi_blocked: bool
    nmi_pending: int
    mce_pending: bool
    halted: bool
    waits_for_startup: bool
    end: End | None
    breakpoints: int
    """Cpu.breakpoints."""


@record
class Board:
    """What the CPUs of a machine share."""

    memory: Memory
    profile: Profile
    emit: Callable[[Event], None]
    """Hands events to whoever observes the machine."""
    carry: Callable[[Processor, Ipi | EndOfInterrupt], None]
    """The APIC bus: messages of a CPU."""


class Processor:
    """A CPU at rest."""

    def __init__(self, index: int, board: Board) -> None:
        self.index = index
        self.profile = board.profile
        self.emit = board.emit
        self._carry = board.carry
        self.memory = board.memory
        self.cpu = GlidingCpu(index, board.memory)
        self.linear = LinearMemory(self.cpu, board.memory)
        self.lookups = Lookups(self.cpu, board.memory)
        self.apic = LocalApic(index)
        self.msrs = dict(msr.OWN_RESET)
        self.clock = 0
        """Instructions retired since reset."""
        self.tsc_offset = 0
        self.nmi_blocked = False
        self.nmi_pending = 0
        """NMIs waiting: at most one is remembered while another is handled (SDM 6.7.1)."""
        self.mce_pending = False
        self.halted = False
        self.waits_for_startup = False
        """After reset or INIT: only a startup IPI makes this CPU run (SDM 8.4)."""
        self.timed: Sequence[Device[Any]] = ()
        """Devices with deadlines, which end a run and wake the machine from HLT."""
        self._end: End | None = None
        self._saved_apic = self.apic.copy()

    # --- set-up -----------------------------------------------------------------------------------------------------
    def reset_long_mode(self, cr3: int, entry: int, rdi: int) -> None:
        """Start at `entry` at CPL 0 in 64-bit mode with paging on and interrupts off, as a boot loader leaves a CPU."""
        self.waits_for_startup = False
        cpu = self.cpu
        cpu.set_control(cr4=int(Cr4.PAE | Cr4.OSFXSR | Cr4.OSXMMEXCPT))
        cpu.set_efer(int(Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE))
        cpu.set_control(cr3=cr3)
        cpu.set_control(cr0=int(Cr0.PE | Cr0.MP | Cr0.ET | Cr0.NE | Cr0.WP | Cr0.AM | Cr0.PG))
        cpu.load_code_segment(0x10, _KERNEL_CODE, 0)
        cpu.load_stack_segment(0x18, _KERNEL_DATA)
        for segment in (DS, ES, FS, GS):
            cpu.clear_segment(segment)
        cpu.state.dr[6] = DR6_RESET
        cpu.flags = 2
        cpu.set_register(RDI, rdi)
        cpu.ip = entry

    # --- events from outside ----------------------------------------------------------------------------------------
    def raise_nmi(self) -> None:
        """An NMI arrives."""
        self.nmi_pending = 1
        if self.nmi_blocked:
            self.emit(Pended(self.clock, self.index, self.cpu.ip, Vector.NMI, EventType.NMI, "NMIs are blocked"))

    def init(self) -> None:
        """INIT: the CPU stops where it is and waits for a startup IPI (SDM 10.6.1; it keeps its memory)."""
        self.apic.reset()
        self.nmi_blocked = self.mce_pending = self.halted = False
        self.nmi_pending = 0
        self.waits_for_startup = True

    @property
    def something_pending(self) -> bool:
        """Whether an event waits to be let in, so that the next boundary needs a look."""
        return bool(self.apic.irr or self.nmi_pending or self.mce_pending)

    @property
    def idle_for_good(self) -> bool:
        """Halted or not started, with nothing of its own that could wake it."""
        return (self.halted or self.waits_for_startup) and self.deadline is None and not self.something_pending

    @property
    def deadline(self) -> int | None:
        """Clock at which the timer or a device has something to do, or None."""
        if not self.timed:
            return self.apic.deadline
        times = [self.apic.deadline, *(device.deadline for device in self.timed)]
        return min((time for time in times if time is not None), default=None)

    def write_apic(self, offset: int, value: int) -> None:
        """Write a local APIC register and send what it wants to send; ApicRegisterError as LocalApic.write."""
        self.apic.write(offset, value, self.clock)
        self.flush_apic()

    def flush_apic(self) -> None:
        """Hand the APIC's messages to the bus, and its NMIs to the CPU."""
        apic = self.apic
        for message in apic.outbox:
            self._carry(self, message)
        apic.outbox.clear()
        if apic.nmi_requests:
            apic.nmi_requests = 0
            self.raise_nmi()

    def raise_machine_check(self) -> None:
        """A machine check arrives."""
        self.mce_pending = True

    def raise_interrupt(self, vector: int, *, level: bool = False) -> None:
        """A fixed interrupt arrives at the local APIC; a level-triggered one wants its EOI broadcast."""
        self.apic.request(vector, level=level)
        if vector >= 16 and not self.cpu.interrupts_enabled:
            self.emit(Pended(self.clock, self.index, self.cpu.ip, vector, EventType.EXTINT, "IF is clear"))

    @property
    def ended(self) -> bool:
        """Whether this CPU runs no more."""
        return self._end is not None

    def finish(self, text: str) -> None:
        """There is nothing left to run."""
        self._end = End(EndKind.FINISHED, self.cpu.ip, text)

    def crash(self, text: str) -> None:
        """The kernel cannot go on."""
        self._end = End(EndKind.CRASHED, self.cpu.ip, text)

    # --- memory and MSRs for C functions ----------------------------------------------------------------------------
    def read_linear(self, address: int, size: int) -> bytes:
        """Supervisor read through the current page tables."""
        return self.linear.read(address, size)

    def write_linear(self, address: int, data: bytes) -> None:
        """Supervisor write through the current page tables."""
        self.linear.write(address, data)

    def write_msr(self, number: int, value: int) -> None:
        """wrmsrl by a C function; CpuFault if hardware would refuse."""
        msr.check_write(self, number, value)
        self.emit(msr.written(self, number, value))
        msr.write(self, number, value)

    def read_code(self, address: int, size: int) -> bytes:
        """Instruction bytes as this CPU would fetch them now; what lies in an unreachable page is left off."""
        access = USER_FETCH if self.cpu.cpl == 3 else SUPERVISOR_FETCH
        for length in (size, PAGE_SIZE - address % PAGE_SIZE):
            try:
                return self.linear.read(address, min(size, length), access)
            except PageFaultError:
                continue
        return b""

    def code_byte(self, address: int) -> int:
        """One instruction byte; -1 if it cannot be fetched."""
        code = self.read_code(address, 1)
        return code[0] if code else -1

    # --- snapshot ---------------------------------------------------------------------------------------------------
    def snapshot(self, since: CoreSnapshot | None = None) -> CoreSnapshot:
        """State at rest; `since`: the last one, if registers and clock are all that has changed."""
        if since is not None:
            return CoreSnapshot(
                self.cpu.save(), self.clock, since.apic, since.msrs, since.tsc_offset,
                since.nmi_blocked, since.nmi_pending, since.mce_pending, since.halted, since.waits_for_startup, None,
                since.breakpoints,
            )  # fmt: skip
        if self._saved_apic != self.apic:
            self._saved_apic = self.apic.copy()
        return CoreSnapshot(
            self.cpu.save(), self.clock, self._saved_apic, dict(self.msrs), self.tsc_offset,
            self.nmi_blocked, self.nmi_pending, self.mce_pending, self.halted, self.waits_for_startup, self._end,
            self.cpu.breakpoints,
        )  # fmt: skip

    def can_restore(self, saved: CoreSnapshot) -> bool:
        """Whether the engine's breakpoints are those of this snapshot, or it has none."""
        return saved.breakpoints in (0, self.cpu.breakpoint_loads)

    def restore(self, saved: CoreSnapshot) -> None:
        """Back to a snapshot of this core."""
        self.cpu.load(saved.context)
        self.clock = saved.clock
        if self.apic != saved.apic:
            self.apic = saved.apic.copy()
        self.msrs = dict(saved.msrs)
        self.tsc_offset = saved.tsc_offset
        self.nmi_blocked, self.nmi_pending = saved.nmi_blocked, saved.nmi_pending
        self.mce_pending, self.halted, self._end = saved.mce_pending, saved.halted, saved.end
        self.waits_for_startup = saved.waits_for_startup
