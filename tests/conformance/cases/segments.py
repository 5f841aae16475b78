"""Loads of DS, ES, SS, FS and GS, their faults, and what they do to bases on both vendors' CPUs."""

from __future__ import annotations

from collections.abc import Iterator

from conformance import layout
from conformance.fields import DEFAULT_CR4
from conformance.layout import KERNEL_CS, KERNEL_DS, SPARE, SPARE2, TSS_SELECTOR, USER_CS, USER_DS
from conformance.model import Case, Value
from conformance.tables import (
    CONFORMING,
    KERNEL_CODE,
    KERNEL_DATA,
    PRESENT,
    USER_CODE,
    USER_DATA,
    based,
    dpl,
    kind,
)
from emu.arch import Cr4

BOTH = ("intel", "amd")
HOLE = 0x0000_8000_0000_0000
SEGMENTS = ("ds", "es", "ss", "fs", "gs")
SELECTORS = {
    "null": 0,
    "null_rpl_3": 3,
    "kernel_data": KERNEL_DS,
    "kernel_data_rpl_3": KERNEL_DS | 3,
    "user_data": USER_DS,
    "user_data_rpl_0": USER_DS & ~3,
    "kernel_code": KERNEL_CS,
    "user_code": USER_CS,
    "tss": TSS_SELECTOR,
    "empty": SPARE2,
    "beyond_gdt": 0x100,
    "absent_ldt": 0x0F,
}
SPARES = {
    "not_present": USER_DATA & ~PRESENT,
    "read_only": kind(USER_DATA, 0x11),
    "execute_only": kind(USER_CODE, 0x19),
    "conforming": KERNEL_CODE | CONFORMING,
    "not_accessed": kind(USER_DATA, 0x12),
    "dpl_1": dpl(USER_DATA, 1),
    "based": based(USER_DATA, 0x8765_4321),
    "kernel_based": based(KERNEL_DATA, 0x1234_5678),
}
BASES: dict[str, Value] = {"fs_base": 0x11_0000_1000, "gs_base": 0x22_0000_2000}


