"""What C functions of a kernel are called with: arguments, frames, interrupts."""

from __future__ import annotations

from functools import cached_property

from emu.lab.view.at_rest import AtRest, Booted
from kernel_stubs.abi import PtRegs
from kernel_stubs.abi26 import INTERRUPTS_ON, INTERRUPTS_WANTED, LINUX_26, PARTIAL_FRAME
from kernel_stubs.binding import DEFAULT_KERNEL, CFunction, registered

MOVES_PT_REGS = frozenset({"fixup_bad_iret", "sync_regs"})
"""C functions that get the address of pt_regs and return another to which they have moved."""


class CFunctions(AtRest):
    """The C functions of the system's kernel."""

    def __init__(self, system: Booted) -> None:
        super().__init__(system)
        self._takes: dict[str, int | None] = {}
        stub = self.image.symbols.get
        self._stub_slots = (stub("__c_stubs_start", 0), stub("__c_stubs_end", 0))

    def takes_pt_regs(self, name: str) -> bool:
        """Whether a C function's first argument is a pointer to pt_regs."""
        return self.pt_regs_argument(name) == 0

    def pt_regs_argument(self, name: str) -> int | None:
        """Which argument of a C function points to pt_regs (of MOVES_PT_REGS it is called `void *`)."""
        known = self._takes.get(name, -1)
        if known == -1:
            function = self._functions.get(name)
            kinds = () if function is None else function.parameters
            known = kinds.index(PtRegs) if PtRegs in kinds else 0 if name in MOVES_PT_REGS else None
            self._takes[name] = known
        return known

    def c_function(self, name: str) -> CFunction | None:
        """A C function of this kernel; None if it has none of that name."""
        return self._functions.get(name)

    @cached_property
    def _functions(self) -> dict[str, CFunction]:
        return registered(LINUX_26 if self.classic else DEFAULT_KERNEL)

    def partial_frame(self, name: str) -> bool:
        """Whether a C function's pt_regs lack the registers that C keeps."""
        return self.classic and name in PARTIAL_FRAME

    def interrupts_allowed(self, name: str) -> bool:
        """Whether a C function may be called with interrupts on."""
        return self.classic and (name in INTERRUPTS_ON or name.startswith(("sys", "compat_sys_")))

    def interrupts_wanted(self, name: str) -> bool:
        """Whether a C function must be called with interrupts on."""
        return self.classic and (name in INTERRUPTS_WANTED or name.startswith(("sys_", "sys32_", "compat_sys_")))

    def in_c(self, address: int) -> bool:
        """Whether an address lies in a stub slot, where C functions run."""
        low, high = self._stub_slots
        return low <= address < high
