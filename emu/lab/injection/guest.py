"""The guest's state as injections see and change it: the current task, its address space, memory."""

from __future__ import annotations

from emu.arch import PAGE_SIZE, is_canonical
from emu.machine.core import Core
from emu.machine.paging import ADDRESS_MASK, PageTables, Pte
from kernel_stubs.abi import INIT_PGD, PTI_USER_PGTABLE, TASK_SIZE_MAX, MmStruct, PerCpu, TaskStruct
from kernel_stubs.context import Kernel, percpu_address
from kernel_stubs.linux26.thread_info import show_work
from kernel_stubs.pgtable import PROTNONE


class CannotInject(Exception):
    """The state at that moment does not allow it (no page at the address, no task yet): an unmet expectation."""


def current_task(kernel: Kernel, core: Core) -> TaskStruct:
    """The task that runs on this CPU."""
    current = kernel.view(PerCpu, percpu_address(kernel, core.index)).current_task
    if not current:
        raise CannotInject("there is no task yet")
    return kernel.view(TaskStruct, current)


def show_task_work(kernel: Kernel, task: TaskStruct) -> None:
    """The assembly of linux-2.6 looks for work in another place than C does."""
    if kernel.classic:
        show_work(kernel, task)


def _mm(kernel: Kernel, core: Core) -> MmStruct:
    mm = current_task(kernel, core).mm
    if not mm:
        raise CannotInject("the current task has no address space yet")
    return kernel.view(MmStruct, mm)


def page_tables(kernel: Kernel) -> PageTables:
    """The guest's page tables, of which none are added."""

    def no_frame() -> int:
        raise CannotInject("there is no page table for this address")

    return PageTables(kernel.memory, no_frame)


def page_roots(kernel: Kernel, core: Core, address: int) -> tuple[int, ...]:
    """The PGDs that lead to an address: tables of the user half are shared, those of the kernel half are not."""
    if not is_canonical(address):
        raise CannotInject(f"{address:#x} is not canonical")
    if address < TASK_SIZE_MAX:
        return (_mm(kernel, core).pgd,)
    return (INIT_PGD, INIT_PGD + PTI_USER_PGTABLE)


def physical(kernel: Kernel, core: Core, address: int) -> int:
    """Where a byte lies, whoever may access it."""
    entry = page_tables(kernel).entry(page_roots(kernel, core, address)[0], address)
    if not entry & (Pte.P | PROTNONE):
        raise CannotInject(f"no page at {address:#x}")
    return (entry & ADDRESS_MASK) + address % PAGE_SIZE
