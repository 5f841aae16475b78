"""The local APIC's page in physical memory (SDM volume 3A, 10.4.1): each CPU sees its own. Gone in x2APIC mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emu.machine.apic import ApicRegisterError

if TYPE_CHECKING:
    from emu.machine.core import Core

ALL_ONES = 0xFFFF_FFFF


class XapicPage:
    """32-bit registers at multiples of 16; other accesses read as all ones and are not written."""

    base = 0xFEE0_0000
    size = 4096

    def read(self, core: Core, address: int, size: int) -> int:
        """A register; an undefined one sets the error status and reads as 0."""
        if core.apic.x2apic or size != 4 or address % 16:
            return ALL_ONES
        try:
            return core.apic.read(address - self.base, core.clock + core.cpu.in_flight)
        except ApicRegisterError:
            return 0

    def write(self, core: Core, address: int, size: int, value: int) -> None:
        """A register; an undefined one sets the error status."""
        if core.apic.x2apic or size != 4 or address % 16:
            return
        try:
            core.write_apic(address - self.base, value & 0xFFFF_FFFF)
        except ApicRegisterError:
            return  # the error status register says it
