"""The block device: commands, DMA, completion after n instructions, its line."""

import pytest
from bare import KERNEL, bare

from emu.events import Delivered
from emu.machine.block_device import (
    ADDRESS,
    ADDRESS_HIGH,
    BUSY,
    COMMAND,
    COUNT,
    DONE,
    FAILED,
    READ,
    SECTOR,
    SECTOR_SIZE,
    SECTORS,
    STATUS,
    WRITE,
    BlockDevice,
)  # fmt: skip

BASE = 0xFEB0_0000
BUFFER = 0x16_0000
LATENCY = 300
LINE = 11
DISK = b"".join(bytes([n]) * SECTOR_SIZE for n in range(1, 9))


class Disk:
    """A machine with the device."""

    def __init__(self, text="1: jmp 1b"):
        self.it = bare(text)
        self.memory = self.it.machine.memory
        self.line = False
        self.device = BlockDevice(self.memory, self._drive, DISK, LATENCY, BASE)
        self.it.machine.add_device(self.device)
        self.it.core.map_device(self.device)

    def _drive(self, high):
        self.line = high
        self.it.machine.ioapic.set_line(LINE, high=high)

    def write(self, register, value, size=4):
        self.device.write(self.it.core, BASE + register, size, value)

    def read(self, register):
        return self.device.read(self.it.core, BASE + register, 4)

    def command(self, command, sector=0, count=1, address=BUFFER):
        self.write(SECTOR, sector)
        self.write(COUNT, count)
        self.write(ADDRESS, address, 8)
        self.write(COMMAND, command)

    def run(self, instructions):
        """Then look at what happened at that time."""
        self.it.run(instructions)
        self.device.tick(self.it.core.clock)


def test_a_read_moves_sectors_to_memory_when_it_is_done_and_not_before():
    disk = Disk()
    disk.command(READ, sector=2, count=2)
    disk.run(LATENCY - 1)
    assert (disk.read(STATUS), disk.line, disk.memory.read(BUFFER, 2)) == (BUSY, False, b"\0\0")
    disk.run(1)
    assert (disk.read(STATUS), disk.line) == (DONE, True)
    assert disk.memory.read(BUFFER, 2 * SECTOR_SIZE) == DISK[2 * SECTOR_SIZE : 4 * SECTOR_SIZE]


def test_a_write_moves_memory_to_the_disk():
    disk = Disk()
    disk.memory.write(BUFFER, b"new".ljust(SECTOR_SIZE, b"."))
    disk.command(WRITE, sector=7)
    disk.run(LATENCY)
    assert disk.device.contents() == DISK[: 7 * SECTOR_SIZE] + b"new".ljust(SECTOR_SIZE, b".")


def test_a_write_takes_what_memory_holds_when_it_is_done():
    disk = Disk()
    disk.command(WRITE)
    disk.memory.write(BUFFER, b"late")
    disk.run(LATENCY)
    assert disk.device.contents()[:4] == b"late"


@pytest.mark.parametrize(
    ("command", "sector", "count", "address"),
    [(READ, 8, 1, BUFFER), (READ, 7, 2, BUFFER), (WRITE, 0, 1, 8 << 20), (READ, 0, 0, BUFFER), (9, 0, 1, BUFFER)],
)
def test_a_command_that_cannot_be_done_fails_and_moves_nothing(command, sector, count, address):
    disk = Disk()
    disk.command(command, sector, count, address)
    disk.run(LATENCY)
    assert (disk.read(STATUS), disk.line) == (DONE | FAILED, True)
    assert disk.memory.read(BUFFER, SECTOR_SIZE) == bytes(SECTOR_SIZE)
    assert disk.device.contents() == DISK


def test_clearing_the_status_lowers_the_line():
    disk = Disk()
    disk.command(READ)
    disk.run(LATENCY)
    disk.write(STATUS, 0)
    assert (disk.read(STATUS), disk.line) == (0, False)


def test_a_busy_device_ignores_writes():
    disk = Disk()
    disk.command(READ, sector=1)
    disk.command(READ, sector=5)
    disk.write(STATUS, 0)
    disk.run(LATENCY)
    assert disk.memory.read(BUFFER, 1) == b"\x02"


def test_the_address_can_be_written_in_halves():
    disk = Disk()
    disk.write(ADDRESS_HIGH, 1)
    disk.write(ADDRESS, 0x1000)
    assert disk.device.state.address == 0x1_0000_1000


def test_its_size_is_in_sectors():
    assert Disk().read(SECTORS) == 8


def test_a_restore_undoes_writes_and_continues_commands():
    disk = Disk()
    disk.command(READ, sector=3)
    disk.run(100)
    saved = disk.it.machine.snapshot()
    disk.run(LATENCY)
    disk.command(WRITE, sector=3)
    disk.memory.write(BUFFER, b"\xee" * SECTOR_SIZE)
    disk.run(LATENCY)
    disk.it.machine.restore(saved)
    assert (disk.read(STATUS), disk.device.contents()) == (BUSY, DISK)
    disk.run(LATENCY - 100)
    assert disk.memory.read(BUFFER, 1) == b"\x04"


PROGRAM = f"""
    movabsq ${KERNEL + 0x30_0000}, %rbx
    movl    $1, {SECTOR}(%rbx)
    movl    $1, {COUNT}(%rbx)
    movq    ${BUFFER}, %rax
    movq    %rax, {ADDRESS}(%rbx)
    movl    ${READ}, {COMMAND}(%rbx)
    sti
    END
"""


@pytest.mark.parametrize("end", ["hlt", "1: jmp 1b"])
def test_a_guest_is_interrupted_n_instructions_after_its_command(end):
    disk = Disk(PROGRAM.replace("END", end))
    disk.it.put64(0x5008, 0xFEA0_0000 | 0x93)
    disk.it.machine.ioapic.state.entries[LINE] = 0x8041
    disk.it.run(10_000)
    assert disk.it.entered() == 0x41
    (event,) = disk.it.of(Delivered)
    assert event.clock == 6 + LATENCY
    assert disk.memory.read(BUFFER, 1) == b"\x02"
