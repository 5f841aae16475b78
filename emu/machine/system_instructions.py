"""Instructions on system registers whose checks the engine lacks: MOV CR and DR, tables, segments, FS and GS bases.

Each function stands before the instruction at RIP: True when it did it, False to let the engine execute it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from capstone import CS_ARCH_X86, CS_MODE_64, Cs
from capstone.x86_const import X86_OP_MEM, X86_OP_REG

from emu.arch import Cr0, Cr4, Vector, is_canonical
from emu.events import EventType
from emu.machine.delivery import Interruption
from emu.machine.descriptors import CpuFault
from emu.machine.operands import address_of, register_value
from emu.machine.paging import Access, PageFaultError
from emu.machine.registers import FS, GS, REGISTER_NAMES
from emu.machine.stop import StopKind

if TYPE_CHECKING:
    from asm import Instruction
    from emu.machine.core import Core

_decoder = Cs(CS_ARCH_X86, CS_MODE_64)
_decoder.detail = True
_CR0_LOW = 0xE005_003F
"""Bits of CR0[31:0] that exist; others are ignored when written (SDM volume 2, MOV to CR)."""
_CR4_KNOWN = 0x0037_0FFF & ~(1 << 12)
"""CR4 up to SMAP without VMXE, SMXE, LA57, PCIDE and PKE: those are off in CPUID."""
_CR4_OFF = 1 << 13 | 1 << 14 | 1 << 17
_DR7_FIXED, _DR7_ZERO = 0x400, 0xD000
_DR6_FIXED, _DR6_ZERO = 0xFFFF0FF0, 0x1000
WRITE_BASE = "write_base "
"""WRFSBASE and WRGSBASE, before the name of the register."""
_GD, _BD = 1 << 13, 1 << 13


def classify(instruction: Instruction) -> str | None:
    """The key in BEFORE of an instruction that needs a look."""
    return _kind(instruction.mnemonic, instruction.operands)


@lru_cache(maxsize=1 << 14)  # each boot asks about every instruction of its image
def _kind(name: str, operands: str) -> str | None:
    if name.startswith("mov"):
        source, _, target = operands.rpartition(", ")
        if "%dr" in operands:
            return "mov_dr"
        if target in ("%cr0", "%cr4", "%cr8") or source == "%cr8":
            return "mov_cr"
        return _SEGMENT_LOADS.get(target)
    if name.startswith("pop"):
        return _SEGMENT_LOADS.get(operands)
    if name in ("lfsl", "lfsq", "lgsl", "lgsq"):
        return f"load_{name[1:3]}"
    if name.startswith(("wrfsbase", "wrgsbase")) and operands.strip("%") in REGISTER_NAMES:
        return f"{WRITE_BASE}{operands}"  # a 32-bit operand is always canonical
    for stem in ("lgdt", "lidt", "sgdt", "sidt", "sldt", "str", "smsw", "ltr"):
        if name.startswith(stem) and len(name) <= len(stem) + 1:
            return stem
    return None


_SEGMENT_LOADS = {"%ss": "load_ss", "%fs": "load_fs", "%gs": "load_gs"}


def _fields(core: Core) -> tuple[int, int, int] | None:
    """(size, reg, rm) of MOV to or from a control or debug register at RIP; None if memory says it is no such."""
    code = core.read_code(core.cpu.ip, 15)
    at = code.find(0x0F)
    if at < 0 or at + 2 >= len(code):
        return None  # page tables or code changed behind the TLB
    rex = code[at - 1] if at and code[at - 1] & 0xF0 == 0x40 else 0
    modrm = code[at + 2]
    return at + 3, modrm >> 3 & 7 | (rex & 4) << 1, modrm & 7 | (rex & 1) << 3


def mov_cr(core: Core) -> bool:
    """MOV to CR0, CR4 and CR8, MOV from CR8 (SDM volume 2, MOV control registers)."""
    cpu = core.cpu
    if cpu.cpl:
        return False  # #GP, which the engine raises
    fields = _fields(core)
    if fields is None:
        return False
    size, number, operand = fields
    value = cpu.register(operand)
    if number == 8:
        if core.code_byte(cpu.ip + size - 2) == 0x20:
            cpu.set_register(operand, core.apic.tpr >> 4)
        elif value > 15:
            raise CpuFault(Vector.GP, 0, f"MOV to CR8: {value:#x}")
        else:
            core.write_apic(0x80, value << 4)
        core.skip(size)
        return True
    if number == 0:
        _check_cr0(core, value)
    else:
        _check_cr4(core, value)
    if number == 0 and value & 0xFFFF_FFFF & ~_CR0_LOW:
        core.skip(size)
        cpu.set_control(cr0=value & _CR0_LOW | Cr0.ET)
        return True
    return False


def _check_cr0(core: Core, value: int) -> None:
    if value >> 32:
        raise CpuFault(Vector.GP, 0, f"MOV to CR0: reserved bits in {value:#x}")
    if value & Cr0.PG and not value & Cr0.PE:
        raise CpuFault(Vector.GP, 0, "MOV to CR0: PG without PE")
    if value >> 29 & 3 == 1:
        raise CpuFault(Vector.GP, 0, "MOV to CR0: NW without CD")
    if core.cpu.long_mode_code and not value & Cr0.PG:
        raise CpuFault(Vector.GP, 0, "MOV to CR0: paging off in 64-bit mode")


def _check_cr4(core: Core, value: int) -> None:
    if value & ~_CR4_KNOWN | value & _CR4_OFF:
        raise CpuFault(Vector.GP, 0, f"MOV to CR4: reserved bits in {value:#x}")
    if not value & Cr4.PAE:
        raise CpuFault(Vector.GP, 0, "MOV to CR4: PAE off in long mode")


def mov_dr(core: Core) -> bool:
    """MOV to and from debug registers: general detect, reserved bits (SDM volume 3B, 17.2)."""
    cpu, state = core.cpu, core.cpu.state
    if cpu.cpl:
        return False
    fields = _fields(core)
    if fields is None:
        return False
    size, number, operand = fields
    if number > 7 or (number in (4, 5) and cpu.cr4 & Cr4.DE):
        return False  # #UD, which the engine raises
    if state.dr[7] & _GD:
        state.dr[6] |= _BD
        cpu.mark_dirty()
        core.deliver(Interruption(Vector.DB, EventType.HWEXC, cpu.ip, resume=True))
        return True
    if core.code_byte(cpu.ip + size - 2) != 0x23:
        return False
    cpu.breakpoint_loads += 1
    value = cpu.register(operand)
    if number < 4:
        return False
    if value >> 32:
        raise CpuFault(Vector.GP, 0, f"MOV to DR{number}: {value:#x} does not fit in 32 bits")
    stop = core.execute_one()
    if stop.kind is StopKind.COUNT or stop.vector == Vector.DB:
        if number in (5, 7):
            state.dr[7] = value & ~_DR7_ZERO | _DR7_FIXED
        else:
            traps = state.dr[6] & 0x4000 if stop.vector == Vector.DB else 0
            state.dr[6] = value & ~_DR6_ZERO | _DR6_FIXED | traps
        cpu.mark_dirty()
    return True


def umip(core: Core) -> bool:
    """SGDT, SIDT, SLDT, STR, SMSW: #GP(0) at CPL 3 under CR4.UMIP (SDM volume 3A, 2.5)."""
    if core.cpu.cpl and core.cpu.cr4 & Cr4.UMIP:
        raise CpuFault(Vector.GP, 0, "user-mode instruction prevention")
    return False


