"""Plain instructions one after the other, looked at between each two, in one run of the engine.

A run of one instruction costs the engine a start, and the translation of the rest of its block. Where nothing is due
but to execute, one run can do for several.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from emu.machine import engine
from emu.machine.code_hooks import NOWHERE, Lookout
from emu.machine.cpu import Cpu
from emu.machine.memory import Memory
from emu.machine.stop import BREAK, COUNT, Stop

if TYPE_CHECKING:
    from emu.machine.core import Core


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


class GlidingCpu(Cpu):
    """A CPU whose runs can be looked at between instructions."""

    def __init__(self, index: int, memory: Memory) -> None:
        super().__init__(index, memory)
        self._look: Callable[[int], None] = lambda retired: None
        self._until = 0
        """How many instructions the run may retire."""
        self._newest = 0
        """Address of the last instruction that is executed."""
        self._error: BaseException | None = None
        self._hook_of_all = self._hook_code(self._on_instruction, NOWHERE, NOWHERE)
        self._listed: Lookout | None = None

    @property
    def settled(self) -> bool:
        """Whether the hooks are those of the last run; else no run can glide before another has been made."""
        return self._code_hooks.known and self._watch_hook is None

    def glide(self, count: int, look: Callable[[int], None]) -> Stop | None:
        """Retire up to `count` instructions in one run, with `look(retired)` called at each boundary between two.

        There registers read as they do at rest; nothing may be written. COUNT: the run has come to a boundary, which
        has not been looked at yet: behind `count` instructions, or earlier, at a stop. Anything else: something has
        happened that `run` would tell of, and the state is nobody's: go back to a boundary. None: this cannot be done
        here, and nothing has happened.
        """
        if not self._code_hooks.known or (self.state.rip in self._stops and self.state.rip not in self._quiet):
            return None
        if self._cs.base:  # 16- or 32-bit code: hooks see linear addresses
            return None
        if self._listed is None:
            self._listed = Lookout(self._hook_of_all, self._code_hooks)
        self._look, self._until, self._lookout, self._newest = look, count, self._listed, -1
        try:
            stop = self._start(count, False)
        finally:
            self._lookout = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if stop.kind is COUNT and stop.ip == self._newest:
            return Stop(BREAK, -1, stop.ip)  # as below, behind the last instruction
        return stop

    def _on_instruction(self, _uc: int, address: int) -> None:
        retired = self._counter.value - 1
        if self._stop is not None or retired >= self._until:
            return
        if retired and address == self._newest:
            # A REP goes on, or an instruction begins again that has written to its own page.
            self._give_up(Stop(BREAK, -1, address))
            return
        if address in self._stops and address not in self._quiet:
            self._give_up(Stop(COUNT, retired, address))
            return
        self._newest = address
        if retired:
            state = self.peek()
            if self._cs.base:  # 16- or 32-bit code: the address is a linear one
                self._give_up(Stop(BREAK, -1, address))
                return
            state.rip, state.eflags = address, self._live_flags()
            try:
                self._look(retired)
            except BaseException as error:  # noqa: BLE001 - ctypes would drop it; it is raised again behind the run
                self._error = error
                self._give_up(Stop(BREAK, -1, address))

    def _give_up(self, stop: Stop) -> None:
        self._stop = stop
        engine.emu_stop(self._uch)
