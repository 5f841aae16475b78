"""The serial port, by the PC16550D data sheet."""

import pytest
from bare import bare

from emu.machine.serial import (
    COM1,
    COM1_LINE,
    DATA,
    FCR_CLEAR_RECEIVER,
    FCR_ENABLE,
    IER,
    IER_EMPTY,
    IER_RECEIVED,
    IIR,
    IIR_EMPTY,
    IIR_FIFOS,
    IIR_NONE,
    IIR_RECEIVED,
    LCR,
    LCR_DLAB,
    LSR,
    LSR_EMPTY,
    LSR_READY,
    MCR,
    MCR_LOOP,
    MCR_OUT2,
    MSR,
    MSR_CONNECTED,
    SCR,
    SerialPort,
)  # fmt: skip
from emu.machine.stop import Stop, StopKind

INTERVAL = 10


class Port:
    """The port, used as a CPU does; `line` is its interrupt line."""

    def __init__(self, given=b""):
        self.line = False
        self.core = bare("1: jmp 1b").core
        self.device = SerialPort(self._drive, given, INTERVAL)
        self.device.attach(self.core)

    def _drive(self, high):
        self.line = high

    def read(self, register):
        return self.core.port(Stop(StopKind.IN, 1, 0, port=COM1 + register, size=1))

    def write(self, register, value):
        self.core.port(Stop(StopKind.OUT, 1, 0, port=COM1 + register, size=1, value=value))

    def wait(self, instructions):
        self.core.clock += instructions
        self.device.tick(self.core.clock)


def test_what_is_sent_is_in_the_log():
    port = Port()
    for byte in b"ok\n\xff":
        port.write(DATA, byte)
    assert port.device.output == b"ok\n\xff"


def test_the_transmitter_is_always_empty():
    port = Port()
    port.write(DATA, 65)
    assert port.read(LSR) == LSR_EMPTY


def test_the_divisor_latch_lies_over_data_and_interrupt_enable():
    port = Port()
    port.write(LCR, LCR_DLAB | 3)
    port.write(DATA, 0x34)
    port.write(IER, 0x12)
    assert (port.read(DATA), port.read(IER)) == (0x34, 0x12)
    port.write(LCR, 3)
    assert (port.device.state.divisor, port.read(IER), port.device.output) == (0x1234, 0, b"")


@pytest.mark.parametrize(("register", "value", "back"), [(SCR, 0xA5, 0xA5), (LCR, 0x1B, 0x1B), (MCR, 0xFF, 0x1F)])
def test_registers_read_back_the_bits_that_they_have(register, value, back):
    port = Port()
    port.write(register, value)
    assert port.read(register) == back


def test_interrupt_enable_has_four_bits():
    port = Port()
    port.write(IER, 0xFF)
    assert port.read(IER) == 0x0F


def test_a_byte_arrives_after_the_interval():
    port = Port(b"x")
    port.wait(INTERVAL - 1)
    assert port.read(LSR) == LSR_EMPTY
    port.wait(1)
    assert port.read(LSR) == LSR_EMPTY | LSR_READY
    assert port.read(DATA) == ord("x")
    assert port.read(LSR) == LSR_EMPTY


def test_without_fifos_the_next_byte_waits_until_the_first_is_read():
    port = Port(b"xy")
    port.wait(10 * INTERVAL)
    assert port.read(DATA) == ord("x")
    assert not port.read(LSR) & LSR_READY
    port.wait(INTERVAL)
    assert port.read(DATA) == ord("y")


def test_with_fifos_sixteen_bytes_wait():
    port = Port(bytes(range(1, 21)))
    port.write(IIR, FCR_ENABLE)
    port.wait(100 * INTERVAL)
    assert port.device.state.received == bytes(range(1, 17))


def test_no_byte_is_lost():
    given = bytes(range(1, 100))
    port, got = Port(given), bytearray()
    for _ in range(200):
        port.wait(INTERVAL)
        if port.read(LSR) & LSR_READY:
            got.append(port.read(DATA))
    assert got == given


