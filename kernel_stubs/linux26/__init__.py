"""The C side of the kernel image `linux-2.6`.

What C does is written once, for linux-6. Here it gets the names, the arguments and the rules of the older kernel's
assembly: that decides itself what is left to do before user mode, so its C functions do their subject only.
"""

from __future__ import annotations

from functools import cache


@cache
def install() -> None:
    """Register this kernel's C functions. Those of linux-6, and all system calls, must be there already."""
    from kernel_stubs.linux26 import (
        compat,
        first,
        interrupts,
        khelper,
        kthreads,
        main,
        ports,
        ptrace,
        syscalls,
        tasks,
        traps,
    )

    for module in (compat, first, khelper, main, ports, ptrace, tasks):
        assert module  # they register when they are imported
    compat.register_all()
    traps.register_all()
    interrupts.register_all()
    kthreads.register_all()
    syscalls.register_all()
