"""What is remembered of the descriptor tables is what a CPU would find there now."""

import pytest
from bare import GDT, HANDLERS, IDT, IST1, KERNEL, KERNEL_CS, KERNEL_DS, PML4, SP0, TSS, USER_CS, USER_DS, bare, gate
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.arch import Cr4, Vector
from emu.machine.delivery import _way_in
from emu.machine.descriptors import CpuFault
from emu.machine.lookups import Lookups
from emu.machine.returns import _segments

VECTORS = (Vector.UD, Vector.NMI, 0x80)
CALLS = (
    *((_way_in, (vector, ext, cpl)) for vector in VECTORS for ext in (0, 1) for cpl in (0, 3)),
    *(
        (_segments, (cs, ss, cpl))
        for cs, ss in ((KERNEL_CS, KERNEL_DS), (USER_CS, USER_DS), (0x23, 0))
        for cpl in (0, 3)
    ),
)
PLACES = (
    *(IDT + 16 * vector + half for vector in VECTORS for half in (0, 8)),
    *(GDT + 8 * n for n in range(1, 7)),
    TSS, TSS + 4, TSS + 32, TSS + 36, TSS + 40,
    PML4 + 8 * 511, 0x4000 + 8 * 510, 0x5000,
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from((0, 0x83, 0xA3, 0xE3, 0x4003, 0x5003, 0x5023, SP0, IST1, IST1 - 4096, 1 << 63)),
    st.integers(0, (1 << 64) - 1),
)


def outcome(lookups, call):
    look, what = call
    try:
        return [
            {name: getattr(one, name, None) for name in one.__slots__} if hasattr(one, "__slots__") else one
            for one in lookups.find(look, *what)
        ]
    except CpuFault as fault:
        return fault.vector, fault.error_code, fault.why, fault.cr2


def prepared():
    it = bare("nop")
    it.set_gate(Vector.NMI, ist=1)
    it.set_gate(0x80, kind=0xEE)
    return it, Lookups(it.core.cpu, it.machine.memory)


def assert_as_found_now(it, lookups):
    for call in CALLS:
        fresh = Lookups(it.core.cpu, it.machine.memory)
        assert outcome(lookups, call) == outcome(fresh, call)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES, st.integers(0, 64)), max_size=6))
def test_after_writes_to_tables_and_page_tables(writes):
    it, lookups = prepared()
    assert_as_found_now(it, lookups)
    for place, value, bit in writes:
        flipped = it.machine.memory.read_u64(place) ^ (1 << bit if bit < 64 else 0)
        it.put64(place, value if bit == 64 else flipped)
        assert_as_found_now(it, lookups)


@pytest.mark.parametrize("table", ["gdt", "ldt", "idt", "tr"])
@pytest.mark.parametrize(("field", "value"), [("limit", 15), ("base", 0x3_0000)])
def test_after_the_register_that_leads_to_a_table_has_changed(table, field, value):
    it, lookups = prepared()
    assert_as_found_now(it, lookups)
    setattr(getattr(it.core.cpu.state, table), field, value)
    assert_as_found_now(it, lookups)


def test_after_other_page_tables_are_loaded():
    it, lookups = prepared()
    assert_as_found_now(it, lookups)
    it.machine.memory.write(0x70_0000, it.machine.memory.read(PML4, 4096))
    it.put64(0x70_0000 + 8 * 511, 0)
    it.core.cpu.set_control(cr3=0x70_0000)
    assert outcome(lookups, CALLS[0])[0] == Vector.PF
    assert_as_found_now(it, lookups)


def test_after_smap_forbids_tables_in_user_pages():
    it, lookups = prepared()
    for entry in (PML4 + 8 * 511, 0x4000 + 8 * 510, 0x5000):
        it.put64(entry, it.machine.memory.read_u64(entry) | 4)
    it.core.cpu.set_control(cr4=it.core.cpu.cr4 & ~Cr4.SMAP)
    assert outcome(lookups, CALLS[0])[0] != Vector.PF
    it.core.cpu.set_control(cr4=it.core.cpu.cr4 | Cr4.SMAP)
    assert outcome(lookups, CALLS[0])[0] == Vector.PF
    assert_as_found_now(it, lookups)


@pytest.mark.parametrize("frame", [0x1000_0000, 0xFEE0_0000])
def test_a_tss_that_is_no_ram_reads_as_zero_each_time(frame):
    it = bare("int3")
    it.put64(0x5000, 0xA003)  # the kernel's 2 MiB by small pages, and the TSS through one of them
    it.put64(0xA000, *(page << 12 | 3 for page in range(512)))
    it.put64(0xA000 + 8 * 0x1F0, frame | 3)
    it.core.cpu.state.tr.base = KERNEL + 0x1F_0000
    it.core.cpu.flush_tlb()
    for _ in range(2):
        assert it.core.lookups.find(_way_in, Vector.UD, 1, 3)[3] == 0


def test_a_gate_goes_on_at_the_lowest_address_behind_the_highest():
    it = bare("int3")
    it.put64(0x3000, 0x83)  # linear 0 is physical 0
    it.put64(0x4000 + 8 * 511, 0xB003)
    it.put64(0xB000 + 8 * 511, 0x40_0083)  # the last 2 MiB are at 4 MiB
    there = gate(HANDLERS + 16 * Vector.BP)
    it.machine.memory.write(0x5F_FFF8, there[:8])
    it.machine.memory.write(0, there[8:])
    it.core.cpu.state.idt.base = (1 << 64) - 8 - 16 * Vector.BP
    it.core.cpu.mark_dirty()
    it.machine.flush_tlb()
    it.run(10)
    assert it.entered() == Vector.BP


def test_what_nothing_has_changed_is_not_looked_up_again():
    it, lookups = prepared()
    calls = []

    def look(memory, address):
        calls.append(address)
        return memory.read_u64(address), memory.read_u64(address + 8)

    base = it.core.cpu.state.gdt.base
    first = lookups.find(look, base)
    assert lookups.find(look, base) is first
    it.put64(GDT + 8, 5)
    assert (lookups.find(look, base)[1], calls) == (5, [base, base])
