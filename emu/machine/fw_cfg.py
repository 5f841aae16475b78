"""QEMU's firmware configuration device, as far as test images ask it: I/O ports, no DMA (QEMU, docs/specs/fw_cfg)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from emu.machine.device import Device
from emu.machine.stop import Stop, StopKind

if TYPE_CHECKING:
    from emu.machine.core import Core

SELECTOR, DATA = 0x510, 0x511
SIGNATURE, INTERFACE, RAM_SIZE, CPU_COUNT, MAX_CPUS = 0x00, 0x01, 0x03, 0x05, 0x0F


@dataclass(slots=True)
class FwCfgState:
    """The selected item and how far it was read."""

    key: int = SIGNATURE
    offset: int = 0

    def copy(self) -> FwCfgState:
        """An independent copy."""
        return replace(self)


class FwCfg(Device[FwCfgState]):
    """Writing a 16-bit key selects an item; each read gives its next byte, 0 behind its end."""

    def __init__(self, memory_bytes: int, cpus: int) -> None:
        super().__init__(FwCfgState())
        self._items = {
            SIGNATURE: b"QEMU",
            INTERFACE: (1).to_bytes(4, "little"),
            RAM_SIZE: memory_bytes.to_bytes(8, "little"),
            CPU_COUNT: cpus.to_bytes(2, "little"),
            MAX_CPUS: cpus.to_bytes(2, "little"),
        }

    def attach(self, core: Core) -> None:
        """Answer at a CPU's I/O ports."""
        core.ports[SELECTOR] = core.ports[DATA] = self._access

    def _access(self, _core: Core, stop: Stop) -> int:
        state = self.state
        if stop.kind is StopKind.OUT:
            if stop.port == SELECTOR:
                state.key, state.offset = stop.value & 0xFFFF, 0
            return 0
        if stop.port == SELECTOR:
            return 0xFFFF_FFFF
        byte = self._items.get(state.key, b"")[state.offset : state.offset + 1]
        state.offset += 1
        return byte[0] if byte else 0
