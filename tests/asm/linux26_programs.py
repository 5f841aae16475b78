"""Programs of user mode that make one system call of linux-2.6: from `before` to `done`."""

from __future__ import annotations

from kernel_entries import SYSCALL32_FROM_64

REGISTERS = "".join(
    f"    movl ${0x100 + n}, %{name}\n"
    for n, name in enumerate(["ebx", "ebp", "r8d", "r9d", "r10d", "r12d", "r13d", "r14d", "r15d", "edi", "esi", "edx"])
)
SYSCALL = f"""
_start:
{REGISTERS}
    movl    $39, %eax
before:
    syscall
done:
    jmp     done
"""
INT80 = f"""
_start:
{REGISTERS}
    movl    $0x103, %ecx
    movabsq $0x1234567800000014, %rax
before:
    int     $0x80
done:
    jmp     done
"""
SYSENTER = """
_start:
    movq    %rsp, %rbp
    movl    $0x66, -4096(%rbp)
    subl    $4096, %ebp
    movl    $20, %eax
before:
    sysenter
landing:
    .byte   0x90
done:
    .byte   0xeb, 0xfe
"""
SYSCALL32 = f"""
_start:
    subl    $4096, %esp
    movl    $0x66, (%rsp)
{SYSCALL32_FROM_64}"""
