"""The areas of an address space: find, map, unmap, protect (mm/mmap.c).

An mm is one page: MmStruct and behind it its VmAreas, sorted by address. Area is their frozen copy, to calculate with.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace

from emu.arch import PAGE_SIZE
from emu.machine.paging import ADDRESS_MASK, Pte
from kernel_stubs import mm as mm_frames
from kernel_stubs import pgtable
from kernel_stubs.abi import MAX_AREAS, MMAP_MIN_ADDR, TASK_SIZE_MAX, MmStruct, VmArea, VmFlags
from kernel_stubs.context import Kernel, KernelOops
from kernel_stubs.errno import Errno, OutOfMemoryError, SyscallError
from kernel_stubs.rlimit import Rlimit, limit_of_mm

STACK_GUARD_GAP = 256 * PAGE_SIZE
"""A stack does not grow nearer than this to what lies below it."""


@dataclass(frozen=True, slots=True)
class Area:
    """A VmArea's values."""

    start: int
    end: int
    flags: int
    file: int = 0
    file_offset: int = 0
    file_bytes: int = 0

    def slice(self, start: int, end: int) -> Area:
        """The part from `start` to `end`."""
        skip = start - self.start
        if not self.file:
            return replace(self, start=start, end=end)
        in_file = max(0, min(self.file_bytes - skip, end - start))
        return replace(self, start=start, end=end, file_offset=self.file_offset + skip, file_bytes=in_file)


def _table(kernel: Kernel, mm: MmStruct) -> ctypes.Array[VmArea]:
    base = ctypes.addressof(mm) + ctypes.sizeof(MmStruct)
    return (VmArea * MAX_AREAS).from_address(base)


def areas(kernel: Kernel, mm: MmStruct) -> list[Area]:
    """All areas, in order of address."""
    table = _table(kernel, mm)
    if mm.area_count > MAX_AREAS:
        raise KernelOops(f"kernel BUG: an mm with {mm.area_count} areas")
    return [
        Area(v.start, v.end, v.flags, v.file, v.file_offset, v.file_bytes)
        for v in (table[index] for index in range(mm.area_count))
    ]


def _store(kernel: Kernel, mm: MmStruct, new: list[Area]) -> None:
    """Replace all areas; neighbours that differ in nothing become one."""
    merged: list[Area] = []
    for area in sorted(new, key=lambda a: a.start):
        last = merged[-1] if merged else None
        if last and last.end == area.start and last.flags == area.flags and not last.file and not area.file:
            merged[-1] = replace(last, end=area.end)
        else:
            merged.append(area)
    if len(merged) > MAX_AREAS:
        raise SyscallError(Errno.ENOMEM)
    table = _table(kernel, mm)
    for index, area in enumerate(merged):
        view = table[index]
        view.start, view.end, view.flags = area.start, area.end, area.flags
        view.file, view.file_offset, view.file_bytes = area.file, area.file_offset, area.file_bytes
    mm.area_count = len(merged)


def find_vma(kernel: Kernel, mm: MmStruct, address: int) -> Area | None:
    """The first area that ends above `address`; it need not contain it."""
    return next((area for area in areas(kernel, mm) if address < area.end), None)


def overlaps(kernel: Kernel, mm: MmStruct, start: int, end: int) -> bool:
    """Whether anything is mapped between `start` and `end`."""
    return any(area.start < end and start < area.end for area in areas(kernel, mm))


def mapped_bytes(kernel: Kernel, mm: MmStruct, start: int = 0, end: int = TASK_SIZE_MAX) -> int:
    """mm->total_vm: how much is mapped, in all or between two addresses."""
    return sum(max(0, min(area.end, end) - max(area.start, start)) for area in areas(kernel, mm))


def data_bytes(kernel: Kernel, mm: MmStruct) -> int:
    """mm->data_vm: what the process alone can write, without its stacks."""
    return sum(area.end - area.start for area in areas(kernel, mm) if is_data(area.flags))


def is_data(flags: int) -> bool:
    """Whether an area with these flags counts for RLIMIT_DATA."""
    return flags & (VmFlags.WRITE | VmFlags.SHARED | VmFlags.GROWSDOWN) == VmFlags.WRITE


def _cut(old: list[Area], start: int, end: int) -> tuple[list[Area], list[Area]]:
    """(what lies outside `start`..`end`, what lies inside)."""
    outside: list[Area] = []
    inside: list[Area] = []
    for area in old:
        low, high = max(area.start, start), min(area.end, end)
        if low >= high:
            outside.append(area)
            continue
        inside.append(area.slice(low, high))
        if area.start < low:
            outside.append(area.slice(area.start, low))
        if high < area.end:
            outside.append(area.slice(high, area.end))
    return outside, inside


