"""The words of a case's record: what the harness loads before the case and reads again after it."""

from __future__ import annotations

from conformance import layout
from emu.arch import Cr0, Cr4, Efer, Msr
from emu.machine.registers import REGISTER_NAMES

DEFAULT_CR0 = int(Cr0.PE | Cr0.MP | Cr0.ET | Cr0.NE | Cr0.WP | Cr0.AM | Cr0.PG)
DEFAULT_CR4 = int(Cr4.PAE | Cr4.OSFXSR | Cr4.OSXMMEXCPT | Cr4.FSGSBASE)
DEFAULT_EFER = int(Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE)

MSR_FIELDS = {
    "efer": Msr.EFER,
    "fs_base": Msr.FS_BASE,
    "gs_base": Msr.GS_BASE,
    "kernel_gs_base": Msr.KERNEL_GS_BASE,
    "star": Msr.STAR,
    "lstar": Msr.LSTAR,
    "cstar": Msr.CSTAR,
    "fmask": Msr.SYSCALL_MASK,
    "sysenter_cs": Msr.SYSENTER_CS,
    "sysenter_esp": Msr.SYSENTER_ESP,
    "sysenter_eip": Msr.SYSENTER_EIP,
}
"""Fields that are MSRs, in the order in which the harness writes them."""

COMPARED = (
    *REGISTER_NAMES, "rflags", "cs", "ss", "ds", "es", "fs", "gs", "ldtr", "cr0", "cr2", "cr4", "cr8",
    "dr0", "dr1", "dr2", "dr3", "dr6", "dr7", *MSR_FIELDS,
)  # fmt: skip
"""Fields reported when they differ after the case."""

INPUTS = ("rip", "gdt_limit", "gdt_base", "idt_limit", "idt_base", "handler", "apic", "patches", "patch_list")
"""Fields that are only loaded. handler: where layout.HANDLER jumps to. apic: not 0 if the case uses the local APIC. A
limit is kept shifted by 48 bits, so that LGDT finds limit and base side by side."""

FIELDS = (*COMPARED, *INPUTS)
CASE_SIZE = 8 * len(FIELDS)

DEFAULTS: dict[str, int] = {
    **{name: 0x1100 + n for n, name in enumerate(REGISTER_NAMES)},
    "rflags": 2,
    "cs": layout.KERNEL_CS,
    "ss": layout.KERNEL_DS,
    "ds": 0,
    "es": 0,
    "fs": 0,
    "gs": 0,
    "ldtr": 0,
    "cr0": DEFAULT_CR0,
    "cr2": 0xC2,
    "cr4": DEFAULT_CR4,
    "cr8": 0,
    "dr0": 0,
    "dr1": 0,
    "dr2": 0,
    "dr3": 0,
    "dr6": 0xFFFF0FF0,
    "dr7": 0x400,
    "efer": DEFAULT_EFER,
    "fs_base": 0x10_0000,
    "gs_base": 0x20_0000,
    "kernel_gs_base": 0x30_0000,
    "star": layout.KERNEL_CS << 32 | layout.USER32_CS << 48,
    "lstar": layout.kernel(layout.LSTAR),
    "cstar": layout.kernel(layout.CSTAR),
    "fmask": 0x47700,
    "sysenter_cs": layout.KERNEL_CS,
    "sysenter_esp": layout.kernel(layout.SP0),
    "sysenter_eip": layout.kernel(layout.SYSENTER),
    "gdt_limit": 8 * layout.GDT_WORDS - 1,
    "gdt_base": layout.kernel(layout.GDT),
    "idt_limit": 0xFFF,
    "idt_base": layout.kernel(layout.IDT),
    "handler": 0,
    "apic": 0,
}

USER_DEFAULTS: dict[str, int] = {
    "cs": layout.USER_CS,
    "ss": layout.USER_DS,
    "rsp": layout.user(layout.USTACK) + 0x800,
}
KERNEL_DEFAULTS: dict[str, int] = {"rsp": layout.kernel(layout.KSTACK) - 0x100}


def offset(field: str) -> int:
    """Byte offset of a field in a record."""
    return 8 * FIELDS.index(field)


MEMORY_WORDS = 2 * layout.KDATA_WORDS + layout.GDT_WORDS


def memory_name(index: int) -> str:
    """Which word of memory the harness's word `index` is."""
    if index < layout.KDATA_WORDS:
        return f"kdata+{8 * index:#x}"
    index -= layout.KDATA_WORDS
    if index < layout.KDATA_WORDS:
        return f"udata+{8 * index:#x}"
    return f"gdt+{8 * (index - layout.KDATA_WORDS):#x}"
