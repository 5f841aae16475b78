"""The rig: one booted system, put back to its start before each run.

A run drives the machine from injection to injection and ends with the facts, which know nothing of expectations:
emu.lab.run judges those of a scenario, the `exec` command those of a program.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from asm import Image
from emu.arch import Vector
from emu.events import CCalled, Delivered, Event, Note, Returned
from emu.lab.injection import Injection, Plan, fire
from emu.lab.invariants import Judge
from emu.lab.milestones import milestones
from emu.lab.observers.path import PathSummary
from emu.lab.outcome import Outcome, Outcomes, Subject
from emu.lab.view import View
from emu.lab.violation import Violation
from emu.machine.end import End, EndKind
from kernel_stubs.abi import TaskStruct
from kernel_stubs.boot import BootOptions, System, boot
from kernel_stubs.hostfs import HostFolder, write_back
from kernel_stubs.mm import kernel_data
from kernel_stubs.syscalls.table import unknown_syscalls

if TYPE_CHECKING:
    from emu.machine.machine import Machine

BOOTED = "syscall_exit_to_user_mode"
"""C function that a new process goes to user mode by; what happens before it is boot."""
SLICE = 1_000_000
"""Instructions between two looks at the program's output."""


class Attachable(Protocol):
    """An observer that has to be begun, for it wants more of a machine than its events, and may have a last word."""

    def attach(self, machine: Machine) -> None:
        """Begin."""

    def finish(self) -> None:
        """The run is over."""


class Tracing(Protocol):
    """An observer that was asked for: a trace, or a view of the run for people."""

    @property
    def boot(self) -> bool:
        """Whether to begin at the first instruction of the kernel, not when it goes to user mode for the first time."""

    def begin(self, view: View) -> Attachable:
        """The observer that writes it."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Where a trace goes and in which form."""

    write: Callable[[str], object]
    form: str = "text"
    registers: bool = False
    title: str = ""
    """What is traced, for the first line."""
    boot: bool = False
    """Whether to begin at the first instruction of the kernel, not when it goes to user mode for the first time."""

    def begin(self, view: View) -> Attachable:
        """The observer that writes it, after a first line."""
        from emu.lab.observers.trace import JsonlTrace, TextTrace

        if self.form == "jsonl":
            self.write(json.dumps({"event": "run", "title": self.title}) + "\n")
            return JsonlTrace(view, self.write, self.registers)
        self.write(f"== {self.title}\n")
        return TextTrace(view, self.write, self.registers)


@dataclass(frozen=True, slots=True)
class Facts:
    """What happened in one run."""

    end: str
    """finished, halted, crashed, shutdown, stuck or budget."""
    text: str
    """The end in words."""
    where: str
    """The instruction where it ended."""
    clock: int
    exit_code: int | None
    signal: int | None
    output: tuple[tuple[int, bytes], ...]
    calls: tuple[str, ...]
    returns: tuple[str, ...]
    """How user mode was returned to, each time."""
    faults: int
    notes: tuple[str, ...]
    path: tuple[str, ...]
    fired: tuple[str, ...]
    missed: tuple[str, ...]
    """Injections that did not come about, and why."""
    violations: tuple[Violation, ...]
    unknown_syscalls: dict[str, int]
    outcomes: tuple[Outcome | None, ...] = ()
    """Of each subject."""

    def stream(self, descriptor: int) -> bytes:
        """All that was written to one file descriptor."""
        return b"".join(data for number, data in self.output if number == descriptor)


@dataclass(slots=True)
class _Log:
    """Observer: what expectations ask about."""

    calls: list[str] = field(default_factory=list)
    returns: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    faults: int = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, CCalled):
            self.calls.append(event.name)
        elif isinstance(event, Returned):
            if event.frame.cpl == 3:
                self.returns.append(event.by)
        elif isinstance(event, Delivered):
            self.faults += event.vector == Vector.PF
        elif isinstance(event, Note):
            self.notes.append(event.text)


class _Patience:
    """Observer: the budget counts instructions, but where next to every one is interrupted, a run takes far longer."""

    def __init__(self, budget: int) -> None:
        self._left = 2_000 + budget // 50  # an entry and its return take some 100 instructions

    def __call__(self, event: Event) -> None:
        if isinstance(event, Delivered):
            self._left -= 1

    def exhausted(self) -> bool:
        """Whether that was too many."""
        return self._left < 0


