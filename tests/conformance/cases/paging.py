"""Page faults: rights, SMEP, SMAP with AC, WP, NX, reserved bits, error codes and CR2 (SDM volume 3A, 4.6-4.7)."""

from __future__ import annotations

from collections.abc import Iterator

from conformance import layout
from conformance.fields import DEFAULT_CR0, DEFAULT_CR4, DEFAULT_EFER
from conformance.layout import kernel, user
from conformance.model import Case, Value
from conformance.tables import NX, RW, US, gate, leaf, stub
from emu.arch import Cr0, Cr4, Efer, Rflags

SMEP, SMAP, WP = int(Cr4.SMEP), int(Cr4.SMAP), int(Cr0.WP)
U, K = user(layout.UEXTRA), kernel(layout.KEXTRA)
READ, WRITE = "movq (%rbx), %rax", "movq %rax, (%rbx)"
FETCH = "jmp *%rbx"
ACCESSES = {"read": READ, "write": WRITE, "fetch": FETCH}
PAGES = {
    "user": (U, leaf(U)),
    "user_read_only": (U, leaf(U) & ~RW),
    "user_nx": (U, leaf(U) | NX),
    "absent": (U, 0),
    "kernel": (K, leaf(K)),
    "kernel_read_only": (K, leaf(K) & ~RW),
    "kernel_nx": (K, leaf(K) | NX),
    "supervisor_in_low_half": (U, leaf(U) & ~US),
    "user_in_high_half": (K, leaf(K) | US),
}
RETURN = {kernel(layout.UEXTRA): 0x90FFCD, kernel(layout.KEXTRA): 0x90FFCD}
"""INT 0xFF at the start of both pages: what a fetch that is allowed executes."""
MODES: dict[str, dict[str, Value]] = {
    "plain": {},
    "smep": {"cr4": DEFAULT_CR4 | SMEP},
    "smap": {"cr4": DEFAULT_CR4 | SMAP},
    "smap_ac": {"cr4": DEFAULT_CR4 | SMAP, "rflags": 2 | int(Rflags.AC)},
    "wp_off": {"cr0": DEFAULT_CR0 & ~WP},
    "smap_wp_off": {"cr0": DEFAULT_CR0 & ~WP, "cr4": DEFAULT_CR4 | SMAP},
}
MODIFY = {
    "add": "addl %eax, (%rbx)",
    "inc": "incl (%rbx)",
    "lock_add": ".byte 0xf0\n addl %eax, (%rbx)",
    "xchg": "xchgl %eax, (%rbx)",
    "cmpxchg": "cmpxchgl %ecx, (%rbx)",
    "lock_cmpxchg": ".byte 0xf0\n cmpxchgl %ecx, (%rbx)",
    "xadd": "xaddl %eax, (%rbx)",
    "bts": "btsl $3, (%rbx)",
    "bt": "btl $3, (%rbx)",
    "cmpxchg16b": "cmpxchg16b (%rbx)",
    "not": "notl (%rbx)",
    "shl": "shll $1, (%rbx)",
    "cmp": "cmpl %eax, (%rbx)",
    "test": "testl %eax, (%rbx)",
    "sete": "sete (%rbx)",
    "movs": "movl %ebx, %edi\n movq %rsp, %rsi\n cld\n movsl",
    "pop": "popq (%rbx)",
    "push": "pushq (%rbx)",
    "call": "call *(%rbx)",
    "sgdt": "sgdt (%rbx)",
    "fst": "fldz\n fstps (%rbx)",
    "prefetch": ".byte 0x0f, 0x18, 0x0b",
    "clflush": ".byte 0x0f, 0xae, 0x3b",
    "fxsave": ".byte 0x0f, 0xae, 0x03",
}
RESERVED = {
    "bit_51": 1 << 51,
    "bit_45": 1 << 45,
    "software_bits": 0x7 << 9 | 0x7FF << 52,
    "global": 1 << 8,
    "pat": 1 << 7,
}


