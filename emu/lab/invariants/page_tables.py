"""Page tables: user mode runs on the user's tables, C on the kernel's, interrupted code gets its own back."""

from __future__ import annotations

from emu.events import CCalled, Delivered, Returned, SystemCall
from emu.lab.chain import REPEAT, USER, EntryChain
from emu.lab.invariants.base import Invariant
from emu.lab.view import View


class PageTables(Invariant):
    """CR3 is what it must be. Judges nothing in an image without page-table isolation."""

    name = "page tables"

    def __init__(self, view: View, chain: EntryChain, reproduce: str = "") -> None:
        super().__init__(view, chain, reproduce)
        self._iret = view.image.symbols.get("native_irq_return_iret")
        if view.isolated:
            self.handlers = {
                SystemCall: self._left_user_mode,
                Delivered: self._delivered,
                CCalled: self._c_called,
                Returned: self._returned,
            }

    def _left_user_mode(self, event: SystemCall | Delivered) -> None:
        entry = self.chain.top(event.cpu)
        if entry is not None and self.view.kernel_cr3(entry.cr3):
            self.violated(event, f"user mode ran with the kernel's page tables, CR3 {entry.cr3:#x}")

    def _delivered(self, event: Delivered) -> None:
        ip, cr3 = event.frame.ip, self.view.cr3(event.cpu)
        if event.frame.cs & 3:
            self._left_user_mode(event)
        elif self.view.user_cr3(cr3) and self.view.in_c(ip):
            message = f"C function {self.view.symbol(ip)} is reached with the user's page tables, CR3 {cr3:#x}"
            self.violated(event, message, ip=self.view.call_site_of_frame(event.frame))
        elif ip == self._iret and self.view.kernel_cr3(cr3):
            message = f"the IRETQ to user mode is reached with the kernel's page tables, CR3 {cr3:#x}"
            self.violated(event, message, ip=ip)

    def _c_called(self, event: CCalled) -> None:
        if self.view.user_cr3(event.cr3):
            message = f"C function {event.name} is called with the user's page tables, CR3 {event.cr3:#x}"
            self.violated_by_call(event, message)

    def _returned(self, event: Returned) -> None:
        back = self.chain.last_return
        if back.how is USER:
            if self.view.kernel_cr3(event.cr3):
                self.violated(
                    event, f"{event.by.upper()} to user mode with the kernel's page tables, CR3 {event.cr3:#x}",
                    ended=back.entry,
                )  # fmt: skip
        elif back.entry is not None and event.cr3 != back.entry.cr3:
            self.violated(
                event, f"{event.by.upper()} to kernel code with CR3 {event.cr3:#x}; it was interrupted "
                f"with {back.entry.cr3:#x}", ended=None if back.how is REPEAT else back.entry,
            )  # fmt: skip
