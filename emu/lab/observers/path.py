"""The path of a run, for learners: each crossing from user mode as one indented tree, repeated ones folded.

user _start+0x5 (user.S:5) --SYSCALL 39 (getpid)--> entry_SYSCALL_64 -> SWAPGS -> kernel CR3 -> task stack
    -> do_syscall_64 -> entry stack -> user CR3 -> SWAPGS -> SYSRETQ --> user   x3
    NMI at entry_SYSCALL_64 (entry_64.S:13) --> asm_exc_nmi (IST2 NMI stack) -> paranoid_entry -> ...

(Each crossing is one line here; the report breaks it.) All of it is from what ran: the CPU tells of SWAPGS and of the
instructions of `emu.lab.milestones`, and at those, and where C begins, it is seen whose GS and CR3 and which stack are
in use. What happens while another task runs stands with that task's crossing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from emu.events import CCalled, Delivered, Event, GsSwapped, Note, Passed, Returned, Shutdown, SystemCall
from emu.lab.chain import REPEAT, USER, EntryChain
from emu.lab.milestones import LABELS
from emu.lab.observers.crossing import INDENT, Crossing, Folded, fold, shown
from emu.lab.view import View
from emu.machine.machine import Machine
from emu.tracepoints import ExitWork, SchedSwitch
from kernel_stubs.abi import Tif
from kernel_stubs.espfix import is_espfix

MAX_LINES = 400
"""How many lines of crossings are kept; further crossings are only counted."""
_TASK_BEGINS = frozenset({"ret_from_fork", "schedule_tail"})
_GONE = frozenset({"Z", "X"})
_STACKS = {"irq": "IRQ"}


@dataclass(slots=True)
class _Place:
    """Whose GS and CR3 are loaded, and on which stack the CPU is."""

    stack: str
    owner: str
    user_cr3: bool


class PathSummary:
    """Observer. `lines()` gives the tree at any time."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._chain = EntryChain(view)
        self._open: dict[int, list[Crossing]] = {}
        self._parked: dict[int, list[Crossing]] = {}
        self._ending: set[int] = set()
        """CPUs whose current task is about to be left for good."""
        self._places: dict[int, _Place] = {}
        self._labels = {view.image.symbols.get(name, -1): name for name in LABELS}
        self._done: list[Folded] = []
        self._kept = 0
        self._dropped = 0
        self._handlers: Mapping[type[Event], Callable[[Any], None]] = {
            SystemCall: self._system_call,
            Delivered: self._delivered,
            GsSwapped: self._gs_swapped,
            Passed: self._passed,
            CCalled: self._c_called,
            ExitWork: self._exit_work,
            SchedSwitch: self._sched_switch,
            Returned: self._returned,
            Note: self._note,
            Shutdown: self._shutdown,
        }

    def attach(self, machine: Machine) -> None:
        """Begin."""
        machine.trace(self)

    def __call__(self, event: Event) -> None:
        """Follow one event."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            self._chain(event)
            handler(event)

    def lines(self) -> list[str]:
        """The tree."""
        text: list[str] = []
        for block, count in self._done:
            text += shown(block, count)
        for crossings in [*(self._open[cpu] for cpu in sorted(self._open)), *self._parked.values()]:
            for crossing in crossings:
                text += crossing.block(" ...")
        if self._dropped:
            text.append(f"... and {self._dropped} more crossings")
        return text

    # --- the way in -------------------------------------------------------------------------------------------------
    def _system_call(self, event: SystemCall) -> None:
        self._enter(event.cpu, event.target, new=True)
        self._places[event.cpu] = _Place("user", self._owner(event.cpu, event.gs_base), self._user_tables(event.cpu))

    def _delivered(self, event: Delivered) -> None:
        cpu, stack = event.cpu, self._stack(event.cpu, event.frame_at)
        where = f" ({stack} stack)" if stack != self._places.get(cpu, _Place("", "", False)).stack or event.ist else ""
        self._enter(cpu, event.handler, new=bool(event.frame.cs & 3), where=where)
        self._places[cpu] = _Place(stack, self._owner(cpu, event.gs_base), self._user_tables(cpu))

    def _enter(self, cpu: int, handler: int, *, new: bool, where: str = "") -> None:
        entry = self._chain.top(cpu)
        assert entry is not None
        if new:
            self._abandon(cpu)
        stack = self._open.setdefault(cpu, [])
        words = self._chain.words(entry)
        if isinstance(entry.event, SystemCall):
            what, _, place = words.partition(" from ")
            line = f"{place} --{what}--> {self._view.symbol(handler)}"
        else:
            line = f"{words} --> {self._view.symbol(handler)}{where}"
        if cpu and not stack:
            line = f"CPU {cpu}: {line}"
        stack.append(Crossing(entry.serial, len(stack), line))

    def _abandon(self, cpu: int, words: str = "") -> None:
        """User mode runs again without a return that we saw, or the task is gone: what was under way never ended."""
        stack = self._open.pop(cpu, [])
        if stack:
            stack[-1].leave(words)
            self._finish(tuple(line for crossing in stack for line in crossing.block()))

    # --- inside -----------------------------------------------------------------------------------------------------
    def _stack(self, cpu: int, sp: int) -> str:
        name = self._view.stack_name(cpu, sp)
        return "espfix" if name == "?" and is_espfix(sp) else _STACKS.get(name, name)

    def _owner(self, cpu: int, gs_base: int) -> str:
        return self._view.gs_owner(cpu, gs_base)

    def _user_tables(self, cpu: int, cr3: int | None = None) -> bool:
        return self._view.user_cr3(self._view.cr3(cpu) if cr3 is None else cr3)

    def _step(self, cpu: int, words: str) -> None:
        stack = self._open.get(cpu)
        if stack:
            stack[-1].step(words)

    def _moved(self, cpu: int, sp: int, gs_base: int, cr3: int) -> None:
        """Say what of the CPU's place is another than when it was last seen."""
        before = self._places.get(cpu)
        now = _Place(self._stack(cpu, sp), self._owner(cpu, gs_base), self._user_tables(cpu, cr3))
        self._places[cpu] = now
        if before is None or before == now:
            return
        # What was seen at once is told in the only order that works: user mode's tables lack the task stack.
        stack = f"{now.stack} stack" if now.stack not in (before.stack, "user", "?") else ""
        tables = ("user CR3" if now.user_cr3 else "kernel CR3") if now.user_cr3 != before.user_cr3 else ""
        owner = f"{now.owner} GS" if now.owner != before.owner else ""
        for words in (stack, tables, owner) if now.user_cr3 else (tables, owner, stack):
            if words:
                self._step(cpu, words)

    def _passed(self, event: Passed) -> None:
        self._moved(event.cpu, *self._view.place(event.cpu))
        label = self._labels.get(event.ip)
        if label is not None:
            self._step(event.cpu, label)

    def _gs_swapped(self, event: GsSwapped) -> None:
        sp, gs_base, cr3 = self._view.place(event.cpu)
        self._moved(event.cpu, sp, gs_base, cr3)
        self._step(event.cpu, "SWAPGS")
        self._places[event.cpu].owner = self._owner(event.cpu, event.kernel_gs_base)

    def _c_called(self, event: CCalled) -> None:
        cpu = event.cpu
        self._moved(cpu, event.sp, event.gs_base, event.cr3)
        if event.name in _TASK_BEGINS and not self._open.get(cpu):
            task = self._view.current_task(cpu)
            name = f"task {task.pid}" if task is not None and task.pid else "the idle task"
            words = f"{f'CPU {cpu}: ' if cpu else ''}{name} begins"
            self._open[cpu] = [Crossing(0, 0, words)]
        self._step(cpu, event.name)
        if event.name == "__switch_to" and len(event.args) >= 2:
            self._switch(cpu, event.args[0], event.args[1])

    def _sched_switch(self, event: SchedSwitch) -> None:
        if event.prev_state in _GONE:
            self._ending.add(event.cpu)

    def _switch(self, cpu: int, before: int, after: int) -> None:
        if cpu in self._ending:
            self._ending.discard(cpu)
            self._abandon(cpu, " (the task is gone)")
        elif crossings := self._open.pop(cpu, []):
            self._parked[before] = crossings
        if after in self._parked:
            self._open[cpu] = self._parked.pop(after)

    def _exit_work(self, event: ExitWork) -> None:
        names = "|".join(flag.name for flag in Tif if event.flags & flag and flag.name)
        self._step(event.cpu, f"work before user mode: {names}")

    def _note(self, event: Note) -> None:
        stack = self._open.get(event.cpu)
        if stack:
            stack[-1].add((INDENT * (stack[-1].depth + 1) + f"({event.text})",))

    def _shutdown(self, event: Shutdown) -> None:
        self._step(event.cpu, f"shutdown ({event.why})")

    # --- the way out ------------------------------------------------------------------------------------------------
    def _returned(self, event: Returned) -> None:
        cpu, frame = event.cpu, event.frame
        stack, back = self._open.get(cpu), self._chain.last_return
        if event.frame_at:
            self._moved(cpu, event.frame_at, event.gs_base, event.cr3)
        self._places[cpu] = _Place(
            self._stack(cpu, frame.sp), self._owner(cpu, event.gs_base), self._user_tables(cpu, event.cr3)
        )
        if not stack:
            return
        leaves = f" -> {event.by.upper()} --> "
        if back.how is USER:
            stack[-1].leave(leaves + "user")
            while stack:
                self._close(cpu, stack)
            return
        leaves += self._view.symbol(frame.ip)
        if back.how is REPEAT or back.entry is None:
            stack[-1].leave(leaves)
            return
        while stack and stack[-1].serial > back.entry.serial:
            self._close(cpu, stack)
        if stack:
            stack[-1].leave(leaves)
            self._close(cpu, stack)

    def _close(self, cpu: int, stack: list[Crossing]) -> None:
        block = stack.pop().block()
        if stack:
            stack[-1].add(block)
        else:
            self._open.pop(cpu, None)
            self._finish(block)

    def _finish(self, block: tuple[str, ...]) -> None:
        if self._done and self._done[-1][0] == block:
            fold(self._done, block)
        elif self._kept + len(block) > MAX_LINES:
            self._dropped += 1
        else:
            self._kept += len(block)
            fold(self._done, block)
