"""The page allocator and the kernel's page tables."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.arch import PAGE_SIZE
from emu.machine.memory import Memory
from emu.machine.paging import Pte
from kernel_stubs import mm
from kernel_stubs.abi import INIT_PGD, VMALLOC_START
from kernel_stubs.errno import OutOfMemoryError

FIRST = 0x20_0000


def memory(frames: int = 256) -> Memory:
    ram = Memory(FIRST + frames * PAGE_SIZE)
    mm.init_memory(ram, FIRST)
    return ram


def mapped(ram: Memory, frame: int) -> bool:
    return bool(mm.kernel_tables(ram).entry(INIT_PGD, mm.direct_map(frame)) & Pte.P)


@given(st.lists(st.one_of(st.just("alloc"), st.just("pages"), st.integers(0, 99)), max_size=80))
@settings(deadline=None, max_examples=40)
def test_frames_are_distinct_zeroed_and_mapped_exactly_while_allocated(steps):
    ram = memory(96)
    owned: list[int] = []
    freed: set[int] = set()
    for step in steps:
        if isinstance(step, int):
            if owned:
                frame = owned.pop(step % len(owned))
                mm.free_page(ram, frame)
                freed.add(frame)
            continue
        count = 1 if step == "alloc" else 3
        try:
            first = mm.alloc_page(ram) if count == 1 else mm.alloc_pages(ram, count)
        except OutOfMemoryError:
            continue
        for frame in range(first, first + count * PAGE_SIZE, PAGE_SIZE):
            assert frame not in owned
            assert FIRST <= frame < ram.size
            assert ram.read(frame, PAGE_SIZE) == bytes(PAGE_SIZE)
            ram.write(frame, b"\xaa" * PAGE_SIZE)
            owned.append(frame)
            freed.discard(frame)
    assert all(mapped(ram, frame) for frame in owned)
    assert not any(mapped(ram, frame) for frame in freed)


def test_out_of_memory_leaves_everything_as_it_was():
    ram = memory(40)
    owned = []
    with suppress(OutOfMemoryError):
        while True:
            owned.append(mm.alloc_page(ram))
    before = mm.memory_info(ram).allocated
    with pytest.raises(OutOfMemoryError):
        mm.alloc_pages(ram, 2)
    assert mm.memory_info(ram).allocated == before
    mm.free_page(ram, owned[0])
    assert mm.alloc_page(ram) == owned[0]


def test_freeing_twice_is_noticed():
    ram = memory()
    frame = mm.alloc_page(ram)
    mm.free_page(ram, frame)
    with pytest.raises(AssertionError, match="freed twice"):
        mm.free_page(ram, frame)


def test_vmalloc_has_guard_pages():
    ram = memory()
    first, second = mm.vmalloc(ram, 4), mm.vmalloc(ram, 4)
    tables = mm.kernel_tables(ram)
    assert first >= VMALLOC_START + PAGE_SIZE
    for address in (first - PAGE_SIZE, first + 4 * PAGE_SIZE, second - PAGE_SIZE, second + 4 * PAGE_SIZE):
        assert not tables.entry(INIT_PGD, address) & Pte.P
    frames = [mm.frame_of(tables.entry(INIT_PGD, first + n * PAGE_SIZE)) for n in range(4)]
    assert frames == [frames[0] + n * PAGE_SIZE for n in range(4)]


def test_alignment_does_not_lose_frames():
    ram = memory()
    mm.alloc_pages(ram, 2, align=2 * PAGE_SIZE)
    info = mm.memory_info(ram)
    free, at = 0, info.free_list
    while at:
        free, at = free + 1, ram.read_u64(at)
    assert info.allocated + free == (info.next_frame - FIRST) // PAGE_SIZE


@given(st.integers(0, 3), st.integers(0, 3))
@settings(deadline=None, max_examples=16)
def test_frames_that_were_fresh_are_given_back_without_a_trace(freed, taken):
    ram = memory(64)
    for frame in [mm.take_frame(ram) for _ in range(freed)]:
        mm.release_frame(ram, frame)
    before, fresh = bytes(ram.ram), mm.memory_info(ram).next_frame
    frames = [mm.take_frame(ram) for _ in range(taken)]
    for frame in [*reversed(frames[:freed]), *frames[freed:]]:
        ram.write(frame, b"\xaa" * PAGE_SIZE)
        mm.release_frame(ram, frame)
    mm.give_back_fresh(ram, fresh)
    assert bytes(ram.ram) == before
