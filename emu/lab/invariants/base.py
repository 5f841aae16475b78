"""What all invariants have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from emu.events import CCalled, Event
from emu.lab.chain import Entry, EntryChain
from emu.lab.view import View
from emu.lab.violation import Violation
from emu.machine.end import End

MAX_VIOLATIONS = 8
"""Of one invariant in one run: what follows the first few is consequence."""


class Invariant:
    """An observer that judges. `handlers` says which kinds of events it wants to see.

    State between events lives in the attributes that `STATE` names: dicts by CPU, of values or of dicts of values that
    are never changed in place, so that a snapshot is cheap. All invariants of a run share one chain.
    """

    name: ClassVar[str]
    STATE: ClassVar[tuple[str, ...]] = ()

    def __init__(self, view: View, chain: EntryChain, reproduce: str = "") -> None:
        self.view = view
        self.chain = chain
        self.reproduce = reproduce
        self.forgiven: frozenset[tuple[str, str]] = frozenset()
        """(invariant, place) of violations that do not count."""
        self.violations: list[Violation] = []
        # Values are bound methods, each for one kind of event.
        self.handlers: Mapping[type[Event], Callable[[Any], None]] = {}
        for attribute in self.STATE:
            setattr(self, attribute, {})

    def __call__(self, event: Event) -> None:
        """Judge one event."""
        self.chain(event)
        handler = self.handlers.get(type(event))
        if handler is not None:
            handler(event)

    def finish(self, end: End) -> None:
        """The run is over."""

    def violated(self, event: Event, message: str, *, ip: int | None = None, ended: Entry | None = None) -> None:
        """Note a violation at `ip` (default: the event's); `ended` is an entry that the event took off the chain."""
        chain = self.chain.describe(event.cpu, *(() if ended is None else (ended,)))
        self._note(message, event.ip if ip is None else ip, event.clock, event.cpu, chain)

    def violated_by_call(self, event: CCalled, message: str) -> None:
        """Note a violation at the CALL that led to a C function."""
        self.violated(event, message, ip=self.view.call_site(event.return_to))

    def violated_at_end(self, end: End, message: str, cpu: int) -> None:
        """Note a violation of the run as a whole."""
        self._note(message, end.ip, self.view.core(cpu).clock, cpu, self.chain.describe(cpu))

    def _note(self, message: str, ip: int, clock: int, cpu: int, chain: tuple[str, ...]) -> None:
        if self.forgiven and (self.name, self.view.where(ip)) in self.forgiven:
            return
        self.chain.broken = True
        if len(self.violations) < MAX_VIOLATIONS:
            where, registers = self.view.where(ip), self.view.registers(cpu)
            self.violations.append(
                Violation(self.name, message, ip, where, clock, cpu, chain, registers, self.reproduce)
            )


def copied(table: dict[Any, Any]) -> dict[Any, Any]:
    """A copy of a dict by CPU that an invariant keeps, for a snapshot."""
    if not table:
        return {}
    return {key: dict(value) if isinstance(value, dict) else value for key, value in table.items()}
