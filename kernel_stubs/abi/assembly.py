"""Names under which the assembly sources see all of it."""

from __future__ import annotations

from emu.arch import INT80_VECTOR, KERNEL_SYMBOLS, PAGE_SIZE
from kernel_stubs.abi.address_space import (
    CPU_ENTRY_AREA_BASE,
    EXCEPTION_STACK_SIZE,
    MAX_CPUS,
    PAGE_OFFSET,
    PTI_USER_PGTABLE,
    THREAD_SIZE,
)
from kernel_stubs.abi.boot_record import CpuBoot, IdtSource, MsrSetting
from kernel_stubs.abi.cpu_area import CpuEntryArea, PerCpu
from kernel_stubs.abi.hardware import Ist, PtRegs, SystemVector, Tss
from kernel_stubs.abi.task import EXIT_TO_USER_MODE_WORK, TaskStruct, ThreadInfo, Tif
from kernel_stubs.layout import constants


def asm_constants() -> dict[str, int]:
    """Name -> value for the assembly sources, in a stable order."""
    table: dict[str, int] = {
        "PAGE_SIZE": PAGE_SIZE,
        "PAGE_OFFSET": PAGE_OFFSET,
        "CPU_ENTRY_AREA_BASE": CPU_ENTRY_AREA_BASE,
        "THREAD_SIZE": THREAD_SIZE,
        "EXCEPTION_STACK_SIZE": EXCEPTION_STACK_SIZE,
        "PTI_USER_PGTABLE": PTI_USER_PGTABLE,
        "MAX_CPUS": MAX_CPUS,
        "INT80_VECTOR": INT80_VECTOR,
        "EXIT_TO_USER_MODE_WORK": EXIT_TO_USER_MODE_WORK,
    }
    for prefix, cls in (
        ("PT_REGS", PtRegs),
        ("TSS", Tss),
        ("PERCPU", PerCpu),
        ("CPU_ENTRY_AREA", CpuEntryArea),
        ("CPU_BOOT", CpuBoot),
        ("MSR_SETTING", MsrSetting),
        ("IDT_SOURCE", IdtSource),
        ("TASK", TaskStruct),
        ("THREAD_INFO", ThreadInfo),
    ):
        table |= constants(prefix, cls)
    table |= {f"{vector.name}_VECTOR": vector.value for vector in SystemVector}
    table |= {f"IST_{ist.name}": ist.value for ist in Ist}
    table |= {f"TIF_{flag.name}": flag.value for flag in Tif}
    return table | KERNEL_SYMBOLS
