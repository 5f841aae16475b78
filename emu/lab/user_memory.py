"""What observers read of a process's memory: as the process would read it, but without bringing pages in."""

from __future__ import annotations

from emu.arch import PAGE_SIZE
from emu.machine.memory import PhysicalAddressError
from emu.machine.paging import ADDRESS_MASK, Pte
from kernel_stubs import pgtable, vma
from kernel_stubs.abi import TASK_SIZE_MAX, MmStruct, VmFlags
from kernel_stubs.context import Kernel, KernelOops

_ACCESSIBLE = VmFlags.READ | VmFlags.WRITE | VmFlags.EXEC


class UserMemory:
    """One address space, now."""

    def __init__(self, kernel: Kernel, mm: MmStruct) -> None:
        self._kernel = kernel
        self._mm = mm

    def read(self, address: int, size: int) -> bytes | None:
        """`size` bytes; None if the process could not read them all."""
        data = self.read_some(address, size)
        return data if len(data) == size else None

    def read_some(self, address: int, size: int) -> bytes:
        """Up to `size` bytes, as many as the process could read."""
        parts: list[bytes] = []
        while size > 0 and 0 <= address < TASK_SIZE_MAX:
            length = min(size, PAGE_SIZE - address % PAGE_SIZE)
            try:
                part = self._in_page(address, length)
            except (KernelOops, PhysicalAddressError):  # the kernel's own tables are broken
                break
            if part is None:
                break
            parts.append(part)
            address, size = address + length, size - length
        return b"".join(parts)

    def string(self, address: int, limit: int) -> bytes | None:
        """A string without its NUL; more than `limit` bytes if it goes on; None if it cannot be read."""
        text = b""
        while len(text) <= limit:
            part = self.read_some(address, PAGE_SIZE - address % PAGE_SIZE)
            if not part:
                return None
            end = part.find(0)
            if end >= 0:
                return text + part[:end]
            text, address = text + part, address + len(part)
        return text

    def _in_page(self, address: int, size: int) -> bytes | None:
        kernel, page = self._kernel, address & -PAGE_SIZE
        pte = pgtable.get_pte(kernel.memory, self._mm.pgd, page)
        if pte & (Pte.P | Pte.US) == Pte.P | Pte.US:
            return bytes(kernel.memory.read((pte & ADDRESS_MASK) + address % PAGE_SIZE, size))
        area = vma.find_vma(kernel, self._mm, address)
        if area is None or address < area.start or not area.flags & _ACCESSIBLE:
            return None
        if pgtable.has_frame(pte):
            return bytes(kernel.memory.read((pte & ADDRESS_MASK) + address % PAGE_SIZE, size))
        if not area.file:
            return bytes(size)
        skip = address - area.start
        left = max(0, min(size, area.file_bytes - skip))
        at = area.file_offset + skip
        return bytes(kernel.files[area.file - 1].data[at : at + left]).ljust(size, b"\0")