def _all() -> Iterator[Case]:
    for segment in SEGMENTS:
        for cpl in (0, 3):
            level = "user" if cpl else "kernel"
            for name, selector in SELECTORS.items():
                cpu = BOTH if name.startswith("null") else ("intel",)
                yield Case(f"{segment}_{name}_{level}", f"nop\n movl %eax, %{segment}", cpl, cpu,
                           set={"rax": selector, **BASES})  # fmt: skip
            for name, raw in SPARES.items():
                rpl = 0 if name.startswith("kernel") else 3
                yield Case(f"{segment}_{name}_{level}", f"nop\n movl %eax, %{segment}", cpl, BOTH if "based" in name
                           else ("intel",), set={"rax": SPARE | rpl, **BASES}, gdt={SPARE: raw})  # fmt: skip
    for segment in ("fs", "gs"):
        yield Case(f"{segment}_null_after_based", f"movl $0x3b, %eax\n movl %eax, %{segment}\n xorl %eax, %eax\n "
                   f"movl %eax, %{segment}", 3, BOTH, set=BASES, gdt={SPARE: based(USER_DATA, 0x7654)})  # fmt: skip
        yield Case(f"{segment}_base_then_selector", f"wr{segment}base %rax\n movl $0x2b, %eax\n movl %eax, %{segment}",
                   3, BOTH, set={"rax": 0x5555_0000, **BASES})  # fmt: skip
        yield Case(f"pop_{segment}", f"pushq $0x2b\n pop %{segment}", 3, BOTH, set=BASES)
        yield Case(f"pop_{segment}_null", f"pushq $0\n pop %{segment}", 3, BOTH, set=BASES)
        yield Case(f"pop_{segment}_bad", f"pushq $0xfff8\n pop %{segment}", 3, BOTH, set=BASES)
        yield Case(f"l{segment}_null", f"pushq $0\n pushq $0\n l{segment} 4(%rsp), %eax", 3, BOTH, set=BASES)
        for what in ("rd", "wr"):
            for register in ("eax", "rax"):
                name = f"{what}{segment}base"
                for cpl in (0, 3):
                    level = "user" if cpl else "kernel"
                    code = f"{name} %{register}"
                    state = {"rax": 0x8888_7777_6666, **BASES}
                    yield Case(f"{name}_{register}_{level}", code, cpl, set={**state, "rax": 0x7777_6666_5555})
                    if what == "wr":
                        yield Case(f"{name}_{register}_non_canonical_{level}", code, cpl, BOTH, set=state)
                yield Case(f"{name}_{register}_disabled", f"{name} %{register}", 3,
                           set={"cr4": DEFAULT_CR4 & ~int(Cr4.FSGSBASE)})  # fmt: skip
    for cpl in (0, 3):
        level = "user" if cpl else "kernel"
        yield Case(f"swapgs_{level}", "nop\n swapgs", cpl, BOTH, set=BASES)
        yield Case(f"swapgs_twice_{level}", "swapgs\n swapgs", cpl, set=BASES)
        yield Case(f"swapgs_rex_{level}", ".byte 0x48\n swapgs", cpl, set=BASES)
        yield Case(f"swapgs_lock_{level}", ".byte 0xf0\n swapgs", cpl, set=BASES)
        yield Case(f"gs_relative_load_{level}", "movq %gs:8, %rax", cpl, set={"gs_base": layout.user(layout.UDATA)})
        yield Case(f"gs_relative_wraps_{level}", "movq %gs:(%rbx), %rax", cpl,
                   set={"gs_base": layout.user(layout.UDATA) + 0x100, "rbx": (1 << 64) - 0x80})  # fmt: skip
        yield Case(f"gs_selector_read_{level}", "movl %gs, %eax\n movw %gs, 2(%rsp)", cpl, set={"gs": USER_DS})
        yield Case(f"ds_load_ignores_null_{level}", "movq (%rsp), %rax", cpl)
        yield Case(f"verr_verw_{level}", "movl $0x2b, %eax\n verr %ax\n setz %bl\n movl $0x33, %eax\n verw %ax\n"
                   " setz %cl\n movl $0x10, %eax\n lar %eax, %edx\n setz %dil\n lsl %eax, %esi\n"
                   " andl $0xf0ff00, %edx", cpl)  # fmt: skip
    for segment in ("ds", "es", "fs", "gs"):
        yield Case(f"swapgs_then_{segment}_load", f"swapgs\n movl $0x2b, %eax\n movl %eax, %{segment}", set=BASES)
    for name, selector in (("user_data", 0x0F), ("kernel_data", 0x14), ("beyond", 0x47), ("null_entry", 4)):
        for cpl in (0, 3):
            yield Case(f"ldt_{name}_{'user' if cpl else 'kernel'}", "movl %eax, %fs", cpl,
                       set={"rax": selector, "ldtr": layout.LDT_SELECTOR, **BASES})  # fmt: skip
    for name, raw in (("not_present", 0x0000_0200_0000_0FFF), ("data", KERNEL_DATA), ("code", KERNEL_CODE)):
        yield Case(f"lldt_{name}", "movl $0x60, %eax\n lldt %ax", gdt={SPARE2: raw})
        yield Case(f"ltr_{name}", "movl $0x60, %eax\n ltr %ax", gdt={SPARE2: raw})
    yield Case("lldt_null", "xorl %eax, %eax\n lldt %ax", set={"ldtr": layout.LDT_SELECTOR})
    yield Case("lldt", "movl $0x50, %eax\n lldt %ax")
    yield Case("lldt_of_ldt", "movl $0x54, %eax\n lldt %ax")
    yield Case("ltr_null", "xorl %eax, %eax\n ltr %ax")
    yield Case("ltr_busy", "movl $0x40, %eax\n ltr %ax")
    yield Case("ltr_beyond", "movl $0x1000, %eax\n ltr %ax")
    yield Case("lldt_user", "lldt %ax", 3)
    yield Case("ltr_user", "ltr %ax", 3)


CASES = tuple(_all())
