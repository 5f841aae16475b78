"""Segment registers, loaded as MOV by the program at CPL 3 loads them."""

from __future__ import annotations

from emu.lab.injection.guest import CannotInject
from emu.machine.core import Core
from emu.machine.descriptors import CpuFault, mark_accessed, read_descriptor
from emu.machine.registers import DS, ES, FS, GS, SS

SEGMENT_REGISTERS = {"ds": DS, "es": ES, "fs": FS, "gs": GS, "ss": SS}
_CPL = 3


def load_segment(core: Core, name: str, selector: int) -> None:
    """SDM volume 2, MOV: what can be loaded at CPL 3; CannotInject for what cannot. A null FS or GS loses its base."""
    number = SEGMENT_REGISTERS[name]
    selector &= 0xFFFF
    if not selector & 0xFFFC:
        if number == SS:
            raise CannotInject("SS cannot be null at CPL 3")
        core.cpu.load_segment(number, selector, 0, 0, 0)
        return
    try:
        descriptor = read_descriptor(core.linear, selector, 0, name.upper())
        rpl = selector & 3
        if number == SS:
            fits = descriptor.is_writable_data and rpl == descriptor.dpl == _CPL
        else:
            code_or_data = bool(descriptor.raw >> 44 & 1)
            readable = not descriptor.is_code or bool(descriptor.raw >> 41 & 1)
            fits = (
                code_or_data and readable and ((descriptor.conforming and descriptor.is_code) or descriptor.dpl >= _CPL)
            )
        if not fits or not descriptor.present:
            raise CannotInject(f"{name.upper()} cannot be {selector:#x} in user mode")
        mark_accessed(core.linear, selector, descriptor)
    except CpuFault as fault:
        raise CannotInject(fault.why) from None
    core.cpu.load_segment(number, selector, descriptor.flags, descriptor.base, descriptor.limit)
    if number == SS:
        core.cpu.enter_code_mode(_CPL)
