"""What a list of calls consists of: names, ways, arguments."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from calls.program import ROW_WORDS, ROWS, Way
from kernel_stubs.syscalls.names import SYSCALL_NAMES
from kernel_stubs.syscalls.names32 import IA32_SYSCALL_NAMES

NUMBERS = {name: number for number, name in SYSCALL_NAMES.items()}
NUMBERS32 = {name: number for number, name in IA32_SYSCALL_NAMES.items()}
U64 = 0xFFFF_FFFF_FFFF_FFFF

SHAPES = """
read:dbn write:dbn open:pom close:d stat:pb fstat:db lstat:pb poll:fnt lseek:dnn mmap:alPMdz mprotect:alP munmap:al
brk:a rt_sigaction:sSb8 rt_sigprocmask:nsb8 rt_sigreturn:- ioctl:dnb pread64:dbnn pwrite64:dbnn readv:dvn writev:dvn
access:pm pipe:b select:nbbbT sched_yield:- madvise:aln dup:d dup2:dd pause:- nanosleep:Tb getitimer:nb alarm:n
setitimer:nTb getpid:- sendfile:ddbn clone:CkbbF fork:- vfork:- execve:pAA exit:n wait4:ibnb kill:is uname:b fcntl:dnn
fsync:d truncate:pn ftruncate:dn getcwd:bn chdir:p fchdir:d rename:pp mkdir:pm rmdir:p creat:pm link:pp unlink:p
symlink:pp readlink:pbn chmod:pm fchmod:dm umask:m gettimeofday:bb getrlimit:nb ptrace:niab getuid:- setuid:n
setpgid:ii getppid:- setsid:- getgroups:nb getresuid:bbb getpgid:i getsid:i rt_sigpending:b8 rt_sigtimedwait:sbT8
rt_sigqueueinfo:isb rt_sigsuspend:s8 sigaltstack:Kb modify_ldt:ngn prctl:nb arch_prctl:Xa setrlimit:nL gettid:-
tkill:is time:b futex:wnnTwn getdents64:dbn set_tid_address:b restart_syscall:- clock_gettime:nb clock_getres:nb
clock_nanosleep:nnTb exit_group:n tgkill:iis waitid:nibnb openat:dpom mkdirat:dpm newfstatat:dpbn unlinkat:dpn
renameat:dpdp linkat:dpdpn symlinkat:pdp readlinkat:dpbn fchmodat:dpm faccessat:dpm pselect6:nbbbTb ppoll:fnTs8
set_robust_list:bn utimensat:dpTn dup3:ddo pipe2:bo rt_tgsigqueueinfo:iisb prlimit64:inLb renameat2:dpdpn
getrandom:bnn execveat:dpAAn rseq:bnnn clone3:Rn close_range:nnn faccessat2:dpmn
waitpid:ibn signal:sS sigaction:sSb sgetmask:- ssetmask:n sigsuspend:n sigpending:b sigprocmask:nsb _llseek:dnnbn
_newselect:nbbbT mmap2:alPMdz truncate64:pnn ftruncate64:dnn stat64:pb fstat64:db getdents:dbn set_thread_area:g
get_thread_area:g ugetrlimit:nb sendfile64:ddbn fcntl64:dnn clock_gettime64:nb futex_time64:wnnTwn sigreturn:-
"""
"""Name of a system call and the kinds of its arguments, a letter each (`_KINDS`)."""
CALLS = {
    name: kinds.replace("-", "") for name, _, kinds in (word.partition(":") for word in SHAPES.split() if ":" in word)
}
RARE = frozenset(
    "exit exit_group execve execveat kill tkill tgkill rt_sigreturn sigreturn pause restart_syscall".split()
)
FLOWS = (
    "mmap mmap munmap mprotect madvise munmap", "fork wait4 getpid kill wait4", "clone futex gettid wait4",
    "rt_sigaction rt_sigaction tgkill kill", "sigaltstack rt_sigaction kill rt_sigreturn", "pipe write read dup2 close",
    "open write lseek read mmap ftruncate close", "mkdir chdir creat rename rmdir getcwd", "brk brk brk munmap",
    "ptrace fork ptrace wait4 ptrace ptrace", "rt_sigprocmask kill rt_sigpending rt_sigtimedwait rt_sigsuspend",
    "setitimer pause alarm nanosleep", "vfork exit wait4", "setrlimit mmap fork brk",
    "arch_prctl modify_ldt sched_yield", "set_tid_address clone set_robust_list exit",
    "openat getdents64 fchdir unlinkat symlinkat readlinkat",
)  # fmt: skip

Symbols = Mapping[str, int]


def _address(draw: random.Random, symbols: Symbols) -> int:
    """Pages: the program's, the arena of mappings, where nothing is."""
    base = draw.choice([symbols["buffer"], symbols["top"], 0x1000_0000, 0x1000_0000, 0x7FFF_F7FF_0000, 0, 0x40_0000])
    return base + draw.choice([0, 0, 0x1000, 0x2000, 0x5000, 1, 0xFFF])


