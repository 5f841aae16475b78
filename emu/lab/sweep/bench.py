"""One booted system that goes to any boundary of its run and back, and runs cases from there.

A boundary is a clock and an address: several share a clock where an event is delivered, or where C has run, for neither
takes an instruction. The bench stops at each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import replace
from typing import NamedTuple

from emu.events import CCalled, Delivered, Event, Note
from emu.lab.injection import Injection, Plan, fire
from emu.lab.invariants import Judge, JudgeState
from emu.lab.rig import BOOTED
from emu.lab.run import Prepared, allowed_endings
from emu.lab.sweep.event import SweepEvent
from emu.lab.sweep.lazy import LazyPages
from emu.lab.sweep.state import Comparer
from emu.lab.view import View
from emu.machine.core import Core
from emu.machine.end import End, EndKind
from emu.machine.glide import glide
from emu.machine.machine import MachineSnapshot
from emu.record import record
from kernel_stubs.abi import TaskStruct
from kernel_stubs.boot import boot
from kernel_stubs.mm import kernel_data
from kernel_stubs.running import SLOT_RET, InFlight
from kernel_stubs.signal import signal_name

MAX_EXTRA = 50_000
"""Instructions that a case may take beyond the baseline: an endless loop after that."""
_MAX_DELIVERIES = 3_000
"""And entries in all."""
_LIMIT, _BREAKPOINT = EndKind.LIMIT, EndKind.BREAKPOINT


class Boundary(NamedTuple):
    """A point of a run."""

    clock: int
    ip: int


@record
class Saved:
    """A state of the bench."""

    machine: MachineSnapshot
    functions: InFlight
    """Once one of them has gone on, this is no state to come back to any more."""
    judge: JudgeState
    plan: Plan
    output: tuple[tuple[int, bytes], ...]
    seen: dict[int, Boundary]
    """CPU -> where the scenario's own injections have been seen to last; never changed, but replaced."""


