# Events that can hit any instruction, also between an entry and its SWAPGS or between the exit's SWAPGS and IRETQ: the
# saved CS does not tell whose GS is live, so GS_BASE is looked at.  Kernel addresses are negative, and user mode cannot
# set such a base without the kernel's help (no CR4.FSGSBASE).

.section .text,"ax",@progbits

# Entry: RSP on the vector's IST stack, at the error code or at what was pushed for one; IF=0, any GS.
# Exit:  func(regs, error_code) has been called on the IST stack; RSP = pt_regs, IF=0, kernel GS;
#        EBX = 0 if the exit must swap GS, else 1.
# `ist`: move this IST entry down meanwhile, so that the same event inside C does not overwrite the frame.
.macro paranoidentry func, ist=0
    SAVE_ALL
    cld
    movl    $1, %ebx
    movl    $MSR_GS_BASE, %ecx
    rdmsr
    testl   %edx, %edx
    js      .Lparanoid_gs_is_kernel_\@
    swapgs
    xorl    %ebx, %ebx
.Lparanoid_gs_is_kernel_\@:
    .if \ist
    movq    %gs:PDA_DATA_OFFSET, %rbp
    .endif
    movq    %rsp, %rdi
    movq    PT_REGS_ORIG_AX(%rsp), %rsi
    movq    $-1, PT_REGS_ORIG_AX(%rsp)
    .if \ist
    subq    $EXCEPTION_STKSZ, (PERCPU_TSS_IST + (\ist - 1) * 8)(%rbp)
    .endif
    call    \func
    .if \ist
    addq    $EXCEPTION_STKSZ, (PERCPU_TSS_IST + (\ist - 1) * 8)(%rbp)
    .endif
    cli
.endm

# Entry: RSP = pt_regs on an IST stack, EBX from paranoidentry; IF=0, kernel GS.
# Exit:  in the interrupted code, with its GS.  User mode's work is done on the task stack first, and the task may even
#        lose the CPU: after an NMI, NMIs stay blocked until some IRETQ.
.globl paranoid_exit
paranoid_exit:
    testl   %ebx, %ebx
    jnz     paranoid_restore
    testl   $3, PT_REGS_CS(%rsp)
    jnz     paranoid_userspace
.globl paranoid_swapgs
paranoid_swapgs:
    swapgs
.globl paranoid_restore
paranoid_restore:
    RESTORE_ALL skip=8
    jmp     iret_label

# Entry: RSP = pt_regs of user mode; IF=0, kernel GS.
.globl paranoid_userspace
paranoid_userspace:
    GET_THREAD_INFO %rcx
    movl    TI_FLAGS(%rcx), %ebx
    andl    $_TIF_WORK_MASK, %ebx
    jz      paranoid_swapgs
    movq    %rsp, %rdi
    call    sync_regs
    movq    %rax, %rsp
    testl   $_TIF_NEED_RESCHED, %ebx
    jnz     paranoid_schedule
    movl    %ebx, %edx
    sti
    xorl    %esi, %esi
    movq    %rsp, %rdi
    call    do_notify_resume
    cli
    jmp     paranoid_userspace
.globl paranoid_schedule
paranoid_schedule:
    sti
    call    schedule
    cli
    jmp     paranoid_userspace

.macro PARANOID_VECTOR name, func, has_error_code=0, ist=0
.balign 16, 0xcc
.globl \name
\name:
    .if \has_error_code == 0
    pushq   $0
    .endif
    paranoidentry \func, \ist
    jmp     paranoid_exit
.endm

PARANOID_VECTOR debug, do_debug, ist=DEBUG_STACK
PARANOID_VECTOR int3, do_int3, ist=DEBUG_STACK
# No care is taken of an NMI inside this one: image.S.
PARANOID_VECTOR nmi, do_nmi
PARANOID_VECTOR double_fault, do_double_fault, has_error_code=1
PARANOID_VECTOR stack_segment, do_stack_segment, has_error_code=1
PARANOID_VECTOR machine_check, do_machine_check
