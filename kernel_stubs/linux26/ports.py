"""I/O ports for user mode: iopl(2), with the whole pt_regs (arch/x86/kernel/ioport.c)."""

from __future__ import annotations

from emu.arch import Rflags
from kernel_stubs.abi import PtRegs
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno
from kernel_stubs.linux26.calls import c_function26
from kernel_stubs.linux26.syscalls import traced

_SHIFT = int(Rflags.IOPL).bit_length() - 2
_HIGHEST = 3


@c_function26
def sys_iopl(cpu: Cpu, level: int, regs: PtRegs) -> Steps:
    """iopl(2): the I/O privilege level that user mode returns with; everybody here has CAP_SYS_RAWIO."""
    return (yield from traced(cpu, (level, 0, 0, 0, 0, 0), _iopl(level & 0xFFFF_FFFF, regs)))


def _iopl(level: int, regs: PtRegs) -> Steps:
    yield from ()
    if level > _HIGHEST:
        return -Errno.EINVAL
    regs.flags = regs.flags & ~int(Rflags.IOPL) | level << _SHIFT
    return 0