class Bench:
    """The system of one scenario, at the start of its run."""

    def __init__(
        self, prepared: Prepared, injections: tuple[Injection, ...], events: tuple[SweepEvent, ...], cpu: int = 0
    ) -> None:
        """`cpu` is the one that is swept."""
        self.system = boot(prepared.options)
        self.machine, self.binding = self.system.machine, self.system.binding
        self.cpu = cpu
        self.core = self.machine.cores[cpu]
        self.view = View(self.system, prepared.user, prepared.options.program.symbols)
        self.judge = Judge(self.view, allowed=allowed_endings(prepared.file.scenario))
        self.plan = Plan(list(injections))
        timer = self.system.kernel.timer_vector
        self.events = tuple(replace(event, vector=timer) if event.name == "timer" else event for event in events)
        self.comparer = Comparer(
            self.system, self.view, self.judge.chain, [e.vector for e in self.events if e.interrupt], cpu
        )
        self.injected: Delivered | None = None
        """The newest delivery of an event from outside."""
        self.interrupted: set[Boundary] = set()
        """Where events were delivered since this was last cleared."""
        self.deliveries = 0
        self.signals: list[str] = []
        """Names of the signals that tasks got from exceptions since this was last cleared."""
        self._seen: dict[int, Boundary] = {}
        self._breaks_at: set[int] = set()
        self._parts: tuple[Set[int], Set[int]] = (frozenset(), frozenset())
        """What was joined last: other stops, and where the scenario's own injections are waited for ..."""
        self._whole: set[int] = set()
        """... and both."""
        self.lazy = LazyPages(self.system.kernel, self.view, cpu)
        self.budget = prepared.file.scenario.budget
        image = prepared.options.image
        self._stops: set[int] = {slot + SLOT_RET for slot in image.symbols.values() if self.view.in_c(slot)}
        self.machine.observers[:] = [self._observe]
        if any(event.ending.signals for event in events):
            self.machine.observers.append(self._observe_signals)

    def _observe(self, event: Event) -> None:
        if isinstance(event, Delivered):
            self.deliveries += 1
            if event.cpu == self.cpu:
                self.interrupted.add(Boundary(event.clock, event.ip))
                if event.injected:
                    self.injected = event
            self.plan(event)
        self.judge(event)

    def _observe_signals(self, event: Event) -> None:
        """What exceptions send, or end a task with at once."""
        if isinstance(event, Note) and " sent to pid " in event.text:
            self.signals.append(event.text.partition(" ")[0])
        elif isinstance(event, CCalled) and event.name == "do_exit":
            self.signals.append(signal_name(event.args[0] & 0x7F))

    def has_injected(self) -> bool:
        """Whether an event from outside was delivered since `injected` was last cleared."""
        return self.injected is not None

    # --- to and fro -------------------------------------------------------------------------------------------------
    def save(self, since: Saved | None = None) -> Saved:
        """The state. `since`: it has become what it is by plain execution (`glide`)."""
        if since is not None:
            machine = self.machine.snapshot(since.machine)
            return Saved(machine, since.functions, since.judge, since.plan, since.output, since.seen)
        # All of it: going back to an earlier state forgets what was written since.
        output = self.system.kernel.output
        machine, functions = self.machine.snapshot(), self.binding.in_flight()
        written = tuple(output) if output else ()
        return Saved(machine, functions, self.judge.save(), self.plan.copy(), written, self._seen)

    def can_load(self, saved: Saved) -> bool:
        """Whether there is a way back to this state; there always is to one with no C function in flight."""
        if not saved.functions:
            return True
        return self.binding.can_go_back(saved.functions) and self.machine.can_restore(saved.machine)

    def load(self, saved: Saved) -> None:
        """Back, if `can_load`."""
        matched, self.comparer.matched = self.comparer.matched, None
        like = matched if matched is not None and matched.ram is saved.machine.ram.data else None
        self.machine.restore(saved.machine, like.regions.rest if like is not None else None)
        self.binding.go_back(saved.functions)
        self.judge.load(saved.judge)
        self.plan.load(saved.plan)
        self._seen = saved.seen
        self.system.kernel.output[:] = saved.output
        self.deliveries = 0
        self._set_stops()

    @property
    def here(self) -> Boundary:
        """The present boundary."""
        return Boundary(self.core.clock, self.core.cpu.ip)

    def to_boot(self) -> End | None:
        """From reset to where the kernel goes to user mode for the first time; the end of the run if it comes first.

        A kernel without that C function (linux-2.6) is let run to the first instruction of user mode.
        """
        booted = self.view.image.symbols.get(BOOTED, -1)
        self._break_at({booted} if booted >= 0 else set())
        while True:
            end = self._advance(self.budget, lambda: self.core.cpu.cpl == 3, {booted})
            if end is not None or self.core.cpu.ip == booted:
                self._set_stops()
                return None if end is not None and end.kind is EndKind.UNTIL else end

    def _set_stops(self) -> None:
        self._break_at(self._joined(None) if self.plan.waiting else self._stops)

    def _joined(self, stops: set[int] | None) -> set[int]:
        """`stops`, by default those of every run, and where the scenario's own injections are waited for."""
        parts = self._stops if stops is None else stops, self.plan.breakpoints(self.cpu)
        if parts[0] is not self._parts[0] or parts[1] is not self._parts[1]:
            self._parts, self._whole = parts, set().union(*parts)
        return self._whole

    def _break_at(self, wanted: set[int]) -> None:
        if wanted is not self._breaks_at and wanted != self._breaks_at:
            self._breaks_at = wanted
            self.core.set_breakpoints(wanted)

    # --- running ----------------------------------------------------------------------------------------------------
    def go(self, limit: int, until: Callable[[], bool]) -> End:
        """Run until `until` holds (UNTIL), the clock is `limit` (LIMIT), or the run ends.

        What it passes on the way are no boundaries, so it stops less often than `step`.
        """
        self._stop_everywhere(False)
        while True:
            end = self._advance(limit, until, None)
            if end is not None:
                return end
            if self.core.clock >= limit or self.deliveries > _MAX_DELIVERIES:
                return End(EndKind.LIMIT, self.core.cpu.ip, "endless loop")

    def to_user_mode(self, limit: int) -> End:
        """Run until user mode runs with nothing under way (UNTIL), an invariant is broken (UNTIL), or the run ends.

        What leaves the kernel for good is known before it is executed, and then nothing need stop the machine for long.
        """
        end = self.go(limit, lambda: not self.depth or self.violated)
        while end.kind is EndKind.UNTIL and self.core.cpu.cpl != 3 and not self.violated:
            end = self.step() or end
        return end

    def step(self, until: Callable[[], bool] | None = None) -> End | None:
        """To the next boundary; the end of the run if there is none, or an End where `until` holds (UNTIL)."""
        core = self.core
        self._stop_everywhere(True)
        clock, ip = core.clock, core.cpu.ip
        while True:
            end = self._advance(clock + 1, until, None)
            if end is not None or core.clock != clock or core.cpu.ip != ip:
                return end

    def _stop_everywhere(self, everywhere: bool) -> None:
        """At each boundary that shares its clock with another; or only where the scenario's injections want it."""
        self.comparer.matched = None
        self.core.stops_at_delivery = everywhere
        self.core.stops.pass_breakpoints(not (everywhere or self.plan.waiting))

    def glide(self, boundaries: int, look: Callable[[], None]) -> bool:
        """Pass up to as many boundaries as `step` would, as far as that is easy (none is), with `look` called at each.

        False: the bench must be brought back to the last one of them.
        """
        if self.plan.waiting or len(self.machine.cores) > 1:
            return True
        self._stop_everywhere(True)
        return glide(self.core, self.core.clock + boundaries, look)

    def alone(self) -> None:
        """Let other CPUs wait for a while: what is handled now may come to an end by itself."""

    def together(self) -> None:
        """All CPUs take their turns."""

    def run_to(self, target: Boundary) -> None:
        """Along a path that is known to lead there."""
        self._stop_everywhere(True)
        while self.here != target:
            if self.core.clock < target.clock:
                end = self._advance(target.clock, None, None)
            else:
                end = self.step()
            if end is not None or self.core.clock > target.clock:
                raise RuntimeError(f"the run is not deterministic: {target} is not reached")

    def _advance(self, limit: int, until: Callable[[], bool] | None, stops: set[int] | None) -> End | None:
        """One advance of the machine, with the scenario's own injections; an End if the run or `until` is over."""
        plan = self.plan
        if plan.waiting:
            self._break_at(self._joined(stops))
            due = plan.next_counts().get(self.cpu, limit)
            if self.core.clock < due:
                limit = min(limit, due)
        end = self.core.advance(limit, until)
        if end.kind is not _LIMIT and end.kind is not _BREAKPOINT:
            return end
        # The machine reports a breakpoint when it goes on from there, and once more after a restore.
        if plan.waiting:
            self._inject(self.core)
        return None

    def _inject(self, core: Core) -> None:
        """The scenario's own injections that are due on a CPU."""
        here = Boundary(core.clock, core.cpu.ip)
        if here == self._seen.get(core.index):
            return
        self._seen = self._seen | {core.index: here}
        for injection in self.plan.due(core, arrived=core.cpu.ip in self.plan.breakpoints(core.index)):
            fire(injection, self.system.kernel, core)

    # --- events that are pending ------------------------------------------------------------------------------------
    def is_due(self) -> bool:
        """Whether an event comes in before the next instruction."""
        core = self.core
        core.apic.tick(core.clock)
        if core.mce_pending or (core.nmi_pending and not core.nmi_blocked):
            return True
        return bool(core.apic.irr) and core.cpu.interrupts_enabled and core.apic.deliverable() is not None

    def let_in(self, limit: int) -> End:
        """Run until it has come in (UNTIL), or as `go` does."""
        before = self.deliveries
        return self.go(limit, lambda: self.deliveries > before or self.violated)

    # --- answers ----------------------------------------------------------------------------------------------------
    def outcome(self, end: End) -> tuple[object, ...]:
        """What the outside world sees of a run that is over."""
        kernel = self.system.kernel
        status = 0
        if end.kind is EndKind.FINISHED:
            status = kernel.view(TaskStruct, kernel_data(kernel.memory).init_task).exit_code
        return end.kind, status, tuple(kernel.output)

    @property
    def up(self) -> bool:
        """Whether the swept CPU has booted."""
        return True

    @property
    def depth(self) -> int:
        """Entries under way."""
        return len(self.judge.chain.stack(self.cpu))

    def returned(self, depth: int) -> Callable[[], bool]:
        """Asks whether at most `depth` entries are under way, or an invariant is broken."""
        chain = self.judge.chain
        entries, cpu = chain.stack, self.cpu
        return lambda: len(entries(cpu)) <= depth or chain.broken

    @property
    def violated(self) -> bool:
        """Whether an invariant is broken."""
        return self.judge.chain.broken
