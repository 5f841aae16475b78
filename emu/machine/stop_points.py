"""Where a CPU stops, and why: special instructions, C functions, breakpoints; and when it need not."""

from __future__ import annotations

from collections.abc import Iterable, Set

from emu.machine import semantics
from emu.machine.cpu import Cpu
from emu.machine.registers import REGISTER_NAMES
from emu.machine.system_instructions import WRITE_BASE

NEAR = 8
"""Bytes between two instructions that share a hook. The engine looks at every hook before every instruction, so each
costs everywhere; a shared one costs a callback at the few instructions in between."""


def _clusters(addresses: Iterable[int]) -> list[list[int]]:
    """Addresses in order, near ones together."""
    found: list[list[int]] = []
    for address in sorted(addresses):
        if found and address - found[-1][-1] <= NEAR:
            found[-1].append(address)
        else:
            found.append([address])
    return found


class StopPoints:
    """The stops of one CPU."""

    def __init__(self, cpu: Cpu) -> None:
        self._cpu = cpu
        self.special: dict[int, str] = {}
        """Mnemonics of instructions that need semantics, by address."""
        self.breakpoints: frozenset[int] = frozenset()
        """Those that stop now."""
        self._installed: frozenset[int] = frozenset()
        self._passing = False
        self._quiet_sets: dict[tuple[bool, bool], frozenset[int]] = {}
        self._sites: set[int] = set()
        self._unmasking: frozenset[int] = frozenset()
        self._swapping: frozenset[int] = frozenset()
        self._bases: dict[int, int] = {}
        self._recording = False
        self.milestones: frozenset[int] = frozenset()
        """Instructions that observers want to be told of."""
        self.quiet = False
        """Whether instructions that may set IF are passed, as no interrupt waits for that."""
        self._choose_quiet()

    def add_special(self, special: dict[int, str]) -> None:
        """Stop before these instructions."""
        self.special.update(special)
        self._unmasking = frozenset(a for a, name in self.special.items() if name in semantics.UNMASKING)
        self._swapping = frozenset(a for a, name in self.special.items() if name == "swapgs")
        self._cpu.leaves_at(frozenset(a for a, name in self.special.items() if name in semantics.SYSRET))
        self._bases = {
            address: REGISTER_NAMES.index(name.rpartition("%")[2])
            for address, name in self.special.items()
            if name.startswith(WRITE_BASE)
        }
        for cluster in _clusters(special):
            self._cpu.stop_at(cluster, (cluster[0], cluster[-1]) if len(cluster) > 1 else None)
        self.quiet = True
        self._choose_quiet()
        self._choose_notes()

    def add_sites(self, sites: Iterable[int], span: tuple[int, int]) -> None:
        """Stop at these addresses, which lie densely in `span`."""
        self._sites.update(sites)
        self._cpu.stop_at(self._sites, span)
        self._choose_quiet()

    def set_breakpoints(self, addresses: Set[int]) -> None:
        """Stop before these instructions too, and before no others that were set so."""
        fresh = addresses - self._installed
        kept = self.milestones
        stale = {a for a in self._installed - addresses if not (a in self.special or a in self._sites or a in kept)}
        self._installed = frozenset(addresses)
        self._passing = False
        self.breakpoints = self._installed
        if stale:
            self._cpu.clear_stops(stale)
        if fresh:
            self._cpu.stop_at(fresh)
        self._choose_quiet()
        self._choose_notes()

    def pass_breakpoints(self, passing: bool) -> None:
        """Do not stop at the breakpoints for now. Costs nothing, where setting them anew drops all translations."""
        if passing != self._passing:
            self._passing = passing
            self.breakpoints = frozenset() if passing else self._installed
            self.set_quiet(self.quiet)

    def set_milestones(self, addresses: Iterable[int]) -> None:
        """Tell of these instructions as of SWAPGS; those that have another stop of their own are left out, for good."""
        own = self.special.keys() - self._swapping | self._sites
        self.milestones = self.milestones | frozenset(addresses) - own
        self._cpu.stop_at(self.milestones)
        self._choose_notes()

    def set_recording(self, recording: bool) -> None:
        """Somebody wants every event between the instructions where it belongs."""
        self._recording = recording
        self._choose_notes()

    def _choose_notes(self) -> None:
        """Where a stop does nothing, there is none, unless somebody asked for it.

        SWAPGS is only told to observers, who may want that between single instructions; WRFSBASE and WRGSBASE load a
        canonical base by themselves.
        """
        noted = (self._swapping | self.milestones) - self._installed
        self._cpu.note_at(frozenset() if self._recording else noted)
        self._cpu.stop_unless_canonical({a: r for a, r in self._bases.items() if a not in self._installed})

    def set_quiet(self, quiet: bool) -> None:
        """Pass instructions that may set IF, or stop at them."""
        self.quiet = quiet
        self._cpu.quiet(self._quiet_sets[quiet, self._passing])

    def _choose_quiet(self) -> None:
        """What is passed, by `quiet` and by whether breakpoints are passed."""
        only_breakpoints = frozenset(a for a in self._installed if a not in self.special and a not in self._sites)
        self._quiet_sets = {
            (False, False): frozenset(),
            (True, False): self._unmasking - self._installed,
            (False, True): only_breakpoints,
            (True, True): self._unmasking | only_breakpoints,
        }
        self.set_quiet(self.quiet)
