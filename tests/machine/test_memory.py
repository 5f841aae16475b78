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
