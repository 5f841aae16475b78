"""Checks of what programs seldom do: 32-bit calls, handlers that return, interrupts in softirqs, bad selectors.

32-bit programs are written as 64-bit assembly: of the instructions used here, the two have the same bytes.
"""

from __future__ import annotations

from emu.lab.mutate.check import Check
from emu.lab.shipped import find_scenario

_VALUES = {"ebx": 0x1357_9BD1, "ecx": 0x1357_9BD2, "edx": 0x1357_9BD3, "esi": 0x1357_9BD4, "edi": 0x1357_9BD5,
           "ebp": 0x1357_9BD6}  # fmt: skip
_SIGNALS = (4, 5, 7, 8, 11)
"""SIGILL SIGTRAP SIGBUS SIGFPE SIGSEGV."""

HANDLERS = "".join(
    f"    movl $SYS_rt_sigaction, %eax\n    movl ${number}, %edi\n    leaq action(%rip), %rsi\n    xorl %edx, %edx\n"
    "    movl $8, %r10d\n    syscall\n"
    for number in _SIGNALS
)
"""Code that has a handler for each signal of a fault ..."""
HANDLER = """
handler:
    ret
restorer:
    movl $SYS_rt_sigreturn, %eax
    syscall
    .balign 8
action:
    .quad handler, 0x44000000, restorer, 0
"""
"""... which only returns (SA_RESTORER, SA_NODEFER)."""
IN_64_BITS = """
    pushq   $0x2b
    pushq   %rsp
    pushfq
    pushq   $0x23
    leaq    compatible(%rip), %rax
    pushq   %rax
    movabsq $0x1234567800000014, %rax
    movabsq $0x13579bdf02468bcf, %r11
    iretq
compatible:
    {call}
"""
"""A 64-bit program goes on in compatibility mode, with registers that no 32-bit program has."""

SELECTOR_GONE = """
_start:
    movl    $243, %eax          # set_thread_area of 32-bit programs
    leaq    present(%rip), %rbx
    int     $0x80
    movl    $0x63, %eax
    movl    %eax, %gs
    movl    $243, %eax
    leaq    absent(%rip), %rbx
    int     $0x80
    movl    $SYS_fork, %eax
    syscall
    testl   %eax, %eax
    jz      child
    movl    $SYS_wait4, %eax
    movq    $-1, %rdi
    xorl    %esi, %esi
    xorl    %edx, %edx
    xorl    %r10d, %r10d
    syscall
    jmp     good
child:
    movl    %eax, %gs           # for the parent's to be loaded when it goes on
good:
    movl    %gs, %edi           # null, in both
    movl    $SYS_exit_group, %eax
    syscall
    .balign 8
present:
    .long 12, 0x10000, 0xfffff, 0x51
absent:
    .long 12, 0, 0, 0x28
"""
"""A task whose GS has a selector without a descriptor when it comes back to the CPU: the kernel's load of it faults."""


def watchpoints(name: str) -> list[Check]:
    """A shipped scenario's watchpoint in each of the other debug registers."""
    text, found = find_scenario(name).text, []
    for number in (1, 2, 3):
        changes = (
            ("$DEBUGREG, %edx", f"$DEBUGREG+{8 * number}, %edx"),
            ("$0xd0001, %r10d", f"${0xD << 16 + 4 * number | 1 << 2 * number:#x}, %r10d"),
            ("cmpl    $1, %eax            # B0", f"cmpl    ${1 << number}, %eax"),
        )
        program = text
        for old, new in changes:
            assert program.count(old) == 1, f"{name}: {old}"
            program = program.replace(old, new)
        found.append(Check(f"watchpoint in DR{number}", program, shipped=True))
    return found


def fast_call(flags: int) -> str:
    """A 32-bit program that calls getpid by the vDSO with these flags set and a value in each register."""
    return (
        # Past the arguments and the environment to AT_SYSINFO (32), which stays on the stack.
        "_start:\n    movl %esp, %edi\n    addl $4, %edi\n"
        "1:  cmpl $0, (%rdi)\n    leal 4(%rdi), %edi\n    jne 1b\n"
        "2:  cmpl $0, (%rdi)\n    leal 4(%rdi), %edi\n    jne 2b\n"
        "3:  cmpl $32, (%rdi)\n    leal 8(%rdi), %edi\n    jne 3b\n"
        "    movl -4(%rdi), %eax\n    pushq %rax\n"
        f"    pushfq\n    orl ${flags:#x}, (%rsp)\n    popfq\n"
        + "".join(f"    movl ${value:#x}, %{name}\n" for name, value in _VALUES.items())
        + "    movl $20, %eax\n    callq *(%rsp)\nhere:\n"
        + "".join(f"    cmpl ${value:#x}, %{name}\n    jne bad\n" for name, value in _VALUES.items())
        # Its flags are still what they were.
        + f"    pushfq\n    popq %rax\n    andl ${flags:#x}, %eax\n    cmpl ${flags:#x}, %eax\n    jne bad\n"
        "    xorl %ebx, %ebx\n    jmp out\nbad:\n    movl $1, %ebx\nout:\n    movl $1, %eax\n    int $0x80\n"
    )
