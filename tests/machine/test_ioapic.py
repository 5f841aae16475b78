"""The I/O APIC: lines to messages, by the 82093AA data sheet."""

import pytest
from bare import CODE, KERNEL, bare, prepare

from emu.events import Delivered
from emu.machine.apic import EOI, Delivery
from emu.machine.ioapic import ACTIVE_LOW, LEVEL, LINES, LOGICAL, MASKED, REMOTE_IRR, VERSION_VALUE
from emu.machine.profile import Profile
from emu.machine.schedule import Interleaving

VECTOR = 0x51
LINE = 5


def machine(entry=VECTOR, cpus=1):
    it = bare("1: jmp 1b", cpus=cpus)
    write(it, LINE, entry)
    return it


def write(it, line, entry):
    """Program a redirection entry as software does: the high half first."""
    for register, value in ((0x11 + 2 * line, entry >> 32), (0x10 + 2 * line, entry & 0xFFFF_FFFF)):
        it.machine.ioapic.write(it.core, 0xFEC0_0000, 4, register)
        it.machine.ioapic.write(it.core, 0xFEC0_0010, 4, value)


def read(it, register):
    it.machine.ioapic.write(it.core, 0xFEC0_0000, 4, register)
    return it.machine.ioapic.read(it.core, 0xFEC0_0010, 4)


def entry(it):
    return it.machine.ioapic.state.entries[LINE]


def pending(it, cpu=0):
    return it.machine.cores[cpu].apic.irr >> VECTOR & 1


def serve(it):
    """The local APIC takes the interrupt, and the handler ends it."""
    assert it.core.apic.acknowledge() == VECTOR
    it.core.write_apic(EOI, 0)


def pulse(it):
    it.machine.raise_line(LINE)
    it.machine.lower_line(LINE)


def test_an_edge_sends_once_however_long_the_line_stays_high():
    it = machine()
    it.machine.raise_line(LINE)
    serve(it)
    it.machine.raise_line(LINE)
    assert not pending(it)


def test_the_next_edge_sends_again():
    it = machine()
    pulse(it)
    serve(it)
    pulse(it)
    assert pending(it)


def test_an_edge_on_a_masked_line_is_lost():
    it = machine(VECTOR | MASKED)
    pulse(it)
    write(it, LINE, VECTOR)
    assert not pending(it)


def test_every_line_is_masked_after_reset():
    it = bare("nop")
    for line in range(LINES):
        it.machine.raise_line(line)
    assert it.core.apic.irr == 0


def test_a_level_sets_remote_irr_and_sends_once():
    it = machine(VECTOR | LEVEL)
    it.machine.raise_line(LINE)
    it.core.apic.acknowledge()
    it.machine.raise_line(LINE)
    assert entry(it) & REMOTE_IRR
    assert not pending(it)


def test_the_local_apic_learns_that_it_is_level_triggered():
    it = machine(VECTOR | LEVEL)
    it.machine.raise_line(LINE)
    assert it.core.apic.tmr == 1 << VECTOR


def test_eoi_with_the_line_still_high_interrupts_again():
    it = machine(VECTOR | LEVEL)
    it.machine.raise_line(LINE)
    serve(it)
    assert pending(it)
    assert entry(it) & REMOTE_IRR


def test_eoi_with_the_line_low_ends_it():
    it = machine(VECTOR | LEVEL)
    pulse(it)
    serve(it)
    assert not pending(it)
    assert not entry(it) & REMOTE_IRR


def test_the_eoi_of_another_vector_ends_nothing():
    it = machine(VECTOR | LEVEL)
    pulse(it)
    it.machine.ioapic.end_of_interrupt(VECTOR + 1)
    assert entry(it) & REMOTE_IRR


def test_a_level_that_is_high_when_unmasked_is_sent():
    it = machine(VECTOR | LEVEL | MASKED)
    it.machine.raise_line(LINE)
    assert not pending(it)
    write(it, LINE, VECTOR | LEVEL)
    assert pending(it)


def test_eoi_of_a_line_masked_meanwhile_waits_for_the_mask():
    it = machine(VECTOR | LEVEL)
    it.machine.raise_line(LINE)
    write(it, LINE, VECTOR | LEVEL | MASKED)
    serve(it)
    assert not pending(it)
    write(it, LINE, VECTOR | LEVEL)
    assert pending(it)


def test_software_cannot_write_remote_irr():
    it = machine(VECTOR | LEVEL | REMOTE_IRR | MASKED)
    assert entry(it) == VECTOR | LEVEL | MASKED


def test_an_entry_made_edge_triggered_loses_its_remote_irr():
    it = machine(VECTOR | LEVEL)
    pulse(it)
    write(it, LINE, VECTOR | MASKED)
    write(it, LINE, VECTOR | LEVEL)
    assert not entry(it) & REMOTE_IRR


def test_an_active_low_line_interrupts_when_it_falls():
    it = machine(VECTOR | ACTIVE_LOW)
    it.machine.raise_line(LINE)
    assert not pending(it)
    it.machine.lower_line(LINE)
    assert pending(it)