def test_clearing_the_receiver_drops_what_has_arrived():
    port = Port(b"x")
    port.write(IIR, FCR_ENABLE)
    port.wait(INTERVAL)
    port.write(IIR, FCR_ENABLE | FCR_CLEAR_RECEIVER)
    assert not port.read(LSR) & LSR_READY


def test_iir_tells_whether_fifos_are_on():
    port = Port()
    assert port.read(IIR) == IIR_NONE
    port.write(IIR, FCR_ENABLE)
    assert port.read(IIR) == IIR_NONE | IIR_FIFOS


def test_a_received_byte_interrupts_until_it_is_read():
    port = Port(b"x")
    port.write(IER, IER_RECEIVED)
    port.write(MCR, MCR_OUT2)
    assert not port.line
    port.wait(INTERVAL)
    assert (port.line, port.read(IIR)) == (True, IIR_RECEIVED)
    port.read(DATA)
    assert not port.line


def test_without_out2_no_interrupt_leaves_the_chip():
    port = Port(b"x")
    port.write(IER, IER_RECEIVED)
    port.wait(INTERVAL)
    assert (port.line, port.read(IIR)) == (False, IIR_RECEIVED)


def test_an_empty_transmitter_interrupts_until_iir_is_read():
    port = Port()
    port.write(MCR, MCR_OUT2)
    port.write(IER, IER_EMPTY)
    assert port.line
    assert port.read(IIR) == IIR_EMPTY
    assert (port.line, port.read(IIR)) == (False, IIR_NONE)
    port.write(DATA, 65)
    assert port.line


def test_received_data_come_before_an_empty_transmitter():
    port = Port(b"x")
    port.write(IER, IER_RECEIVED | IER_EMPTY)
    port.wait(INTERVAL)
    assert port.read(IIR) == IIR_RECEIVED
    port.read(DATA)
    assert port.read(IIR) == IIR_EMPTY


def test_loopback_receives_what_is_sent_and_shows_the_modem_outputs():
    port = Port()
    assert port.read(MSR) == MSR_CONNECTED
    port.write(MCR, MCR_LOOP | 0x0A)
    port.write(DATA, 0x5A)
    assert (port.read(DATA), port.read(MSR), port.device.output) == (0x5A, 0x90, b"")


def test_a_restore_cuts_the_log_and_gives_the_input_again():
    it = bare("1: jmp 1b")
    device = SerialPort(lambda high: None, b"xy", INTERVAL)
    device.attach(it.core)
    it.machine.add_device(device)
    it.core.port(Stop(StopKind.OUT, 1, 0, port=COM1, size=1, value=65))
    saved = it.machine.snapshot()
    it.core.port(Stop(StopKind.OUT, 1, 0, port=COM1, size=1, value=66))
    it.run(5 * INTERVAL)
    assert device.state.received == b"x"
    it.machine.restore(saved)
    assert (device.output, device.state.received) == (b"A", b"")
    it.run(INTERVAL)
    it.run(1)
    assert device.state.received == b"x"


PROGRAM = """
    movw    $0x3fc, %dx
    movb    $8, %al
    outb    %al, %dx
    movw    $0x3f9, %dx
    movb    $1, %al
    outb    %al, %dx
    sti
    hlt
1:  jmp     1b
"""


def test_an_arriving_byte_wakes_a_halted_cpu_through_line_4_at_its_time():
    it = bare(PROGRAM)
    device = SerialPort(lambda high: it.machine.ioapic.set_line(COM1_LINE, high=high), b"!", 500)
    device.attach(it.core)
    it.machine.add_device(device)
    it.machine.ioapic.state.entries[COM1_LINE] = 0x31
    it.run(10_000)
    assert it.entered() == 0x31
    assert it.events[-1].clock == 500
