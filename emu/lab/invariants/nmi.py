"""NMI: blocked from its delivery to the next IRETQ; CR2 of the interrupted code survives it."""

from __future__ import annotations

from emu.events import Delivered, EventType, Returned
from emu.lab.chain import MATCH, EntryChain
from emu.lab.invariants.base import Invariant
from emu.lab.view import View

_NMI, _HWEXC = EventType.NMI, EventType.HWEXC


class Nmi(Invariant):
    """A frame that is lost on the NMI stack is the business of the `stacks` invariant."""

    name = "NMI"
    STATE = ("_blocked",)
    _blocked: dict[int, bool]

    def __init__(self, view: View, chain: EntryChain, reproduce: str = "") -> None:
        super().__init__(view, chain, reproduce)
        self.handlers = {Delivered: self._delivered, Returned: self._returned}

    def _delivered(self, event: Delivered) -> None:
        if event.type is _NMI:
            if self._blocked.get(event.cpu):
                self.violated(event, "an NMI is delivered while NMIs are blocked: no IRETQ since the last one")
            self._blocked[event.cpu] = True
        elif event.type is _HWEXC and self.view.disassemble(event.ip) == "iretq":
            self._blocked[event.cpu] = False  # an IRETQ that faults unblocks them too (SDM 6.7.1)

    def _returned(self, event: Returned) -> None:
        if event.by == "iretq":
            self._blocked[event.cpu] = False
        back = self.chain.last_return
        entry = back.entry
        if back.how is not MATCH or entry is None or entry.type is not _NMI:
            return
        assert isinstance(entry.event, Delivered)
        cr2 = self.view.cr2(event.cpu)
        if cr2 != entry.event.cr2:
            self.violated(
                event, f"the NMI handler changed CR2 from {entry.event.cr2:#x} to {cr2:#x}: "
                "a page fault that it interrupted would be blamed on the wrong address", ended=entry,
            )  # fmt: skip
