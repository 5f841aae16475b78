"""Model-specific registers: which exist, what they accept, where they live (SDM volume 4; APM volume 2, appendix A).

The engine executes RDMSR and WRMSR of the registers that it knows but checks nothing, so every access is checked here
first; registers that the engine does not have live in a table of the core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emu.arch import Cr0, Efer, Msr, Vector, is_canonical
from emu.events import MsrWritten
from emu.machine import apic
from emu.machine.apic import ApicRegisterError
from emu.machine.descriptors import CpuFault

if TYPE_CHECKING:
    from emu.machine.processor import Processor

CANONICAL = frozenset(
    {
        Msr.LSTAR, Msr.CSTAR, Msr.FS_BASE, Msr.GS_BASE, Msr.KERNEL_GS_BASE, Msr.SYSENTER_ESP, Msr.SYSENTER_EIP,
    }
)  # fmt: skip
"""Registers that hold an address: WRMSR of a non-canonical one is #GP(0)."""

NATIVE = CANONICAL | {Msr.EFER, Msr.STAR, Msr.SYSCALL_MASK, Msr.SYSENTER_CS, Msr.PAT, Msr.TSC_AUX}
"""Registers that the engine keeps itself."""

OWN_RESET: dict[int, int] = {
    Msr.MCG_CAP: 0,
    Msr.MCG_STATUS: 0,
    Msr.MISC_ENABLE: 1,
    Msr.DEBUGCTL: 0,
}
"""Registers kept in the core's table, with their reset values."""

APIC_ADDRESS = 0xFEE0_0000
_APIC_ENABLE, _APIC_X2, _APIC_BSP = 1 << 11, 1 << 10, 1 << 8

_READ_ONLY = frozenset({Msr.MCG_CAP})
_EFER_KNOWN = int(Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE)
_OWN_BEHAVIOUR = frozenset({Msr.TSC, Msr.TSC_DEADLINE})
_X2APIC_ICR = Msr.X2APIC_BASE + 0x30
_X2APIC = range(Msr.X2APIC_BASE, Msr.X2APIC_BASE + 0x40)


_LOW_HALF = frozenset({Msr.SYSCALL_MASK, Msr.TSC_AUX})
"""Bits 63:32 are reserved: #GP(0) on Intel, dropped by AMD's CPUs."""


def read(core: Processor, number: int) -> int:
    """RDMSR; CpuFault #GP(0) for a register that does not exist."""
    state = core.cpu.state
    match number:
        case Msr.EFER:
            return state.efer
        case Msr.STAR:
            return state.star
        case Msr.LSTAR:
            return state.lstar
        case Msr.CSTAR:
            return state.cstar
        case Msr.SYSCALL_MASK:
            return state.fmask
        case Msr.FS_BASE:
            return core.cpu.fs_base
        case Msr.GS_BASE:
            return core.cpu.gs_base
        case Msr.KERNEL_GS_BASE:
            return state.kernel_gs_base
        case Msr.SYSENTER_CS:
            return state.sysenter_cs
        case Msr.SYSENTER_ESP:
            return state.sysenter_esp
        case Msr.SYSENTER_EIP:
            return state.sysenter_eip
        case Msr.PAT:
            return state.pat
        case Msr.TSC_AUX:
            return state.tsc_aux
        case Msr.TSC:
            return core.clock + core.tsc_offset
    if number in core.msrs:
        return core.msrs[number]
    if number == Msr.APIC_BASE:
        mode = _APIC_ENABLE | (_APIC_X2 if core.apic.x2apic else 0)
        return APIC_ADDRESS | mode | (_APIC_BSP if core.index == 0 else 0)
    if number == Msr.TSC_DEADLINE:
        armed = core.apic.lvt[apic.LVT_TIMER] & apic.TIMER_MODE == apic.TSC_DEADLINE and core.apic.deadline is not None
        return (core.apic.deadline or 0) + core.tsc_offset if armed else 0
    if number in _X2APIC and core.apic.x2apic:
        try:
            return core.apic.read((number - Msr.X2APIC_BASE) << 4, core.clock)
        except ApicRegisterError:
            pass
    raise CpuFault(Vector.GP, 0, f"RDMSR of unknown MSR {number:#x}")


