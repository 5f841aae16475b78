# Exceptions on the task stack: those that cannot hit the instructions around a SWAPGS, but for two that error_entry
# knows by their labels.

.section .text,"ax",@progbits

# The stub puts the C function into RAX, and RAX where DI belongs.
# Entry: the hardware's frame at RSP, with an error code below it for errorentry; IF=0.
# Exit:  by error_entry.
.macro zeroentry name, func
.balign 16, 0xcc
.globl \name
\name:
    pushq   $0
    pushq   %rax
    leaq    \func(%rip), %rax
    jmp     error_entry
.endm

.macro errorentry name, func
.balign 16, 0xcc
.globl \name
\name:
    pushq   %rax
    leaq    \func(%rip), %rax
    jmp     error_entry
.endm

zeroentry divide_error, do_divide_error
zeroentry overflow, do_overflow
zeroentry bounds, do_bounds
zeroentry invalid_op, do_invalid_op
zeroentry device_not_available, do_device_not_available
zeroentry coprocessor_segment_overrun, do_coprocessor_segment_overrun
errorentry invalid_TSS, do_invalid_TSS
errorentry segment_not_present, do_segment_not_present
errorentry general_protection, do_general_protection
# CR2 is read by C, before anything there can fault.
errorentry page_fault, do_page_fault
zeroentry spurious_interrupt_bug, do_spurious_interrupt_bug
zeroentry coprocessor_error, do_coprocessor_error
errorentry alignment_check, do_alignment_check
zeroentry simd_coprocessor_error, do_simd_coprocessor_error

# Entry: RAX = func, the interrupted RAX at RSP in DI's place, above it the error code in ORIG_AX's, and the hardware's
#        frame; IF=0; user GS if user mode was interrupted, else the kernel's (except at iret_label and gs_change).
# Exit:  func(regs, error_code) is called; then as an interrupt.
.globl error_entry
error_entry:
    cld
    subq    $PT_REGS_DI, %rsp
    movq    %rsi, PT_REGS_SI(%rsp)
    movq    PT_REGS_DI(%rsp), %rsi
    movq    %rsi, PT_REGS_AX(%rsp)
    movq    %rdi, PT_REGS_DI(%rsp)
    movq    %rdx, PT_REGS_DX(%rsp)
    movq    %rcx, PT_REGS_CX(%rsp)
    movq    %r8, PT_REGS_R8(%rsp)
    movq    %r9, PT_REGS_R9(%rsp)
    movq    %r10, PT_REGS_R10(%rsp)
    movq    %r11, PT_REGS_R11(%rsp)
    movq    %rbx, PT_REGS_BX(%rsp)
    movq    %rbp, PT_REGS_BP(%rsp)
    movq    %r12, PT_REGS_R12(%rsp)
    movq    %r13, PT_REGS_R13(%rsp)
    movq    %r14, PT_REGS_R14(%rsp)
    movq    %r15, PT_REGS_R15(%rsp)
    # EBX: 0 if the exit is to user mode.
    xorl    %ebx, %ebx
    testl   $3, PT_REGS_CS(%rsp)
    jz      error_kernelspace
.globl error_swapgs
error_swapgs:
    swapgs
.globl error_sti
error_sti:
    movq    %rsp, %rdi
    movq    PT_REGS_ORIG_AX(%rsp), %rsi
    movq    $-1, PT_REGS_ORIG_AX(%rsp)
    call    *%rax

# Entry: RSP = pt_regs, EBX from error_entry; kernel GS.
.globl error_exit
error_exit:
    movl    %ebx, %eax
    RESTORE_REST
    cli
    GET_THREAD_INFO %rcx
    testl   %eax, %eax
    jnz     retint_kernel
    jmp     retint_with_reschedule

# CS says kernel.  In two places the kernel faults with the user's GS: it is swapped in, and the exception table takes
# the exception to code that has the kernel's, so EBX stays 1 and nothing is swapped back.
.globl error_kernelspace
error_kernelspace:
    incl    %ebx
    leaq    iret_label(%rip), %rbp
    cmpq    %rbp, PT_REGS_IP(%rsp)
    je      error_swapgs
    # Early K8s report only 32 bits of RIP for an IRETQ to compatibility mode.
    movl    %ebp, %ebp
    cmpq    %rbp, PT_REGS_IP(%rsp)
    je      error_swapgs
    cmpq    $gs_change, PT_REGS_IP(%rsp)
    je      error_swapgs
    jmp     error_sti
