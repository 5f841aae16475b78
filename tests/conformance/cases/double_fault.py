"""Benign, contributory and page-fault pairs, #DF and triple faults (SDM volume 3A, 6.15, tables 6-4 and 6-5)."""

from __future__ import annotations

from collections.abc import Iterator

from conformance import layout
from conformance.layout import KERNEL_CS, KERNEL_DS, SPARE, kernel
from conformance.model import Case
from conformance.tables import KERNEL_CODE, PRESENT, gate, leaf, stub

FIRST = {
    0: "xorl %edx, %edx\n xorl %ecx, %ecx\n divl %ecx",
    1: ".byte 0xf1",
    3: "int3",
    6: "ud2",
    7: "fld1",
    11: f"movl ${SPARE}, %eax\n movl %eax, %ds",
    12: f"movl ${SPARE}, %eax\n movl %eax, %ss",
    13: "movl $0xfff8, %eax\n movl %eax, %ds",
    14: "movl 0x123456, %eax",
    0x40: "int $0x40",
}
"""Vector -> code that raises it; descriptor SPARE is a data segment that is not present."""

SECOND = {
    "gp": gate(stub(0), selector=KERNEL_DS, level=3),
    "np": gate(stub(0), present=False, level=3),
    "pf": gate(stub(0), level=3),
    "np_code": gate(stub(0), selector=0x60, level=3),
}


def _second(how: str, vector: int) -> dict[str, object]:
    """Changes that make the delivery of `vector` fail with #GP, #NP, #NP of the code segment, or #PF (its stack)."""
    gdt = {SPARE: 0x00CF13000000FFFF, 0x60: KERNEL_CODE & ~PRESENT}
    entry = SECOND[how]
    if how == "pf":
        entry = gate(stub(vector), level=3, ist=1)
    more: dict[str, object] = {"gdt": gdt, "idt": {vector: entry}}
    if how == "pf":
        more["tss"] = {36: kernel(layout.KEXTRA) + 0x1000}
        more["pages"] = {kernel(layout.KEXTRA): 0}
    if vector == 7:
        more["set"] = {"cr0": 0x80050033 | 8}
    return more


def _all() -> Iterator[Case]:
    for vector, code in FIRST.items():
        for how in SECOND:
            yield Case(f"{vector}_then_{how}", code, **_second(how, vector))  # type: ignore[arg-type]
    bad = gate(stub(0), present=False)
    absent = gate(stub(0), selector=0)
    for name, first, gates in (
        ("df_gate_not_present", "movl 0x123456, %eax", {14: bad, 8: bad}),
        ("df_gate_null_selector", "movl 0x123456, %eax", {14: absent, 8: absent}),
        ("no_idt_entry_for_np", "int $0x40", {0x40: bad, 11: bad}),
        ("np_fails_with_np_then_df", "int $0x40", {0x40: bad, 11: bad, 8: gate(stub(8), ist=2)}),
        ("gp_gate_bad_after_benign", "ud2", {6: bad, 11: bad}),
        ("three_in_a_row_benign_first", "ud2", {6: bad, 11: bad, 8: bad}),
        ("nmi_gate_by_int_2", "int $2", {2: bad}),
    ):
        for cpl in (0, 3):
            yield Case(f"{name}_{'user' if cpl else 'kernel'}", first, cpl, idt=gates)
    yield Case("empty_idt", "ud2", set={"idt_limit": 0})
    yield Case("empty_idt_user", "int3", 3, set={"idt_limit": 0})
    yield Case("idt_ends_before_gp", "int $0x40", set={"idt_limit": 16 * 13 - 1})
    yield Case("idt_ends_before_df", "ud2", set={"idt_limit": 16 * 6})
    yield Case("idt_unmapped_and_pf", "movl 0x123456, %eax", set={"idt_base": 0x700000})
    stack = layout.kernel(layout.KEXTRA) + 0x800
    gone = {layout.kernel(layout.KEXTRA): 0}
    for code, name in (("pushq %rax", "push"), ("ud2", "ud"), ("int $0x40", "int"), ("int3", "int3")):
        yield Case(f"bad_stack_{name}", code, set={"rsp": stack}, pages=gone)
        yield Case(f"non_canonical_stack_{name}", code, set={"rsp": 0x8000_0000_0000})
        yield Case(f"bad_stack_no_df_ist_{name}", code, set={"rsp": stack}, pages=gone, idt={8: gate(stub(8))})
    yield Case("pf_on_ist_that_faults_keeps_cr2", "movl 0x123456, %eax", idt={14: gate(stub(14), ist=1)},
               tss={36: stack}, pages=gone)  # fmt: skip
    yield Case("df_handler_not_mapped", "pushq %rax", set={"rsp": stack}, pages=gone, idt={8: gate(0x700000, ist=2)})
    yield Case("df_ist_not_mapped", "pushq %rax", set={"rsp": stack}, pages=gone, tss={44: stack})
    yield Case("sp0_unmapped_user_ud", "ud2", 3, tss={4: stack}, pages=gone)
    yield Case("sp0_unmapped_user_pf", "movl 0x123456, %eax", 3, tss={4: stack}, pages=gone)
    yield Case("sp0_unmapped_user_int", "int3", 3, tss={4: stack}, pages=gone, idt={3: gate(stub(3), level=3)})
    yield Case("sp0_non_canonical_user_ud", "ud2", 3, tss={4: 0x8000_0000_0000})
    yield Case("sp0_non_canonical_user_gp", "hlt", 3, tss={4: 0x8000_0000_0000})
    yield Case("sp0_read_only_user", "ud2", 3, tss={4: stack}, pages={layout.kernel(layout.KEXTRA): leaf(layout.kernel(layout.KEXTRA)) & ~2})  # fmt: skip  # noqa: E501
    yield Case("cs_of_df_gate_conforming", "pushq %rax", set={"rsp": stack}, pages=gone,
               gdt={SPARE: KERNEL_CODE | 1 << 42}, idt={8: gate(stub(8), selector=SPARE, ist=2)})  # fmt: skip
    yield Case("gdt_unmapped_during_delivery", "lgdt @gdtr(%rip)\n ud2\n @gdtr: .word 0xff\n .quad 0x700000",
               idt={14: gate(stub(14), selector=KERNEL_CS)})  # fmt: skip


CASES = tuple(_all())