def load_table(core: Core) -> bool:
    """LGDT and LIDT: #GP(0) for a non-canonical base."""
    cpu = core.cpu
    if cpu.cpl == 0 and cpu.long_mode_code:
        raw = _memory_operand(core, 10)
        base = int.from_bytes(raw[2:], "little")
        if raw and not is_canonical(base):
            raise CpuFault(Vector.GP, 0, f"LGDT or LIDT: non-canonical base {base:#x}")
    return False


def ltr(core: Core) -> bool:
    """LTR: #GP(0) for a null selector."""
    selector = _selector_operand(core)
    if core.cpu.cpl == 0 and selector is not None and not selector & 0xFFFC:
        raise CpuFault(Vector.GP, 0, "LTR: null selector")
    return False


def load_ss(core: Core) -> bool:
    """MOV and POP to SS: a null selector's RPL must be CPL (SDM volume 2, MOV)."""
    cpu = core.cpu
    selector = _selector_operand(core)
    if cpu.cpl < 3 and cpu.long_mode_code and selector is not None and selector < 4 and selector != cpu.cpl:
        raise CpuFault(Vector.GP, 0, f"loading SS with the null selector {selector}")
    return False


def _load_based(core: Core, segment: int) -> bool:
    """Loading FS or GS with a null selector clears the base on Intel, not on AMD (APM volume 2, 4.5.3)."""
    if core.profile.vendor == "intel":
        return False
    cpu = core.cpu
    base = cpu.state.segs[segment].base
    stop = core.execute_one()
    if stop.kind is StopKind.COUNT and not cpu.selector(segment) & 0xFFFC:
        cpu.state.segs[segment].base = base
        cpu.mark_dirty()
    return True


