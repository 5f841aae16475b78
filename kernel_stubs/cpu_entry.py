"""What the hardware of one CPU finds in memory: its per-CPU area, GDT, TSS, entry and exception stacks, boot record.

(arch/x86/mm/cpu_entry_area.c, arch/x86/kernel/cpu/common.c.)
"""

from __future__ import annotations

from collections.abc import Iterator

from asm import Image
from emu.arch import PAGE_SIZE, STAR_VALUE, SYSCALL_MASK_VALUE, Cr0, Cr4, Efer, Msr, Selector
from emu.machine.memory import Memory
from emu.machine.profile import Profile
from kernel_stubs import mm
from kernel_stubs.abi import (
    CPU_ENTRY_AREA_BASE,
    EXCEPTION_STACK_SIZE,
    IRQ_STACK_SIZE,
    NR_VECTORS,
    THREAD_SIZE,
    CpuBoot,
    CpuEntryArea,
    Ist,
    PerCpu,
    Tss,
    cpu_entry_area,
)
from kernel_stubs.espfix import make_espfix_stack

IST_STACKS = {
    Ist.DF: "df_stack",
    Ist.NMI: "nmi_stack",
    Ist.DB: "db_stack",
    Ist.MCE: "mce_stack",
    Ist.VC: "vc_stack",
}
"""IST index -> field of CpuEntryArea."""

GDT_SIZE = 128
TSS_LIMIT = Tss.SIZE - 1
PAT_VALUE = 0x0407_0506_0007_0106
"""What Linux programs: WB WT UC- UC, WB WP UC- UC."""
SYSCALL_ENTRIES = (
    (Msr.LSTAR, "entry_SYSCALL_64"),
    (Msr.CSTAR, "entry_SYSCALL_compat"),
    (Msr.SYSENTER_EIP, "entry_SYSENTER_compat"),
)
"""Entry points by MSR; one that the image does not have is 0."""


def _percpu(memory: Memory, address: int) -> PerCpu:
    return PerCpu.from_buffer(memory.ram, address - mm.direct_map(0))