def _buffer(draw: random.Random, symbols: Symbols) -> int:
    """Memory of the program, now and then across the end of what is mapped."""
    return symbols[draw.choice(("buffer", "top", "edge", "word", "vector"))] + draw.choice((0, 0, 0, 8, 1, -1, -4))


def _names(*names: str) -> Callable[[random.Random, Symbols], int]:
    return lambda draw, symbols: symbols[draw.choice(names)]


def _numbers(*values: int) -> Callable[[random.Random, Symbols], int]:
    return lambda draw, symbols: draw.choice(values) & U64


_KINDS: dict[str, Callable[[random.Random, Symbols], int]] = {
    "d": _numbers(0, 1, 2, 3, 4, 5, 6, 7, 255, 256, -1, -100),
    "b": _buffer,
    "n": _numbers(
        0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 17, 64, 100, 128, 512, 4096, 8192, 0x4200, -1, -2, 1 << 31, 1 << 62, 0x7FFF_F000
    ),
    "p": _names("path", "other", "program", "folder", "proc"),
    "o": _numbers(0, 1, 2, 0o100, 0o102, 0o1102, 0o2002, 0o200000, 0o4000, 0o2000000, 0o400000),
    "m": _numbers(0, 0o7, 0o644, 0o777, 0o10000, -1),
    "a": _address,
    "l": _numbers(0, 1, 0x1000, 0x1001, 0x2000, 0x5000, 0x10_0000, 1 << 31, 1 << 46, -0x1000, -1),
    "P": _numbers(0, 1, 2, 3, 3, 3, 4, 5, 7, 8, 0x100_0003, 0x200_0001),
    "M": _numbers(0x22, 0x22, 0x22, 0x32, 0x32, 0x21, 0x2, 0x1, 0x122, 0x10_0022, 0x12, 0x20, 0x23),
    "z": _numbers(0, 0, 0, 0x1000, 1, -0x1000),
    "t": _numbers(0, 1, 10, -1),
    "T": _names("time", "word", "edge"),
    "s": _numbers(0, 1, 2, 9, 10, 10, 11, 12, 14, 15, 17, 18, 19, 20, 34, 64, 65, -1),
    "S": _names("action", "action", "onstack", "ignore", "action32"),
    "8": _numbers(8, 8, 8, 4, 128),
    "v": _names("vector", "vector32", "edge"),
    "f": _names("polls", "buffer", "edge"),
    "i": _numbers(0, 1, 1, 2, 3, 4, -1, -2, 999, 1 << 31),
    "A": _names("argv", "argv32", "vector", "edge"),
    "C": _numbers(
        17, 17, 0, 0x11, 0x111, 0x4111, 0x50F00, 0x3D0F00, 0x1200011, 0x8011, 0x10000, 0x100, 0x80000, 0x80011, 1 << 40
    ),
    "k": _names("edge", "edge", "top", "word"),
    "F": _numbers(0, 0x1234, 1 << 47, 0x7FFF_FFFF_F000),
    "K": _names("stack", "stack32", "edge"),
    "X": _numbers(0x1001, 0x1002, 0x1003, 0x1004, 0),
    "g": _names("segment", "word", "edge"),
    "L": _names("limits", "time", "edge"),
    "w": _names("word", "word", "buffer", "edge"),
    "R": _names("clone", "word"),
}  # fmt: skip


