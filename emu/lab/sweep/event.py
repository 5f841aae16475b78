"""One kind of event that a sweep can raise: where, how, and what may come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emu.lab.chain import Entry
from emu.lab.injection import Fire, resolve
from emu.lab.places import Places
from emu.lab.scenario import Inject
from emu.lab.view import View
from emu.machine.core import Core
from kernel_stubs.context import Kernel

if TYPE_CHECKING:
    from emu.lab.sweep.bench import Bench

Table = dict[str, object]
"""An [[inject]] table without its place."""
Tables = tuple[Table, ...]


def _anywhere(_view: View, _ip: int) -> bool:
    return True


def _always(_view: View, _core: Core, _entries: tuple[Entry, ...]) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run with the event may end. Violated invariants are never among it."""

    signals: frozenset[str] = frozenset()
    """The task gets one of these signals, by name, or is ended by it ..."""
    recovers: bool = True
    """... or the run ends as without the event ..."""
    anything: bool = False
    """... or in any way that a program can."""

    def __or__(self, other: Ending) -> Ending:
        """Two such events in one run: either may decide."""
        return Ending(
            self.signals | other.signals, self.recovers or other.recovers, anything=self.anything or other.anything
        )


UNNOTICED = Ending()


@dataclass(frozen=True, slots=True)
class SweepEvent:
    """One kind of event."""

    name: str
    """Its family before a dot, if it has one."""
    vector: int
    """-1 for what is no event of its own."""
    fields: Table = field(default_factory=dict, hash=False)
    """Of its [[inject]] table in kernel mode ..."""
    user_fields: Table | None = field(default=None, hash=False)
    """... and in user mode, if other; `address` "rip" stands for the interrupted instruction's."""
    possible: Callable[[View, Core, tuple[Entry, ...]], bool] = _always
    """Whether hardware can raise it at this boundary, and a sound kernel lets it: else there is no case."""
    interrupt: bool = False
    """Whether it comes through the local APIC."""
    counter: str = ""
    """Field of the per-CPU area that its handler counts up: an event that nobody handles is lost."""
    site: Callable[[View, int], bool] = _anywhere
    """Whether it may make sense before the instruction at an address."""
    tables: Callable[[Bench], Tables | None] | None = field(default=None, hash=False)
    """Its [[inject]] tables where the bench is (which may go elsewhere to find out); None if it makes no sense here."""
    ending: Ending = UNNOTICED
    faults: bool = False
    """Whether the instruction at the boundary must fault."""
    words: str = ""
    """What it changes, for people."""
    arms: bool = False
    """Whether it only changes what C will find: nothing is delivered at the boundary."""

    @property
    def family(self) -> str:
        """What `--event` calls it."""
        return self.name.partition(".")[0]

    def inject(self, bench: Bench) -> Tables | None:
        """The [[inject]] tables at the present boundary; None if it is not possible here."""
        core = bench.core
        if self.tables is not None:
            return self.tables(bench)
        if not self.possible(bench.view, core, bench.judge.chain.stack(bench.cpu)):
            return None
        fields = self.fields if core.cpu.cpl == 0 or self.user_fields is None else self.user_fields
        if "rip" not in fields.values():
            return (fields,)
        return ({key: core.cpu.ip if value == "rip" else value for key, value in fields.items()},)


def raiser(tables: list[Table], places: Places) -> Fire:
    """What raises an event: all its injections."""
    specs = [Inject.model_validate(table | {"instruction": 0}) for table in tables]
    (injections,) = resolve(specs, lambda index, key: "sweep", places, 1)
    if len(injections) == 1:
        return injections[0].fire

    def fire(kernel: Kernel, core: Core) -> None:
        for injection in injections:
            injection.fire(kernel, core)

    return fire
