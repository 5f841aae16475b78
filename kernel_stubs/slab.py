"""Small kernel objects (mm/slub.c): all of one size, cut out of pages that never go back to the page allocator."""

from __future__ import annotations

from emu.arch import PAGE_SIZE
from emu.machine.memory import Memory
from kernel_stubs import mm

OBJECT_SIZE = 128


def alloc_object(memory: Memory) -> int:
    """A zeroed object: its linear address."""
    data = mm.kernel_data(memory)
    if not data.free_objects:
        page = mm.alloc_page(memory)
        for at in range(page, page + PAGE_SIZE, OBJECT_SIZE):
            memory.write_u64(at, data.free_objects)
            data.free_objects = mm.direct_map(at)
    address = data.free_objects
    at = address - mm.direct_map(0)
    data.free_objects = memory.read_u64(at)
    memory.write(at, bytes(OBJECT_SIZE))
    return address


def free_object(memory: Memory, address: int) -> None:
    """Give an object back."""
    data = mm.kernel_data(memory)
    memory.write_u64(address - mm.direct_map(0), data.free_objects)
    data.free_objects = address
