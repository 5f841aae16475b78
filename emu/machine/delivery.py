"""Delivery of interrupts and exceptions through the guest's IDT (SDM volume 3A, 6.12-6.15; APM volume 2, 8.9).

Everything is read from guest memory: the gate, the code segment's descriptor, the stack pointer in the TSS. What a
check finds becomes the exception that hardware raises; double and triple faults follow from SDM table 6-5.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from emu.arch import (
    CONTRIBUTORY_VECTORS,
    ERROR_CODE_VECTORS,
    PAGE_FAULT_VECTORS,
    Rflags,
    Vector,
    is_canonical,
)
from emu.events import Delivered, DoubleFault, EventType, Frame, Shutdown
from emu.machine.descriptors import CpuFault, Descriptor, Gate, mark_accessed, read_descriptor
from emu.machine.linear import SUPERVISOR_WRITE, LinearMemory
from emu.machine.paging import PageFaultError
from emu.machine.registers import CS, SS
from emu.record import record

if TYPE_CHECKING:
    from emu.machine.exceptions import Exceptions

_BY_INSTRUCTION = frozenset({EventType.SWINT, EventType.SWEXC, EventType.PRIV_SWEXC})
_BY_PROGRAM = EventType.SWINT, EventType.SWEXC
_DR7_GD = 1 << 13
_STACK_ALIGNMENT = 16
_ONE, _FIVE = struct.Struct("<Q"), struct.Struct("<5Q")
_HWEXC, _NMI, _DB = EventType.HWEXC, EventType.NMI, int(Vector.DB)
_NO_FAULTS = frozenset((int(Vector.DB), int(Vector.DF), int(Vector.MC)))
"""Exceptions that are traps or aborts."""
_IF, _RF = int(Rflags.IF), int(Rflags.RF)
_CLEARED = int(Rflags.TF | Rflags.NT | Rflags.RF | Rflags.VM)


@record
class Interruption:
    """One event on its way into the IDT. `ip` is the RIP to save."""

    vector: int
    type: EventType
    ip: int
    error_code: int | None = None
    cr2: int | None = None
    injected: bool = False
    resume: bool = False
    """Push RF although this is no fault of its own: general detect, a trap within a REP instruction."""

    @property
    def ext(self) -> int:
        """EXT bit of an error code raised while this is delivered (SDM 6.13): set for what is not INT n, INT3, INTO."""
        return 0 if self.type in _BY_PROGRAM else 1


def deliver(core: Exceptions, event: Interruption) -> bool:
    """Deliver one event, or the #DF that it turns into. False on a triple fault: the CPU is shut down."""
    current = event
    while True:
        if current.cr2 is not None:
            core.cpu.cr2 = current.cr2
        try:
            _through_idt(core, current)
        except CpuFault as fault:
            following = _after(core, current, fault)
            if following is None:
                return False
            current = following
        else:
            return True


def _after(core: Exceptions, current: Interruption, fault: CpuFault) -> Interruption | None:
    """What follows when delivering `current` raised `fault` (SDM table 6-5); None for shutdown."""
    if current.type is EventType.HWEXC and current.vector == Vector.DF:
        core.emit(Shutdown(core.clock, core.index, core.cpu.ip, fault.vector, fault.why))
        return None
    if fault.cr2 is not None:
        core.cpu.cr2 = fault.cr2
    hardware = current.type is EventType.HWEXC
    first_contributory = hardware and current.vector in CONTRIBUTORY_VECTORS
    first_page_fault = hardware and current.vector in PAGE_FAULT_VECTORS
    second_contributory = fault.vector in CONTRIBUTORY_VECTORS
    second_page_fault = fault.vector in PAGE_FAULT_VECTORS
    if (first_contributory and second_contributory) or (
        first_page_fault and (second_contributory or second_page_fault)
    ):
        core.emit(DoubleFault(core.clock, core.index, core.cpu.ip, current.vector, fault.vector))
        return Interruption(Vector.DF, EventType.HWEXC, current.ip, 0, injected=current.injected)
    ip = current.ip
    if current.type in _BY_INSTRUCTION:  # INT n itself faults, so it did not retire
        ip = core.instruction_start
        core.clock -= 1
    return Interruption(fault.vector, EventType.HWEXC, ip, fault.error_code, fault.cr2, current.injected)


