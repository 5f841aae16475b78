"""What a CPU of this kernel finds in memory: the PDA, its own use of TSS and IST stacks, its boot record.

GDT, TSS, IDT alias and the memory of the exception stacks lie where linux-6 has them (kernel_stubs.cpu_entry); that
they are in a cpu_entry_area makes no difference to an image without page-table isolation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from asm import Image
from emu.arch import STAR_VALUE, Efer, Msr, Selector
from emu.machine.memory import Memory
from emu.machine.profile import Profile
from kernel_stubs import cpu_entry, mm
from kernel_stubs.abi import (
    EXCEPTION_STACK_SIZE,
    MAX_BOOT_MSRS,
    CpuBoot,
    CpuEntryArea,
    PerCpu,
    cpu_entry_area,
)
from kernel_stubs.abi26 import PDA_STACKOFFSET, SYSCALL_MASK_VALUE, Ist26, X8664Pda

IST_FIELDS = {
    Ist26.STACKFAULT: "vc_stack",
    Ist26.DOUBLEFAULT: "df_stack",
    Ist26.NMI: "nmi_stack",
    Ist26.DEBUG: "db_stack",
    Ist26.MCE: "mce_stack",
}
"""IST index -> field of CpuEntryArea."""
IRQ_STACK_GAP = 64
"""pda.irqstackptr is this far below the end of the IRQ stack."""


def usable_profile(profile: Profile) -> Profile:
    """The CPU as this kernel can use it: it predates SMEP, SMAP, UMIP and FSGSBASE."""
    return replace(profile, smep=False, smap=False, umip=False, fsgsbase=False)


def ist_stack(cpu: int, ist: Ist26) -> tuple[int, int]:
    """Lowest address and end of an IST stack."""
    low = cpu_entry_area(cpu) + CpuEntryArea.offset(IST_FIELDS[ist])
    return low, low + EXCEPTION_STACK_SIZE


def set_up_cpu(memory: Memory, image: Image, cpu: int, percpu_address: int, record: int) -> None:
    """Turn what kernel_stubs.cpu_entry made for one CPU into what this kernel has."""
    percpu = PerCpu.from_buffer(memory.ram, percpu_address - mm.direct_map(0))
    boot = CpuBoot.from_buffer(memory.ram, record - mm.direct_map(0))
    frame = mm.alloc_page(memory)
    pda = X8664Pda.from_buffer(memory.ram, frame)
    pda.data_offset, pda.cpunumber = percpu_address, cpu
    pda.kernelstack = boot.stack - PDA_STACKOFFSET
    pda.irqcount = -1
    pda.irqstackptr = percpu.hardirq_stack_ptr - IRQ_STACK_GAP
    memory.write_u64(mm.image_physical(image.symbol("_cpu_pda")) + 8 * cpu, mm.direct_map(frame))
    percpu.tss.sp0 = boot.stack
    for ist in Ist26:
        percpu.tss.ist[ist - 1] = ist_stack(cpu, ist)[1]
    settings = list(_msr_settings(image, mm.direct_map(frame), cpu))
    assert len(settings) <= MAX_BOOT_MSRS
    boot.msr_count = len(settings)
    for setting, (number, value) in zip(boot.msrs, settings, strict=False):
        setting.index, setting.low, setting.high = number, value & 0xFFFF_FFFF, value >> 32


def _msr_settings(image: Image, pda: int, cpu: int) -> Iterator[tuple[int, int]]:
    """(MSR, value) in the order in which the boot code writes them."""
    yield Msr.EFER, int(Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE)
    yield Msr.PAT, cpu_entry.PAT_VALUE
    yield Msr.STAR, STAR_VALUE
    yield Msr.LSTAR, image.symbol("system_call")
    yield Msr.CSTAR, image.symbol("ia32_cstar_target")
    yield Msr.SYSENTER_CS, Selector.KERNEL_CS
    yield Msr.SYSENTER_ESP, 0
    yield Msr.SYSENTER_EIP, image.symbol("ia32_sysenter_target")
    yield Msr.SYSCALL_MASK, SYSCALL_MASK_VALUE
    yield Msr.FS_BASE, 0
    yield Msr.GS_BASE, pda
    yield Msr.KERNEL_GS_BASE, 0
    yield Msr.TSC_AUX, cpu