_ODD = (
    0, 1, 8, 0xFFF, 0x1000, 0x1001, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_E000, 0xFFFF_FFFF, 0x1_0000_0000,
    0x7FFF_FFFF_EFFF, 0x7FFF_FFFF_F000, 0x7FFF_FFFF_FFFF, 1 << 47, (1 << 63) - 1, 1 << 63, U64, U64 - 1, U64 - 7,
    U64 - 0xFFF, 0xFFFF_8000_0000_0000, 0xFFFF_8880_0000_0000, 0xFFFF_8880_0000_1000, 0xFFFF_C900_0000_0000,
    0xFFFF_FE00_0000_0000, 0xFFFF_FFFF_8100_0000, 0xFFFF_FFFF_8180_0000, 0xFFFF_FFFF_FF60_0000, 0xFFFF_FFFF_FEE0_0000,
)  # fmt: skip


def anything(draw: random.Random, symbols: Symbols) -> int:
    """Pointers to nowhere, to the kernel, non-canonical ones, ends of pages, huge and negative numbers, random bits."""
    own = (symbols["edge"] - 1, symbols["edge"] - 4, *(symbols[name] for name in ("edge", "_start", "handler", "list")))
    values = (*_ODD, *own)
    if draw.randrange(3):
        return draw.choice(values)
    return draw.getrandbits(draw.choice((4, 8, 12, 31, 32, 47, 48, 64)))


def _row(draw: random.Random, name: str, symbols: Symbols, index: int) -> list[int]:
    ways = [Way.SYSCALL] * 3 + [Way.INT80, Way.COMPAT]
    way = draw.choice([w for w in ways if name in (NUMBERS if w is Way.SYSCALL else NUMBERS32)])
    number = (NUMBERS if way is Way.SYSCALL else NUMBERS32)[name]
    kinds = CALLS[name].ljust(6)
    words: list[int] = [number, int(way)]
    wild = draw.randrange(6)
    for position, kind in enumerate(kinds):
        strange = kind == " " or draw.randrange(12) == 0 or wild == position
        value, result = (anything if strange else _KINDS[kind])(draw, symbols), 0
        if kind in "diaw" and draw.randrange(5) == 0:
            value, result = (
                draw.choice((0, 0, 0, 0x1000, 1)),
                draw.randrange(max(1, index - 4), index + 1) if index else 0,
            )
        words += [value, result]
    return words


def _call(name: str, *values: int) -> list[int]:
    """A row with just these arguments, by SYSCALL."""
    padded = values + (0,) * (6 - len(values))
    return [NUMBERS[name], int(Way.SYSCALL), *(word for value in padded for word in (value, 0))]


def _precautions(draw: random.Random, symbols: Symbols) -> list[list[int]]:
    """What lets a program live longer: a handler that goes on after a fault, a tick that ends sleeps."""
    found = []
    if draw.randrange(3):
        found += [_call("rt_sigaction", signal, symbols["onstack"], 0, 8) for signal in (11, 7)]
    if draw.randrange(2):
        found += [_call("rt_sigaction", 14, symbols["action"], 0, 8), _call("setitimer", 0, symbols["tick"], 0)]
    return found


def rows(seed: int, symbols: Symbols) -> list[list[int]]:
    """The calls of a seed."""
    draw = random.Random(seed)
    plain = [name for name in CALLS if name in NUMBERS or name in NUMBERS32]
    names: list[str] = []
    while len(names) < ROWS:
        kind = draw.randrange(10)
        if kind < 5:
            names += draw.choice(FLOWS).split()
        elif kind < 9:
            name = draw.choice(plain)
            if name not in RARE or not draw.randrange(4):
                names.append(name)
        else:
            names.append("")
    found = _precautions(draw, symbols)
    for index, name in enumerate(names[: ROWS - len(found)], len(found)):
        if name:
            found.append(_row(draw, name, symbols, index))
        elif draw.randrange(2):
            way = draw.choice((Way.READ, Way.WRITE))
            address = draw.choice((_address(draw, symbols), anything(draw, symbols)))
            found.append([0, int(way), address, draw.randrange(index + 1), *[0] * 10])
        else:  # a number that is none, or anybody's
            way = draw.choice((Way.SYSCALL, Way.INT80, Way.COMPAT))
            number = draw.choice((draw.randrange(460), anything(draw, symbols)))
            found.append([number, int(way), *(word for _ in range(6) for word in (anything(draw, symbols), 0))])
    return found


def encoded(seed: int, symbols: Symbols) -> bytes:
    """The same as the program wants it."""
    table = rows(seed, symbols)
    assert all(len(row) == ROW_WORDS for row in table)
    return b"".join((word & U64).to_bytes(8, "little") for row in table for word in row)
