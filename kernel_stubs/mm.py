"""Page frames and the kernel's own page tables.

The allocator's state is MemoryInfo, in guest memory. As with DEBUG_PAGEALLOC only allocated frames are in the direct
map, so that kernel code that goes astray faults. Page tables themselves are never mapped: only C code (that is, Python)
looks at them, by physical address.

These functions know physical memory only. Whoever changes an entry that was present calls `machine.flush_tlb()`.
"""

from __future__ import annotations

from emu.arch import PAGE_SIZE
from emu.machine.memory import Memory
from emu.machine.paging import ADDRESS_MASK, PageTables, Pte
from kernel_stubs.abi import (
    CPU_ENTRY_AREA_BASE,
    INIT_PGD,
    KERNEL_BASE,
    KERNEL_DATA,
    KERNEL_PHYS,
    MEMORY_INFO,
    PAGE_OFFSET,
    PTI_USER_PGTABLE,
    THREAD_SIZE,
    VMALLOC_START,
    KernelData,
    MemoryInfo,
    page_align,
)
from kernel_stubs.errno import OutOfMemoryError

PAGE_KERNEL_RO = int(Pte.P | Pte.A | Pte.D | Pte.NX)
PAGE_KERNEL = PAGE_KERNEL_RO | int(Pte.RW)
PAGE_KERNEL_RX = int(Pte.P | Pte.A | Pte.D)

KERNEL_HALF = 256
"""Index of the first PGD entry of the kernel's half."""
_SHARED_PGD_ENTRIES = tuple(
    address >> 39 & 0x1FF for address in (PAGE_OFFSET, VMALLOC_START, CPU_ENTRY_AREA_BASE, KERNEL_BASE)
)


def memory_info(memory: Memory) -> MemoryInfo:
    """The allocator's state."""
    return MemoryInfo.from_buffer(memory.ram, MEMORY_INFO)


def kernel_data(memory: Memory) -> KernelData:
    """Kernel-wide variables."""
    return KernelData.from_buffer(memory.ram, KERNEL_DATA)


def direct_map(physical: int) -> int:
    """__va(): linear address of an allocated frame."""
    return PAGE_OFFSET + physical