def write_base(core: Core) -> bool:
    """WRFSBASE and WRGSBASE: #GP(0) for a non-canonical base. CPUs stop here for nothing else (`Cpu.stop_unless`)."""
    cpu = core.cpu
    if not cpu.cr4 & Cr4.FSGSBASE:
        return False
    code = core.read_code(cpu.ip, 15)
    at = code.find(0x0F)
    if at < 1 or at + 2 >= len(code):
        return False  # page tables or code changed behind the TLB
    rex = code[at - 1] if code[at - 1] & 0xF0 == 0x40 else 0
    value = cpu.register(code[at + 2] & 7 | (rex & 1) << 3)
    if rex & 8 and not is_canonical(value):
        raise CpuFault(Vector.GP, 0, f"WRFSBASE or WRGSBASE: non-canonical base {value:#x}")
    return False


def _selector_operand(core: Core) -> int | None:
    """The 16-bit operand of the instruction at RIP; None if it cannot be read (the engine then faults)."""
    cpu = core.cpu
    for instruction in _decoder.disasm(core.read_code(cpu.ip, 15), cpu.ip, 1):
        operand = instruction.operands[-1]
        if instruction.mnemonic == "pop":
            return int.from_bytes(_read(core, cpu.sp, 2), "little")
        if operand.type == X86_OP_REG:
            value = register_value(cpu, instruction.reg_name(operand.reg))
            return None if value is None else value & 0xFFFF
        if operand.type == X86_OP_MEM:
            raw = _memory_operand(core, 2)
            return int.from_bytes(raw, "little") if raw else None
    return None


def _memory_operand(core: Core, size: int) -> bytes:
    address = address_of(core.cpu, core.read_code(core.cpu.ip, 15))
    return b"" if address is None else _read(core, address, size)


def _read(core: Core, address: int, size: int) -> bytes:
    try:
        return core.linear.read(address, size, Access(user=core.cpu.cpl == 3))
    except PageFaultError:
        return b""


BEFORE: dict[str, Callable[[Core], bool]] = {
    "mov_cr": mov_cr,
    "mov_dr": mov_dr,
    "load_ss": load_ss,
    "load_fs": lambda core: _load_based(core, FS),
    "load_gs": lambda core: _load_based(core, GS),
    **{f"{WRITE_BASE}%{register}": write_base for register in REGISTER_NAMES},
    "lgdt": load_table,
    "lidt": load_table,
    "ltr": ltr,
    "sgdt": umip,
    "sidt": umip,
    "sldt": umip,
    "str": umip,
    "smsw": umip,
}
