"""MOV to and from control registers, table registers, and what they refuse (SDM volume 2, MOV; volume 3A, 2.5)."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.fields import DEFAULT_CR0, DEFAULT_CR4, DEFAULT_EFER
from conformance.layout import PML4
from conformance.model import Case
from emu.arch import Cr0, Cr4, Efer

CR0_VALUES = {
    "same": DEFAULT_CR0,
    "pg_without_pe": DEFAULT_CR0 & ~int(Cr0.PE),
    "nw_without_cd": DEFAULT_CR0 | 1 << 29,
    "cd": DEFAULT_CR0 | 1 << 30,
    "reserved_low": DEFAULT_CR0 | 1 << 6,
    "reserved_bit_28": DEFAULT_CR0 | 1 << 28,
    "high_half": DEFAULT_CR0 | 1 << 32,
    "et_cannot_be_cleared": DEFAULT_CR0 & ~int(Cr0.ET),
    "ne_off": DEFAULT_CR0 & ~int(Cr0.NE),
    "wp_off": DEFAULT_CR0 & ~int(Cr0.WP),
    "paging_off_in_64_bit_mode": DEFAULT_CR0 & ~int(Cr0.PG),
    "ts_em_mp": DEFAULT_CR0 | 0xE,
}
CR4_VALUES = {
    "same": DEFAULT_CR4,
    "pae_off": DEFAULT_CR4 & ~int(Cr4.PAE),
    "reserved_bit_31": DEFAULT_CR4 | 1 << 31,
    "reserved_high": DEFAULT_CR4 | 1 << 40,
    "reserved_bit_15": DEFAULT_CR4 | 1 << 15,
    "smep_smap_umip": DEFAULT_CR4 | int(Cr4.SMEP | Cr4.SMAP | Cr4.UMIP),
    "pge_mce_tsd_de": DEFAULT_CR4 | int(Cr4.PGE | Cr4.MCE | Cr4.DE) | 4,
    "osxsave": DEFAULT_CR4 | int(Cr4.OSXSAVE),
    "la57_in_long_mode": DEFAULT_CR4 | 1 << 12,
}
CR8_VALUES = {"0": 0, "5": 5, "15": 15, "16": 16, "high": 1 << 40}


def _all() -> Iterator[Case]:
    for name, value in CR0_VALUES.items():
        yield Case(f"cr0_{name}", "movq %rax, %cr0\n movq %cr0, %rbx", set={"rax": value})
    for name, value in CR4_VALUES.items():
        yield Case(f"cr4_{name}", "movq %rax, %cr4\n movq %cr4, %rbx", set={"rax": value})
    for name, value in CR8_VALUES.items():
        yield Case(f"cr8_{name}", "movq %rax, %cr8\n movq %cr8, %rbx", set={"rax": value})
    for name, value in (("reserved_bit_52", PML4 | 1 << 52), ("bit_63", PML4 | 1 << 63), ("pwt_pcd", PML4 | 0x18)):
        yield Case(f"cr3_{name}", "movq %rax, %cr3\n movq %cr3, %rbx", set={"rax": value})
    for number in (1, 5, 6, 7, 9, 15):
        rex, field = (0x4C, number - 8) if number > 7 else (0x48, number)
        yield Case(f"cr{number}_read", f".byte {rex:#x}, 0x0f, 0x20, {0xC0 | field << 3:#x}")
        yield Case(f"cr{number}_write", f".byte {rex:#x}, 0x0f, 0x22, {0xC0 | field << 3:#x}")
    yield Case("cr0_read_with_lock", ".byte 0xf0, 0x0f, 0x20, 0xc0", cpu=("intel", "amd"))
    yield Case("cr2_write", "movabsq $0x123456789abc, %rax\n movq %rax, %cr2\n movq %cr2, %rbx")
    yield Case("smsw_64", ".byte 0x48, 0x0f, 0x01, 0xe0")
    for name in ("lgdt", "lidt"):
        table = "jmp @past\n@table: .word 0xfff\n .quad 0x800000000000\n@past: nop"
        yield Case(f"{name}_non_canonical_base", f"{name} @table(%rip)\n nop\n {table}")
    yield Case("sgdt", "subq $16, %rsp\n sgdt (%rsp)\n movzwl (%rsp), %eax\n movq 2(%rsp), %rbx")
    yield Case("sidt", "subq $16, %rsp\n sidt (%rsp)\n movzwl (%rsp), %eax\n movq 2(%rsp), %rbx")
    yield Case("efer_nxe_off_and_nx_page", "nop", set={"efer": DEFAULT_EFER & ~int(Efer.NXE)})
    yield Case("invlpg_non_canonical", "movabsq $0x800000000000, %rax\n invlpg (%rax)")
    yield Case("invlpg_register", ".byte 0x0f, 0x01, 0xfa")
    yield Case("rdtscp_aux", ".byte 0x0f, 0x01, 0xf9\n xorl %eax, %eax\n xorl %edx, %edx")


CASES = tuple(_all())
