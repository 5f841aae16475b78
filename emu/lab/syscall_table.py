"""The system calls of an image, by number: which are there, and where the kernel goes for them."""

from __future__ import annotations

from collections.abc import Iterator

from asm import Image
from kernel_stubs.abi26 import is_linux26
from kernel_stubs.kernel_image import load_c_functions
from kernel_stubs.syscalls import compat, table
from kernel_stubs.syscalls.names import SYSCALL_NAMES, syscall_name
from kernel_stubs.syscalls.names32 import IA32_SYSCALL_NAMES, ia32_syscall_name

NOT_THERE = "sys_ni_syscall"


def system_calls(image: Image) -> Iterator[str]:
    """A line each: ABI, number, name, and the address and symbol that it leads to; -ENOSYS for those that nobody has.

    linux-2.6 has tables of addresses, which are read from the image. linux-6's do_syscall_64 and its 32-bit sisters
    choose in C, so their address stands for all.
    """
    if is_linux26(image):
        yield from _from_memory(image, "64", "sys_call_table", "ia32_sys_call_table")
        ia32_end = min((a for a in image.symbols.values() if a > image.symbol("ia32_sys_call_table")), default=0)
        yield from _from_memory(image, "i386", "ia32_sys_call_table", ia32_end)
        return
    load_c_functions()
    slot, known = image.symbol("do_syscall_64"), table.implemented()
    for number in sorted(SYSCALL_NAMES):
        yield _line("64", number, syscall_name(number), slot, "do_syscall_64" if number in known else "")
    slot = image.symbol("do_int80_syscall_32")
    for number in sorted(IA32_SYSCALL_NAMES):
        there = compat.implemented(number)
        yield _line("i386", number, ia32_syscall_name(number), slot, "do_int80_syscall_32" if there else "")


def _from_memory(image: Image, abi: str, first: str, end: str | int) -> Iterator[str]:
    start = image.symbol(first)
    segment = image.segment_at(start)
    assert segment is not None
    stop = image.symbol(end) if isinstance(end, str) else end or segment.end
    for number in range((min(stop, segment.end) - start) // 8):
        address = int.from_bytes(image.read(start + 8 * number, 8), "little")
        symbol = image.symbolize(address)
        name = syscall_name(number) if abi == "64" else ia32_syscall_name(number)
        if symbol == NOT_THERE and name == f"syscall_{number}":
            continue  # nobody has ever used this number
        yield _line(abi, number, name, address, "" if symbol == NOT_THERE else symbol)


def _line(abi: str, number: int, name: str, address: int, symbol: str) -> str:
    return f"{abi:4} {number:4}  {name:28} " + (f"{address:016x} {symbol}" if symbol else "-ENOSYS")
