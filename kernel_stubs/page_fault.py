"""#PF: demand paging, stack growth, SIGSEGV; and lazily mapped kernel memory (arch/x86/mm/fault.c, mm/memory.c)."""

from __future__ import annotations

from enum import Enum

from emu.arch import PAGE_SIZE, PageFault, Rflags, Vector
from emu.machine.paging import Pte
from kernel_stubs import mm as mm_frames
from kernel_stubs import pgtable, vma
from kernel_stubs.abi import INIT_PGD, TASK_SIZE_MAX, VMALLOC_LAZY, VMALLOC_LAZY_SIZE, MmStruct, PtRegs, VmFlags
from kernel_stubs.binding import Steps, Window, c_function
from kernel_stubs.context import Cpu, Kernel, KernelOops
from kernel_stubs.entry_common import irqentry_exit
from kernel_stubs.errno import OutOfMemoryError
from kernel_stubs.extable import fixup_exception, has_fixup
from kernel_stubs.oom_kill import out_of_memory
from kernel_stubs.oops import die
from kernel_stubs.signal import SEGV_ACCERR, SEGV_MAPERR, Sig, force_sig


class FaultResult(Enum):
    """What became of an access to user memory."""

    DONE = 0
    MAPERR = SEGV_MAPERR
    ACCERR = SEGV_ACCERR


def handle_mm_fault(kernel: Kernel, mm: MmStruct, address: int, *, write: bool, protection: bool) -> FaultResult:
    """Make a user address accessible if its area says so.

    `protection`: the page was there and did not allow the access (P in the error code). OutOfMemoryError if no frame
    is left. Like Linux this maps a page for an instruction fetch from an area without VM_EXEC: the fetch then faults
    again, with P set.
    """
    area = vma.find_vma(kernel, mm, address)
    if area is None or address < area.start:
        area = vma.expand_stack(kernel, mm, address)
        if area is None:
            return FaultResult.MAPERR
    if write:
        if not area.flags & VmFlags.WRITE:
            return FaultResult.ACCERR
    elif protection or not area.flags & (VmFlags.READ | VmFlags.WRITE | VmFlags.EXEC):
        return FaultResult.ACCERR
    page = address & -PAGE_SIZE
    bits = pgtable.pte_flags(area.flags)
    pte = pgtable.get_pte(kernel.memory, mm.pgd, page)
    if pgtable.has_frame(pte):
        # Somebody else brought it in, it has more rights now than the TLB knew, or it is to be copied.
        frame = mm_frames.frame_of(pte)
        if write and not area.flags & VmFlags.SHARED and mm_frames.page_extra(kernel.memory, frame):
            frame = _copy_page(kernel, frame)
        pgtable.set_pte(kernel.memory, mm.pgd, page, frame, vma.page_bits(kernel, area.flags, frame))
        kernel.machine.flush_tlb()
        return FaultResult.DONE
    frame = mm_frames.alloc_page(kernel.memory)
    if area.file:
        skip = page - area.start
        size = max(0, min(PAGE_SIZE, area.file_bytes - skip))
        at = area.file_offset + skip
        kernel.memory.write(frame, kernel.files[area.file - 1].data[at : at + size])
    try:
        pgtable.set_pte(kernel.memory, mm.pgd, page, frame, bits)
    except OutOfMemoryError:
        mm_frames.free_page(kernel.memory, frame)
        raise
    mm.minor_faults += 1
    return FaultResult.DONE


def _copy_page(kernel: Kernel, frame: int) -> int:
    """Copy on write: a frame of one's own instead of one that has several owners."""
    own = mm_frames.alloc_page(kernel.memory)
    kernel.memory.write(own, kernel.memory.read(frame, PAGE_SIZE))
    mm_frames.put_page(kernel.memory, frame)
    return own


@c_function
def exc_page_fault(cpu: Cpu, regs: PtRegs, error_code: int) -> Steps:
    """#PF, vector 14. Entered with IF=0 and the kernel GS base live; CR2 holds the address."""
    address = cpu.core.cpu.cr2
    if address >= TASK_SIZE_MAX:
        _do_kern_addr_fault(cpu, regs, error_code, address)
    elif not regs.user_mode:
        if has_fixup(cpu, regs) and cpu.current.mm and _brought_in(cpu, error_code, address):
            return None
        if fixup_exception(cpu, regs):
            return None
        raise die(cpu, describe_oops(cpu, regs, error_code, address))
    else:
        yield Window()
        _do_user_addr_fault(cpu, error_code, address)
    yield from irqentry_exit(cpu, regs)
    return None