def make_percpu(memory: Memory, cpu: int, nmi_scratch: int) -> int:
    """A per-CPU area with its TSS and IRQ stack: its linear address. Its first page is visible to user tables."""
    pages = -(-PerCpu.SIZE // PAGE_SIZE)
    address = mm.direct_map(mm.alloc_pages(memory, pages))
    percpu = _percpu(memory, address)
    percpu.this_cpu_off = address
    percpu.cpu_number = cpu
    percpu.hardirq_stack_ptr = mm.vmalloc(memory, IRQ_STACK_SIZE // PAGE_SIZE) + IRQ_STACK_SIZE
    percpu.nmi_scratch = nmi_scratch
    percpu.espfix_stack, percpu.espfix_waddr = make_espfix_stack(memory, cpu)
    area = cpu_entry_area(cpu)
    tss = percpu.tss
    tss.sp0 = area + CpuEntryArea.offset("entry_stack") + PAGE_SIZE
    for ist, field in IST_STACKS.items():
        tss.ist[ist - 1] = area + CpuEntryArea.offset(field) + EXCEPTION_STACK_SIZE
    tss.io_bitmap_base = TSS_LIMIT + 1
    mm.map_user_visible(memory, address)
    return address


def make_entry_area(memory: Memory, cpu: int, percpu: int) -> None:
    """The CpuEntryArea of one CPU, in both sets of tables. The GDT stays writable until LTR has marked the TSS busy."""
    area = cpu_entry_area(cpu)
    gdt = mm.alloc_page(memory)
    memory.write(gdt, gdt_bytes(area + CpuEntryArea.offset("tss"), cpu))
    pages = [
        (area, gdt, mm.PAGE_KERNEL),
        (area + CpuEntryArea.offset("entry_stack"), mm.alloc_page(memory), mm.PAGE_KERNEL),
        (area + CpuEntryArea.offset("tss"), percpu - mm.direct_map(0), mm.PAGE_KERNEL_RO),
    ]
    for field in IST_STACKS.values():
        frames = mm.alloc_pages(memory, EXCEPTION_STACK_SIZE // PAGE_SIZE)
        for offset in range(0, EXCEPTION_STACK_SIZE, PAGE_SIZE):
            pages.append((area + CpuEntryArea.offset(field) + offset, frames + offset, mm.PAGE_KERNEL))
    for address, frame, flags in pages:
        mm.map_kernel(memory, address, frame, flags)
        mm.map_user_visible(memory, address)


def gdt_bytes(tss: int, cpu: int) -> bytes:
    """The GDT of one CPU. Accessed bits are set, so that the CPU never writes to it but for the TSS's busy bit."""
    entries = [0] * (GDT_SIZE // 8)
    flat = {
        Selector.KERNEL32_CS: 0x00CF9B000000FFFF,
        Selector.KERNEL_CS: 0x00AF9B000000FFFF,
        Selector.KERNEL_DS: 0x00CF93000000FFFF,
        Selector.USER32_CS: 0x00CFFB000000FFFF,
        Selector.USER_DS: 0x00CFF3000000FFFF,
        Selector.USER_CS: 0x00AFFB000000FFFF,
    }
    for selector, descriptor in flat.items():
        entries[selector >> 3] = descriptor
    # 64-bit available TSS, two entries (SDM 8.2.3).
    entries[Selector.TSS >> 3] = TSS_LIMIT | (tss & 0xFF_FFFF) << 16 | 0x89 << 40 | (tss >> 24 & 0xFF) << 56
    entries[(Selector.TSS >> 3) + 1] = tss >> 32
    # A read-only data segment at DPL 3 whose limit user mode and paranoid entries read with LSL.
    entries[Selector.CPU_NODE >> 3] = cpu & 0xFFFF | 0x0040_F5 << 40
    return b"".join(entry.to_bytes(8, "little") for entry in entries)


def make_idt_alias(memory: Memory, image: Image) -> None:
    """The page through which the CPUs see the IDT: read-only, in both sets of tables."""
    table = mm.image_physical(image.symbol("idt_table"))
    mm.map_kernel(memory, CPU_ENTRY_AREA_BASE, table & -PAGE_SIZE, mm.PAGE_KERNEL_RO)
    mm.map_user_visible(memory, CPU_ENTRY_AREA_BASE)


def control_registers(profile: Profile) -> tuple[int, int]:
    """CR0 and CR4 as the boot code is to load them."""
    cr0 = Cr0.PE | Cr0.MP | Cr0.ET | Cr0.NE | Cr0.WP | Cr0.AM | Cr0.PG
    cr4 = Cr4.PAE | Cr4.MCE | Cr4.OSFXSR | Cr4.OSXMMEXCPT
    for wanted, bit in (
        (profile.smep, Cr4.SMEP),
        (profile.smap, Cr4.SMAP),
        (profile.umip, Cr4.UMIP),
        (profile.fsgsbase, Cr4.FSGSBASE),
    ):
        if wanted:
            cr4 |= bit
    return int(cr0), int(cr4)


def msr_settings(image: Image, percpu: int, cpu: int) -> Iterator[tuple[int, int]]:
    """(MSR, value) in the order in which the boot code writes them."""
    yield Msr.EFER, int(Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE)
    yield Msr.PAT, PAT_VALUE
    yield Msr.STAR, STAR_VALUE
    for number, symbol in SYSCALL_ENTRIES:
        yield number, image.symbols.get(symbol, 0)
    yield Msr.SYSENTER_CS, Selector.KERNEL_CS if "entry_SYSENTER_compat" in image.symbols else 0
    yield Msr.SYSENTER_ESP, cpu_entry_area(cpu) + CpuEntryArea.offset("entry_stack") + PAGE_SIZE
    yield Msr.SYSCALL_MASK, SYSCALL_MASK_VALUE
    yield Msr.FS_BASE, 0
    yield Msr.GS_BASE, percpu
    yield Msr.KERNEL_GS_BASE, 0
    yield Msr.TSC_AUX, cpu


def make_boot_record(memory: Memory, image: Image, profile: Profile, cpu: int, percpu: int) -> int:
    """The CpuBoot of one CPU, with the stack of its first task: its linear address."""
    address = mm.direct_map(mm.alloc_page(memory))
    boot = CpuBoot.from_buffer(memory.ram, address - mm.direct_map(0))
    boot.gdt.limit, boot.gdt.base = GDT_SIZE - 1, cpu_entry_area(cpu)
    offset = image.symbol("idt_table") % PAGE_SIZE
    boot.idt.limit, boot.idt.base = NR_VECTORS * 16 - 1, CPU_ENTRY_AREA_BASE + offset
    boot.cr0, boot.cr4 = control_registers(profile)
    boot.stack = mm.vmalloc(memory, THREAD_SIZE // PAGE_SIZE) + THREAD_SIZE
    _percpu(memory, percpu).top_of_stack = boot.stack
    boot.cpu_number = cpu
    for number, value in msr_settings(image, percpu, cpu):
        setting = boot.msrs[boot.msr_count]
        setting.index, setting.low, setting.high = number, value & 0xFFFF_FFFF, value >> 32
        boot.msr_count += 1
    return address
