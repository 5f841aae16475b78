"""IRET, SYSRET and SYSEXIT, executed at rest: every check that hardware makes before it changes anything.

SDM volume 2 (IRET/IRETD/IRETQ, SYSRET, SYSEXIT); APM volume 3. The engine's own versions check too little, forget the
bases of FS and GS, and load flags that cannot be loaded.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from emu.arch import Efer, Rflags, Vector, is_canonical
from emu.events import Frame, Returned
from emu.machine.descriptors import CpuFault, Descriptor, mark_accessed, read_descriptor
from emu.machine.linear import SUPERVISOR_READ, USER_READ, LinearMemory
from emu.machine.paging import PageFaultError
from emu.machine.registers import CS, DS, ES, FS, GS, R11, RCX, RDX, SS

if TYPE_CHECKING:
    from emu.machine.core import Core

_WORDS = {size: struct.Struct(f"<5{code}") for size, code in ((2, "H"), (4, "I"), (8, "Q"))}
_USER_CODE, _USER_CODE_32, _USER_DATA = 0x00AFFB00, 0x00CFFB00, 0x00CFF300
_LOW = 0xFFFF_FFFF
_ALWAYS = int(Rflags.CF | Rflags.PF | Rflags.AF | Rflags.ZF | Rflags.SF | Rflags.TF | Rflags.DF | Rflags.OF | Rflags.NT)
_NT, _RF, _IF, _IOPL = int(Rflags.NT), int(Rflags.RF), int(Rflags.IF), int(Rflags.IOPL)
_VIRTUAL = int(Rflags.VIF | Rflags.VIP)
_WIDE = int(Rflags.RF | Rflags.AC | Rflags.ID)
_UNUSUAL = int(Rflags.TF | Rflags.RF | Rflags.VM | Rflags.VIF | Rflags.VIP)
_SYSRET_FLAGS = 0x3C7FD7
"""RFLAGS bits that SYSRET loads from R11: not RF, not VM."""


# --- IRET ------------------------------------------------------------------------------------------------------------
def iret(core: Core, size: int) -> bool:
    """IRET in 64-bit mode with `size`-byte words: always pops RIP, CS, RFLAGS, RSP and SS."""
    cpu = core.cpu
    sp, ip, cpl, flags, gs_base, kernel_gs_base, cr3 = cpu.glance()
    if not cpu.long_mode_code:
        return False
    # NMIs are unblocked by executing IRET, even by one that faults (SDM 6.7.1).
    core.nmi_blocked = False
    if flags & _NT:
        raise CpuFault(Vector.GP, 0, "IRETQ with RFLAGS.NT in long mode")
    frame = _pop(core, sp, size, cpl)
    new_cpl = frame.cs & 3
    code, stack = core.lookups.find(_segments, frame.cs, frame.ss, cpl)
    if code.long_mode and not is_canonical(frame.ip):
        raise CpuFault(Vector.GP, 0, f"IRETQ: non-canonical RIP {frame.ip:#x}")
    new_sp = frame.sp
    if not code.long_mode:
        shown_sp = new_sp = frame.sp & _LOW
        if stack is not None and not stack.big:
            # Only SP is loaded; that user mode sees the rest of the old RSP is why there is espfix64.
            shown_sp, new_sp = frame.sp, (sp + 5 * size) & ~0xFFFF | frame.sp & 0xFFFF
        frame = Frame(frame.ip & _LOW, frame.cs, frame.flags, shown_sp, frame.ss)
        if frame.ip > code.limit:
            raise CpuFault(Vector.GP, 0, f"IRETQ: RIP {frame.ip:#x} beyond the limit of CS {frame.cs:#x}")
    core.skip(0)
    flags = _loadable_flags(flags & ~_RF, frame.flags, cpl, size)
    mark_accessed(core.linear, frame.cs, code)
    cpu.load_segment(CS, frame.cs, code.flags, code.base, code.limit)
    if stack is None:
        cpu.load_segment(SS, frame.ss, 0x00CF9300 | new_cpl << 13)
    else:
        mark_accessed(core.linear, frame.ss, stack)
        cpu.load_segment(SS, frame.ss, stack.flags, stack.base, stack.limit)
    cpu.enter_code_mode(new_cpl)
    if new_cpl > cpl:
        _drop_privileged_segments(core, new_cpl)
    cpu.jump(frame.ip, flags, new_sp)
    if cpl != 3:  # user mode's own is a jump like any other
        core.emit(Returned(core.clock, core.index, ip, "iretq", frame, sp, gs_base, kernel_gs_base, cr3))
    return True


def _pop(core: Core, sp: int, size: int, cpl: int) -> Frame:
    access = USER_READ if cpl == 3 else SUPERVISOR_READ
    if not is_canonical(sp):
        raise CpuFault(Vector.SS, 0, f"IRETQ: non-canonical RSP {sp:#x}")
    try:
        raw = core.linear.read(sp, 5 * size, access)
    except PageFaultError as fault:
        raise CpuFault.from_page(fault, "IRETQ: popping the frame", Vector.SS) from None
    ip, cs, flags, new_sp, ss = _WORDS[size].unpack(raw)
    return Frame(ip, cs & 0xFFFF, flags, new_sp, ss & 0xFFFF)


def _segments(linear: LinearMemory, cs: int, ss: int, cpl: int) -> tuple[Descriptor, Descriptor | None]:
    """The new CS's and SS's descriptors; None for a null SS that is allowed."""
    code = _check_code_segment(linear, cs, cpl)
    return code, _check_stack_segment(linear, ss, cs & 3, long_mode=code.long_mode)


def _check_code_segment(linear: LinearMemory, cs: int, cpl: int) -> Descriptor:
    if not cs & 0xFFFC:
        raise CpuFault(Vector.GP, 0, "IRETQ: null CS")
    code = read_descriptor(linear, cs, 0, "IRETQ: CS")
    rpl, error = cs & 3, cs & 0xFFFC
    if not code.is_code:
        raise CpuFault(Vector.GP, error, f"IRETQ: CS {cs:#x} is no code segment")
    if rpl < cpl:
        raise CpuFault(Vector.GP, error, f"IRETQ: CS {cs:#x} is more privileged than CPL {cpl}")
    if (code.dpl > rpl) if code.conforming else (code.dpl != rpl):
        raise CpuFault(Vector.GP, error, f"IRETQ: CS {cs:#x} has DPL {code.dpl}")
    if not code.present:
        raise CpuFault(Vector.NP, error, f"IRETQ: CS {cs:#x} is not present")
    if code.long_mode and code.default_32:
        raise CpuFault(Vector.GP, error, f"IRETQ: CS {cs:#x} has both L and D")
    return code


def _check_stack_segment(linear: LinearMemory, ss: int, new_cpl: int, *, long_mode: bool) -> Descriptor | None:
    """The new SS's descriptor; None for a null selector that is allowed."""
    if not ss & 0xFFFC:
        if new_cpl == 3 or not long_mode:
            raise CpuFault(Vector.GP, 0, "IRETQ: null SS")
        return None
    stack, error = read_descriptor(linear, ss, 0, "IRETQ: SS"), ss & 0xFFFC
    if ss & 3 != new_cpl or not stack.is_writable_data or stack.dpl != new_cpl:
        raise CpuFault(Vector.GP, error, f"IRETQ: SS {ss:#x} is no writable data segment of privilege level {new_cpl}")
    if not stack.present:
        raise CpuFault(Vector.SS, error, f"IRETQ: SS {ss:#x} is not present")
    return stack


