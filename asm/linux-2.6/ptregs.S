# System calls whose C function wants the pt_regs, all of them: the fast path has saved only half.

.section .text,"ax",@progbits

# Reached by the system-call table, so RSP is at the return address, below a partial frame.
# `arg`: the register in which C expects the pt_regs.
.macro PTREGSCALL label, func, arg
.globl \label
\label:
    leaq    \func(%rip), %rax
    leaq    (8 - ARGOFFSET)(%rsp), \arg
    jmp     ptregscall_common
.endm

PTREGSCALL stub_clone, sys_clone, %r8
PTREGSCALL stub_fork, sys_fork, %rdi
PTREGSCALL stub_vfork, sys_vfork, %rdi
PTREGSCALL stub_sigaltstack, sys_sigaltstack, %rdx
PTREGSCALL stub_iopl, sys_iopl, %rsi

# Entry: RAX = the function, its arguments in place; the return address at RSP, below it nothing; kernel GS.
# Exit:  to that address, RSP at the partial frame, RAX = result.
.globl ptregscall_common
ptregscall_common:
    # The return address makes room, and waits in a register that C preserves.
    popq    %r11
    SAVE_REST
    movq    %r11, %r15
    FIXUP_TOP_OF_STACK %r11
    call    *%rax
    RESTORE_TOP_OF_STACK %r11
    movq    %r15, %r11
    RESTORE_REST
    pushq   %r11
    ret

# execve: where user mode goes on has nothing to do with where it came from, so IRETQ.
# Entry: as PTREGSCALL.
# Exit:  by int_ret_from_sys_call.
.globl stub_execve
stub_execve:
    popq    %r11
    SAVE_REST
    FIXUP_TOP_OF_STACK %r11
    movq    %rsp, %rcx
    call    sys_execve
    RESTORE_TOP_OF_STACK %r11
    movq    %rax, PT_REGS_AX(%rsp)
    RESTORE_REST
    jmp     int_ret_from_sys_call

# rt_sigreturn: all registers come from the signal frame; RAX is what C returns.
# Entry: as PTREGSCALL.
# Exit:  by int_ret_from_sys_call.
.globl stub_rt_sigreturn
stub_rt_sigreturn:
    addq    $8, %rsp
    SAVE_REST
    movq    %rsp, %rdi
    FIXUP_TOP_OF_STACK %r11
    call    sys_rt_sigreturn
    movq    %rax, PT_REGS_AX(%rsp)
    RESTORE_REST
    jmp     int_ret_from_sys_call