class Rig:
    """One system that runs again and again from its start. `user_image` is the program's, if it was assembled."""

    def __init__(self, options: BootOptions, user_image: Image | None = None) -> None:
        self._system: System = boot(options)
        if user_image is not None:
            self._system.machine.observe_instructions(user_image.instructions())
        self._start = self._system.machine.snapshot()
        self._user_image = user_image
        self._user_symbols = options.program.symbols
        self._milestones: frozenset[int] = frozenset()
        self._booted = options.image.symbols.get(BOOTED)

    def write_back(self, folder: HostFolder) -> list[str]:
        """After a run: bring the host's folder, if that is allowed, to what it has become; names of what changed."""
        return write_back(self._system.kernel, folder)

    def run(
        self,
        injections: Sequence[Injection],
        budget: int,
        reproduce: str,
        *,
        allowed: frozenset[str] = frozenset(),
        watch: Sequence[Tracing] = (),
        log: bool = True,
        on_output: Callable[[int, bytes], None] | None = None,
        subjects: Sequence[Subject] = (),
    ) -> Facts:
        """One run. `allowed`: the ENDINGS of emu.lab.invariants that are no violation. Without `log` there is no path
        and nothing about calls, which a long run has too many of; `on_output` gets output while the program runs."""
        system, machine = self._system, self._system.machine
        self._rewind()
        view = View(system, self._user_image, self._user_symbols)
        judge = Judge(view, reproduce, allowed)
        facts, path = _Log(), PathSummary(view)
        plan = Plan(list(injections))
        patience = _Patience(budget)
        machine.observers += [patience, judge]
        if injections:
            machine.observers.append(plan)
        if log:
            machine.observers.append(facts)
            path.attach(machine)
            self._tell_of_milestones()
        outcomes = Outcomes(subjects, machine, view.symbol)
        fired: list[str] = []
        missed: list[str] = []
        begun = [(asked.boot or self._booted is None, asked.begin(view)) for asked in watch]
        for at_once, watcher in begun:
            if at_once:
                watcher.attach(machine)
        later = [watcher for at_once, watcher in begun if not at_once]
        end = self._drive(plan, budget, patience, fired, missed, on_output, later, outcomes)
        for _, watcher in begun:
            watcher.finish()
        missed += [self._why_missed(injection, plan) for injection in plan.waiting]
        core = machine.cores[0]
        code = self._exit_code() if end.kind is EndKind.FINISHED else None
        return Facts(
            "budget" if end.kind is EndKind.LIMIT else end.kind.value,
            end.text,
            view.where(end.ip),
            core.clock,
            None if code is None or code & 0x7F else code >> 8 & 0xFF,
            None if code is None or not code & 0x7F else code & 0x7F,
            tuple(system.kernel.output),
            tuple(facts.calls),
            tuple(facts.returns),
            facts.faults,
            tuple(facts.notes),
            tuple(path.lines()) if log else (),
            tuple(fired),
            tuple(missed),
            tuple(judge.finish(end)),
            unknown_syscalls(system.kernel),
            outcomes.finish(end),
        )

    def _tell_of_milestones(self) -> None:
        """For the path; once is for good."""
        if not self._milestones:
            self._milestones = milestones(self._system.kernel.image)
            for core in self._system.machine.cores:
                core.set_milestones(self._milestones)

    def _rewind(self) -> None:
        system = self._system
        system.machine.forget_observers()
        for core in system.machine.cores:
            core.record(None)
            core.set_breakpoints(set())
        system.binding.go_back(())
        system.kernel.output.clear()
        system.machine.restore(self._start)

    def _drive(
        self,
        plan: Plan,
        budget: int,
        patience: _Patience,
        fired: list[str],
        missed: list[str],
        on_output: Callable[[int, bytes], None] | None,
        later: list[Attachable],
        outcomes: Outcomes,
    ) -> End:
        """To the end. `later` are to be attached once the kernel has booted."""
        machine = self._system.machine
        output, shown = self._system.kernel.output, 0
        while True:
            waiting = {self._booted} if later and self._booted is not None else set()
            for core in machine.cores:
                stops = plan.breakpoints(core.index) | outcomes.breakpoints(core.index)
                core.set_breakpoints(stops | (waiting if core.index == 0 else set()))
            limit = min(budget, machine.cores[0].clock + SLICE if on_output else budget)
            index, end = machine.advance(limit, plan.next_counts(), patience.exhausted)
            core = machine.cores[index]
            if on_output:
                for descriptor, data in output[shown:]:
                    on_output(descriptor, data)
                shown = len(output)
            if end.kind is EndKind.UNTIL:
                return End(EndKind.LIMIT, end.ip, "endless loop: next to nothing but interrupts and exceptions")
            if end.kind not in (EndKind.LIMIT, EndKind.BREAKPOINT):
                return end
            if index == 0 and core.cpu.ip in waiting:
                for watcher in later:
                    watcher.attach(machine)
                later = []
            if end.kind is EndKind.BREAKPOINT:
                outcomes.arrived(core)
            ready = plan.due(core, arrived=end.kind is EndKind.BREAKPOINT)
            if end.kind is EndKind.LIMIT and core.clock >= budget and not ready:
                return End(EndKind.LIMIT, end.ip, f"endless loop: instruction budget {budget} exhausted")
            for injection in ready:
                clock = core.clock
                problem = fire(injection, self._system.kernel, core)
                if problem is None:
                    fired.append(f"{injection}, clock {clock}")
                else:
                    missed.append(problem)

    def _why_missed(self, injection: Injection, plan: Plan) -> str:
        head = f"injection {injection.number} ({injection})"
        if injection.boundary is None:
            return f"{head}: the run ended before that instruction"
        count = plan.arrivals.get((injection.number, injection.hit), 0)
        if not count:
            return f"{head}: the injection point was never reached"
        return f"{head}: the injection point was reached only {'once' if count == 1 else f'{count} times'}"

    def _exit_code(self) -> int:
        kernel = self._system.kernel
        return kernel.view(TaskStruct, kernel_data(kernel.memory).init_task).exit_code
