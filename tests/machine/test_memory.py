"""Physical memory and its snapshots."""

import pytest
from bare import bare
from hypothesis import given
from hypothesis import strategies as st

from emu.machine.memory import Memory, PhysicalAddressError
from emu.machine.registers import RAX

SIZE = 64 * 4096
writes = st.lists(st.tuples(st.integers(0, SIZE - 64), st.binary(min_size=1, max_size=64)), max_size=20)


@given(writes, writes)
def test_restore_undoes_every_write_since_the_snapshot(before, after):
    memory = Memory(SIZE)
    for address, data in before:
        memory.write(address, data)
    saved, image = memory.snapshot(), bytes(memory.ram)
    for address, data in after:
        memory.write(address, data)
    memory.restore(saved)
    assert bytes(memory.ram) == image


@given(writes)
def test_a_snapshot_of_memory_that_nobody_has_written_is_the_last_one_again(before):
    memory = Memory(SIZE)
    for address, data in before:
        memory.write(address, data)
    saved = memory.snapshot()
    assert memory.snapshot() is saved
    memory.write(SIZE - 1, bytes((memory.ram[SIZE - 1] ^ 1,)))
    changed = memory.snapshot()
    assert changed is not saved
    assert changed.data == bytes(memory.ram[: memory.used])
    memory.restore(saved)
    assert memory.snapshot() is saved


@given(writes, writes, st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(sorted).map(tuple)))
def test_restore_of_some_places_changes_no_others(before, after, places):
    memory = Memory(SIZE)
    memory.write(SIZE - 1, b"\1")
    for address, data in before:
        memory.write(address, data)
    saved = memory.snapshot()
    for address, data in after:
        memory.write(address, data)
    expected = bytearray(memory.ram)
    for low, high in places:
        expected[low:high] = saved.data[low:high]
    memory.restore(saved, tuple(places))
    assert bytes(memory.ram) == bytes(expected)


def test_restore_of_a_place_that_holds_code_restores_all_and_drops_translations():
    memory = Memory(SIZE)
    memory.write(SIZE - 1, b"\1")
    memory.restore(memory.snapshot(), ((0x2FFF, 0x3000),))
    memory.note_code(2)
    saved, generation = memory.snapshot(), memory.code_generation
    memory.write(0x2000, b"\xc3")
    memory.write(0x5000, b"\1")
    memory.restore(saved, ((0x2FFF, 0x3000),))
    assert bytes(memory.ram[: memory.used]) == saved.data
    assert memory.code_generation == generation + 2  # the write, and the restore


def test_outside_ram_is_an_error_of_the_bus():
    memory = Memory(SIZE)
    with pytest.raises(PhysicalAddressError):
        memory.read_u64(SIZE - 4)
    with pytest.raises(PhysicalAddressError):
        memory.write(SIZE, b"x")


def test_code_that_the_host_replaces_is_what_the_guest_runs_next():
    it = bare("movl $1, %eax\n hlt")
    it.machine.memory.note_code(0x100)
    saved = it.machine.snapshot()
    it.run()
    assert it.core.cpu.register(RAX) == 1
    it.machine.restore(saved)
    it.machine.memory.write(0x100001, b"\x02")
    it.run()
    assert it.core.cpu.register(RAX) == 2
    it.machine.restore(saved)
    it.run()
    assert it.core.cpu.register(RAX) == 1
