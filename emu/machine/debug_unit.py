"""Debug exceptions: what the engine reports as vector 1, completed to what hardware does (SDM volume 3B, 17.2-17.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emu.arch import Rflags, Vector
from emu.events import EventType
from emu.machine.cpu import Stop
from emu.machine.delivery import Interruption

if TYPE_CHECKING:
    from emu.machine.core import Core

DR6_BS = 1 << 14


def debug_trap(core: Core, stop: Stop) -> None:
    """Set DR6 and deliver #DB: a single step is a trap, an instruction breakpoint a fault."""
    cpu = core.cpu
    state = cpu.state
    if cpu.flags & Rflags.TF:
        state.dr[6] |= DR6_BS
    for n in range(4):
        enabled = state.dr[7] >> 2 * n & 3
        execution = not state.dr[7] >> 16 + 4 * n & 0xF
        if enabled and execution and state.dr[n] == stop.ip:
            state.dr[6] |= 1 << n
    cpu.mark_dirty()
    core.deliver(Interruption(Vector.DB, EventType.HWEXC, stop.ip))
