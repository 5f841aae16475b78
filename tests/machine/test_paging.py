"""The walker against the engine's own page walk, which nobody here wrote."""

import pytest
from bare import CODE, KERNEL, PML4, USER, bare
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.arch import Rflags
from emu.machine.memory import Memory
from emu.machine.paging import Access, PageFaultError, PageTables, PagingMode, Pte, mappings, walk
from emu.machine.profile import Profile
from emu.machine.stop import StopKind

TARGET = 0x0000_7000_0000_0000
FRAME = 0x30_0000
entry_bits = st.sets(st.sampled_from([Pte.P, Pte.RW, Pte.US, Pte.NX]))
mostly_present = entry_bits.map(lambda bits: sum(bits) | Pte.P) | entry_bits.map(sum)


def build(it, bits):
    it.put64(PML4 + (TARGET >> 39) * 8, 0xA000 | bits[0])
    it.put64(0xA000, 0xB000 | bits[1])
    it.put64(0xB000, 0xC000 | bits[2])
    it.put64(0xC000, FRAME | bits[3])
    it.machine.flush_tlb()


@given(
    st.tuples(*[mostly_present] * 4),
    st.sampled_from(["movq (%rbx), %rax", "movq %rax, (%rbx)", "jmp *%rbx"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_walk_agrees_with_the_engine_on_every_permission(bits, what, user, smap, smep, ac):
    profile = Profile(smap=smap, smep=smep)
    it = bare(what, user=user, profile=profile)
    build(it, bits)
    it.machine.memory.write(FRAME, b"\x90" * 16)
    cpu = it.core.cpu
    cpu.set_register(3, TARGET)
    cpu.flags = 2 | (int(Rflags.AC) if ac else 0)
    fetch = what.startswith("jmp")
    access = Access(write=what.endswith(")"), user=user, fetch=fetch)
    try:
        assert walk(it.machine.memory, PML4, TARGET + 0xFF5, access, it.core.linear.mode()).physical == FRAME + 0xFF5
        expected = None
    except PageFaultError as fault:
        expected = fault.code
    stop = cpu.run(2 if fetch else 1)
    found = stop.error_code if stop.kind is StopKind.FAULT and cpu.cr2 == TARGET else None
    assert found == expected


@pytest.mark.parametrize("level", range(4))
def test_reserved_bits_fault_with_rsvd_like_in_the_engine(level):
    bits = [int(Pte.P | Pte.RW | Pte.US)] * 4
    bits[level] |= 1 << 45
    it = bare("movq (%rbx), %rax")
    build(it, bits)
    it.core.cpu.set_register(3, TARGET)
    stop = it.core.cpu.run(1)
    with pytest.raises(PageFaultError) as fault:
        walk(it.machine.memory, PML4, TARGET, Access(), PagingMode())
    assert fault.value.code == 9
    assert (stop.kind, stop.error_code) == (StopKind.FAULT, 9)


PRESENT = int(Pte.P | Pte.RW)
LARGE = {1: 0x20_0000, 2: 0, 3: 0}
"""Level -> frame of a large page there: 2 MiB, 1 GiB, and what does not exist."""


@pytest.mark.parametrize(
    ("level", "bit", "physical"),
    [(1, 0, FRAME), (1, 12, FRAME), (1, 13, None), (1, 20, None), (1, 22, 0x70_0000), (1, 45, None),
     (2, 0, FRAME), (2, 12, FRAME), (2, 13, None), (2, 29, None), (2, 45, None), (3, 0, None)],
)  # fmt: skip
def test_a_large_page_is_what_the_engine_takes_it_for(level, bit, physical):
    """Bit 12 is PAT; the address bits below the page's size are reserved (SDM volume 3A, tables 4-16 and 4-18)."""
    it = bare("movq (%rbx), %rax")
    build(it, [PRESENT] * 4)
    tables = {3: PML4 + (TARGET >> 39) * 8, 2: 0xA000, 1: 0xB000}
    it.put64(tables[level], LARGE[level] | PRESENT | int(Pte.PS) | 1 << bit)
    if physical is not None:
        it.put64(physical, 0x1234)
    address = TARGET + FRAME - LARGE[level]
    it.core.cpu.set_register(3, address)
    stop = it.core.cpu.run(1)
    if physical is None:
        assert (stop.kind, stop.error_code) == (StopKind.FAULT, 9)
        with pytest.raises(PageFaultError) as fault:
            walk(it.machine.memory, PML4, address, Access(), PagingMode())
        assert fault.value.code == 9
    else:
        assert it.core.cpu.register(0) == 0x1234
        assert walk(it.machine.memory, PML4, address, Access(), PagingMode()).physical == physical


def test_non_canonical_is_told_apart_from_not_present():
    it = bare("nop")
    with pytest.raises(PageFaultError) as fault:
        walk(it.machine.memory, PML4, 0x8000_0000_0000_0000, Access(), PagingMode())
    assert not fault.value.canonical


def test_implicit_supervisor_access_ignores_ac():
    it = bare("nop")
    mode = PagingMode(smap=True, ac=True)
    assert walk(it.machine.memory, PML4, USER, Access(), mode).physical == USER
    with pytest.raises(PageFaultError):
        walk(it.machine.memory, PML4, USER, Access(implicit=True), mode)


@given(st.dictionaries(st.integers(0, 2**36 - 1), st.integers(0x100, 0x1FF), max_size=20))
@settings(max_examples=40, deadline=None)
def test_tables_give_back_what_was_mapped_and_nothing_else(pages):
    memory = Memory(4 << 20)
    frames = iter(range(0x20_0000, 0x40_0000, 0x1000))
    tables = PageTables(memory, lambda: next(frames))
    canonical = {(page << 12) | (0xFFFF << 48 if page >> 35 else 0): frame << 12 for page, frame in pages.items()}
    for address, frame in canonical.items():
        tables.map(0x1000, address, frame, Pte.RW | Pte.NX)
    found = [(address, entry & 0x000F_FFFF_FFFF_F000, size) for address, entry, size in mappings(memory, 0x1000)]
    assert found == [(address, canonical[address], 0x1000) for address in sorted(canonical)]
    for address in canonical:
        assert tables.unmap(0x1000, address) == canonical[address]
    assert not list(mappings(memory, 0x1000))


def test_kernel_code_of_the_bare_machine_is_where_it_should_be():
    it = bare("nop")
    assert walk(it.machine.memory, PML4, CODE, Access(fetch=True), PagingMode()).physical == CODE - KERNEL
