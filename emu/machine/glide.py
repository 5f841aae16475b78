"""Plain instructions one after the other, looked at between each two, in one run of the engine.

A run of one instruction costs the engine a start, and the translation of the rest of its block. Where nothing is due
but to execute, one run can do for several.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.machine.core import Core
from emu.machine.stop import COUNT


def glide(core: Core, limit: int, look: Callable[[], None]) -> bool:
    """Execute up to clock `limit`, with `look` called at each boundary that the core comes to, the last one too.

    At all of them clock, registers and memory are what steps of single instructions would have led to; `look` may read
    and save them, and nothing else. It ends earlier before anything that is not plain: what another instruction leads
    to only a step can tell. False if that was known too late: the core is at no boundary then, and wants a restore.
    """
    if core.ended or core.waits_for_startup or core.halted or core.recording or core.timed:
        return True
    if core.mce_pending or core.nmi_pending or core.apic.irr or core.alignment.on:
        return True
    deadline = core.deadline
    if deadline is not None:
        limit = min(limit, deadline)
    if limit <= core.clock or core.debug.begin():
        return True
    if not core.stops.quiet:
        core.stops.set_quiet(True)
    core.flush_stale_code()
    start = core.clock

    def at(retired: int) -> None:
        core.clock = start + retired
        look()

    try:
        stop = core.cpu.glide(limit - start, at)
    finally:
        core.clock = start
    if stop is None:
        return True
    if stop.kind is not COUNT:
        return False
    core.clock = start + stop.retired
    look()
    return True