def _through_idt(core: Exceptions, event: Interruption) -> None:
    cpu, linear, state = core.cpu, core.linear, core.cpu.state
    sp, _, old_cpl, flags, gs_base, kernel_gs_base, _ = cpu.glance()
    gate, code, new_cpl, stack = core.lookups.find(_way_in, event.vector, event.ext, old_cpl)
    if stack is None:
        stack = sp
    frame = Frame(event.ip, cpu.selector(CS), flags | _saved_rf(event), sp, cpu.selector(SS))
    pushed = _FIVE.pack(frame.ip, frame.cs, frame.flags, sp, frame.ss)
    if event.error_code is not None:
        pushed = _ONE.pack(event.error_code) + pushed
    top = (stack & -_STACK_ALIGNMENT) - len(pushed)
    try:
        linear.write(top, pushed, SUPERVISOR_WRITE)
    except PageFaultError as fault:
        raise _stack_fault(event, _first_fault(core, top, len(pushed) // 8, fault)) from None
    mark_accessed(linear, gate.selector, code)
    if core.debug.busy:
        core.debug.note_frame(top, len(pushed))
    if event.vector == _DB and event.ext:
        state.dr[7] &= ~_DR7_GD
    cpu.load_code_segment((gate.selector & ~3) | new_cpl, code.flags, new_cpl)
    if new_cpl != old_cpl:
        cpu.load_stack_segment(new_cpl, new_cpl << 13, limit=0)
    cpu.clear_shadow()
    cpu.jump(gate.offset, flags & ~(_CLEARED | (_IF if gate.type == 0xE else 0)), top)
    if event.type is _NMI:
        core.nmi_blocked = True
    core.emit(
        Delivered(
            core.clock, core.index, event.ip, event.vector, event.type, event.error_code, frame,
            top + (0 if event.error_code is None else 8), gate.ist, gate.offset, gs_base, kernel_gs_base,
            cpu.cr2, event.injected,
        )
    )  # fmt: skip


def _way_in(linear: LinearMemory, vector: int, ext: int, cpl: int) -> tuple[Gate, Descriptor, int, int | None]:
    """The gate of an event with this EXT bit at this CPL, its code segment, the new CPL, and RSP to push on, None if
    that does not change."""
    gate = _gate(linear, vector, ext, cpl)
    code = _code_segment(linear, gate, vector, ext, cpl)
    new_cpl = cpl if code.conforming else code.dpl
    stack = _stack(linear, gate, ext, cpl, new_cpl)
    if not is_canonical(gate.offset):
        raise CpuFault(Vector.GP, ext, f"gate {vector:#x}: non-canonical handler {gate.offset:#x}")
    return gate, code, new_cpl, stack


def _gate(linear: LinearMemory, vector: int, ext: int, cpl: int) -> Gate:
    """The IDT entry, after its checks (SDM 6.12.1.3 and the pseudocode of INT n)."""
    idt = linear.cpu.state.idt
    code = vector << 3 | 2 | ext
    if vector * 16 + 15 > idt.limit:
        raise CpuFault(Vector.GP, code, f"vector {vector:#x} beyond the IDT limit {idt.limit:#x}")
    try:
        gate = Gate.parse(linear.read(idt.base + vector * 16, 16))
    except PageFaultError as fault:
        raise CpuFault.from_page(fault, f"gate {vector:#x}") from None
    if gate.type not in (0xE, 0xF):
        raise CpuFault(Vector.GP, code, f"gate {vector:#x}: type {gate.type:#x} is neither interrupt nor trap gate")
    if not ext and gate.dpl < cpl:
        raise CpuFault(Vector.GP, code, f"gate {vector:#x}: DPL {gate.dpl} below CPL {cpl}")
    if not gate.present:
        raise CpuFault(Vector.NP, code, f"gate {vector:#x} is not present")
    return gate


def _code_segment(linear: LinearMemory, gate: Gate, vector: int, ext: int, cpl: int) -> Descriptor:
    """The gate's code segment, after its checks."""
    what = f"gate {vector:#x}"
    if not gate.selector & 0xFFFC:
        raise CpuFault(Vector.GP, ext, f"{what}: null code selector")
    code = (gate.selector & 0xFFFC) | ext
    descriptor = read_descriptor(linear, gate.selector, ext, what)
    if not descriptor.is_code or descriptor.dpl > cpl:
        raise CpuFault(Vector.GP, code, f"{what}: selector {gate.selector:#x} is no code segment that may be entered")
    if not descriptor.present:
        raise CpuFault(Vector.NP, code, f"{what}: code segment {gate.selector:#x} is not present")
    if not descriptor.long_mode or descriptor.default_32:
        raise CpuFault(Vector.GP, code, f"{what}: code segment {gate.selector:#x} is not 64-bit")
    return descriptor


def _stack(linear: LinearMemory, gate: Gate, ext: int, old_cpl: int, new_cpl: int) -> int | None:
    """RSP to push on: IST, TSS.spN, or (None) the current stack (SDM 6.14.2, 6.14.5)."""
    if gate.ist:
        offset = 36 + 8 * (gate.ist - 1)
    elif new_cpl < old_cpl:
        offset = 4 + 8 * new_cpl
    else:
        return None
    tss = linear.cpu.state.tr
    if offset + 7 > tss.limit:
        raise CpuFault(Vector.TS, (tss.selector & 0xFFFC) | ext, f"TSS limit {tss.limit:#x} too small")
    try:
        stack = linear.read_u64(tss.base + offset)
    except PageFaultError as fault:
        raise CpuFault.from_page(fault, "TSS") from None
    if not is_canonical(stack):
        raise CpuFault(Vector.SS, ext, f"TSS: non-canonical stack pointer {stack:#x}")
    return stack


def _first_fault(core: Exceptions, top: int, words: int, found: PageFaultError) -> PageFaultError:
    """The fault of the first word that cannot be pushed: SS is pushed first, at the highest address."""
    for n in reversed(range(words)):
        try:
            core.linear.translate((top + 8 * n) & 0xFFFF_FFFF_FFFF_FFFF, SUPERVISOR_WRITE)
        except PageFaultError as fault:
            return fault
    return found


def _stack_fault(event: Interruption, fault: PageFaultError) -> CpuFault:
    if not fault.canonical:
        return CpuFault(Vector.SS, event.ext, f"pushing the frame: non-canonical RSP {fault.address:#x}")
    return CpuFault(Vector.PF, fault.code, f"pushing the frame: page fault at {fault.address:#x}", fault.address)


def _saved_rf(event: Interruption) -> int:
    """RF in the saved RFLAGS: fault-class exceptions set it, so that a code breakpoint fires once (SDM 17.3.1.1)."""
    is_fault = event.type is _HWEXC and event.vector not in _NO_FAULTS
    return _RF if is_fault or event.resume else 0


def default_error_code(vector: int) -> int | None:
    """0 for vectors that push an error code, None for the others."""
    return 0 if vector in ERROR_CODE_VECTORS else None
