"""Progress: no double or triple fault, no oops, no endless loop, unless the scenario expects one."""

from __future__ import annotations

from emu.events import DoubleFault
from emu.lab.chain import EntryChain
from emu.lab.invariants.base import Invariant
from emu.lab.view import View
from emu.machine.end import End, EndKind
from kernel_stubs.espfix import is_espfix

DOUBLE_FAULT = "double-fault"
_ENDS = {
    EndKind.SHUTDOWN: ("triple-fault", "the CPU shut down"),
    EndKind.CRASHED: ("oops", "the kernel gave up"),
    EndKind.LIMIT: ("budget", "the instruction budget is used up: an endless loop, or too small a budget"),
    EndKind.STUCK: ("stuck", "the CPU gets nowhere"),
    EndKind.HALTED: ("halt", "the CPU halted for ever"),
}
ENDINGS = frozenset({DOUBLE_FAULT, *(name for name, _ in _ENDS.values())})
"""What a scenario can expect: the names for `allowed`."""


class Progress(Invariant):
    """The run ends because the program does."""

    name = "progress"

    def __init__(
        self, view: View, chain: EntryChain, reproduce: str = "", allowed: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(view, chain, reproduce)
        self._allowed = allowed
        if DOUBLE_FAULT not in allowed:
            self.handlers = {DoubleFault: self._double_fault}

        self._iret = view.image.symbols.get("native_irq_return_iret")

    def _double_fault(self, event: DoubleFault) -> None:
        if event.ip == self._iret and is_espfix(self.view.core(event.cpu).cpu.sp):
            return  # the espfix stack is read-only: exc_double_fault makes it the #GP that user mode is to have
        self.violated(event, f"double fault: vector {event.second} while vector {event.first} was being delivered")

    def finish(self, end: End) -> None:
        """Judge how the run ended."""
        name, words = _ENDS.get(end.kind, ("", ""))
        if name and name not in self._allowed:
            self.violated_at_end(end, f"{words}: {end.text}" if end.text else words, 0)
