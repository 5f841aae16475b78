"""The vDSO of 32-bit programs: one page of code (arch/x86/entry/vdso/vdso32; of 2.6.28, arch/x86/vdso/vdso32).

Of linux-6:

    __kernel_vsyscall:   push %ecx; push %edx; push %ebp
                         mov %esp,%ebp; sysenter      (Intel)     mov %ecx,%ebp; syscall      (AMD)
                         int $0x80
    int80_landing_pad:   pop %ebp; pop %edx; pop %ecx; ret

SYSENTER and SYSCALL lose RIP or ECX, so the kernel returns from both to the landing pad; a call that is made again
begins two bytes before it, at INT 0x80.

Of linux-2.6, where each is made again by itself, as EBP has to be what its entry expects:

    __kernel_vsyscall:   push %ecx; push %edx; push %ebp
                  enter: mov %esp,%ebp; sysenter; 7 nops; jmp enter          (Intel)
    SYSENTER_RETURN:     pop %ebp; pop %edx; pop %ecx; ret

    __kernel_vsyscall:   push %ebp; mov %ecx,%ebp; syscall                   (AMD)
                         mov $__USER32_DS,%ecx; mov %ecx,%ss; mov %ebp,%ecx; pop %ebp; ret

And of both:

    __kernel_sigreturn:  pop %eax; mov $119,%eax; int $0x80
    __kernel_rt_sigreturn: mov $173,%eax; int $0x80
"""

from __future__ import annotations

from emu.arch import PAGE_SIZE
from kernel_stubs import vma
from kernel_stubs.abi import MmStruct, VmFlags
from kernel_stubs.context import Kernel

_PUSHES, _POPS = b"\x51\x52\x55", b"\x5d\x5a\x59\xc3"
_LANDING = b"\xcd\x80" + _POPS
_VSYSCALL = {
    ("linux-6", "intel"): _PUSHES + b"\x89\xe5\x0f\x34" + _LANDING,
    ("linux-6", "amd"): _PUSHES + b"\x89\xcd\x0f\x05" + _LANDING,
    ("linux-2.6", "intel"): _PUSHES + b"\x89\xe5\x0f\x34" + 7 * b"\x90" + b"\xeb\xf3" + _POPS,
    ("linux-2.6", "amd"): b"\x55\x89\xcd\x0f\x05\xb9\x2b\0\0\0\x8e\xd1\x89\xe9\x5d\xc3",
}
"""By kernel and vendor."""
VSYSCALL = 0
LANDING_PAD = 9
SIGRETURN = 32
RT_SIGRETURN = 48


def code(kernel: str, vendor: str) -> bytes:
    """What the page holds."""
    page = bytearray(64)
    vsyscall = _VSYSCALL[kernel, vendor]
    page[VSYSCALL : VSYSCALL + len(vsyscall)] = vsyscall
    page[SIGRETURN : SIGRETURN + 8] = b"\x58\xb8\x77\x00\x00\x00\xcd\x80"
    page[RT_SIGRETURN : RT_SIGRETURN + 7] = b"\xb8\xad\x00\x00\x00\xcd\x80"
    return bytes(page)


def sysenter_return(kernel: Kernel) -> int:
    """Offset of where linux-2.6 returns to from SYSENTER."""
    return code(kernel.name, "intel").index(_POPS)


def map_vdso32(kernel: Kernel, mm: MmStruct) -> None:
    """Give a 32-bit program its vDSO."""
    at = vma.get_unmapped_area(kernel, mm, PAGE_SIZE)
    flags = int(VmFlags.READ | VmFlags.EXEC)
    vma.map_area(kernel, mm, vma.Area(at, at + PAGE_SIZE, flags))
    vma.populate(kernel, mm, at, flags, code(kernel.name, kernel.machine.profile.vendor))
    mm.vdso32 = at


__all__ = ["LANDING_PAD", "RT_SIGRETURN", "SIGRETURN", "VSYSCALL", "map_vdso32", "sysenter_return"]
