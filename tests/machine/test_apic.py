"""The local APIC as a device: registers, LVT, timer modes, IPIs (SDM volume 3A, chapter 10)."""

import pytest
from bare import xapic
from hypothesis import given
from hypothesis import strategies as st

from emu.machine import apic as regs
from emu.machine.apic import ApicRegisterError, Delivery, EndOfInterrupt, Ipi, LocalApic, Shorthand
from emu.machine.registers import RAX, RBX
from emu.machine.stop import StopKind


def test_the_highest_vector_is_delivered_and_eoi_ends_the_highest_in_service():
    apic = LocalApic(0)
    for vector in (0x31, 0x80, 0x45):
        apic.request(vector)
    assert [apic.acknowledge(), apic.eoi(), apic.acknowledge(), apic.eoi(), apic.acknowledge()] == [
        0x80, None, 0x45, None, 0x31,
    ]  # fmt: skip


@given(st.lists(st.integers(16, 255), max_size=20), st.integers(0, 255))
def test_nothing_of_the_processor_priority_class_or_below_is_delivered(vectors, tpr):
    apic = LocalApic(0, tpr=tpr)
    for vector in vectors:
        apic.request(vector)
    taken = apic.deliverable()
    assert taken == max((v for v in vectors if v >> 4 > tpr >> 4), default=None)


def test_spurious_when_the_interrupt_went_away_before_acknowledge():
    apic = LocalApic(0)
    apic.request(0x50)
    apic.tpr = 0xF0
    assert apic.acknowledge() == 0xFF
    assert apic.isr == 0


def test_level_triggered_eoi_goes_to_the_bus_and_edge_does_not():
    apic = LocalApic(0)
    apic.request(0x50, level=True)
    apic.request(0x60)
    apic.acknowledge(), apic.eoi(), apic.acknowledge(), apic.eoi()
    assert apic.outbox == [EndOfInterrupt(0x50)]


def test_periodic_timer_and_current_count():
    apic = LocalApic(0)
    apic.write(regs.DIVIDE, 0x3, 0)  # by 16
    apic.write(regs.LVT_TIMER, regs.PERIODIC | 0x60, 0)
    apic.write(regs.INITIAL_COUNT, 10, 100)
    assert apic.deadline == 260
    assert apic.read(regs.CURRENT_COUNT, 180) == 5
    apic.tick(260)
    assert (apic.irr, apic.deadline) == (1 << 0x60, 420)


def test_one_shot_timer_fires_once_and_masked_not_at_all():
    for masked in (0, regs.MASKED):
        apic = LocalApic(0)
        apic.write(regs.LVT_TIMER, 0x60 | masked, 0)
        apic.write(regs.INITIAL_COUNT, 10, 0)
        apic.tick(100)
        assert apic.deadline is None
        assert bool(apic.irr) is not bool(masked)


def test_tsc_deadline_mode_ignores_the_counter_and_fires_at_its_time():
    apic = LocalApic(0)
    apic.write(regs.LVT_TIMER, regs.TSC_DEADLINE | 0x60, 0)
    apic.write(regs.INITIAL_COUNT, 10, 0)
    assert apic.deadline is None
    apic.set_tsc_deadline(500)
    apic.tick(499)
    assert not apic.irr
    apic.tick(500)
    assert apic.irr == 1 << 0x60
    apic.set_tsc_deadline(900)
    apic.write(regs.LVT_TIMER, 0x60, 600)  # a change of mode disarms
    assert apic.deadline is None


@pytest.mark.parametrize("register", [regs.LVT_THERMAL, regs.LVT_PERFORMANCE, regs.LVT_LINT0, regs.LVT_LINT1])
def test_local_sources_deliver_fixed_or_nmi_unless_masked(register):
    apic = LocalApic(0)
    apic.local_event(register)
    assert (apic.irr, apic.nmi_requests) == (0, 0)
    apic.write(register, 0x70, 0)
    apic.local_event(register)
    assert apic.irr == 1 << 0x70
    apic.write(register, 4 << 8, 0)
    apic.local_event(register)
    assert apic.nmi_requests == 1


def test_performance_counter_interrupt_masks_its_own_entry():
    apic = LocalApic(0)
    apic.write(regs.LVT_PERFORMANCE, 0x70, 0)
    apic.local_event(regs.LVT_PERFORMANCE)
    assert apic.read(regs.LVT_PERFORMANCE, 0) & regs.MASKED


def test_disabling_the_apic_masks_its_entries_and_delivers_nothing():
    apic = LocalApic(0)
    apic.write(regs.LVT_TIMER, 0x60, 0)
    apic.request(0x70)
    apic.write(regs.SPURIOUS, 0xFF, 0)
    assert apic.deliverable() is None
    assert apic.read(regs.LVT_TIMER, 0) & regs.MASKED
    apic.write(regs.LVT_TIMER, 0x60, 0)
    assert apic.read(regs.LVT_TIMER, 0) & regs.MASKED


