"""Programs of user mode that make one system call of linux-2.6: from `before` to `done`."""

from __future__ import annotations

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
SYSCALL32 = """
_start:
    subl    $4096, %esp
    movl    $0x66, (%rsp)
    .byte   0xff, 0x2d                      # ljmp *pointer(%rip)
    .long   pointer - (. + 4)
pointer:
    .long   before
    .word   0x23
before:
    .byte   0xb8, 0x14, 0, 0, 0             # movl $20, %eax
    .byte   0xbd, 0x99, 0, 0, 0             # movl $0x99, %ebp
    .byte   0x0f, 0x05
after:
    .byte   0x90
done:
    .byte   0xeb, 0xfe
"""