def _tables() -> Iterator[Case]:
    """Reserved bits and rights at every level; the walk of UEXTRA."""
    slots = {
        "pml4": (layout.PML4, layout.LOW_PDPT | 7),
        "pdpt": (layout.LOW_PDPT, layout.LOW_PD | 7),
        "pd": (layout.LOW_PD + 8 * (layout.USER >> 21), layout.LOW_PT | 7),
    }
    for level, (slot, entry) in slots.items():
        for name, changed in (
            ("absent", 0),
            ("read_only", entry & ~RW),
            ("supervisor", entry & ~US),
            ("nx", entry | NX),
            ("bit_51", entry | 1 << 51),
            ("ps", entry | 0x80),
        ):
            for access in ("read", "write"):
                state: dict[str, Value] = {"rbx": U}
                yield Case(f"{level}_{name}_{access}", ACCESSES[access], set=state, memory={kernel(slot): changed})
    for name, bits in RESERVED.items():
        for cpl in (0, 3):
            yield Case(
                f"pte_{name}_{'user' if cpl else 'kernel'}", READ, cpl, set={"rbx": U}, pages={U: leaf(U) | bits}
            )
    yield Case("pte_reserved_and_absent", READ, 3, set={"rbx": U}, pages={U: 1 << 51})
    yield Case("pte_reserved_and_read_only", WRITE, 3, set={"rbx": U}, pages={U: leaf(U) & ~RW | 1 << 51})
    yield Case("pte_reserved_and_supervisor", WRITE, 3, set={"rbx": U}, pages={U: leaf(U) & ~US | 1 << 51})
    off: dict[str, Value] = {"efer": DEFAULT_EFER & ~int(Efer.NXE), "rbx": U}
    for name, code in ACCESSES.items():
        for cpl in (0, 3):
            level = "user" if cpl else "kernel"
            yield Case(f"nxe_off_nx_page_{name}_{level}", code, cpl, set=off, pages={U: leaf(U) | NX}, memory=RETURN)
            yield Case(f"nxe_off_absent_{name}_{level}", code, cpl, set=off, pages={U: 0})


def _all() -> Iterator[Case]:
    for page, (linear, entry) in PAGES.items():
        for access, code in ACCESSES.items():
            for cpl in (0, 3):
                for mode, state in MODES.items():
                    if cpl == 3 and mode not in ("plain", "smap", "wp_off"):
                        continue
                    level = "user" if cpl else "kernel"
                    yield Case(f"{access}_{page}_{mode}_{level}", code, cpl, set={**state, "rbx": linear},
                               pages={linear: entry}, memory=RETURN)  # fmt: skip
    for name, code in MODIFY.items():
        for page in ("absent", "supervisor_in_low_half", "user_read_only"):
            linear, entry = PAGES[page]
            yield Case(f"{name}_{page}", code, 3, set={"rbx": linear}, pages={linear: entry})
    for name, code in (("read", READ), ("write", WRITE)):
        yield Case(f"{name}_crosses_into_absent", code, 3, set={"rbx": user(layout.USTACK) + 0xFFC})
        yield Case(f"{name}_crosses_from_absent", code, 3, set={"rbx": user(layout.UDATA) - 4})
    yield Case("implicit_gdt_read_smap", "movl $0x2b, %eax\n movl %eax, %ds", set={"cr4": DEFAULT_CR4 | SMAP},
               pages={kernel(layout.GDT): layout.GDT | 7})  # fmt: skip
    yield Case("implicit_gdt_read_smap_ac", "stac\n movl $0x2b, %eax\n movl %eax, %ds",
               set={"cr4": DEFAULT_CR4 | SMAP}, pages={kernel(layout.GDT): layout.GDT | 7})  # fmt: skip
    yield Case("implicit_gdt_read_at_cpl_3", "movl $0x2b, %eax\n movl %eax, %ds", 3)
    yield Case("gdt_not_mapped_at_cpl_3", "movl $0x2b, %eax\n movl %eax, %ds", 3, set={"gdt_base": kernel(layout.GDT)},
               memory={}, idt={14: gate(stub(14))})  # fmt: skip
    yield Case("instruction_crosses_into_absent", "jmp *%rbx", 3, set={"rbx": U + 0xFFF},
               memory={kernel(layout.UEXTRA) + 0xFF8: 0xB8 << 56})  # fmt: skip
    yield Case("instruction_crosses_into_nx", "jmp *%rbx", 3, set={"rbx": U + 0xFFF},
               memory={kernel(layout.UEXTRA) + 0xFF8: 0xB8 << 56}, pages={U + 0x1000: leaf(U) | NX})  # fmt: skip
    yield Case("smep_return_to_user_page_at_cpl_0", "pushq %rbx\n ret", set={"rbx": U, "cr4": DEFAULT_CR4 | SMEP})
    yield Case("cr2_keeps_low_bits", "movb 0x123457, %al")
    yield from _tables()


CASES = tuple(_all())
