"""Run one case from a boundary until all that follows is known."""

from __future__ import annotations

from dataclasses import replace

from emu.arch import Vector
from emu.lab.injection import CannotInject, Fire
from emu.lab.sweep.bench import Bench, Boundary
from emu.lab.sweep.case import CLEAN, CRASH, DELIVERY, ENDING, HANG, PENDING, TRANSPARENCY, VIOLATION, Result
from emu.lab.sweep.event import UNNOTICED, Ending, SweepEvent
from emu.lab.sweep.state import Apart, Reference
from emu.lab.sweep.track import Track
from emu.lab.violation import Violation
from emu.machine.end import End, EndKind
from kernel_stubs.context import KernelOops
from kernel_stubs.signal import signal_name

_PF = int(Vector.PF)
_MOST_ROUNDS = 3
"""Events that may come in, one after the other, while a case's own is handled."""
_ENDLESS = (EndKind.LIMIT, EndKind.STUCK)
_UNTIL = EndKind.UNTIL


class UserUnknownError(Exception):
    """A case came to user mode, and nobody knows yet what the baseline looks like there."""


class Runner:
    """Runs cases on a bench. `baseline` is the outcome of the run without them, `limit` the clock to give up at."""

    def __init__(self, bench: Bench, baseline: tuple[object, ...], limit: int) -> None:
        self._bench = bench
        self._baseline = baseline
        self._limit = limit
        self._left_at = 0
        """The instruction that ended an event's entry before its handler ran."""
        self._begun = 0
        """Clock at the boundary."""
        self._known: Apart | None = None
        """What comes after the innermost state with this of its own is known."""
        self._apart: Apart | None = None
        """What it had of its own."""

    def run(
        self, event: SweepEvent, fire: Fire, references: tuple[Reference, ...], base: Track,
        following: tuple[Boundary, Reference] | None, known: Apart | None = None,
    ) -> Result | None:  # fmt: skip
        """Raise an event where the bench is; None if that cannot be done here.

        `references`: the states to come back to, the outermost first; `base` knows the baseline's when user mode runs
        for the next time (UserUnknownError if it must find out first: then do that, and begin again); `following`: the
        next boundary of the track, if it has a case too; `known`: what comes after the innermost state with this of its
        own is known too.
        """
        bench = self._bench
        start = bench.here
        bench.injected = None
        bench.interrupted.clear()
        bench.signals.clear()
        self._left_at = 0
        self._apart = None
        counted = self._count(event)
        try:
            fire(bench.system.kernel, bench.core)
        except (CannotInject, KernelOops):
            return None
        delivered = event.arms or bench.injected is not None
        end = None
        if bench.core.halted:
            bench.alone()  # what wakes it comes in now
        if not delivered:
            end = bench.step(bench.has_injected)
            if end is not None and end.kind is _UNTIL:
                end = None  # at the handler's first instruction
            delivered = self._was_delivered(event, start)
        if event.faults and not delivered and end is None and not bench.violated:
            return self._wrong(bench.here.ip, DELIVERY, f"{event.name}: the instruction does not fault", False)
        if end is None and not delivered and following is not None and self._is_next(event, following):
            return Result(PENDING, False, same_as_next=True)
        if end is None:
            self._known, self._begun = known, start.clock
            end = self._follow(references, base, delivered, event, counted)
        verdict = CLEAN if delivered else PENDING
        if end is None and not event.ending.recovers:
            return self._wrong_ending(bench.here.ip, event, "the run goes on as without it", delivered)
        if end is None:
            return Result(verdict, delivered, apart=self._apart)
        return replace(self._ended(end, verdict, delivered, event, counted), apart=self._apart)

    def to_end(self, event: SweepEvent, fire: Fire) -> tuple[Result, tuple[object, ...]]:
        """Raise an event that only changes what user mode has, and run to the end; the outcome with the result."""
        bench = self._bench
        bench.signals.clear()
        fire(bench.system.kernel, bench.core)
        end = bench.go(self._limit, lambda: bench.violated)
        return self._ended(end, CLEAN, True, event, -1), bench.outcome(end)

    def _count(self, event: SweepEvent) -> int:
        return self._bench.view.percpu_word(self._bench.cpu, event.counter) if event.counter else -1

    def _handled(self, event: SweepEvent, counted: int) -> bool:
        return not event.counter or self._count(event) > counted

    def _was_delivered(self, event: SweepEvent, start: Boundary) -> bool:
        injected = self._bench.injected
        if event.vector == _PF or event.faults:
            return start in self._bench.interrupted
        return injected is not None and injected.vector == event.vector and (injected.clock, injected.ip) == start

    def _is_next(self, event: SweepEvent, following: tuple[Boundary, Reference]) -> bool:
        bench = self._bench
        return bench.here == following[0] and bench.comparer.same(following[1], event)

    def _follow(
        self,
        references: tuple[Reference, ...],
        base: Track,
        delivered: bool,
        event: SweepEvent,
        counted: int,
    ) -> End | None:
        """Until the state is a known one (None) or the run is over; UNTIL: an invariant is broken.

        An NMI may be handled by one that it interrupts, so that its handler runs after it has returned.
        """
        bench = self._bench
        if not delivered:
            bench.together()
            bench.injected = None
            end = bench.go(self._limit, lambda: bench.injected is not None or bench.violated)
            if end.kind is not _UNTIL or bench.violated:
                return end
        bench.alone()
        for reference in reversed(references):
            innermost = reference is references[-1] and delivered and event.ending == UNNOTICED
            ended, known = self._back(reference, event, counted, innermost=innermost)
            if known or ended is not None:
                return ended
        bench.together()
        end = bench.to_user_mode(self._limit)
        if end.kind is not _UNTIL or bench.violated:
            return end
        if not base.knows_user_reference:
            raise UserUnknownError
        user = base.user_reference()
        if user is not None and self._handled(event, counted) and self._same(user):
            return None
        return bench.go(self._limit, lambda: bench.violated)

    def _same(self, reference: Reference) -> bool:
        self._bench.lazy.unmap(reference)
        return self._bench.comparer.same(reference)

    def _back(
        self, reference: Reference, event: SweepEvent, counted: int, *, innermost: bool
    ) -> tuple[End | None, bool]:
        """Until what was under way at a reference is all that is: how the run has ended, and whether what comes is
        known.

        An event takes time, in which others may come; those are let in.
        """
        bench = self._bench
        for _ in range(_MOST_ROUNDS):
            end = bench.go(self._limit, bench.returned(reference.depth))
            if end.kind is not _UNTIL or bench.violated:
                return end, False
            if not self._handled(event, counted):
                self._left_at = self._left_at or bench.judge.chain.last_return.ip
                return None, False
            bench.lazy.unmap(reference)
            found = bench.comparer.pending_at(reference)
            if found == reference.pending:
                return None, True
            if not bench.is_due():
                if found is None or not innermost:
                    return None, False
                self._apart = bench.comparer.apart(self._begun)
                return None, self._apart is not None and self._apart == self._known
            end = bench.let_in(self._limit)
            if end.kind is not _UNTIL or bench.violated:
                return end, False
        return None, False

    def _ended(self, end: End, verdict: str, delivered: bool, event: SweepEvent, counted: int) -> Result:
        bench = self._bench
        if end.kind is EndKind.LIMIT and not bench.violated and self._signalled(event.ending):
            return Result(verdict, delivered, True)  # a handler that returns to where it came from
        found = bench.judge.violations if end.kind is _UNTIL else bench.judge.finish(end)
        if found:
            first = found[0]
            if first.invariant != "progress":
                verdict = VIOLATION
            else:
                verdict = HANG if end.kind in _ENDLESS else CRASH
            return Result(verdict, delivered, True, violation=first)
        if not self._may_end(end, event.ending):
            how = f"{end.kind.value} {end.text}".rstrip()
            if event.ending == UNNOTICED:
                message = f"the run ends otherwise than without the event: {how}"
                return self._wrong(end.ip, TRANSPARENCY, message, delivered)
            return self._wrong_ending(end.ip, event, f"the run ends otherwise: {how}", delivered)
        if delivered and not self._handled(event, counted):
            message = f"{event.name} was delivered, but its handler never ran"
            return self._wrong(self._left_at or end.ip, DELIVERY, message, delivered)
        return Result(verdict, delivered, True)

    def _may_end(self, end: End, ending: Ending) -> bool:
        """Whether the run may end like this."""
        outcome = self._bench.outcome(end)
        kind, status, _ = outcome
        if outcome == self._baseline and ending.recovers:
            return True
        if kind not in (EndKind.FINISHED, self._baseline[0]):
            return False
        assert isinstance(status, int)
        return ending.anything or self._signalled(ending) or signal_name(status & 0x7F) in ending.signals

    def _signalled(self, ending: Ending) -> bool:
        """Whether a task got a signal that the event may lead to."""
        sent = self._bench.signals
        return bool(sent) and (ending.anything or not ending.signals.isdisjoint(sent))

    def _wrong_ending(self, ip: int, event: SweepEvent, how: str, delivered: bool) -> Result:
        wanted = " or ".join(sorted(event.ending.signals)) or "an end of the program"
        return self._wrong(ip, ENDING, f"{event.name} is to lead to {wanted}, but {how}", delivered)

    def _wrong(self, ip: int, invariant: str, message: str, delivered: bool) -> Result:
        core, view = self._bench.core, self._bench.view
        violation = Violation(
            invariant, message, ip, view.where(ip), core.clock, core.index, (), view.registers(core.index), ""
        )
        return Result(VIOLATION, delivered, True, violation=violation)
