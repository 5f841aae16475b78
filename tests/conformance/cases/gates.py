"""Delivery through every kind of gate: DPL, present, type, selector, handler (SDM volume 3A, 6.12-6.13, INT n)."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.layout import (
    KERNEL32_CS,
    KERNEL_CS,
    KERNEL_DS,
    LDT_SELECTOR,
    SPARE,
    SPARE2,
    TSS_SELECTOR,
    USER32_CS,
    USER_CS,
    USER_DS,
)
from conformance.model import Case
from conformance.tables import (
    CONFORMING,
    DEFAULT_32,
    KERNEL_CODE,
    PRESENT,
    USER_CODE,
    gate,
    kind,
    stub,
)
from emu.arch import Rflags

SOURCES = {"int": "int $0x40", "ud": "ud2", "int3": "int3"}
VECTOR = {"int": 0x40, "ud": 6, "int3": 3}
KINDS = range(16)


def _case(name: str, source: str, cpl: int, entry: bytes, **more: object) -> Case:
    level = "user" if cpl else "kernel"
    return Case(f"{name}_{source}_{level}", SOURCES[source], cpl, idt={VECTOR[source]: entry}, **more)  # type: ignore[arg-type]


SELECTORS = {
    "null": 0,
    "null_rpl_3": 3,
    "data": KERNEL_DS,
    "user_code": USER_CS & ~3,
    "user_code_rpl_3": USER_CS,
    "compatibility_code": KERNEL32_CS,
    "user_compatibility_code": USER32_CS & ~3,
    "user_data": USER_DS,
    "tss": TSS_SELECTOR,
    "ldt_descriptor": LDT_SELECTOR,
    "empty": SPARE2,
    "beyond_limit": 0x400,
    "in_absent_ldt": 0x0C,
    "rpl_3": KERNEL_CS | 3,
    "last_byte_beyond": 0x100,
}

SPARE_CODE = {
    "not_present": KERNEL_CODE & ~PRESENT,
    "conforming": KERNEL_CODE | CONFORMING,
    "long_and_default": KERNEL_CODE | DEFAULT_32,
    "user_conforming": USER_CODE | CONFORMING,
    "execute_only": kind(KERNEL_CODE, 0x18),
    "not_accessed": kind(KERNEL_CODE, 0x1A),
    "dpl_1": KERNEL_CODE | 1 << 45,
    "user_not_present": USER_CODE & ~PRESENT,
    "data_not_present": kind(KERNEL_CODE, 0x12) & ~PRESENT,
}


def _all() -> Iterator[Case]:
    for source, vector in VECTOR.items():
        for cpl in (0, 3):
            for level in range(4):
                yield _case(f"dpl_{level}", source, cpl, gate(stub(vector), level=level))
            yield _case("not_present", source, cpl, gate(stub(vector), level=3, present=False))
            yield _case("not_present_dpl_0", source, cpl, gate(stub(vector), present=False))
            yield _case("trap_gate", source, cpl, gate(stub(vector), kind=15, level=3), set={"rflags": 0x202})
            yield _case("interrupt_gate", source, cpl, gate(stub(vector), level=3), set={"rflags": 0x202})
            yield _case("non_canonical_handler", source, cpl, gate(0x8000_0000_0000, level=3))
            yield _case("absent_handler", source, cpl, gate(0x123456, level=3))
    for code in KINDS:
        if code not in (14, 15):
            yield _case(f"type_{code}", "int", 3, gate(stub(0x40), kind=code, level=3))
            yield _case(f"type_{code}", "ud", 0, gate(stub(6), kind=code))
    yield _case("type_5_not_present", "int", 3, gate(stub(0x40), kind=5, level=3, present=False))
    yield _case("type_5_dpl_0", "int", 3, gate(stub(0x40), kind=5))
    yield _case("system_bit_set", "int", 0, gate(stub(0x40), kind=0x1E))
    for name, selector in SELECTORS.items():
        for source, cpl in (("int", 3), ("ud", 0), ("ud", 3)):
            entry = gate(stub(VECTOR[source]), selector=selector, level=3)
            yield _case(f"selector_{name}", source, cpl, entry)
    for name, raw in SPARE_CODE.items():
        for source, cpl in (("int", 3), ("ud", 0), ("ud", 3)):
            entry = gate(stub(VECTOR[source]), selector=SPARE, level=3)
            yield _case(f"code_{name}", source, cpl, entry, gdt={SPARE: raw})
    for limit in (0x40F, 0x40E, 0x408, 0x400, 0x3FF):
        yield Case(f"idt_limit_{limit:x}", "int $0x40", set={"idt_limit": limit})
    yield Case("idt_limit_hides_pf", "movl 0x123456, %eax", set={"idt_limit": 16 * 14 - 1})
    yield Case("idt_not_mapped", "int $0x40", set={"idt_base": 0x700000})
    yield Case("idt_not_mapped_user", "int $0x40", 3, set={"idt_base": 0x700000})
    yield Case("idt_non_canonical", "int $0x40", 3, set={"idt_base": 0x7FFF_FFFF_FC00})
    flags = int(Rflags.NT | Rflags.IF | Rflags.DF | Rflags.AC | Rflags.ID) | 0x3000 | 0x8D7
    for name, code in (("interrupt", 14), ("trap", 15)):
        for cpl in (0, 3):
            yield _case(f"flags_{name}_gate", "int", cpl, gate(stub(0x40), kind=code, level=3), set={"rflags": flags})
    for vector in (0, 1, 2, 5, 9, 10, 11, 12, 17, 18, 19, 20, 30, 31, 32, 0xFD):
        yield Case(f"int_n_{vector}", f"int ${vector}", 3, idt={vector: gate(stub(vector), level=3)})


CASES = tuple(_all())