def test_errors_are_latched_by_a_write_and_raise_the_error_entry():
    apic = LocalApic(0)
    apic.write(regs.LVT_ERROR, 0xFE, 0)
    apic.request(5)
    assert apic.irr == 1 << 0xFE
    assert apic.read(regs.ESR, 0) == 0
    apic.write(regs.ESR, 0, 0)
    assert apic.read(regs.ESR, 0) == regs.ESR_RECEIVE_ILLEGAL
    apic.write(regs.ICR_LOW, 3, 0)
    apic.write(regs.ESR, 0, 0)
    assert apic.read(regs.ESR, 0) == regs.ESR_SEND_ILLEGAL
    assert apic.outbox == []


@pytest.mark.parametrize(
    ("icr", "expected"),
    [
        (0x40050, Ipi(Delivery.FIXED, 0x50, Shorthand.SELF, False, 2, False)),
        (0x04450, Ipi(Delivery.NMI, 0x50, Shorthand.NONE, False, 2, True)),
        (0xC4500, Ipi(Delivery.INIT, 0, Shorthand.OTHERS, False, 2, True)),
        (0x00698, Ipi(Delivery.STARTUP, 0x98, Shorthand.NONE, False, 2, False)),
        (0x00950, Ipi(Delivery.LOWEST, 0x50, Shorthand.NONE, True, 2, False)),
    ],
)
def test_icr_sends_every_delivery_mode_and_shorthand(icr, expected):
    for x2 in (False, True):
        apic = LocalApic(0, x2apic=x2)
        if x2:
            apic.write(regs.ICR_LOW, 2 << 32 | icr, 0)
        else:
            apic.write(regs.ICR_HIGH, 2 << 24, 0)
            apic.write(regs.ICR_LOW, icr, 0)
        assert apic.outbox == [expected]


def test_logical_destinations_flat_cluster_and_x2apic():
    apic = LocalApic(3, logical_id=0x04 << 24)
    assert apic.accepts(0x06, logical=True)
    assert not apic.accepts(0x02, logical=True)
    apic.destination_format = 0x0FFF_FFFF
    apic.logical_id = 0x24 << 24  # cluster 2, member bit 2
    assert apic.accepts(0x2C, logical=True)
    assert not apic.accepts(0x14, logical=True)
    assert apic.accepts(0xFF, logical=False)
    x2 = LocalApic(0x13, x2apic=True)
    assert x2.read(regs.LDR, 0) == 1 << 16 | 1 << 3
    assert x2.accepts(1 << 16 | 0xC, logical=True)
    assert not x2.accepts(2 << 16 | 0xC, logical=True)


@pytest.mark.parametrize("offset", [0x00, 0x40, 0x90, 0x2A0, 0x3A0, 0x3FF])
def test_registers_that_are_not_there(offset):
    apic = LocalApic(0)
    with pytest.raises(ApicRegisterError):
        apic.read(offset, 0)
    with pytest.raises(ApicRegisterError):
        apic.write(offset, 0, 0)
    apic.write(regs.ESR, 0, 0)
    assert apic.read(regs.ESR, 0) == regs.ESR_ILLEGAL_REGISTER


def test_the_apic_page_is_read_and_written_by_the_guest():
    it = xapic("movl $0x20, 0x80(%rdx)\n movl 0x80(%rdx), %eax\n movl 0x30(%rdx), %ebx\n hlt")
    it.run()
    assert it.core.apic.tpr == 0x20
    assert it.core.cpu.register(RAX) == 0x20
    assert it.core.cpu.register(RBX) == 0x60015
    assert it.core.clock == 5


def test_a_self_ipi_through_the_page_arrives_when_interrupts_are_on():
    it = xapic("movl $0x40066, 0x300(%rdx)\n nop\n sti\n nop\n nop\n hlt")
    it.run()
    assert it.entered() == 0x66


def test_timer_programmed_through_the_page_counts_instructions_exactly():
    it = xapic(
        "movl $0x60, 0x320(%rdx)\n movl $0xb, 0x3e0(%rdx)\n movl $50, 0x380(%rdx)\n"
        "movl 0x390(%rdx), %eax\n sti\n1: jmp 1b"
    )
    it.run()
    assert it.entered() == 0x60
    assert it.core.cpu.register(RAX) == 50  # read by the very next instruction
    assert it.core.clock == 4 + 50 + 1


def test_a_device_write_is_one_retired_instruction():
    it = xapic("nop\n movl $0, 0xb0(%rdx)\n nop\n hlt")
    stop = it.core.cpu.run(10)
    assert (stop.kind, stop.retired) == (StopKind.MMIO, 3)
