"""Calls about the system: its name, its randomness."""

from __future__ import annotations

import hashlib

from kernel_stubs import mm
from kernel_stubs.context import Cpu, Kernel
from kernel_stubs.errno import Errno, SyscallError, UserFaultError
from kernel_stubs.syscalls.table import syscall
from kernel_stubs.uaccess import copy_to_user

UTS = ("Linux", "entry64", "6.12.0", "#1", "x86_64", "(none)")
UTS_FIELD = 65
GRND_RANDOM, GRND_INSECURE, GRND_KNOWN = 2, 4, 7
MAX_RANDOM = 0x1FF_FFFF
"""getrandom(2) gives no more at once."""
RANDOM_BLOCK = 32


def random_bytes(kernel: Kernel, count: int) -> bytes:
    """The next bytes of this run's random stream: a hash of its seed and of how many blocks were asked for before."""
    data = mm.kernel_data(kernel.memory)
    blocks = []
    for _ in range(-(-count // RANDOM_BLOCK)):
        blocks.append(hashlib.sha256(f"{kernel.seed}:{data.random_counter}".encode()).digest())
        data.random_counter += 1
    return b"".join(blocks)[:count]


@syscall
def sys_getrandom(cpu: Cpu, buffer: int, count: int, flags: int) -> int:
    """getrandom(2)."""
    flags &= 0xFFFF_FFFF
    if flags & ~GRND_KNOWN or (flags & GRND_RANDOM and flags & GRND_INSECURE):
        raise SyscallError(Errno.EINVAL)
    count = min(count, MAX_RANDOM)
    done = 0
    while done < count:
        part = random_bytes(cpu.kernel, min(256, count - done))
        try:
            copy_to_user(cpu, buffer + done, part)
        except UserFaultError:
            if not done:
                raise
            break
        done += len(part)
    return done


@syscall
def sys_uname(cpu: Cpu, result: int) -> int:
    """uname(2)."""
    copy_to_user(cpu, result, b"".join(text.encode().ljust(UTS_FIELD, b"\0") for text in UTS))
    return 0
