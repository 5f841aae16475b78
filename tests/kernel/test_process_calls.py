"""Random system calls with random arguments, made by a real program: whatever comes of it, it is a result.

Calls that fork, sleep, execute, or end the process are among them, so several processes may go on with the list.
"""

import random

import pytest
from booted import start

from emu.machine.core import EndKind
from kernel_stubs import mm, uaccess
from kernel_stubs.syscalls.names import SYSCALL_NAMES

NUMBERS = {name: number for number, name in SYSCALL_NAMES.items()}
CALLS = """
    read write open close stat fstat lstat poll lseek mmap mprotect munmap brk ioctl pread64 pwrite64 readv writev
    access pipe select sched_yield madvise dup dup2 nanosleep getitimer alarm setitimer getpid sendfile clone fork
    vfork execve exit wait4 kill uname fcntl fsync truncate ftruncate getcwd chdir fchdir rename mkdir rmdir creat
    link unlink symlink readlink chmod fchmod umask gettimeofday getrlimit getuid getgid setuid setgid geteuid getegid
    setpgid getppid getpgrp setsid getgroups getresuid getresgid getpgid getsid prctl arch_prctl gettid time futex
    getdents64 set_tid_address clock_gettime clock_getres clock_nanosleep exit_group tgkill waitid openat mkdirat
    newfstatat unlinkat renameat linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll set_robust_list
    utimensat dup3 pipe2 prlimit64 renameat2 getrandom execveat rseq faccessat2 clone3 close_range
""".split()  # fmt: skip
RARE = ("exit", "exit_group", "kill", "execve", "execveat", "tgkill")
SEEDS = 500
COUNT = 12
BUDGET = 60_000
TEXT = """
_start:
    leaq list(%rip), %rbx
next:
    movq 0(%rbx), %rax
    movq 8(%rbx), %rdi
    movq 16(%rbx), %rsi
    movq 24(%rbx), %rdx
    movq 32(%rbx), %r10
    movq 40(%rbx), %r8
    movq 48(%rbx), %r9
    syscall
    addq $56, %rbx
    leaq end(%rip), %rcx
    cmpq %rcx, %rbx
    jb next
    movl $60, %eax
    xorl %edi, %edi
    syscall
.data
list: .fill 84, 8, 0
end:
path: .asciz "/tmp/file"
other: .asciz "../tmp/./other"
program: .asciz "/user"
folder: .asciz "/tmp"
    .balign 8
vector: .quad path, 9, vector, 16, 0, 0
time: .quad 0, 1000
argv: .quad program, path, 0
arguments: .quad 0, 0, 0, 0, 17, 0, 0, 0
word: .quad 1
"""


@pytest.fixture(scope="module")
def booted():
    it = start(TEXT).to("_start")
    it.system.machine.observers.clear()
    return it, it.system.machine.snapshot()


def argument(draw, symbols):
    kind = draw.randrange(10)
    if kind < 3:
        return draw.randrange(8)
    if kind < 7:
        names = ("path", "other", "program", "folder", "vector", "time", "argv", "arguments", "word", "list")
        return symbols[draw.choice(names)]
    if kind == 7:
        return draw.choice((0xFFFF_FFFF_FFFF_FF9C, 2**64 - 1, 2**63, 2**32 - 1, 4096, 0x7FFF_FFFF_F000, 0o101, 64))
    return draw.getrandbits(draw.choice((8, 12, 32, 47, 64)))


def calls(seed, symbols):
    draw = random.Random(seed)
    names = [name for name in CALLS if name not in RARE or not draw.randrange(4)]
    rows = [[NUMBERS[draw.choice(names)], *(argument(draw, symbols) for _ in range(6))] for _ in range(COUNT)]
    return b"".join(word.to_bytes(8, "little") for row in rows for word in row)


@pytest.mark.parametrize("first", range(0, SEEDS, 50))
def test_no_system_call_is_an_error_of_ours(booted, first):
    it, saved = booted
    for seed in range(first, first + 50):
        it.system.machine.restore(saved)
        it.system.binding.go_back(())
        it.system.kernel.output.clear()
        uaccess.copy_to_user(it.cpu, it.program.symbols["list"], calls(seed, it.program.symbols))
        end = it.run(BUDGET)
        assert end.kind in (EndKind.FINISHED, EndKind.LIMIT, EndKind.HALTED), (seed, end)
        assert mm.kernel_data(it.system.machine.memory).nr_tasks <= 128
