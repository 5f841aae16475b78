"""Copying between the kernel and user memory (arch/x86/lib/usercopy_64.c).

Everything raises UserFaultError where Linux returns -EFAULT: above TASK_SIZE_MAX, unmapped, or without the right. Pages
are brought in as an access by the process would.
"""

from __future__ import annotations

from emu.arch import PAGE_SIZE
from emu.machine.paging import ADDRESS_MASK, Pte
from kernel_stubs import pgtable
from kernel_stubs.abi import TASK_SIZE_MAX, MmStruct
from kernel_stubs.context import Cpu, Kernel
from kernel_stubs.errno import UserFaultError


def access_ok(address: int, size: int) -> bool:
    """Whether the range lies in user space at all."""
    return 0 <= address <= TASK_SIZE_MAX and size <= TASK_SIZE_MAX - address


def user_page(kernel: Kernel, mm: MmStruct, address: int, *, write: bool) -> int:
    """Physical address of a user byte, brought in if need be."""
    from kernel_stubs.page_fault import FaultResult, handle_mm_fault  # whose entry path comes by here

    for tell in kernel.user_accesses:
        tell(address)
    needed = Pte.P | Pte.US | (Pte.RW if write else 0)
    pte = pgtable.get_pte(kernel.memory, mm.pgd, address)
    if pte & needed != needed:
        result = handle_mm_fault(kernel, mm, address, write=write, protection=bool(pte & Pte.P))
        if result is not FaultResult.DONE:
            raise UserFaultError(address)
        pte = pgtable.get_pte(kernel.memory, mm.pgd, address)
    return (pte & ADDRESS_MASK) + address % PAGE_SIZE


def read_user(kernel: Kernel, mm: MmStruct, address: int, size: int) -> bytes:
    """Bytes of any process."""
    data, fault = _read(kernel, mm, address, size)
    if fault:
        raise fault
    return data


def _read(kernel: Kernel, mm: MmStruct, address: int, size: int) -> tuple[bytes, UserFaultError | None]:
    if not access_ok(address, size):
        return b"", UserFaultError(address)
    parts: list[bytes] = []
    fault = None
    while size:
        length = min(size, PAGE_SIZE - address % PAGE_SIZE)
        try:
            parts.append(kernel.memory.read(user_page(kernel, mm, address, write=False), length))
        except UserFaultError as error:
            fault = error
            break
        address, size = address + length, size - length
    return b"".join(parts), fault


def write_user(kernel: Kernel, mm: MmStruct, address: int, data: bytes) -> None:
    """Store bytes in any process. What comes before a page that faults has been written."""
    if not access_ok(address, len(data)):
        raise UserFaultError(address)
    done = 0
    while done < len(data):
        length = min(len(data) - done, PAGE_SIZE - address % PAGE_SIZE)
        kernel.memory.write(user_page(kernel, mm, address, write=True), data[done : done + length])
        address, done = address + length, done + length


def copy_from_user(cpu: Cpu, address: int, size: int) -> bytes:
    """Bytes of the current process, all or none."""
    return read_user(cpu.kernel, cpu.mm, address, size)


def copy_some_from_user(cpu: Cpu, address: int, size: int) -> bytes:
    """As many bytes as can be read; UserFaultError if not even one."""
    data, fault = _read(cpu.kernel, cpu.mm, address, size)
    if fault and not data:
        raise fault
    return data


def copy_to_user(cpu: Cpu, address: int, data: bytes) -> None:
    """Store bytes in the current process."""
    write_user(cpu.kernel, cpu.mm, address, data)


def get_user(cpu: Cpu, address: int, size: int = 8) -> int:
    """A little-endian number."""
    return int.from_bytes(copy_from_user(cpu, address, size), "little")


def put_user(cpu: Cpu, address: int, value: int, size: int = 8) -> None:
    """Store a little-endian number."""
    copy_to_user(cpu, address, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))


def strncpy_from_user(cpu: Cpu, address: int, limit: int) -> bytes:
    """A string up to its NUL, which is left out; `limit` bytes if there is none before."""
    text = b""
    while len(text) < limit:
        length = min(limit - len(text), PAGE_SIZE - address % PAGE_SIZE)
        if not access_ok(address, 1):
            raise UserFaultError(address)
        part = copy_from_user(cpu, address, min(length, TASK_SIZE_MAX - address) or 1)
        end = part.find(0)
        if end >= 0:
            return text + part[:end]
        text += part
        address += len(part)
    return text
