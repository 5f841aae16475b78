"""Work: nothing that must be done before user mode runs is left when C has had its last word."""

from __future__ import annotations

from emu.events import CReturned, Returned, SystemCall
from emu.lab.chain import USER, EntryChain
from emu.lab.invariants.base import Invariant
from emu.lab.view import View
from kernel_stubs.abi import Tif

EXIT_WORK = int(
    Tif.NEED_RESCHED | Tif.SIGPENDING | Tif.NOTIFY_SIGNAL | Tif.NOTIFY_RESUME | Tif.UPROBE | Tif.PATCH_PENDING
)
"""What keeps linux-6 from user mode."""
CLASSIC_WORK = int(Tif.NOTIFY_RESUME | Tif.SIGPENDING | Tif.NEED_RESCHED)
"""What linux-2.6 knows of it."""


class Work(Invariant):
    """Looks at the thread flags when C returns, not at the IRETQ: what is raised in between comes with an interrupt.

    In linux-6 entries through an IST are exempt: an NMI has no work loop.
    """

    name = "work"
    STATE = ("_flags",)
    _flags: dict[int, int]

    def __init__(self, view: View, chain: EntryChain, reproduce: str = "") -> None:
        super().__init__(view, chain, reproduce)
        self.handlers = {SystemCall: self._forget, CReturned: self._c_returned, Returned: self._returned}

    def _forget(self, event: SystemCall) -> None:
        self._flags[event.cpu] = 0

    def _c_returned(self, event: CReturned) -> None:
        entry = self.chain.top(event.cpu)
        if self.view.classic:
            # There the assembly does the work, by calling C: the flags count after whatever C function comes last.
            # Entries through an IST look for it too, if they came from user mode.
            if entry is not None and (entry.from_user or not entry.ist):
                self._flags[event.cpu] = self.view.work_flags(event.cpu) & CLASSIC_WORK
        elif entry is not None and entry.from_user and self.view.takes_pt_regs(event.name):
            self._flags[event.cpu] = 0 if entry.ist else self.view.work_flags(event.cpu) & EXIT_WORK

    def _returned(self, event: Returned) -> None:
        back = self.chain.last_return
        if back.how is not USER:
            return
        left = self._flags.pop(event.cpu, 0)
        if left and back.entry is not None and back.entry.from_user:
            names = ", ".join(str(flag.name) for flag in Tif if left & flag)
            self.violated(event, f"{event.by.upper()} to user mode with work left: {names}", ended=back.entry)
