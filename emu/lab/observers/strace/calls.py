"""How each system call's arguments are shown: what is known when it begins, and what only its end tells.

A row is the names of decoders in the order of the arguments; from `>` on they are shown at the end. `N=` before a name
takes argument N (counted from 0) instead of the next one, `label:` before it shows a label.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from emu.lab.observers.strace import names
from emu.lab.observers.strace.arguments import DECODERS
from emu.lab.observers.strace.call import Arg, Call, Decode

_ROWS = """
read fd > filled size
write fd data2 size
close fd
stat path > stat_filled
fstat fd > stat_filled
lstat path > stat_filled
poll poll uint int
lseek fd long whence
mmap address size prot map fd page_offset
mprotect address size prot
munmap address size
brk address
rt_sigaction signal sigaction > sigaction_filled size
rt_sigprocmask how sigset > sigset_filled size
rt_sigreturn 0=saved_mask
pread64 fd > filled size long_long
pwrite64 fd data2 size long_long
readv fd > iovec_filled int
writev fd iovec int
access path access
pipe > ints2
select int fd_set fd_set fd_set timeval
sched_yield
madvise address size madvise
dup fd
dup2 fd fd
pause
nanosleep timespec > remaining
getitimer itimer > itimerval_filled
alarm uint
setitimer itimer itimerval > itimerval_filled
getpid
sendfile fd fd word size
fork
vfork
execve path argv envp
exit int
exit_group int
wait4 int > status wait address
kill int signal
uname > utsname_filled
fsync fd
truncate path size
ftruncate fd size
getcwd > cwd size
chdir path
fchdir fd
rename path path
mkdir path mode
rmdir path
creat path mode
link path path
unlink path
symlink path path
readlink path > filled size
chmod path mode
fchmod fd mode
umask mode
gettimeofday > timeval_filled timezone_filled
getrlimit rlimit_name > rlimit_filled
setrlimit rlimit_name rlimit
getuid
getgid
setuid int
setgid int
geteuid
getegid
setpgid int int
getppid
getpgrp
setsid
getgroups int > groups
getresuid > ints1 ints1 ints1
getresgid > ints1 ints1 ints1
getpgid int
getsid int
rt_sigpending > sigset_filled size
rt_sigtimedwait sigset > siginfo_filled timespec size
rt_sigqueueinfo int signal siginfo
rt_sigsuspend sigset size
sigaltstack stack > stack_filled
arch_prctl arch_prctl address
gettid
tkill int signal
time > time
getdents64 fd > entries size
set_tid_address address
clock_gettime clock > timespec_filled
clock_getres clock > timespec_filled
clock_nanosleep clock timer timespec > remaining
tgkill int int signal
waitid idtype int > waited wait address
mkdirat dirfd path mode
newfstatat dirfd path > stat_filled at
unlinkat dirfd path at
renameat dirfd path dirfd path
linkat dirfd path dirfd path at
symlinkat path dirfd path
readlinkat dirfd path > filled size
fchmodat dirfd path mode
faccessat dirfd path access
pselect6 int fd_set fd_set fd_set timespec pselect_set
ppoll poll uint timespec sigset size
set_robust_list address size
utimensat dirfd path times at
dup3 fd fd descriptor_flags
pipe2 > ints2 descriptor_flags
rt_tgsigqueueinfo int int signal siginfo
prlimit64 int rlimit_name rlimit64 > rlimit64_filled
renameat2 dirfd path dirfd path rename
getrandom > random size getrandom
execveat dirfd path argv envp at
rseq address hex32 hex32 hex32
clone3 address size
close_range uint uint close_range
faccessat2 dirfd path access faccessat
ioctl fd ioctl address
modify_ldt int address size
iopl int
restart_syscall 0=interrupted
chown path int int
fchown fd int int
"""

_ROWS32 = """
waitpid int > status wait
lseek fd long whence
_llseek fd 1=pair2 > 3=long_long_filled 4=whence
mmap2 address size prot map fd page_offset
mmap address
truncate path size
ftruncate fd size
truncate64 path long_long
ftruncate64 fd long_long
stat64 path > stat_filled
lstat64 path > stat_filled
fstat64 fd > stat_filled
fstatat64 dirfd path > stat_filled at
setuid32 int
setgid32 int
getuid32
getgid32
geteuid32
getegid32
getresuid32 > ints1 ints1 ints1
getresgid32 > ints1 ints1 ints1
_newselect int fd_set fd_set fd_set timeval
signal signal handler
sigaction signal old_sigaction > old_sigaction_filled
sgetmask
ssetmask mask
sigsuspend hex hex mask
sigpending > old_sigset_filled
sigprocmask how old_sigset > old_sigset_filled
sigreturn 0=saved_mask
ugetrlimit rlimit_name > rlimit_filled
sendfile64 fd fd word size
set_thread_area user_desc
get_thread_area > user_desc_filled
clock_gettime64 clock > timespec64_filled
clock_getres_time64 clock > timespec64_filled
clock_nanosleep_time64 clock timer timespec64 > remaining64
rt_sigtimedwait_time64 sigset > siginfo_filled timespec64 size
pselect6_time64 int fd_set fd_set fd_set timespec64 pselect_set
ppoll_time64 poll uint timespec64 sigset size
utimensat_time64 dirfd path times64 at
"""


# --- calls whose arguments depend on one another ----------------------------------------------------------------------
def _open(call: Call, first: int) -> str:
    row = "path open_flags" if not first else "dirfd path open_flags"
    return row + (" mode" if call.args[first + 1] & (names.O_CREAT | names.O_TMPFILE) else "")


def _fcntl(call: Call) -> str:
    command = call.args[1] & 0xFFFF_FFFF
    kind = {
        "F_GETFD": "", "F_GETFL": "", "F_GETOWN": "", "F_GETSIG": "", "F_GETLEASE": "", "F_GETPIPE_SZ": "",
        "F_GET_SEALS": "",
        "F_SETFD": "fd_flags", "F_SETFL": "open_flags", "F_DUPFD": "int", "F_DUPFD_CLOEXEC": "int",
        "F_SETOWN": "int", "F_SETSIG": "int", "F_SETPIPE_SZ": "int",
    }.get(names.FCNTL.get(command, ""), "hex")  # fmt: skip
    return f"fd fcntl {kind}"


def _futex(call: Call) -> str:
    time = "timespec64" if call.name.endswith("_time64") else "timespec"
    command = call.args[1] & ~(names.FUTEX_PRIVATE | names.FUTEX_REALTIME) & 0xFFFF_FFFF
    more = {
        0: f"uint {time}", 1: "uint", 2: "uint", 3: "uint uint address", 4: "uint uint address uint",
        5: "uint uint address hex32", 6: f"3={time}", 7: "", 8: "", 9: f"uint {time} 5=bitset", 10: "uint 5=bitset",
        11: f"uint {time} address", 12: "uint uint address uint", 13: f"3={time}",
    }.get(command, "uint hex hex hex32")  # fmt: skip
    return f"address futex {more}"


def _clone(call: Call) -> str:
    flags = call.args[0]
    child, tls = (4, 3) if call.ia32 else (3, 4)
    row = "1=child_stack:address 0=flags:clone"
    late = ["2=parent_tid:parent_tid"] if flags & 0x100000 else []
    late += [f"{tls}=tls:{'user_desc' if call.ia32 else 'address'}"] if flags & 0x80000 else []
    late += [f"{child}=child_tidptr:address"] if flags & (0x1000000 | 0x200000) else []
    return f"{row} {'> ' + ' '.join(late) if late else ''}"


def _prctl(call: Call) -> str:
    if call.args[0] & 0xFFFF_FFFF == 15:
        return "prctl string"
    if call.args[0] & 0xFFFF_FFFF == 16:
        return "prctl > string_filled"
    return "prctl hex hex hex hex"


def _ptrace(call: Call) -> str:
    request = names.PTRACE.get(call.args[0] & 0xFFFF_FFFF, "")
    more = {
        "PTRACE_TRACEME": "", "PTRACE_PEEKTEXT": "int address > 3=peeked", "PTRACE_PEEKDATA": "int address > 3=peeked",
        "PTRACE_PEEKUSER": "int user > 3=peeked", "PTRACE_POKEUSER": "int user address",
        "PTRACE_POKETEXT": "int address address", "PTRACE_POKEDATA": "int address address",
        "PTRACE_CONT": "int address signal_or_0", "PTRACE_SYSCALL": "int address signal_or_0",
        "PTRACE_SINGLESTEP": "int address signal_or_0", "PTRACE_DETACH": "int address signal_or_0",
        "PTRACE_KILL": "int", "PTRACE_ATTACH": "int", "PTRACE_INTERRUPT": "int", "PTRACE_LISTEN": "int",
        "PTRACE_GETREGS": "int 3=address", "PTRACE_SETREGS": "int 3=address", "PTRACE_GETFPREGS": "int 3=address",
        "PTRACE_SETFPREGS": "int 3=address", "PTRACE_SETOPTIONS": "int address ptrace_options",
        "PTRACE_OLDSETOPTIONS": "int address ptrace_options", "PTRACE_SEIZE": "int address ptrace_options",
        "PTRACE_GETEVENTMSG": "int address > word", "PTRACE_GETSIGINFO": "int address > siginfo_filled",
        "PTRACE_SETSIGINFO": "int address siginfo", "PTRACE_GETREGSET": "int regset address",
        "PTRACE_SETREGSET": "int regset address", "PTRACE_GETSIGMASK": "int size address",
        "PTRACE_SETSIGMASK": "int size address",
    }.get(request, "int address address")  # fmt: skip
    return f"ptrace {more}"


_DEPENDENT: dict[str, Callable[[Call], str]] = {
    "open": lambda call: _open(call, 0),
    "openat": lambda call: _open(call, 1),
    "fcntl": _fcntl,
    "fcntl64": _fcntl,
    "futex": _futex,
    "futex_time64": _futex,
    "clone": _clone,
    "prctl": _prctl,
    "ptrace": _ptrace,
    "modify_ldt": lambda call: (
        "int user_desc size" if call.args[0] & 0xFFFF_FFFF in (1, 17) and call.args[2] == 16 else "int address size"
    ),
}
LATE_COMMA = frozenset({"clone"})
"""Calls whose second part begins with the comma."""
NEVER_RETURN = frozenset({"exit", "exit_group"})


# --- rows -------------------------------------------------------------------------------------------------------------
def _labelled(label: str, decode: Decode) -> Decode:
    return (lambda call, index: f"{label}={decode(call, index)}") if label else decode


@cache
def _row(row: str) -> tuple[Arg, ...]:
    found: list[Arg] = []
    out, following = False, 0
    for word in row.split():
        if word == ">":
            out = True
            continue
        position, equals, name = word.rpartition("=")
        label, _, name = name.rpartition(":")
        index = int(position) if equals else following
        following = index + 1
        found.append(Arg(_labelled(label, DECODERS[name]), index, out))
    return tuple(found)


def _parse(rows: str) -> dict[str, str]:
    return {line.split()[0]: line.partition(" ")[2] for line in rows.strip().splitlines()}


_NATIVE = _parse(_ROWS)
_IA32 = _NATIVE | _parse(_ROWS32)
KNOWN = {False: frozenset(_NATIVE) | frozenset(_DEPENDENT), True: frozenset(_IA32) | frozenset(_DEPENDENT)}
"""Calls that have a row, without and with those of i386 only."""


def arguments(call: Call) -> tuple[Arg, ...]:
    """How its arguments are shown; all six in hexadecimal for a call that nobody has described."""
    depends = _DEPENDENT.get(call.name)
    if depends is not None:
        return _row(depends(call))
    row = (_IA32 if call.ia32 else _NATIVE).get(call.name)
    return _row("0=hex 1=hex 2=hex 3=hex 4=hex 5=hex" if row is None else row)