def check_write(core: Processor, number: int, value: int) -> None:
    """CpuFault #GP(0) if WRMSR must refuse this register or value."""
    if number in CANONICAL and not is_canonical(value):
        raise CpuFault(Vector.GP, 0, f"WRMSR {Msr(number).name}: non-canonical {value:#x}")
    if number == Msr.EFER:
        if value & ~_EFER_KNOWN:
            raise CpuFault(Vector.GP, 0, f"WRMSR EFER: reserved bits in {value:#x}")
        if core.cpu.cr0 & Cr0.PG and (value ^ core.cpu.state.efer) & Efer.LME:
            raise CpuFault(Vector.GP, 0, "WRMSR EFER: LME changed while paging is on")
    if number == Msr.PAT and any((value >> 8 * n & 0xFF) not in (0, 1, 4, 5, 6, 7) for n in range(8)):
        raise CpuFault(Vector.GP, 0, f"WRMSR PAT: bad memory type in {value:#x}")
    if number in _LOW_HALF and value >> 32 and core.profile.vendor == "intel":
        raise CpuFault(Vector.GP, 0, f"WRMSR {Msr(number).name}: reserved bits in {value:#x}")
    if number == Msr.APIC_BASE:
        _check_apic_base(core, value)
    elif number in _X2APIC and core.apic.x2apic:
        if value >> 32 and number != _X2APIC_ICR:
            raise CpuFault(Vector.GP, 0, f"WRMSR {number:#x}: reserved bits in {value:#x}")
    elif number in _READ_ONLY or not (number in NATIVE or number in core.msrs or number in _OWN_BEHAVIOUR):
        raise CpuFault(Vector.GP, 0, f"WRMSR of unknown or read-only MSR {number:#x}")


def written(core: Processor, number: int, value: int) -> MsrWritten:
    """The event of a write that is about to happen; APIC registers, some of them write-only, are not looked at."""
    before = 0 if number in _X2APIC else read(core, number)
    return MsrWritten(core.clock, core.index, core.cpu.ip, number, before, value)


def _check_apic_base(core: Processor, value: int) -> None:
    """The APIC stays where it is; x2APIC mode is entered from xAPIC mode and left only by disabling (SDM 10.12.5)."""
    fixed = value & ~(_APIC_ENABLE | _APIC_X2 | _APIC_BSP)
    if fixed != APIC_ADDRESS or not value & _APIC_ENABLE or (core.apic.x2apic and not value & _APIC_X2):
        raise CpuFault(Vector.GP, 0, f"WRMSR APIC_BASE: {value:#x} is refused")


def write(core: Processor, number: int, value: int) -> None:
    """Write any register from outside the guest (a C function's wrmsrl); the value must have passed check_write."""
    cpu, state = core.cpu, core.cpu.state
    match number:
        case Msr.EFER:
            cpu.set_efer(value)
        case Msr.STAR:
            state.star = value
        case Msr.LSTAR:
            state.lstar = value
        case Msr.CSTAR:
            state.cstar = value
        case Msr.SYSCALL_MASK:
            state.fmask = value & 0xFFFF_FFFF
        case Msr.FS_BASE:
            cpu.fs_base = value
        case Msr.GS_BASE:
            cpu.gs_base = value
        case Msr.KERNEL_GS_BASE:
            cpu.kernel_gs_base = value
        case Msr.SYSENTER_CS:
            state.sysenter_cs = value & 0xFFFF_FFFF
        case Msr.SYSENTER_ESP:
            state.sysenter_esp = value
        case Msr.SYSENTER_EIP:
            state.sysenter_eip = value
        case Msr.PAT:
            state.pat = value
        case Msr.TSC_AUX:
            state.tsc_aux = value & 0xFFFF_FFFF
        case Msr.TSC:
            core.tsc_offset = value - core.clock
        case Msr.TSC_DEADLINE:
            core.apic.set_tsc_deadline(max(value - core.tsc_offset, core.clock) if value else 0)
        case Msr.APIC_BASE:
            core.apic.x2apic = bool(value & _APIC_X2)
        case _ if number in core.msrs:
            core.msrs[number] = value
        case _:
            try:
                core.write_apic((number - Msr.X2APIC_BASE) << 4, value)
            except ApicRegisterError as error:
                raise CpuFault(Vector.GP, 0, f"WRMSR: {error}") from None
    cpu.mark_dirty()