def map_area(kernel: Kernel, mm: MmStruct, area: Area) -> None:
    """Add an area; what was mapped there before goes (MAP_FIXED)."""
    outside, inside = _cut(areas(kernel, mm), area.start, area.end)
    _store(kernel, mm, [*outside, area])
    for old in inside:
        zap_range(kernel, mm, old.start, old.end)


def unmap_range(kernel: Kernel, mm: MmStruct, start: int, end: int) -> None:
    """Remove all areas, or their parts, between page-aligned addresses."""
    outside, inside = _cut(areas(kernel, mm), start, end)
    _store(kernel, mm, outside)
    for area in inside:
        zap_range(kernel, mm, area.start, area.end)


def protect_range(kernel: Kernel, mm: MmStruct, start: int, end: int, flags: int) -> None:
    """mprotect: new access rights between page-aligned addresses, up to the first gap, which is ENOMEM."""
    outside, inside = _cut(areas(kernel, mm), start, end)
    at = start
    changed: list[Area] = []
    for area in inside:
        if area.start != at:
            break
        changed.append(replace(area, flags=(area.flags & (VmFlags.GROWSDOWN | VmFlags.SHARED)) | flags))
        at = area.end
    _store(kernel, mm, [*outside, *changed, *inside[len(changed) :]])
    for page in present_pages(kernel, mm, start, at):
        frame = pgtable.get_pte(kernel.memory, mm.pgd, page) & ADDRESS_MASK
        area = next(a for a in changed if page < a.end)
        pgtable.set_pte(kernel.memory, mm.pgd, page, frame, page_bits(kernel, area.flags, frame))
    kernel.machine.flush_tlb()
    if at < end:
        raise SyscallError(Errno.ENOMEM)


def populate(kernel: Kernel, mm: MmStruct, start: int, flags: int, data: bytes) -> None:
    """Bring pages of an anonymous area in with this content, whatever the area's rights."""
    for offset in range(0, len(data), PAGE_SIZE):
        frame = mm_frames.alloc_page(kernel.memory)
        kernel.memory.write(frame, data[offset : offset + PAGE_SIZE])
        try:
            pgtable.set_pte(kernel.memory, mm.pgd, start + offset, frame, pgtable.pte_flags(flags))
        except OutOfMemoryError:
            mm_frames.free_page(kernel.memory, frame)
            raise


def present_pages(kernel: Kernel, mm: MmStruct, start: int, end: int) -> list[int]:
    """Addresses of the pages between two addresses that have a frame."""
    found = []
    at = start
    while at < end:
        if pgtable.has_frame(pgtable.get_pte(kernel.memory, mm.pgd, at)):
            found.append(at)
        at = pgtable.next_table_boundary(kernel.memory, mm.pgd, at)
    return found


def zap_range(kernel: Kernel, mm: MmStruct, start: int, end: int) -> None:
    """Give back the pages between two addresses; the areas stay."""
    for page in present_pages(kernel, mm, start, end):
        frame = pgtable.clear_pte(kernel.memory, mm.pgd, page)
        if frame is not None:
            mm_frames.put_page(kernel.memory, frame)
    kernel.machine.flush_tlb()


def page_bits(kernel: Kernel, flags: int, frame: int) -> int:
    """Leaf bits of a page of an area with these flags: not writable while others own the frame too (copy on write)."""
    bits = pgtable.pte_flags(flags)
    if bits & Pte.RW and not flags & VmFlags.SHARED and mm_frames.page_extra(kernel.memory, frame):
        bits &= ~int(Pte.RW)
    return bits


def get_unmapped_area(kernel: Kernel, mm: MmStruct, length: int) -> int:
    """Where a mapping of `length` bytes goes: as high as possible below mmap_base."""
    top = mm.mmap_base
    for area in reversed(areas(kernel, mm)):
        if area.start >= top:
            continue
        if area.end + length <= top:
            break
        top = min(top, area.start)
    if top - length < MMAP_MIN_ADDR:
        raise SyscallError(Errno.ENOMEM)
    return top - length


def expand_stack(kernel: Kernel, mm: MmStruct, address: int) -> Area | None:
    """Grow the stack area above `address` down to it; None if there is none, or it must not."""
    above = find_vma(kernel, mm, address)
    if above is None or not above.flags & VmFlags.GROWSDOWN or address >= TASK_SIZE_MAX:
        return None
    start = address & -PAGE_SIZE
    if above.end - start > limit_of_mm(kernel, mm, Rlimit.STACK) or start < MMAP_MIN_ADDR:
        return None
    if mapped_bytes(kernel, mm) + above.start - start > limit_of_mm(kernel, mm, Rlimit.AS):
        return None
    below = [area for area in areas(kernel, mm) if area.end <= address]
    if below and start - below[-1].end < STACK_GUARD_GAP and not below[-1].flags & VmFlags.GROWSDOWN:
        return None
    grown = replace(above, start=start)
    rest = [area for area in areas(kernel, mm) if area.start != above.start]
    _store(kernel, mm, [*rest, grown])
    return grown
