"""Which stack an event uses, its alignment, and faults while it is written (SDM volume 3A, 6.14.2-6.14.5)."""

from __future__ import annotations

from collections.abc import Iterator

from conformance import layout
from conformance.fields import DEFAULT_CR4
from conformance.layout import KERNEL_CS, SPARE, TSS_SELECTOR, kernel, user
from conformance.model import Case
from conformance.tables import CONFORMING, KERNEL_CODE, TSS_LIMIT, gate, leaf, stub, system
from emu.arch import Cr4

SOURCES = {"int": "int $0x40", "ud": "ud2", "pf": "movl 0x123456, %eax"}
VECTOR = {"int": 0x40, "ud": 6, "pf": 14}
SMALL_TSS = (0x0B, 0x23, 0x24, 0x2B, 0x2C, 0x33, 0x67)


def _all() -> Iterator[Case]:
    for source, code in SOURCES.items():
        vector = VECTOR[source]
        for cpl in (0, 3):
            level = "user" if cpl else "kernel"
            for ist in (0, 1, 6):
                entry = {vector: gate(stub(vector), ist=ist, level=3)}
                yield Case(f"ist_{ist}_{source}_{level}", code, cpl, idt=entry)
                for odd in (1, 8, 15):
                    tss = {4: kernel(layout.SP0) - odd, 36 + 8 * (ist - 1): kernel(layout.IST[ist]) - odd}
                    if not ist:
                        del tss[28]
                    rsp = {} if cpl else {"rsp": kernel(layout.KSTACK) - 0x100 - odd}
                    yield Case(f"odd_{odd}_ist_{ist}_{source}_{level}", code, cpl, idt=entry, tss=tss, set=rsp)
    for limit in SMALL_TSS:
        low, high = system(kernel(layout.TSS), limit, 9)
        gdt = {TSS_SELECTOR: low, TSS_SELECTOR + 8: high}
        yield Case(f"tss_limit_{limit:x}_sp0", "ud2", 3, gdt=gdt)
        yield Case(f"tss_limit_{limit:x}_ist1", "ud2", 3, gdt=gdt, idt={6: gate(stub(6), ist=1)})
        yield Case(f"tss_limit_{limit:x}_ist1_kernel", "ud2", 0, gdt=gdt, idt={6: gate(stub(6), ist=1)})
        yield Case(f"tss_limit_{limit:x}_int", "int $0x40", 3, gdt=gdt, idt={0x40: gate(stub(0x40), ist=1, level=3)})
    low, high = system(0x700000, TSS_LIMIT, 9)
    yield Case("tss_unmapped", "ud2", 3, gdt={TSS_SELECTOR: low, TSS_SELECTOR + 8: high})
    hole = kernel(layout.KEXTRA)
    read_only = {hole: leaf(hole) & ~2}
    for name, pages in (("absent", {hole: 0}), ("read_only", read_only)):
        for at in (0x0, 0x8, 0x20, 0x28, 0x30, 0x1000):
            tss = {36: hole + at}
            idt = {6: gate(stub(6), ist=1), 14: gate(stub(14), ist=3)}
            yield Case(f"frame_at_{at:x}_of_{name}_page", "ud2", tss=tss, pages=pages, idt=idt)
    yield Case("frame_in_user_page", "ud2", tss={36: user(layout.USTACK) + 0x800}, idt={6: gate(stub(6), ist=1)})
    yield Case(
        "frame_in_user_page_smap", "ud2", set={"cr4": DEFAULT_CR4 | int(Cr4.SMAP)},
        tss={36: user(layout.USTACK) + 0x800}, idt={6: gate(stub(6), ist=1)},
    )  # fmt: skip
    yield Case(
        "frame_in_user_page_smap_ac", "ud2", set={"cr4": DEFAULT_CR4 | int(Cr4.SMAP), "rflags": 0x40002},
        tss={36: user(layout.USTACK) + 0x800}, idt={6: gate(stub(6), ist=1), 14: gate(stub(14), ist=3)},
    )  # fmt: skip
    yield Case("frame_below_zero", "ud2", tss={36: 0}, idt={6: gate(stub(6), ist=1)})
    yield Case("frame_ends_at_the_hole", "ud2", tss={36: 0x8000_0000_0000}, idt={6: gate(stub(6), ist=1)})
    yield Case("ist_non_canonical", "ud2", tss={36: 0x8000_0000_1000}, idt={6: gate(stub(6), ist=1)})
    yield Case("ist_non_canonical_user_int", "int $0x40", 3, tss={36: 0x8000_0000_1000},
               idt={0x40: gate(stub(0x40), ist=1, level=3)})  # fmt: skip
    yield Case("conforming_handler_keeps_cpl", "ud2", 3, gdt={SPARE: KERNEL_CODE | CONFORMING},
               idt={6: gate(stub(6), selector=SPARE)})  # fmt: skip
    yield Case("conforming_handler_with_ist", "ud2", 3, gdt={SPARE: KERNEL_CODE | CONFORMING},
               idt={6: gate(stub(6), selector=SPARE, ist=1)})  # fmt: skip
    yield Case("gate_rpl_ignored", "ud2", 3, idt={6: gate(stub(6), selector=KERNEL_CS | 3)})
    for segment, flags in (("ds", 0), ("es", 0), ("fs", 0), ("gs", 0)):
        for selector in (0, 0x2B):
            yield Case(f"{segment}_{selector:x}_survives_entry", "ud2", 3, set={segment: selector, "rflags": 2 | flags})


CASES = tuple(_all())
