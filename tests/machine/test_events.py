"""Pending events: NMI blocking, priorities, shadows, the local APIC at the CPU's door (SDM 6.7, 6.8, 6.9)."""

import pytest
from bare import HANDLERS, KERNEL, USER, bare

from emu.arch import Rflags, Vector
from emu.events import Delivered, Pended
from emu.machine.apic import LVT_TIMER
from emu.machine.end import EndKind

IF = int(Rflags.IF)
IRETQ = b"\x48\xcf"


def returning(it, *vectors):
    """Make these vectors' handlers one IRETQ each."""
    for vector in vectors:
        it.machine.memory.write(HANDLERS - KERNEL + 16 * vector, IRETQ)
    it.core.add_special({HANDLERS + 16 * vector: "iretq" for vector in vectors})


def vectors(it):
    return [e.vector for e in it.of(Delivered)]


def test_nmi_blocks_the_next_until_iretq():
    it = bare("nop\n nop\n nop\n hlt")
    it.run(1)
    it.core.raise_nmi()
    it.core.advance(it.core.clock + 0)
    assert vectors(it) == []
    it.machine.memory.write(HANDLERS - KERNEL + 32, b"\x90" * 3 + IRETQ)
    it.core.add_special({HANDLERS + 35: "iretq"})
    it.run(1)
    assert vectors(it) == [2]
    it.core.raise_nmi()
    it.core.raise_nmi()
    it.run(2)
    assert vectors(it) == [2]
    assert len(it.of(Pended)) == 2
    it.run(50)
    assert vectors(it) == [2, 2]  # one remembered, one merged into it
    assert it.core.halted


def test_iretq_that_faults_unblocks_nmis_all_the_same():
    it = bare("nop")
    it.machine.memory.write(HANDLERS - KERNEL + 32, b"\x6a\x00\x6a\x00" + IRETQ)  # push 0; push 0; IRETQ: CS is 0... GP
    it.core.add_special({HANDLERS + 36: "iretq"})
    it.core.raise_nmi()
    it.run()
    assert vectors(it)[:2] == [2, Vector.GP]
    assert not it.core.nmi_blocked


def test_maskable_interrupt_waits_for_if():
    it = bare("nop\n sti\n nop\n nop\n hlt")
    it.core.raise_interrupt(0x40)
    it.run()
    event = it.of(Delivered)[0]
    assert (event.vector, event.clock) == (0x40, 3)  # after the instruction behind STI
    assert it.of(Pended)[0].why == "IF is clear"


def test_sti_shadow_lasts_one_instruction_also_when_the_interrupt_comes_inside_it():
    it = bare("sti\n nop\n nop\n hlt")
    it.run(1)
    it.core.raise_interrupt(0x40)
    it.run()
    assert it.of(Delivered)[0].clock == 2


def test_mov_ss_shadow_holds_an_nmi_off():
    it = bare("movl $0x18, %eax\n movl %eax, %ss\n nop\n nop\n hlt")
    it.run(2)
    it.core.raise_nmi()
    it.run()
    assert it.of(Delivered)[0].clock == 3


def test_machine_check_comes_before_nmi_before_interrupt():
    it = bare("nop\n hlt", flags=2 | IF)
    returning(it, 2, 0x40, 18)
    it.core.raise_interrupt(0x40)
    it.core.raise_nmi()
    it.core.raise_machine_check()
    it.run()
    # Delivered one on top of the other: the last one delivered runs first.
    assert vectors(it)[:2] == [Vector.MC, Vector.NMI]
    assert 0x40 in vectors(it)


def test_interrupt_wakes_a_halted_cpu_and_returns_behind_hlt():
    it = bare("sti\n hlt\n nop\n nop")
    it.core.apic.start_timer(0, 0x50, 100, periodic=False)
    it.core.apic.divide_configuration = 0xB
    it.run(1000)
    event = it.of(Delivered)[0]
    assert event.vector == 0x50
    assert event.clock == 100
    assert event.frame.ip == it.code.instructions()[2].address


