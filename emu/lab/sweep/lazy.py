"""The pages that `pf` faults on: each fault maps one for good, and a sweep undoes that.

A fault takes a frame, and nothing of that may be left when the state is compared with one before.
"""

from __future__ import annotations

from emu.arch import PAGE_SIZE
from emu.lab.sweep.events import LAZY_PAGE
from emu.lab.sweep.state import Reference
from emu.lab.view import View
from emu.machine.paging import Pte
from kernel_stubs.abi import INIT_PGD, MEMORY_INFO, MemoryInfo
from kernel_stubs.context import Kernel
from kernel_stubs.mm import give_back_fresh, kernel_tables
from kernel_stubs.page_fault import vfree_lazy, vmalloc_fault

_FREE_FRAMES = 2
"""So that not every fault is the first to touch a frame, which takes longer to undo."""
_PRESENT = int(Pte.P)
_NEXT_FRAME = MEMORY_INFO + MemoryInfo.offset("next_frame")


class LazyPages:
    """Those of one CPU's handlers."""

    def __init__(self, kernel: Kernel, view: View, cpu: int) -> None:
        self._kernel = kernel
        self._view = view
        self._cpu = cpu
        self._pages: tuple[tuple[int, int], ...] = ()
        """Each with the physical address of its page-table entry."""

    def prime(self) -> None:
        """Leave free frames behind: a fault takes one, and `unmap` gives just that one back."""
        kernel, view = self._kernel, self._view
        pages = [LAZY_PAGE + PAGE_SIZE * n for n in range(_FREE_FRAMES)]
        for page in pages:
            vmalloc_fault(kernel, page)
        for page in reversed(pages):
            vfree_lazy(kernel, page)
        for stack in view.stacks(self._cpu):  # so that the C side knows these pages in each case
            for page in range(stack.low, stack.high, PAGE_SIZE):
                kernel.physical(page)
        tables, scratch = kernel_tables(kernel.memory), view.percpu_word(self._cpu, "nmi_scratch")
        lazy = (LAZY_PAGE, scratch) if scratch else (LAZY_PAGE,)
        self._pages = tuple((page, leaf) for page in lazy if (leaf := tables.leaf(INIT_PGD, page)) is not None)

    def unmap(self, since: Reference) -> None:
        """What has been mapped since a state is missing again, and its frame as free as there."""
        memory = self._kernel.memory
        for page, leaf in self._pages:
            if memory.ram[leaf] & _PRESENT and not since.ram[leaf] & _PRESENT:
                vfree_lazy(self._kernel, page)
                give_back_fresh(memory, int.from_bytes(since.ram[_NEXT_FRAME : _NEXT_FRAME + 8], "little"))
