"""The invariants, and the judge that runs them all."""

from __future__ import annotations

from collections.abc import Callable
from itertools import compress
from operator import getitem, ne
from typing import Any

from emu.events import Event
from emu.lab.chain import ChainState, EntryChain
from emu.lab.invariants.base import Invariant, copied
from emu.lab.invariants.c_interface import CInterface
from emu.lab.invariants.flags import Flags
from emu.lab.invariants.frames import Frames
from emu.lab.invariants.gs_nesting import GsNesting
from emu.lab.invariants.nmi import Nmi
from emu.lab.invariants.page_tables import PageTables
from emu.lab.invariants.progress import ENDINGS, Progress
from emu.lab.invariants.stacks import Stacks
from emu.lab.invariants.work import Work
from emu.lab.view import View
from emu.lab.violation import Violation
from emu.machine.end import End
from emu.record import record

INVARIANTS: tuple[type[Invariant], ...] = (GsNesting, Stacks, PageTables, Flags, Frames, CInterface, Nmi, Work)
"""All but Progress, in the order in which their findings are reported."""


def all_invariants(
    view: View, reproduce: str = "", allowed: frozenset[str] = frozenset(), chain: EntryChain | None = None
) -> list[Invariant]:
    """One of each, each an observer. `allowed`: which of ENDINGS the scenario expects."""
    chain = EntryChain(view) if chain is None else chain
    return [*(kind(view, chain, reproduce) for kind in INVARIANTS), Progress(view, chain, reproduce, allowed)]


@record
class JudgeState:
    """A snapshot of the chain and of what each invariant remembers."""

    chain: ChainState
    state: tuple[dict[Any, Any], ...]
    """Of each of their `STATE`, one after the other."""


class Judge:
    """All invariants as one observer, which is faster: each event goes to those that want it, the chain first."""

    def __init__(self, view: View, reproduce: str = "", allowed: frozenset[str] = frozenset()) -> None:
        self.chain = EntryChain(view)
        self.invariants = all_invariants(view, reproduce, allowed, self.chain)
        table: dict[type[Event], list[Callable[[Any], None]]] = {}
        for handlers in (self.chain.handlers, *(invariant.handlers for invariant in self.invariants)):
            for kind, handler in handlers.items():
                table.setdefault(kind, []).append(handler)
        self._table = table
        self._owners = [vars(invariant) for invariant in self.invariants for _ in invariant.STATE]
        self._names = [name for invariant in self.invariants for name in invariant.STATE]
        """One for each owner: what it remembers."""
        self._unchanged: JudgeState | None = None
        """What was saved or loaded last, as long as nothing has happened since."""

    def __call__(self, event: Event) -> None:
        """Judge one event."""
        self._unchanged = None
        for handler in self._table.get(type(event), ()):
            handler(event)

    def forgive(self, holes: frozenset[tuple[str, str]]) -> None:
        """Violations of these invariants at these places do not count."""
        for invariant in self.invariants:
            invariant.forgiven = holes

    def finish(self, end: End) -> list[Violation]:
        """The run is over: all violations, the earliest first."""
        self._unchanged = None
        for invariant in self.invariants:
            invariant.finish(end)
        return self.violations

    @property
    def violations(self) -> list[Violation]:
        """All violations so far, the earliest first."""
        found = [violation for invariant in self.invariants for violation in invariant.violations]
        return sorted(found, key=lambda violation: violation.clock)

    def save(self) -> JudgeState:
        """The state that belongs to a machine snapshot taken now."""
        if self._unchanged is None:
            self._unchanged = JudgeState(self.chain.save(), tuple(map(copied, map(getitem, self._owners, self._names))))
        return self._unchanged

    def load(self, saved: JudgeState) -> None:
        """After a machine snapshot was restored: back to the state that belongs to it, without violations."""
        if saved is self._unchanged and not self.chain.broken:
            return
        self._unchanged = saved
        if self.chain.broken:
            for invariant in self.invariants:
                invariant.violations = []
        self.chain.load(saved.chain)
        changed = map(ne, map(getitem, self._owners, self._names), saved.state)
        for owner, name, value in compress(zip(self._owners, self._names, saved.state, strict=True), changed):
            owner[name] = copied(value)


__all__ = ["ENDINGS", "INVARIANTS", "Invariant", "Judge", "JudgeState", "all_invariants"]