def _loadable_flags(now: int, popped: int, cpl: int, size: int) -> int:
    mask = _ALWAYS
    if size > 2:
        mask |= _WIDE
    if cpl <= now >> 12 & 3:
        mask |= _IF
    if cpl == 0:
        mask |= _IOPL | (_VIRTUAL if size > 2 else 0)
    return now & ~mask | popped & mask


def _drop_privileged_segments(core: Core, new_cpl: int) -> None:
    """Segment registers that the outer level may not have become null; the bases of FS and GS stay."""
    for number in (ES, DS, FS, GS):
        segment = core.cpu.state.segs[number]
        conforming_code = segment.flags >> 10 & 3 == 3
        if not segment.selector & 0xFFFC or (segment.flags >> 13 & 3 < new_cpl and not conforming_code):
            segment.selector, segment.flags, segment.limit = 0, 0, 0
            if number in (ES, DS):
                segment.base = 0
    core.cpu.mark_dirty()


# --- SYSRET and SYSEXIT ----------------------------------------------------------------------------------------------
def sysret(core: Core, *, long: bool) -> bool:
    """SYSRET. Intel checks RCX first: #GP(0) at CPL 0; AMD faults at CPL 3, on the fetch."""
    cpu = core.cpu
    if not cpu.state.efer & Efer.SCE or (core.profile.vendor == "intel" and not cpu.long_mode_code):
        raise CpuFault(Vector.UD, None, "SYSRET is not enabled here")
    if cpu.cpl:
        raise CpuFault(Vector.GP, 0, "SYSRET at CPL 3")
    ip = cpu.register(RCX)
    if not long:
        ip &= _LOW
    elif core.profile.vendor == "intel" and not is_canonical(ip):
        raise CpuFault(Vector.GP, 0, f"SYSRETQ: non-canonical RCX {ip:#x}")
    star = cpu.state.star >> 48
    frame = Frame(
        ip, (star + (16 if long else 0)) & 0xFFFF | 3, cpu.register(R11) & _SYSRET_FLAGS | 2, cpu.sp,
        (star + 8) & 0xFFFF | 3,
    )  # fmt: skip
    name = "sysretq" if long else "sysretl"
    core.emit(Returned(core.clock, core.index, cpu.ip, name, frame, 0, cpu.gs_base, cpu.kernel_gs_base, cpu.cr3))
    if long and not (cpu.register(R11) | cpu.flags) & _UNUSUAL and not core.something_pending:
        return False  # it cannot fault at CPL 0 any more, and the engine loads these flags right
    core.skip(0)
    _to_user(core, frame, long=long)
    cpu.flags = frame.flags
    return True


