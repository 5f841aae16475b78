"""The vDSO of 32-bit programs: one page of code (arch/x86/entry/vdso/vdso32).

    __kernel_vsyscall:   push %ecx; push %edx; push %ebp
                         mov %esp,%ebp; sysenter      (Intel)     mov %ecx,%ebp; syscall      (AMD)
                         int $0x80
    int80_landing_pad:   pop %ebp; pop %edx; pop %ecx; ret
    __kernel_sigreturn:  pop %eax; mov $119,%eax; int $0x80
    __kernel_rt_sigreturn: mov $173,%eax; int $0x80

SYSENTER and SYSCALL lose RIP or ECX, so the kernel returns from both to the landing pad; a call that is made again
begins two bytes before it, at INT 0x80.
"""

from __future__ import annotations

from emu.arch import PAGE_SIZE
from kernel_stubs import vma
from kernel_stubs.abi import MmStruct, VmFlags
from kernel_stubs.context import Kernel

_FAST = {"intel": b"\x89\xe5\x0f\x34", "amd": b"\x89\xcd\x0f\x05"}
_HEAD, _TAIL = b"\x51\x52\x55", b"\xcd\x80\x5d\x5a\x59\xc3"
VSYSCALL = 0
LANDING_PAD = 9
SIGRETURN = 16
RT_SIGRETURN = 32


def code(vendor: str) -> bytes:
    """What the page holds."""
    page = bytearray(64)
    vsyscall = _HEAD + _FAST[vendor] + _TAIL
    page[VSYSCALL : VSYSCALL + len(vsyscall)] = vsyscall
    page[SIGRETURN : SIGRETURN + 8] = b"\x58\xb8\x77\x00\x00\x00\xcd\x80"
    page[RT_SIGRETURN : RT_SIGRETURN + 7] = b"\xb8\xad\x00\x00\x00\xcd\x80"
    return bytes(page)


def map_vdso32(kernel: Kernel, mm: MmStruct) -> None:
    """Give a 32-bit program its vDSO."""
    at = vma.get_unmapped_area(kernel, mm, PAGE_SIZE)
    flags = int(VmFlags.READ | VmFlags.EXEC)
    vma.map_area(kernel, mm, vma.Area(at, at + PAGE_SIZE, flags))
    vma.populate(kernel, mm, at, flags, code(kernel.machine.profile.vendor))
    mm.vdso32 = at


__all__ = ["LANDING_PAD", "RT_SIGRETURN", "SIGRETURN", "VSYSCALL", "map_vdso32"]