def _do_kern_addr_fault(cpu: Cpu, regs: PtRegs, error_code: int, address: int) -> None:
    if regs.user_mode:
        # User mode is not to learn from P what the kernel has mapped.
        bad_area(cpu, error_code | PageFault.P, address, SEGV_MAPERR)
    elif error_code & (PageFault.P | PageFault.RSVD) or not vmalloc_fault(cpu.kernel, address):
        if fixup_exception(cpu, regs):
            return
        raise die(cpu, describe_oops(cpu, regs, error_code, address))
    else:
        cpu.note(f"mapped vmalloc page {address & -PAGE_SIZE:#x}")


def _brought_in(cpu: Cpu, error_code: int, address: int) -> bool:
    """Kernel code that may fault found a user page missing which is only to be brought in."""
    write, protection = bool(error_code & PageFault.W), bool(error_code & PageFault.P)
    try:
        return handle_mm_fault(cpu.kernel, cpu.mm, address, write=write, protection=protection) is FaultResult.DONE
    except OutOfMemoryError:
        return False


def _do_user_addr_fault(cpu: Cpu, error_code: int, address: int) -> None:
    if error_code & PageFault.RSVD:
        raise KernelOops(f"Corrupted page table at address {address:x}")
    write = bool(error_code & PageFault.W)
    try:
        result = handle_mm_fault(cpu.kernel, cpu.mm, address, write=write, protection=bool(error_code & PageFault.P))
    except OutOfMemoryError:
        out_of_memory(cpu)
        return
    if result is FaultResult.DONE:
        cpu.note(f"page {address & -PAGE_SIZE:#x} brought in for {'write' if write else 'read'}")
    else:
        bad_area(cpu, error_code, address, result.value)


def bad_area(cpu: Cpu, error_code: int, address: int, si_code: int) -> None:
    """SIGSEGV for a user access that nothing makes good."""
    task = cpu.current
    task.cr2 = address
    task.error_code = int(error_code)
    task.trap_nr = Vector.PF
    force_sig(cpu, Sig.SIGSEGV, si_code, address)


def vmalloc_fault(kernel: Kernel, address: int) -> bool:
    """Map a page of the lazy part of the vmalloc area; False if the address is not there, or is mapped already."""
    if not VMALLOC_LAZY <= address < VMALLOC_LAZY + VMALLOC_LAZY_SIZE:
        return False
    page = address & -PAGE_SIZE
    if mm_frames.kernel_tables(kernel.memory).entry(INIT_PGD, page) & Pte.P:
        return False
    try:
        mm_frames.map_kernel(kernel.memory, page, mm_frames.alloc_page(kernel.memory), mm_frames.PAGE_KERNEL)
    except OutOfMemoryError:
        raise KernelOops("Kernel panic - not syncing: Out of memory") from None
    return True


def vfree_lazy(kernel: Kernel, address: int) -> None:
    """Unmap a page of the lazy part again, so that the next touch faults."""
    frame = mm_frames.kernel_tables(kernel.memory).unmap(INIT_PGD, address & -PAGE_SIZE)
    if frame is not None:
        mm_frames.free_page(kernel.memory, frame)
        kernel.machine.flush_tlb()


def describe_oops(cpu: Cpu, regs: PtRegs, error_code: int, address: int) -> str:
    """Linux's words for a bad access in kernel mode, on one line."""
    where = f"RIP {cpu.kernel.image.symbolize(regs.ip)}"
    if address < PAGE_SIZE:
        what = f"kernel NULL pointer dereference, address: {address:016x}"
    else:
        what = f"unable to handle page fault for address: {address:016x}"
    kind = "instruction fetch" if error_code & PageFault.I else "read access"
    if error_code & PageFault.W:
        kind = "write access"
    present = "permissions violation" if error_code & PageFault.P else "not-present page"
    smap = error_code & PageFault.P and address < TASK_SIZE_MAX and not regs.flags & Rflags.AC
    extra = ", a user page (SMAP, SMEP or NX)" if smap else ""
    return f"BUG: {what}, supervisor {kind} in kernel mode, error_code({error_code:#06x}) - {present}{extra}, {where}"
