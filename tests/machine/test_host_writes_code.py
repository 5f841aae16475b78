"""Code that the host writes is what the guest runs next, whatever was translated before."""

import pytest
from bare import bare
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.machine import cpu
from emu.machine.registers import RAX

PRESENT_WRITABLE = 3
ONE, OTHER = 0x60_1000, 0x60_2000
"""Frames."""
AT_OTHERS_NUMBER, ELSEWHERE = OTHER, 0x1000
"""Linear addresses: of ONE, the number of the frame OTHER; of OTHER."""


def setting(value):
    """movl $value, %eax; hlt"""
    return b"\xb8" + value.to_bytes(4, "little") + b"\xf4"


def two_frames():
    it = bare("nop")
    memory = it.machine.memory
    it.put64(0x3000, 0x70_0003)
    it.put64(0x3000 + 8 * 3, 0x70_1003)
    it.put64(0x70_0000 + 8 * (ELSEWHERE >> 12), OTHER | PRESENT_WRITABLE)
    it.put64(0x70_1000 + 8 * (AT_OTHERS_NUMBER >> 12 & 0x1FF), ONE | PRESENT_WRITABLE)
    memory.write(ONE, setting(1))
    memory.write(OTHER, setting(2))
    for frame in (ONE, OTHER):
        memory.note_code(frame >> 12)
    it.core.cpu.flush_tlb()
    return it


@pytest.fixture
def two():
    return two_frames()


def value_at(it, address):
    it.core.halted = False
    it.core.cpu.ip = address
    it.run(2)
    return it.core.cpu.register(RAX)


def test_a_frame_is_found_though_its_number_is_a_linear_address_of_another(two):
    assert (value_at(two, AT_OTHERS_NUMBER), value_at(two, ELSEWHERE)) == (1, 2)
    two.machine.memory.write(OTHER, setting(3))
    assert value_at(two, ELSEWHERE) == 3


def test_the_way_to_find_a_frame_leaves_no_translation_of_addresses_behind(two):
    assert (value_at(two, AT_OTHERS_NUMBER), value_at(two, ELSEWHERE)) == (1, 2)
    two.machine.memory.write(OTHER, setting(3))
    assert value_at(two, AT_OTHERS_NUMBER) == 1


def test_code_that_spans_two_frames_is_dropped_with_either(two):
    memory, start = two.machine.memory, ELSEWHERE + 0xFFD
    two.put64(0x70_0000 + 8 * (ELSEWHERE + 0x1000 >> 12), OTHER + 0x1000 | PRESENT_WRITABLE)
    memory.note_code(OTHER + 0x1000 >> 12)
    memory.write(OTHER + 0xFFD, setting(0x01020304))
    two.core.cpu.flush_tlb()
    assert value_at(two, start) == 0x01020304
    memory.write(OTHER + 0x1000, b"\x05")
    assert value_at(two, start) == 0x01050304
    memory.write(OTHER + 0xFFE, b"\x06")
    assert value_at(two, start) == 0x01050306


def test_two_writes_before_the_next_run_count_both(two):
    assert (value_at(two, AT_OTHERS_NUMBER), value_at(two, ELSEWHERE)) == (1, 2)
    two.machine.memory.write(ONE, setting(3))
    two.machine.memory.write(OTHER, setting(4))
    assert (value_at(two, AT_OTHERS_NUMBER), value_at(two, ELSEWHERE)) == (3, 4)


def test_after_many_writes_all_translations_are_dropped_at_once(two, monkeypatch):
    """Those that are dropped one by one keep their place in the engine's buffer."""
    monkeypatch.setattr(cpu, "_MOST_FORGOTTEN", 4)
    dropped = []
    flush = two.core.cpu.flush_code
    monkeypatch.setattr(two.core.cpu, "flush_code", lambda: (dropped.append(number), flush()))
    for number in range(12):
        two.machine.memory.write(OTHER, setting(number))
        assert value_at(two, ELSEWHERE) == number
        assert value_at(two, AT_OTHERS_NUMBER) == 1
    assert dropped == [4, 9]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from((ONE, OTHER)), st.integers(0, 3)),
        st.tuples(st.just("run"), st.sampled_from((AT_OTHERS_NUMBER, ELSEWHERE)), st.just(0)),
        st.tuples(st.just("save"), st.just(0), st.just(0)),
        st.tuples(st.just("restore"), st.just(0), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=60)
@given(steps)
def test_writes_runs_and_restores_in_any_order(todo):
    it = two_frames()
    now = {AT_OTHERS_NUMBER: 1, ELSEWHERE: 2}
    saved = it.machine.snapshot(), dict(now)
    for what, where, value in todo:
        match what:
            case "write":
                it.machine.memory.write(where, setting(value))
                now[AT_OTHERS_NUMBER if where == ONE else ELSEWHERE] = value
            case "run":
                assert value_at(it, where) == now[where]
            case "save":
                saved = it.machine.snapshot(), dict(now)
            case "restore":
                it.machine.restore(saved[0])
                now = dict(saved[1])
