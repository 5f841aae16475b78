"""The path of a run, for learners: each crossing from user mode as one indented tree, repeated ones folded.

user _start+0x5 (user.S:5) --SYSCALL 39 (getpid)--> entry_SYSCALL_64 -> do_syscall_64 -> SYSRETQ --> user   x3
    NMI at entry_SYSCALL_64 (entry_64.S:13) --> asm_exc_nmi -> exc_nmi -> IRETQ --> entry_SYSCALL_64
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from emu.events import CCalled, Delivered, Event, Note, Returned, Shutdown, SystemCall
from emu.lab.chain import Closing, EntryChain
from emu.lab.view import View

_INDENT = "    "
MAX_LINES = 400
"""How many different crossings are kept; further ones are only counted."""


@dataclass(slots=True)
class _Crossing:
    serial: int
    depth: int
    line: str
    inner: list[str] = field(default_factory=list)


class PathSummary:
    """Observer. `lines()` gives the tree at any time."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._chain = EntryChain(view)
        self._open: dict[int, list[_Crossing]] = {}
        self._done: list[tuple[tuple[str, ...], int]] = []
        self._kept = 0
        self._dropped = 0
        self._handlers: Mapping[type[Event], Callable[[Any], None]] = {
            SystemCall: self._system_call,
            Delivered: self._delivered,
            CCalled: self._c_called,
            Returned: self._returned,
            Note: self._note,
            Shutdown: self._shutdown,
        }

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
            text += _folded(block, count)
        for cpu in sorted(self._open):
            for crossing in self._open[cpu]:
                text += [_INDENT * crossing.depth + crossing.line + " ...", *crossing.inner]
        if self._dropped:
            text.append(f"... and {self._dropped} more crossings")
        return text

    # --- events -----------------------------------------------------------------------------------------------------
    def _system_call(self, event: SystemCall) -> None:
        self._enter(event.cpu, event.target, new=True)

    def _delivered(self, event: Delivered) -> None:
        self._enter(event.cpu, event.handler, new=bool(event.frame.cs & 3))

    def _enter(self, cpu: int, handler: int, *, new: bool) -> None:
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
            line = f"{words} --> {self._view.symbol(handler)}"
        stack.append(_Crossing(entry.serial, len(stack), line))

    def _abandon(self, cpu: int) -> None:
        """User mode runs again without a return that we saw: what was under way never ended."""
        stack = self._open.pop(cpu, [])
        if stack:
            block = [line for crossing in stack for line in (_INDENT * crossing.depth + crossing.line, *crossing.inner)]
            self._finish(tuple(block))

    def _c_called(self, event: CCalled) -> None:
        stack = self._open.get(event.cpu)
        if stack:
            stack[-1].line += f" -> {event.name}"

    def _note(self, event: Note) -> None:
        stack = self._open.get(event.cpu)
        if stack:
            stack[-1].inner.append(_INDENT * (stack[-1].depth + 1) + f"({event.text})")

    def _shutdown(self, event: Shutdown) -> None:
        stack = self._open.get(event.cpu)
        if stack:
            stack[-1].line += f" -> shutdown ({event.why})"

    def _returned(self, event: Returned) -> None:
        stack, back = self._open.get(event.cpu), self._chain.last_return
        if not stack:
            return
        leaves = f" -> {event.by.upper()} --> "
        if back.how is Closing.USER:
            stack[-1].line += leaves + "user"
            while stack:
                self._close(event.cpu, stack)
            return
        leaves += self._view.symbol(event.frame.ip)
        if back.how is Closing.REPEAT or back.entry is None:
            stack[-1].line += leaves
            return
        while stack and stack[-1].serial > back.entry.serial:
            self._close(event.cpu, stack)
        if stack:
            stack[-1].line += leaves
            self._close(event.cpu, stack)

    def _close(self, cpu: int, stack: list[_Crossing]) -> None:
        crossing = stack.pop()
        block = (_INDENT * crossing.depth + crossing.line, *crossing.inner)
        if stack:
            stack[-1].inner += block
        else:
            self._open.pop(cpu, None)
            self._finish(block)

    def _finish(self, block: tuple[str, ...]) -> None:
        if self._done and self._done[-1][0] == block:
            self._done[-1] = (block, self._done[-1][1] + 1)
        elif self._kept + len(block) > MAX_LINES:
            self._dropped += 1
        else:
            self._kept += len(block)
            self._done.append((block, 1))


def _folded(block: tuple[str, ...], count: int) -> list[str]:
    return [block[0] + (f"   x{count}" if count > 1 else ""), *block[1:]]