def test_halt_with_nothing_to_wake_it_is_a_result():
    it = bare("cli\n hlt")
    assert it.run().kind is EndKind.HALTED


def test_higher_priority_class_interrupts_lower_and_eoi_lets_the_rest_in():
    it = bare("nop\n nop\n hlt", flags=2 | IF)
    apic = it.core.apic
    apic.request(0x41)
    assert apic.acknowledge() == 0x41
    apic.request(0x42)
    assert apic.deliverable() is None  # same class
    apic.request(0x51)
    assert apic.acknowledge() == 0x51
    apic.eoi()
    assert apic.deliverable() is None
    apic.eoi()
    assert apic.deliverable() == 0x42


def test_tpr_masks_its_class_and_below():
    it = bare("nop")
    apic = it.core.apic
    apic.tpr = 0x50
    apic.request(0x5F)
    assert apic.deliverable() is None
    apic.request(0x60)
    assert apic.deliverable() == 0x60


def test_timer_fires_at_its_clock_and_periodic_again():
    it = bare("1: jmp 1b", flags=2 | IF)
    returning(it, 0x60)
    it.core.apic.start_timer(0, 0x60, 100, periodic=True)
    for _ in range(3):
        it.run(101)
        it.core.apic.eoi()
    assert [e.clock for e in it.of(Delivered)] == [100, 200, 300]


@pytest.mark.parametrize("vector", [0, 15])
def test_illegal_vectors_only_set_the_error_status(vector):
    it = bare("nop")
    it.core.apic.request(vector)
    assert it.core.apic.irr == 0
    assert it.core.apic.esr == 1 << 6


def test_snapshot_brings_back_pending_events_and_blocking():
    it = bare("nop\n nop\n hlt", user=True)
    it.core.raise_nmi()
    saved = it.machine.snapshot()
    it.run()
    assert vectors(it) == [2]
    it.machine.restore(saved)
    assert (it.core.clock, it.core.nmi_pending, it.core.cpu.ip) == (0, 1, USER)
    it.run()
    assert vectors(it) == [2, 2]


def test_a_thousand_restores_with_a_delivery_at_one_clock_are_not_a_cpu_that_is_stuck():
    it = bare("nop\n nop\n hlt", user=True)
    saved = it.machine.snapshot()
    for _ in range(1300):
        it.machine.restore(saved)
        it.core.raise_nmi()
        assert it.run(1).kind is EndKind.LIMIT


@pytest.mark.parametrize(("text", "vector"), [("ud2", 6), ("movq 0, %rax", 14), ("int3", 3), ("nop", 2)])
def test_who_stops_at_deliveries_sees_the_first_instruction_of_each_handler(text, vector):
    it = bare(f"{text}\n hlt")
    it.core.stops_at_delivery = True
    if vector == 2:
        it.core.raise_nmi()
    end = it.run()
    assert (end.kind, end.ip) == (EndKind.BREAKPOINT, HANDLERS + 16 * vector)
    assert not it.core.halted
    it.core.raise_interrupt(0x55)
    it.core.cpu.flags |= Rflags.IF
    end = it.run()
    assert (end.kind, end.ip) == (EndKind.BREAKPOINT, HANDLERS + 16 * 0x55)
    it.core.stops_at_delivery = False
    it.run()
    assert it.entered() == 0x55


def test_who_stops_at_deliveries_sees_a_handler_before_the_interrupt_that_waits_for_it():
    it = bare("nop\n nop\n hlt", flags=2 | IF | Rflags.TF)
    it.set_gate(Vector.DB, kind=0x8F)  # a trap gate leaves IF set
    it.core.apic.lvt[LVT_TIMER] = 0x55
    it.core.apic.deadline = 1
    it.core.stops_at_delivery = True
    ends = [it.run(), it.run()]
    assert [end.ip for end in ends] == [HANDLERS + 16, HANDLERS + 16 * 0x55]
