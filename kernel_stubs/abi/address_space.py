"""The address space: what lies where, in linear and in physical memory (Documentation/arch/x86/x86_64/mm.rst)."""

from __future__ import annotations

from emu.arch import PAGE_SIZE

TASK_SIZE_MAX = 0x0000_7FFF_FFFF_F000
MMAP_MIN_ADDR = 0x10000
"""vm.mmap_min_addr: nothing is mapped for user mode below it."""
PAGE_OFFSET = 0xFFFF_8880_0000_0000
"""The direct map: every allocated page frame, 4 KiB pages, writable, never executable."""
VMALLOC_START = 0xFFFF_C900_0000_0000
"""Task and IRQ stacks, each followed by a guard page."""
VMALLOC_LAZY = 0xFFFF_C940_0000_0000
"""Part of the vmalloc area whose pages are mapped only when the kernel touches them: #PF in kernel mode, no oops."""
VMALLOC_LAZY_SIZE = 0x1000_0000
CPU_ENTRY_AREA_BASE = 0xFFFF_FE00_0000_0000
"""One read-only page with the IDT, then one CpuEntryArea a CPU. Mapped in user tables too."""
KERNEL_BASE = 0xFFFF_FFFF_8100_0000
"""Where the kernel image is linked."""
KERNEL_PHYS = 0x8000
"""Where it lies in physical memory."""
INIT_PGD = 0x6000
"""Physical address of the kernel's own PGD (init_mm); its user PGD is the next page."""
MEMORY_INFO = 0x1000
"""Physical address of the page allocator's MemoryInfo."""
KERNEL_DATA = 0x2000
"""Physical address of KernelData: variables that every Linux has somewhere in its .data, whatever the image."""
SYSCALL_COUNTS = 0x3000
"""Physical address of SyscallCounts."""
IRQ_TABLE = 0x4000
"""Physical address of IrqTable."""
PTI_USER_PGTABLE = 1 << 12
"""The user PGD of a process is the page after its kernel PGD: CR3 bit 12 (page-table isolation)."""
THREAD_SIZE = 16384
"""A task stack."""
IRQ_STACK_SIZE = 16384
EXCEPTION_STACK_SIZE = 8192
MAX_CPUS = 8


def page_align(value: int) -> int:
    """Up to a multiple of the page size."""
    return -(-value // PAGE_SIZE) * PAGE_SIZE