def init_memory(memory: Memory, first_free: int) -> None:
    """Frames from `first_free` up are free; the kernel's half of the first PGD gets its tables.

    Every process copies these PGD entries, so they must all exist before the first process does.
    """
    memory.reach(first_free)
    info = memory_info(memory)
    info.next_frame = -(-first_free // PAGE_SIZE) * PAGE_SIZE
    info.end = memory.size
    kernel_data(memory).vmalloc_next = VMALLOC_START
    info.mem_map = _take_fresh(memory, page_align(2 * (memory.size // PAGE_SIZE)) // PAGE_SIZE, PAGE_SIZE)
    for pgd in (INIT_PGD, INIT_PGD + PTI_USER_PGTABLE):
        for index in _SHARED_PGD_ENTRIES:
            memory.write_u64(pgd + 8 * index, take_frame(memory) | Pte.P | Pte.RW | Pte.US | Pte.A)


def image_physical(address: int) -> int:
    """Physical address of a linear one in the kernel image."""
    return address - KERNEL_BASE + KERNEL_PHYS


def frame_of(entry: int) -> int:
    """Physical address in a page-table entry."""
    return entry & ADDRESS_MASK


# --- frames -----------------------------------------------------------------------------------------------------------
def take_frame(memory: Memory) -> int:
    """A zeroed frame that is not in the direct map (for page tables): its physical address."""
    info = memory_info(memory)
    frame = info.free_list
    if frame:
        info.free_list = memory.read_u64(frame)
        memory.write_u64(frame, 0)
        info.allocated += 1
        return frame
    return _take_fresh(memory, 1, PAGE_SIZE)


def _take_fresh(memory: Memory, count: int, align: int) -> int:
    """Contiguous frames that were never in use (so they are zero)."""
    info = memory_info(memory)
    first = -(-info.next_frame // align) * align
    end = first + count * PAGE_SIZE
    if end > info.end:
        raise OutOfMemoryError
    for skipped in range(info.next_frame, first, PAGE_SIZE):
        memory.write_u64(skipped, info.free_list)
        info.free_list = skipped
    info.next_frame = end
    info.allocated += count
    memory.reach(end)
    return first


def release_frame(memory: Memory, frame: int) -> None:
    """Free what `take_frame` gave; nothing that was in it is left (as with init_on_free)."""
    info = memory_info(memory)
    memory.write(frame, bytes(PAGE_SIZE))
    memory.write_u64(frame, info.free_list)
    info.free_list = frame
    info.allocated -= 1


def give_back_fresh(memory: Memory, next_frame: int) -> None:
    """Undo `take_frame` and `release_frame` without a trace: what was taken fresh since `next_frame` was the next such
    frame, and lies at the head of the free list, is fresh again."""
    info = memory_info(memory)
    while next_frame <= info.free_list == info.next_frame - PAGE_SIZE:
        frame = info.free_list
        info.free_list = memory.read_u64(frame)
        memory.write_u64(frame, 0)
        info.next_frame = frame


def alloc_page(memory: Memory) -> int:
    """A zeroed frame in the direct map: its physical address."""
    frame = take_frame(memory)
    _map_direct(memory, frame, 1)
    return frame


def alloc_pages(memory: Memory, count: int, align: int = PAGE_SIZE) -> int:
    """Zeroed frames that lie side by side, for structures that span pages: the physical address of the first."""
    first = _take_fresh(memory, count, align)
    _map_direct(memory, first, count)
    return first


def _map_direct(memory: Memory, first: int, count: int) -> None:
    done = first
    try:
        for frame in range(first, first + count * PAGE_SIZE, PAGE_SIZE):
            map_kernel(memory, direct_map(frame), frame, PAGE_KERNEL)
            done = frame + PAGE_SIZE
    except OutOfMemoryError:  # no frame for a table
        for frame in range(first, first + count * PAGE_SIZE, PAGE_SIZE):
            if frame < done:
                free_page(memory, frame)
            else:
                release_frame(memory, frame)
        raise


def free_page(memory: Memory, frame: int) -> None:
    """Give a frame of `alloc_page` back. It leaves the direct map."""
    if kernel_tables(memory).unmap(INIT_PGD, direct_map(frame)) is None:
        raise AssertionError(f"frame {frame:#x} was freed twice")
    release_frame(memory, frame)


def page_extra(memory: Memory, frame: int) -> int:
    """How many owners a frame has beyond the first: more than 0 means copy before a write."""
    return memory.read_u16(memory_info(memory).mem_map + frame // PAGE_SIZE * 2)


def _set_extra(memory: Memory, frame: int, count: int) -> None:
    memory.write(memory_info(memory).mem_map + frame // PAGE_SIZE * 2, count.to_bytes(2, "little"))


def get_page(memory: Memory, frame: int) -> None:
    """One more owner."""
    _set_extra(memory, frame, page_extra(memory, frame) + 1)


def put_page(memory: Memory, frame: int) -> None:
    """An owner gives the frame up; the last one frees it."""
    extra = page_extra(memory, frame)
    if extra:
        _set_extra(memory, frame, extra - 1)
    else:
        free_page(memory, frame)


# --- the kernel's tables ----------------------------------------------------------------------------------------------
def kernel_tables(memory: Memory) -> PageTables:
    """The table builder, with frames of this allocator."""
    return PageTables(memory, lambda: take_frame(memory))


def map_kernel(memory: Memory, address: int, physical: int, flags: int) -> None:
    """Map a page in the kernel's half, for all processes."""
    kernel_tables(memory).map(INIT_PGD, address, physical, flags)


def map_user_visible(memory: Memory, address: int) -> None:
    """Show a page of the kernel's half in the user tables too (page-table isolation), as it is mapped."""
    tables = kernel_tables(memory)
    entry = tables.entry(INIT_PGD, address)
    if not entry & Pte.P:
        raise AssertionError(f"{address:#x} is not mapped")
    tables.map(INIT_PGD + PTI_USER_PGTABLE, address, entry & ADDRESS_MASK, entry & ~ADDRESS_MASK)


def protect_kernel(memory: Memory, address: int, flags: int) -> None:
    """Change the access rights of a mapped page of the kernel's half, in both sets of tables."""
    tables = kernel_tables(memory)
    for pgd in (INIT_PGD, INIT_PGD + PTI_USER_PGTABLE):
        entry = tables.entry(pgd, address)
        if entry & Pte.P:
            tables.set_entry(pgd, address, (entry & ADDRESS_MASK) | flags)


def vmalloc(memory: Memory, pages: int) -> int:
    """Contiguous frames at fresh addresses of the vmalloc area, with an unmapped guard page on both sides."""
    data = kernel_data(memory)
    address = data.vmalloc_next + PAGE_SIZE
    first = alloc_pages(memory, pages)
    for page in range(pages):
        map_kernel(memory, address + page * PAGE_SIZE, first + page * PAGE_SIZE, PAGE_KERNEL)
    data.vmalloc_next = address + pages * PAGE_SIZE
    return address


def alloc_stack(memory: Memory) -> int:
    """A task stack with guard pages: its lowest address. One that was given back is used again."""
    data = kernel_data(memory)
    stack = data.free_stacks
    if not stack:
        return vmalloc(memory, THREAD_SIZE // PAGE_SIZE)
    at = frame_of(kernel_tables(memory).entry(INIT_PGD, stack))
    data.free_stacks = memory.read_u64(at)
    memory.write(at, bytes(THREAD_SIZE))  # vmalloc's frames lie side by side
    return stack


def free_stack(memory: Memory, stack: int) -> None:
    """Give a task stack back; it stays mapped."""
    data = kernel_data(memory)
    at = frame_of(kernel_tables(memory).entry(INIT_PGD, stack))
    memory.write_u64(at, data.free_stacks)
    data.free_stacks = stack
