"""Flags: C code starts with interrupts off and with none of the interrupted code's dangerous flags; no SWAPGS with
interrupts on."""

from __future__ import annotations

from emu.arch import Rflags
from emu.events import CCalled, CReturned, GsSwapped
from emu.lab.chain import EntryChain
from emu.lab.invariants.base import Invariant
from emu.lab.view import View

_REASONS = (
    (Rflags.IF, "interrupts could come in before C has saved what they overwrite"),
    (Rflags.DF, "string instructions would run downwards"),
    (Rflags.NT, "IRETQ would fault"),
    (Rflags.TF, "every instruction would trap"),
    (Rflags.AC, "the user's pages would be open to the kernel"),
)
_AC, _IF = int(Rflags.AC), int(Rflags.IF)
_ALWAYS = int(Rflags.IF | Rflags.DF | Rflags.NT | Rflags.TF)


class Flags(Invariant):
    """IF, DF, NT, TF are clear when C is called, and AC where CR4.SMAP gives it a meaning; IF also when C returns, and
    around a SWAPGS. For user mode, linux-2.6 calls some C functions with IF set, always."""

    name = "flags"

    def __init__(self, view: View, chain: EntryChain, reproduce: str = "") -> None:
        super().__init__(view, chain, reproduce)
        self.handlers = {CCalled: self._c_called, CReturned: self._c_returned, GsSwapped: self._swapped}

    def _c_called(self, event: CCalled) -> None:
        bad = event.flags & _ALWAYS
        if bad & _IF and self.view.interrupts_allowed(event.name):
            bad &= ~_IF
        if event.flags & _AC and self.view.smap(event.cpu):
            bad |= _AC
        for flag, why in _REASONS if bad else ():
            if bad & flag:
                self.violated_by_call(event, f"C function {event.name} is called with RFLAGS.{flag.name} set: {why}")

        entry = self.chain.top(event.cpu)  # a new task, or a kernel thread, begins as C made it
        if not event.flags & _IF and entry is not None and entry.from_user and self.view.interrupts_wanted(event.name):
            message = f"C function {event.name} is called with RFLAGS.IF clear: it may sleep, or take long"
            self.violated_by_call(event, message)

    def _swapped(self, event: GsSwapped) -> None:
        if self.view.interrupts_enabled(event.cpu):
            self.violated(event, "SWAPGS with RFLAGS.IF set: an interrupt next to it would go by the wrong GS base")

    def _c_returned(self, event: CReturned) -> None:
        # linux-2.6 enables and disables them in assembly, and after C it disables them wherever that matters.
        if not self.view.classic and self.view.interrupts_enabled(event.cpu):
            self.violated(event, f"C function {event.name} returns to entry code with RFLAGS.IF set")
