"""Who is right where the oracles disagree, or where both differ from the manuals."""

from __future__ import annotations

from conformance.judge import CaseRuling, Disagreement, FieldRuling
from emu.arch import Rflags

_FAULTS = frozenset({0, 5, 6, 7, 10, 11, 12, 13, 14, 16, 17, 19, 20, 21})


def _vector(answer: dict[str, str]) -> int:
    try:
        return int(answer["vector"], 16)
    except ValueError:
        return -1


def _only_rf(apart: Disagreement) -> bool:
    bochs, qemu = apart.number(apart.bochs), apart.number(apart.qemu)
    same = _vector(apart.bochs) == _vector(apart.qemu)
    return apart.field == "frame.rflags" and same and bochs ^ qemu == Rflags.RF and bool(bochs & Rflags.RF)


def _idt_error_code(apart: Disagreement) -> bool:
    bochs, qemu = apart.number(apart.bochs), apart.number(apart.qemu)
    return apart.field == "error" and bochs & 2 == 2 and qemu & ~3 == (bochs & ~3) * 2


def _null_ss(apart: Disagreement) -> bool:
    return apart.field == "ss" and apart.qemu.get("ss") == "0x0" and "ss" not in apart.bochs


FIELD_RULINGS = (
    FieldRuling(
        "RF saved",
        "qemu",
        "SDM 3B 17.3.1.1",
        "A fault-class exception sets RF in the saved RFLAGS; QEMU never does.",
        lambda d: _only_rf(d) and _vector(d.bochs) in _FAULTS,
    ),
    FieldRuling(
        "IDT error code",
        "qemu",
        "SDM 3A 6.13",
        "An error code that refers to the IDT holds the vector in bits 15:3; QEMU shifts it by 4 in long mode.",
        _idt_error_code,
    ),
    FieldRuling(
        "SS with IST",
        "qemu",
        "SDM 3A 6.14.4; APM 2 8.9.4",
        "SS becomes null on a change of CPL; a switch to an IST stack at CPL 0 leaves it. QEMU clears it.",
        _null_ss,
    ),
)

CASE_RULINGS: tuple[CaseRuling, ...] = ()

KNOWN_WRONG: dict[str, str] = {}
"""Cases ("group/name/vendor") in which our machine differs, with the reason; docs/fidelity.md tells the same."""
