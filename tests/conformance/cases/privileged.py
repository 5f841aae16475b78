"""Privileged instructions at CPL 3, I/O permission, UMIP, TSD (SDM volume 3A, 5.9; volume 1, 18.5)."""

from __future__ import annotations

from collections.abc import Iterator

from conformance import layout
from conformance.fields import DEFAULT_CR0, DEFAULT_CR4
from conformance.layout import SPARE2, TSS_SELECTOR, kernel
from conformance.model import Case, Value
from conformance.tables import KERNEL_CODE, KERNEL_DATA, TSS_LIMIT, dpl, system
from emu.arch import Cr0, Cr4

PRIVILEGED = {
    "hlt": "hlt",
    "cli": "cli",
    "sti": "sti",
    "mov_from_cr0": "movq %cr0, %rax",
    "mov_from_cr2": "movq %cr2, %rax",
    "mov_from_cr3": "movq %cr3, %rax",
    "mov_from_cr4": "movq %cr4, %rax",
    "mov_from_cr8": "movq %cr8, %rax",
    "mov_to_cr0": "movq %rax, %cr0",
    "mov_to_cr3": "movq %rax, %cr3",
    "mov_to_cr8": "movq %rax, %cr8",
    "mov_from_dr0": "movq %dr0, %rax",
    "mov_from_dr7": "movq %dr7, %rax",
    "mov_to_dr7": "movq %rax, %dr7",
    "lgdt": "lgdt (%rsp)",
    "lidt": "lidt (%rsp)",
    "lgdt_bad_operand": "lgdt 0x123456",
    "clts": "clts",
    "invd": ".byte 0x0f, 0x08",
    "wbinvd": "wbinvd",
    "invlpg": "invlpg (%rsp)",
    "lmsw": "lmsw %ax",
    "stac": "stac",
    "clac": "clac",
    "monitor": ".byte 0x0f, 0x01, 0xc8",
    "xsetbv": ".byte 0x0f, 0x01, 0xd1",
    "rdpmc": "rdpmc",
    "vmcall": ".byte 0x0f, 0x01, 0xc1",
}
HARMLESS = ("clts", "invlpg", "wbinvd", "stac", "clac", "cli", "mov_from_cr0", "mov_from_cr8", "mov_from_dr7")
BETWEEN = {
    **{name: PRIVILEGED[name] for name in ("hlt", "cli", "sti", "mov_to_cr3", "invlpg", "lgdt", "mov_to_dr7")},
    "inb": "inb %dx, %al",
    "outb": "outb %al, %dx",
    "rdmsr": "movl $0xc0000100, %ecx\n rdmsr",
    "wrmsr": "movl $0xc0000100, %ecx\n wrmsr",
    "swapgs": "swapgs",
    "sysret": "sysretq",
    "rdtsc": "rdtsc\n xorl %eax, %eax\n xorl %edx, %edx",
    "cpuid": "cpuid\n xorl %eax, %eax\n xorl %ebx, %ebx\n xorl %ecx, %ecx\n xorl %edx, %edx",
    "iretq": "movq %rsp, %rbx\n movl %ss, %eax\n pushq %rax\n pushq %rbx\n pushq $2\n movl %cs, %eax\n pushq %rax\n"
    " leaq @behind(%rip), %rax\n pushq %rax\n iretq\n@behind: nop",
}
"""At CPL 1 and 2, whose descriptors a case brings along."""
UMIP = {
    "sidt": "sidt (%rsp)",
    "sgdt": "sgdt (%rsp)",
    "sldt": "sldt %eax",
    "str": "str %eax",
    "smsw": "smsw %eax",
    "smsw_memory": "smsw (%rsp)",
    "str_memory": "str (%rsp)",
}
PORTS = {
    "inb_imm": ".byte 0xe4, 0x80",
    "inl": "inl %dx, %eax",
    "inw": "inw %dx, %ax",
    "inb": "inb %dx, %al",
    "outb": "outb %al, %dx",
    "outw": "outw %ax, %dx",
    "outl": "outl %eax, %dx",
    "outb_imm": ".byte 0xe6, 0x80",
    "insb": "movq %rsp, %rdi\n .byte 0x6c",
    "outsb": "movq %rsp, %rsi\n .byte 0x6e",
    "rep_outsb": "movq %rsp, %rsi\n movl $3, %ecx\n .byte 0xf3, 0x6e",
}


def _between() -> Iterator[Case]:
    for level in (1, 2):
        code, data = SPARE2, SPARE2 + 8
        state: dict[str, Value] = {"cs": code | level, "ss": data | level, "rdx": 0x80}
        segments = {code: dpl(KERNEL_CODE, level), data: dpl(KERNEL_DATA, level)}
        for name, text in BETWEEN.items():
            yield Case(f"{name}_cpl_{level}", f"nop\n {text}", set=state, gdt=segments)


