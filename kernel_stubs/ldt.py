"""Local descriptor tables: modify_ldt(2), and which one a CPU uses (arch/x86/kernel/ldt.c).

A process's table lies at one address that the page tables of kernel and user mode both have, for the CPU reads it in
either. It grows as entries are written, and user mode never sees it; accessed bits are set, so the CPU never writes it.
"""

from __future__ import annotations

from emu.arch import PAGE_SIZE, Selector
from emu.machine.paging import ADDRESS_MASK, Pte
from kernel_stubs import mm, pgtable
from kernel_stubs.abi import PTI_USER_PGTABLE, MmStruct, cpu_entry_area
from kernel_stubs.binding import Call, Steps
from kernel_stubs.context import Cpu, Kernel

LDT_BASE_ADDR = 0xFFFF_8800_0000_0000
LDT_ENTRIES, LDT_ENTRY_SIZE = 8192, 8
_LOADER = "load_LDT"
_PAGE_BITS = int(Pte.P | Pte.A | Pte.NX)
_TYPE_LDT = 0x82
_PGD_SLOT = 8 * (LDT_BASE_ADDR >> 39 & 0x1FF)


def supported(kernel: Kernel) -> bool:
    """Whether the image can load the LDTR."""
    return _LOADER in kernel.image.symbols


def _frame(kernel: Kernel, space: MmStruct, number: int) -> int:
    """Physical address of an entry; 0 if the table does not reach so far."""
    address = LDT_BASE_ADDR + LDT_ENTRY_SIZE * number
    entry = mm.kernel_tables(kernel.memory).entry(space.pgd, address)
    return (entry & ADDRESS_MASK) + address % PAGE_SIZE if entry & Pte.P else 0


def read_entry(kernel: Kernel, space: MmStruct, number: int) -> int:
    """A descriptor."""
    return kernel.memory.read_u64(_frame(kernel, space, number)) if number < space.ldt_entries else 0


def write_entry(kernel: Kernel, space: MmStruct, number: int, descriptor: int) -> None:
    """Store a descriptor; OutOfMemoryError if the table cannot grow."""
    memory = kernel.memory
    last = number | PAGE_SIZE // LDT_ENTRY_SIZE - 1
    for first in range(0, last + 1, PAGE_SIZE // LDT_ENTRY_SIZE):
        if not _frame(kernel, space, first):
            address = LDT_BASE_ADDR + LDT_ENTRY_SIZE * first
            mm.kernel_tables(memory).set_entry(space.pgd, address, mm.take_frame(memory) | _PAGE_BITS)
    slot = space.pgd + _PGD_SLOT
    memory.write_u64(slot + PTI_USER_PGTABLE, memory.read_u64(slot))
    memory.write_u64(_frame(kernel, space, number), descriptor)
    space.ldt_entries = max(space.ldt_entries, number + 1)


def copy_ldt(kernel: Kernel, source: MmStruct, target: MmStruct) -> None:
    """ldt_dup_context: a child process begins with the same table."""
    for number in range(source.ldt_entries):
        write_entry(kernel, target, number, read_entry(kernel, source, number))


def free_ldt(kernel: Kernel, space: MmStruct) -> None:
    """destroy_context_ldt."""
    if not space.ldt_entries:
        return
    for first in range(0, space.ldt_entries, PAGE_SIZE // LDT_ENTRY_SIZE):
        mm.release_frame(kernel.memory, _frame(kernel, space, first))
    space.ldt_entries = 0
    pgtable.free_slot(kernel.memory, space.pgd, _PGD_SLOT)


def load_ldt(cpu: Cpu) -> Steps:
    """The current process's table becomes this CPU's; the GDT's entry tells which it has had (switch_ldt)."""
    if not supported(cpu.kernel):
        return None
    entries = cpu.mm.ldt_entries
    at = cpu.kernel.physical(cpu_entry_area(cpu.number)) + (Selector.LDT & ~7)
    low = high = 0
    if entries:
        limit, base = LDT_ENTRY_SIZE * entries - 1, LDT_BASE_ADDR
        low = limit & 0xFFFF | (base & 0xFF_FFFF) << 16 | _TYPE_LDT << 40 | (base >> 24 & 0xFF) << 56
        high = base >> 32
    if (low, high) != (cpu.memory.read_u64(at), cpu.memory.read_u64(at + 8)):
        cpu.memory.write_u64(at, low)
        cpu.memory.write_u64(at + 8, high)
        yield Call(_LOADER, (int(Selector.LDT) if entries else 0,))
    return None