def sysexit(core: Core, *, long: bool) -> bool:
    """SYSEXIT; AMD has it in legacy mode only (#UD)."""
    cpu = core.cpu
    if core.profile.vendor == "amd":
        raise CpuFault(Vector.UD, None, "SYSEXIT in long mode on AMD")
    selector = cpu.state.sysenter_cs & 0xFFFF
    if cpu.cpl or not selector & 0xFFFC:
        raise CpuFault(Vector.GP, 0, "SYSEXIT at CPL 3, or with a null IA32_SYSENTER_CS")
    ip, sp = cpu.register(RDX), cpu.register(RCX)
    if not long:
        ip, sp = ip & _LOW, sp & _LOW
    elif not is_canonical(ip) or not is_canonical(sp):
        raise CpuFault(Vector.GP, 0, f"SYSEXIT: non-canonical RDX {ip:#x} or RCX {sp:#x}")
    offset = 32 if long else 16
    frame = Frame(ip, (selector + offset) & 0xFFFF | 3, cpu.flags, sp, (selector + offset + 8) & 0xFFFF | 3)
    name = "sysexitq" if long else "sysexitl"
    core.emit(Returned(core.clock, core.index, cpu.ip, name, frame, 0, cpu.gs_base, cpu.kernel_gs_base, cpu.cr3))
    core.skip(0)
    _to_user(core, frame, long=long)
    return True


def _to_user(core: Core, frame: Frame, *, long: bool) -> None:
    """Flat user segments, without looking at any descriptor."""
    cpu = core.cpu
    cpu.load_segment(CS, frame.cs, _USER_CODE if long else _USER_CODE_32)
    cpu.load_segment(SS, frame.ss, _USER_DATA)
    cpu.enter_code_mode(3)
    cpu.sp, cpu.ip = frame.sp, frame.ip
