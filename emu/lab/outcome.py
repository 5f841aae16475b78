"""What becomes of an instruction: measured in a run, at each [[cell]] of a scenario.

The CPU stops before the instruction. The first delivery or system call before another instruction has retired is its
event; the RIP that was saved is read where the CPU put it: in the frame in memory, for SYSCALL in RCX. Then the CPU
stops again where the code goes on: at the instruction itself, or at the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from emu.arch import Rflags, Vector
from emu.events import Delivered, Event, EventType, Note, Returned, SystemCall
from emu.lab.chain import vector_name
from emu.machine.core import Core
from emu.machine.end import End, EndKind
from emu.machine.machine import Machine
from emu.machine.registers import R11, RCX

EXECUTES = "executes"
THIS, NEXT, ELSEWHERE, NOWHERE = "this", "next", "elsewhere", "end"
NONE = "-"
LONGEST_INSTRUCTION = 15
_SENT = " sent to pid "
_ENDS = {EndKind.HALTED: "halts", EndKind.SHUTDOWN: "shutdown", EndKind.STUCK: "stuck"}


@dataclass(frozen=True, slots=True)
class Subject:
    """The instruction to look at."""

    address: int
    size: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it; the texts are those of tables."""

    event: str
    """`#GP(0)`, `NMI`, `SYSCALL`, ...; `executes` if nothing came, `halts` if it was the CPU's last."""
    saved: str
    """The saved RIP: `this` instruction, the `next` one, a symbol elsewhere; `-` if there is none."""
    rf: str
    """RF in the saved RFLAGS, `-` if none were saved."""
    signal: str
    """The first one that was sent before the code went on."""
    then: str
    """Where the code went on: `this` instruction, begun again; the `next` one; a symbol; `end` if it did not."""


class _Watch:
    """One instruction on its way."""

    def __init__(self, subject: Subject, symbol: Callable[[int], str]) -> None:
        self._subject = subject
        self._symbol = symbol
        self._after = subject.address + subject.size
        self.core: Core | None = None
        """The CPU that came there; None before."""
        self._clock = 0
        self._cpl = 0
        self._event = self._saved = self._rf = self._signal = self._then = ""
        self._landed = ""
        self._passed = False
        self.target: int | None = None
        """Where SYSCALL goes: RCX is looked at there."""

    def stops(self, cpu: int) -> set[int]:
        """Where this CPU must stop."""
        if self._then:
            return set()
        if self.core is None:
            return {self._subject.address}
        if self.core.index != cpu:
            return set()
        return {self._subject.address, self._after} | ({self.target} if self.target is not None else set())

    def arrived(self, core: Core) -> None:
        """A CPU stopped somewhere."""
        ip = core.cpu.ip
        if self.core is None:
            if ip == self._subject.address:
                self._reach(core, core.cpu.cpl)
            return
        if core is not self.core or self._then:
            return
        if ip == self.target and self._event == "SYSCALL" and not self._saved:
            self._saved = self._place(core.cpu.register(RCX))
            self._rf = _rf(core.cpu.register(R11))
            self.target = None
        elif ip in (self._subject.address, self._after):
            if self._event:
                self._then = self._place(ip)
            elif ip == self._after and core.clock == self._clock + 1:
                self._passed = True  # and an interrupt may still come, before the next instruction

    def _reach(self, core: Core, cpl: int) -> None:
        self.core, self._clock, self._cpl = core, core.clock, cpl
        self.target = core.cpu.state.lstar

    def fetched(self, core: Core, event: Event) -> None:
        """An instruction breakpoint (DR0-3) comes before the CPU can stop at the instruction."""
        if isinstance(event, Delivered) and event.ip == self._subject.address and _is_breakpoint(core, event):
            self._reach(core, event.frame.cpl)
            self._begin(event)

    def saw(self, event: Event) -> None:
        """Something happened on its CPU after it was reached."""
        if self._then:
            return
        if not self._event:
            if isinstance(event, Delivered | SystemCall):
                self._begin(event)
        elif isinstance(event, Note):
            if _SENT in event.text and not self._signal:
                self._signal = event.text.split()[0]
        elif isinstance(event, Returned) and event.frame.cpl == self._cpl and not self._landed:
            self._landed = self._place(event.frame.ip)
            if not self._cpl:
                self._then = self._landed  # no signal handler comes in between

    def _begin(self, event: Delivered | SystemCall) -> None:
        assert self.core is not None
        if event.clock > self._clock + 1 or (event.clock > self._clock and self._is_of_next(event)):
            self._event = EXECUTES
            self._then = NEXT if self._passed or event.ip == self._after else ELSEWHERE
        elif isinstance(event, SystemCall):
            self._event = event.by.upper()
            if event.by != "syscall":
                self._saved = self._rf = NONE
        else:
            self._event = vector_name(event.vector, event.type)
            if event.error_code is not None:
                self._event += f"({event.error_code:#x})" if event.error_code else "(0)"
            linear = self.core.linear
            self._saved = self._place(linear.read_u64(event.frame_at))
            self._rf = _rf(linear.read_u64(event.frame_at + 16))

    def _is_of_next(self, event: Delivered | SystemCall) -> bool:
        """This instruction has retired: whether the event is a fault of the one behind it."""
        assert self.core is not None
        if not isinstance(event, Delivered) or event.type is not EventType.HWEXC or event.vector == Vector.MC:
            return False
        return event.vector != Vector.DB or self._passed or _is_breakpoint(self.core, event)

    def _place(self, address: int) -> str:
        if address == self._subject.address:
            return THIS
        return NEXT if address == self._after else self._symbol(address)

    def outcome(self, end: End) -> Outcome | None:
        """All of it, when the run is over; None if the instruction was never reached."""
        if self.core is None:
            return None
        event, then = self._event, self._then or self._landed or NOWHERE
        if not event and self._passed:
            event, then = EXECUTES, NEXT
        elif not event:
            at_once = self.core.clock <= self._clock + 1
            event = _ENDS.get(end.kind, EXECUTES) if at_once else EXECUTES
        return Outcome(event, self._saved or NONE, self._rf or NONE, self._signal or NONE, then)


def _is_breakpoint(core: Core, event: Delivered) -> bool:
    """Whether it is the #DB of an instruction breakpoint."""
    dr = core.cpu.state.dr
    return event.vector == Vector.DB and any(dr[6] >> n & 1 and dr[n] == event.ip for n in range(4))


def _rf(flags: int) -> str:
    return "1" if flags & Rflags.RF else "0"


class Outcomes:
    """Observer of one run, which also says where to stop."""

    def __init__(self, subjects: Sequence[Subject], machine: Machine, symbol: Callable[[int], str]) -> None:
        """`symbol` names addresses."""
        self._cores = machine.cores
        self._watches = [_Watch(subject, symbol) for subject in subjects]
        if subjects:
            machine.observers.append(self)

    def __call__(self, event: Event) -> None:
        """Follow one event."""
        for watch in self._watches:
            if watch.core is None:
                watch.fetched(self._cores[event.cpu], event)
            elif watch.core.index == event.cpu:
                watch.saw(event)

    def breakpoints(self, cpu: int) -> set[int]:
        """Where a CPU must stop."""
        return {address for watch in self._watches for address in watch.stops(cpu)}

    def arrived(self, core: Core) -> None:
        """A CPU stopped at a breakpoint."""
        for watch in self._watches:
            watch.arrived(core)

    def finish(self, end: End) -> tuple[Outcome | None, ...]:
        """One a subject."""
        return tuple(watch.outcome(end) for watch in self._watches)
