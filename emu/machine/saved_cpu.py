"""The engine's saved CPU state as a structure.

Offsets are those of the unicorn 2.1.4 wheel (a QEMU 5 `CPUX86State` behind a 40-byte header). They are no API: the
probe in engine.py checks every one that we rely on.
"""

from __future__ import annotations

import ctypes
import struct


class Segment(ctypes.Structure):
    """A segment register with its hidden part; `flags` is the descriptor's high doubleword."""

    _fields_ = [
        ("selector", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
        ("base", ctypes.c_uint64),
        ("limit", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    ]
    selector: int
    base: int
    limit: int
    flags: int


_FIELDS: tuple[tuple[str, int, type], ...] = (
    ("regs", 40, ctypes.c_uint64 * 16),
    ("rip", 168, ctypes.c_uint64),
    ("eflags", 176, ctypes.c_uint64),
    ("cc_src", 192, ctypes.c_uint64),
    ("cc_op", 208, ctypes.c_uint32),
    ("hflags", 216, ctypes.c_uint32),
    ("hflags2", 220, ctypes.c_uint32),
    ("segs", 224, Segment * 6),
    ("ldt", 368, Segment),
    ("tr", 392, Segment),
    ("gdt", 416, Segment),
    ("idt", 440, Segment),
    ("cr", 464, ctypes.c_uint64 * 5),
    ("efer", 632, ctypes.c_uint64),
    ("sysenter_cs", 4840, ctypes.c_uint32),
    ("sysenter_esp", 4848, ctypes.c_uint64),
    ("sysenter_eip", 4856, ctypes.c_uint64),
    ("star", 4864, ctypes.c_uint64),
    ("lstar", 4880, ctypes.c_uint64),
    ("cstar", 4888, ctypes.c_uint64),
    ("fmask", 4896, ctypes.c_uint64),
    ("kernel_gs_base", 4904, ctypes.c_uint64),
    ("tsc_aux", 4936, ctypes.c_uint64),
    ("pat", 5320, ctypes.c_uint64),
    ("error_code", 5424, ctypes.c_int32),
    ("exception_is_int", 5428, ctypes.c_int32),
    ("exception_next_eip", 5432, ctypes.c_uint64),
    ("dr", 5440, ctypes.c_uint64 * 8),
    ("old_exception", 5536, ctypes.c_int32),
)


def _structure_fields() -> list[tuple[str, object]]:
    fields: list[tuple[str, object]] = []
    at = 0
    for name, offset, kind in _FIELDS:
        if offset > at:
            fields.append((f"pad_{at}", ctypes.c_byte * (offset - at)))
        fields.append((name, kind))
        at = offset + ctypes.sizeof(kind)
    return fields


class SavedCpu(ctypes.Structure):
    """The saved context. At rest `eflags` is the whole of RFLAGS; inside a hook its arithmetic flags are elsewhere."""

    _pack_ = 1
    _fields_ = _structure_fields()  # type: ignore[assignment]  # a list built from the table above
    regs: ctypes.Array[ctypes.c_uint64]
    rip: int
    eflags: int
    cc_src: int
    cc_op: int
    hflags: int
    segs: ctypes.Array[Segment]
    ldt: Segment
    tr: Segment
    gdt: Segment
    idt: Segment
    cr: ctypes.Array[ctypes.c_uint64]
    efer: int
    sysenter_cs: int
    sysenter_esp: int
    sysenter_eip: int
    star: int
    lstar: int
    cstar: int
    fmask: int
    kernel_gs_base: int
    tsc_aux: int
    pat: int
    error_code: int
    exception_is_int: int
    exception_next_eip: int
    dr: ctypes.Array[ctypes.c_uint64]
    old_exception: int


def _offset(kind: type[ctypes.Structure], name: str) -> int:
    found: int = getattr(kind, name).offset
    return found


BASE_IN_SEGMENT = _offset(Segment, "base")
"""Where a Segment has its base."""
GENERAL_REGISTERS = slice(_offset(SavedCpu, "regs"), _offset(SavedCpu, "regs") + 16 * 8)
"""Bytes of a saved context: RAX RCX RDX RBX RSP RBP RSI RDI R8 ... R15."""
_SEGMENT = struct.Struct("<I4xQII")


def picked(*parts: tuple[str, int, str]) -> struct.Struct:
    """What reads parts of a saved context, all at once: its field, bytes from the field's start, and format of each, in
    the order in which they lie there."""
    text, at = "<", 0
    for name, offset, code in parts:
        start = _offset(SavedCpu, name) + offset
        text += f"{start - at}x{code}"
        at = start + struct.calcsize(f"<{code}")
    return struct.Struct(text)


def set_selector(segment: Segment, selector: int, flags: int, base: int = 0, limit: int = 0xFFFFFFFF) -> None:
    """Load a segment cache."""
    _SEGMENT.pack_into(segment, 0, selector, base, limit, flags)