def test_an_active_low_level_is_asserted_while_low():
    it = machine(VECTOR | ACTIVE_LOW | LEVEL)
    assert pending(it)
    it.machine.raise_line(LINE)
    serve(it)
    assert not pending(it)


@pytest.mark.parametrize(("destination", "cpus"), [(0, [0]), (2, [2]), (0xFF, [0, 1, 2]), (7, [])])
def test_a_physical_destination_is_an_apic_id(destination, cpus):
    it = machine(destination << 56 | VECTOR, cpus=3)
    pulse(it)
    assert [n for n in range(3) if pending(it, n)] == cpus


def test_a_logical_destination_is_a_set_of_cpus():
    it = machine(0b110 << 56 | LOGICAL | VECTOR, cpus=3)
    for core in it.machine.cores:
        core.apic.logical_id = 1 << 24 + core.index
    pulse(it)
    assert [n for n in range(3) if pending(it, n)] == [1, 2]


def test_lowest_priority_is_one_of_a_set():
    it = machine(0b111 << 56 | LOGICAL | Delivery.LOWEST << 8 | VECTOR, cpus=3)
    for core, tpr in zip(it.machine.cores, (0x40, 0x10, 0x30), strict=True):
        core.apic.logical_id, core.apic.tpr = 1 << 24 + core.index, tpr
    pulse(it)
    assert [n for n in range(3) if pending(it, n)] == [1]


def test_an_nmi_entry_raises_an_nmi_whatever_its_vector():
    it = machine(Delivery.NMI << 8)
    pulse(it)
    assert it.core.nmi_pending


def test_an_nmi_entry_never_waits_for_an_eoi():
    it = machine(Delivery.NMI << 8 | LEVEL)
    it.machine.raise_line(LINE)
    assert not entry(it) & REMOTE_IRR


def test_a_level_that_nobody_takes_is_not_in_service():
    it = machine(7 << 56 | VECTOR | LEVEL)
    it.machine.raise_line(LINE)
    assert not entry(it) & REMOTE_IRR


def test_registers_read_back_as_the_data_sheet_lays_them_out():
    it = machine(3 << 56 | VECTOR | LEVEL | MASKED)
    assert [read(it, n) for n in (0x01, 0x10 + 2 * LINE, 0x11 + 2 * LINE)] == [
        VERSION_VALUE, VECTOR | LEVEL | MASKED, 3 << 24,
    ]  # fmt: skip


def test_the_id_register_has_four_bits():
    it = machine()
    it.machine.ioapic.write(it.core, 0xFEC0_0000, 4, 0)
    it.machine.ioapic.write(it.core, 0xFEC0_0010, 4, 0xFFFF_FFFF)
    assert (read(it, 0), read(it, 2)) == (0x0F00_0000, 0x0F00_0000)


@pytest.mark.parametrize("register", [3, 0x0F, 0x40, 0xFF])
def test_registers_that_do_not_exist_read_as_ones_and_ignore_writes(register):
    it = machine()
    before = it.machine.ioapic.state.copy()
    it.machine.ioapic.write(it.core, 0xFEC0_0000, 4, register)
    it.machine.ioapic.write(it.core, 0xFEC0_0010, 4, 0)
    assert read(it, register) == 0xFFFF_FFFF
    before.select = register
    assert it.machine.ioapic.state == before


@pytest.mark.parametrize("line", [-1, 24])
def test_a_line_that_does_not_exist_is_refused(line):
    with pytest.raises(ValueError, match="lines 0 to 23"):
        bare("nop").machine.raise_line(line)


def test_a_snapshot_holds_lines_and_entries():
    it = machine(VECTOR | LEVEL)
    it.machine.raise_line(LINE)
    saved, before = it.machine.snapshot(), it.machine.ioapic.state.copy()
    serve(it)
    it.machine.lower_line(LINE)
    write(it, LINE, MASKED)
    it.machine.restore(saved)
    assert it.machine.ioapic.state == before


PROGRAM = f"""
    testl   %edi, %edi                          # this CPU's number
    jnz     2f
    movabsq ${KERNEL + 0x20_0000}, %rbx           # the I/O APIC's page
    movl    $0x1b, 0(%rbx)                      # high half of line 5: CPU 1
    movl    $0x01000000, 0x10(%rbx)
    movl    $0x1a, 0(%rbx)
    movl    $0x8051, 0x10(%rbx)                 # level, vector 0x51
    movl    0x10(%rbx), %eax
2:  sti
1:  jmp     1b
"""


def test_a_guest_programs_it_through_its_page_and_the_other_cpu_is_interrupted():
    it = bare(PROGRAM, cpus=2, interleaving=Interleaving(50))
    it.put64(0x5008, 0xFEC0_0000 | 0x93)
    prepare(it.machine.cores[1], CODE, Profile())
    it.machine.advance(100)
    assert it.core.cpu.register(0) == 0x8051
    it.machine.raise_line(LINE)
    it.machine.advance(300)
    assert [(e.cpu, e.vector) for e in it.of(Delivered)] == [(1, VECTOR)]
