"""The i386 system calls: most are the 64-bit ones under their i386 number (arch/x86/entry/syscalls/syscall_32.tbl)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from emu.arch import Selector
from kernel_stubs.abi import PtRegs
from kernel_stubs.binding import Steps
from kernel_stubs.context import Cpu
from kernel_stubs.errno import Errno, SyscallError
from kernel_stubs.syscalls import table
from kernel_stubs.syscalls.names import SYSCALL_NAMES
from kernel_stubs.syscalls.names32 import IA32_SYSCALL_NAMES

_NUMBERS = {name: number for number, name in SYSCALL_NAMES.items()}
_NUMBERS32 = {name: number for number, name in IA32_SYSCALL_NAMES.items()}

_SAME = """
    exit fork read write open close creat link unlink chdir mknod chmod getpid setuid getuid alarm pause access sync
    kill rename mkdir rmdir dup pipe setgid getgid geteuid getegid setpgid umask chroot dup2 getppid getpgrp setsid
    symlink readlink munmap fchmod fchown fsync getpgid fchdir flock msync getsid fdatasync mprotect brk ioctl
    sched_yield mremap poll prctl getcwd vfork uname madvise gettid tkill tgkill exit_group set_tid_address
    openat mkdirat mknodat fchownat unlinkat renameat renameat2 linkat symlinkat readlinkat fchmodat faccessat
    faccessat2 dup3 pipe2 prlimit64 getrandom statx rseq rt_sigpending rt_sigprocmask rt_sigsuspend restart_syscall
    membarrier sched_getaffinity memfd_create copy_file_range clone3 getdents64 fcntl chown lchown
"""
"""The same arguments in both: numbers, strings, and structures that do not know the difference."""
SAME = frozenset(_SAME.split())
RENAMED = {
    "getuid32": "getuid", "getgid32": "getgid", "geteuid32": "geteuid", "getegid32": "getegid", "setuid32": "setuid",
    "setgid32": "setgid", "fcntl64": "fcntl", "clock_gettime64": "clock_gettime", "chown32": "chown",
    "clock_getres_time64": "clock_getres", "clock_nanosleep_time64": "clock_nanosleep", "futex_time64": "futex",
    "sendfile64": "sendfile", "ppoll_time64": "ppoll", "utimensat_time64": "utimensat", "fchown32": "fchown",
    "lchown32": "lchown", "getresuid32": "getresuid",
    "getresgid32": "getresgid", "pselect6_time64": "pselect6",
}  # fmt: skip

CompatBody = Callable[..., int | Steps]


@dataclass(frozen=True, slots=True)
class CompatEntry:
    """A row of ia32_sys_call_table that needs a function of its own."""

    name: str
    body: CompatBody
    argument_count: int


_table: dict[int, CompatEntry] = {}


def compat_syscall(function: CompatBody) -> CompatBody:
    """Register a function named `compat_sys_` and the i386 system call's name."""
    name = function.__name__.removeprefix("compat_sys_")
    _table[_NUMBERS32[name]] = CompatEntry(name, function, len(inspect.signature(function).parameters) - 1)
    return function


def implemented(number: int) -> bool:
    """Whether we have an i386 system call."""
    return number in _table or _same(number) in table.implemented()


def functions() -> dict[int, str]:
    """Number -> C function of the i386 system calls: `compat_sys_*`, or the `sys_*` that serves both ABIs."""
    found = {number: f"compat_sys_{entry.name}" for number, entry in _table.items()}
    known = table.implemented()
    for number in IA32_SYSCALL_NAMES:
        same = _same(number)
        if same in known:
            found.setdefault(number, f"sys_{known[same]}")
    return dict(sorted(found.items()))


def argument_count(number: int) -> int:
    """How many arguments a system call with a function of its own takes."""
    return _table[number].argument_count


def _same(number: int) -> int | None:
    """Number of the 64-bit call that does for an i386 one."""
    name = IA32_SYSCALL_NAMES.get(number, "")
    return _NUMBERS.get(RENAMED.get(name, name if name in SAME else ""))


def ia32_call(cpu: Cpu, number: int, args: tuple[int, ...]) -> Steps:
    """Run one i386 system call: its result, or -errno."""
    own = _table.get(number)
    if own is not None:
        try:
            result = own.body(cpu, *args[: own.argument_count])
            return result if isinstance(result, int) else (yield from result)
        except SyscallError as error:
            return -error.errno
    same = _same(number)
    if same is not None:
        return (yield from table.invoke(cpu, same, args))
    return table.not_implemented32(cpu, number)


def native(cpu: Cpu, name: str, *args: int) -> Steps:
    """The 64-bit system call of this name: its result; SyscallError for a failure."""
    result = yield from table.invoke(cpu, _NUMBERS[name], (*args, *[0] * (6 - len(args))))
    if result is not None and -4096 < result < 0:
        raise SyscallError(_error(-result))
    return result


def _error(number: int) -> Errno:
    from kernel_stubs.errno import Restart

    return Restart(number) if number in Restart._value2member_map_ else Errno(number)  # type: ignore[return-value]


def user_space(cpu: Cpu, size: int) -> int:
    """Room on the user's stack for a structure as the 64-bit call wants it (compat_alloc_user_space)."""
    regs = cpu.view(PtRegs, cpu.percpu.top_of_stack - PtRegs.SIZE)
    mask = 0xFFFF_FFFF_FFFF_FFFF if regs.cs == Selector.USER_CS else 0xFFFF_FFFF  # INT 0x80 of 64-bit code
    return ((regs.sp & mask) - 128 - size) & -16 & mask