def _ports() -> Iterator[Case]:
    allowed = kernel(layout.TSS)  # only to say which table: the bitmap follows the TSS
    assert allowed
    for name, code in PORTS.items():
        state = {"rdx": 0x80}
        out = "out" in name
        yield Case(f"{name}_denied", code, 3, set=state)
        yield Case(f"{name}_iopl_2", code, 3, set={**state, "rflags": 0x2002})
        if out and "rep" not in name:
            yield Case(f"{name}_iopl_3", code, 3, set={**state, "rflags": 0x3002})
            yield Case(f"{name}_bitmap", code, 3, set=state, tss={0x78: 0xFFFF_FFFF_FFFF_FF00})
            yield Case(f"{name}_bitmap_first_only", code, 3, set=state, tss={0x78: 0xFFFF_FFFF_FFFF_FFFE})
            yield Case(f"{name}_beyond_bitmap", code, 3, set={"rdx": 0x8000})
    for limit in (TSS_LIMIT, 0x79, 0x78, 0x77, 0x67, 0x66):
        low, high = system(kernel(layout.TSS), limit, 9)
        yield Case(f"outb_tss_limit_{limit:x}", "outb %al, %dx", 3, set={"rdx": 0x80},
                   gdt={TSS_SELECTOR: low, TSS_SELECTOR + 8: high}, tss={0x78: 0})  # fmt: skip
    yield Case("outb_map_base_beyond_limit", "outb %al, %dx", 3, set={"rdx": 0x80}, tss={0x60: 0xDFFF << 48})
    yield Case("popf_keeps_if_and_iopl", "pushq $0x3202\n popfq", 3)
    yield Case("popf_iopl_3_sets_if", "pushq $0x0202\n popfq", 3, set={"rflags": 0x3002})
    yield Case("popf_kernel_sets_all", "movq $0x247fd7 & ~0x500, %rax\n pushq %rax\n popfq")
    yield Case("popf_nt", "pushq $0x4002\n popfq", 3)
    yield Case("popf_rf_vm_ignored", "pushq $0x30002\n popfq")
    yield Case("pushf_shows_rf_clear", "pushfq\n popq %rax", set={"rflags": 0x10002})
    yield Case("popfw_keeps_high_half", "pushw $0x0002\n .byte 0x66, 0x9d", set={"rflags": 0x240002})
    for level in (0x1002, 0x2002, 0x3002):
        yield Case(f"cli_iopl_{level >> 12}", "cli", 3, set={"rflags": level | 0x200})
        yield Case(f"sti_iopl_{level >> 12}", "sti\n nop", 3, set={"rflags": level})


def _all() -> Iterator[Case]:
    for name, code in PRIVILEGED.items():
        yield Case(f"{name}_user", f"nop\n {code}", 3)
    for name in HARMLESS:
        yield Case(f"{name}_kernel", f"{PRIVILEGED[name]}\n nop")
    for name, code in UMIP.items():
        for cpl in (0, 3):
            for on in (False, True):
                cr4 = DEFAULT_CR4 | (int(Cr4.UMIP) if on else 0)
                suffix = "user" if cpl else "kernel"
                yield Case(f"{name}_{'umip_' if on else ''}{suffix}", code + "\n movq (%rsp), %rbx", cpl,
                           set={"cr4": cr4})  # fmt: skip
    for cpl in (0, 3):
        level = "user" if cpl else "kernel"
        for name, code in (("rdtsc", "rdtsc"), ("rdtscp", ".byte 0x0f, 0x01, 0xf9")):
            clear = f"{code}\n xorl %eax, %eax\n xorl %edx, %edx\n xorl %ecx, %ecx"
            yield Case(f"{name}_{level}", clear, cpl)
            yield Case(f"{name}_tsd_{level}", clear, cpl, set={"cr4": DEFAULT_CR4 | 4})
        yield Case(f"rdpmc_without_pce_{level}", "movl $0x7fffffff, %ecx\n rdpmc", cpl)
        yield Case(f"cpuid_{level}", "xorl %eax, %eax\n cpuid\n xorl %eax, %eax\n xorl %ebx, %ebx\n xorl %ecx, %ecx\n"
                   " xorl %edx, %edx", cpl)  # fmt: skip
        yield Case(f"clac_without_smap_{level}", "clac", cpl)
    yield Case("stac_sets_ac", "stac", set={"cr4": DEFAULT_CR4 | int(Cr4.SMAP)})
    yield Case("stac_user_smap", "stac", 3, set={"cr4": DEFAULT_CR4 | int(Cr4.SMAP)})
    yield Case("lmsw_cannot_clear_pe", "xorl %eax, %eax\n lmsw %ax")
    yield Case("lmsw_sets_ts", "movl $0xb, %eax\n lmsw %ax")
    yield Case("clts_clears_ts", "clts", set={"cr0": DEFAULT_CR0 | int(Cr0.TS)})
    yield from _ports()
    yield from _between()


CASES = tuple(_all())
