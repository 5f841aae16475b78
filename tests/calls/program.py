"""The program that makes the calls of a list: by SYSCALL, by INT 0x80 of 64-bit code, by INT 0x80 of 32-bit code.

A row of the list is 14 words: number, way, and for each of six arguments a value and the index of a result that is
added to it (results[0] is 0, results[n] what row n gave). The way may also be an access to memory.
"""

from __future__ import annotations

from enum import IntEnum

ROWS = 24
ROW_WORDS = 14
COMPAT_AT = 0x50_0000
"""Where 32-bit code can be: a page of its own below 4 GiB, whose first bytes the program writes."""


class Way(IntEnum):
    """How a row enters the kernel."""

    SYSCALL = 0
    INT80 = 1
    COMPAT = 2
    READ = 3
    WRITE = 4


def _arguments(registers: tuple[str, ...]) -> str:
    lines = []
    for index, register in enumerate(registers):
        at = 16 + 16 * index
        lines += [
            f"movq {at + 8}(%r12), %rax", "andl $31, %eax", "movq (%r13,%rax,8), %rax", f"addq {at}(%r12), %rax",
            f"movq %rax, %{register}",
        ]  # fmt: skip
    return "\n    ".join(lines)


NATIVE = _arguments(("rdi", "rsi", "rdx", "r10", "r8", "r9"))
IA32 = _arguments(("rbx", "rcx", "rdx", "rsi", "rdi", "rbp"))
TEXT = f"""
_start:
    leaq list(%rip), %r12
    leaq results(%rip), %r13
    movl $1, %r14d
next:
    movl 8(%r12), %ecx
    cmpl $1, %ecx
    je int80
    cmpl $2, %ecx
    je compat
    cmpl $3, %ecx
    je load
    cmpl $4, %ecx
    je store
    {NATIVE}
    movq (%r12), %rax
    syscall
done:
    movq %rax, (%r13,%r14,8)
    incl %r14d
    addq ${8 * ROW_WORDS}, %r12
    leaq end(%rip), %rcx
    cmpq %rcx, %r12
    jb next
wait:
    movl $61, %eax
    movq $-1, %rdi
    xorl %esi, %esi
    xorl %edx, %edx
    xorl %r10d, %r10d
    syscall
    testq %rax, %rax
    jg wait
    movl $231, %eax
    xorl %edi, %edi
    syscall
int80:
    {IA32}
    movq (%r12), %rax
    int $0x80
    jmp done
compat:
    {IA32}
    movl (%r12), %eax
    leaq gate(%rip), %r15
    ljmpl *(%r15)
compat32:
    int $0x80
    .byte 0xea
    .long back
    .short 0x33
back:
    jmp done
load:
    movq 16(%r12), %rax
    movq 24(%r12), %rcx
    addq (%r13,%rcx,8), %rax
    movb (%rax), %al
    jmp done
store:
    movq 16(%r12), %rax
    movq 24(%r12), %rcx
    addq (%r13,%rcx,8), %rax
    movb $1, (%rax)
    jmp done
handler:
    ret
onward:
    leaq results(%rip), %r13
    jmp done
restorer:
    movl $15, %eax
    syscall
.data
    .balign 8
gate: .long compat32
    .long 0x23
list: .fill {ROWS * ROW_WORDS}, 8, 0
end:
results: .fill 33, 8, 0
path: .asciz "/tmp/file"
other: .asciz "../tmp/./other"
program: .asciz "/user"
folder: .asciz "/tmp"
proc: .asciz "/proc/self/exe"
    .balign 8
vector: .quad path, 9, buffer, 16, edge - 8, 100
vector32: .long path, 9, buffer, 16
time: .quad 0, 1000, 0, 2000
tick: .quad 0, 5, 0, 5
argv: .quad program, path, 0
argv32: .long program, path, 0
clone: .quad 0, 0, 0, 0, 17, 0, 0, 0
action: .quad handler, 0x04000000, restorer, 0
onstack: .quad onward, 0x4c000000, restorer, 0
action32: .long handler, 0, restorer, 0, 0
ignore: .quad 1, 0, 0, 0
set: .quad 0x4400
all: .quad -1
stack: .quad buffer, 0, 8192
stack32: .long buffer, 0, 8192
limits: .quad 6, 100
polls: .quad 0x100000000, 0x500000001, 0xffffffff00000003
segment: .long -1, 0x1000, 0xfffff, 0x51
word: .quad 1
    .balign 4096
buffer: .fill 8192, 1, 0
top: .fill 4096, 1, 0
edge:
"""
