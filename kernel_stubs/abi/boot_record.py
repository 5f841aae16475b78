"""What boot code gets from the loader, and the tables that it makes others from."""

from __future__ import annotations

import ctypes
from typing import Annotated

from kernel_stubs.layout import U16, U32, U64, Struct, layout


@layout(pack=1)
class DescriptorPointer(Struct):
    """Operand of LGDT and LIDT, padded to 16 bytes."""

    limit: U16
    base: U64
    pad: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * 6]


@layout()
class MsrSetting(Struct):
    """One WRMSR of the boot code."""

    index: U32
    low: U32
    high: U32
    pad: U32


MAX_BOOT_MSRS = 24


@layout()
class CpuBoot(Struct):
    """What `startup_64` finds at RDI: the tables and register values that this CPU is to load."""

    gdt: DescriptorPointer
    idt: DescriptorPointer
    cr0: U64
    cr4: U64
    stack: U64
    """End of the stack that the boot code runs on: this CPU's first task's."""
    cpu_number: U64
    msr_count: U64
    msrs: Annotated[ctypes.Array[MsrSetting], MsrSetting * MAX_BOOT_MSRS]


@layout()
class IdtSource(Struct):
    """One row of the image's `idt_source` table, from which boot code makes a gate; a row with handler 0 ends it."""

    handler: U64
    vector: U32
    ist: U16
    type_attr: U16
    """Present, DPL and type as in byte 5 of a gate (0x8e: interrupt gate DPL 0, 0xee: DPL 3)."""


@layout()
class ExTableEntry(Struct):
    """One row of the exception table, from `__start___ex_table` to `__stop___ex_table`."""

    insn: U64
    """An instruction of the kernel that may fault."""
    fixup: U64
    """Where it goes on then."""
