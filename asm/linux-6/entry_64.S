# System calls, the ways out, and error_entry, which all entries through the IDT share.

.section .entry.text,"ax",@progbits

# SYSCALL from 64-bit mode.
# Entry: RSP the user's (it may point anywhere), RCX = return RIP, R11 = RFLAGS, RAX = number; IF DF TF AC clear by
#        SYSCALL_MASK; user GS, user CR3.
# Exit:  SYSRETQ or IRETQ with RSP the user's, user GS, user CR3.
.globl entry_SYSCALL_64
entry_SYSCALL_64:
    swapgs
    # No register is free and there is no stack yet; sp2 of the TSS page is mapped in both page tables.
    movq    %rsp, %gs:PERCPU_TSS_SP2
    SWITCH_TO_KERNEL_CR3 scratch=%rsp
    movq    %gs:PERCPU_TOP_OF_STACK, %rsp
.globl entry_SYSCALL_64_safe_stack
entry_SYSCALL_64_safe_stack:
    # The frame that an interrupt would have pushed.
    pushq   $__USER_DS
    pushq   %gs:PERCPU_TSS_SP2
    pushq   %r11
    pushq   $__USER_CS
    pushq   %rcx
.globl entry_SYSCALL_64_after_hwframe
entry_SYSCALL_64_after_hwframe:
    pushq   %rax
    # A system call that does not exist, or that a tracer skips, returns what is in regs->ax already.
    PUSH_AND_CLEAR_REGS ax=$-ENOSYS

    # do_syscall_64(regs, nr) also does the work pending before user mode, and returns with IF=0.
    movq    %rsp, %rdi
    movslq  %eax, %rsi
    call    do_syscall_64

    # SYSRETQ takes RIP from RCX, RFLAGS from R11 and flat segments, so the frame must say just that: a signal, a
    # tracer or rt_sigreturn may have changed it.
    movq    PT_REGS_CX(%rsp), %rcx
    cmpq    %rcx, PT_REGS_IP(%rsp)
    jne     swapgs_restore_regs_and_return_to_usermode
    # With a non-canonical RCX some CPUs fault in SYSRETQ still at CPL0, on the user's RSP.
    movq    %rcx, %rax
    shlq    $16, %rax
    sarq    $16, %rax
    cmpq    %rcx, %rax
    jne     swapgs_restore_regs_and_return_to_usermode
    movq    PT_REGS_R11(%rsp), %r11
    cmpq    %r11, PT_REGS_FLAGS(%rsp)
    jne     swapgs_restore_regs_and_return_to_usermode
    # SYSRETQ drops RF, and with TF it would trap one instruction too early.
    testq   $(X86_EFLAGS_RF | X86_EFLAGS_TF), %r11
    jnz     swapgs_restore_regs_and_return_to_usermode
    cmpq    $__USER_CS, PT_REGS_CS(%rsp)
    jne     swapgs_restore_regs_and_return_to_usermode
    cmpq    $__USER_DS, PT_REGS_SS(%rsp)
    jne     swapgs_restore_regs_and_return_to_usermode

# Entry: RSP = pt_regs on the task stack, good for SYSRETQ; IF=0, kernel GS, kernel CR3.
# Exit:  at CPL3, RSP the user's, user GS, user CR3.
.globl syscall_return_via_sysret
syscall_return_via_sysret:
    POP_REGS_BELOW_DI
    LEAVE_TASK_STACK_FOR_SYSRET
.globl entry_SYSRETQ_unsafe_stack
entry_SYSRETQ_unsafe_stack:
    swapgs
    sysretq
.globl entry_SYSRETQ_end
entry_SYSRETQ_end:
    int3

# Entry: RSP = pt_regs, IF=0, kernel GS, kernel CR3; any stack that belongs to the interrupted context.
# Exit:  as the pt_regs say, in user or kernel mode.
.globl error_return
error_return:
    testb   $3, PT_REGS_CS(%rsp)
    jz      restore_regs_and_return_to_kernel

# Entry: RSP = pt_regs of user mode on the task stack; IF=0, kernel GS, kernel CR3.
# Exit:  at CPL3 by IRETQ from the trampoline stack, user GS, user CR3.
.globl swapgs_restore_regs_and_return_to_usermode
swapgs_restore_regs_and_return_to_usermode:
    POP_REGS_BELOW_DI
    movq    %rsp, %rdi
    movq    %gs:PERCPU_TSS_SP0, %rsp
    PUSH_IRET_FRAME_OF %rdi, PT_REGS_IP-PT_REGS_DI
    pushq   (%rdi)
    SWITCH_TO_USER_CR3 scratch=%rdi
    popq    %rdi
    swapgs
.globl native_iret
native_iret:
    # IRETQ to a 16-bit stack segment loads SP only and leaves bits 31:16 of the kernel's RSP for all to see.  Such
    # segments are in the LDT (TI, bit 2 of the selector).
    testb   $SEGMENT_TI_MASK, IRET_FRAME_SS(%rsp)
    jnz     native_irq_return_ldt
    # May fault (a frame made by rt_sigreturn or a tracer): with CS the kernel's, but GS and CR3 the user's.
    # error_entry knows this instruction by its label.
.globl native_irq_return_iret
native_irq_return_iret:
    iretq

# espfix64: IRETQ from a stack whose address has the user's own bits 31:16.  Each CPU owns a few words there, which are
# mapped read-only at every such address (percpu.espfix_stack | bits 31:16, in both page tables) and writable at
# percpu.espfix_waddr (kernel tables only).  If this IRETQ faults the frame cannot be pushed, and a double fault
# follows; exc_double_fault makes of that the #GP which user mode is to have.
# Entry: RSP at the frame for IRETQ on the trampoline stack; user GS, user CR3, the registers the user's.
# Exit:  at native_irq_return_iret on the espfix stack, user GS, user CR3.
.globl native_irq_return_ldt
native_irq_return_ldt:
    pushq   %rdi
    swapgs
    SWITCH_TO_KERNEL_CR3 scratch=%rdi
    movq    %gs:PERCPU_ESPFIX_WADDR, %rdi
    movq    %rax, (%rdi)
    # The frame follows; RSP comes last, for it is needed in RAX.
    .irp word, IP, CS, FLAGS, SS, SP
    movq    8+IRET_FRAME_\word(%rsp), %rax
    movq    %rax, 8+IRET_FRAME_\word(%rdi)
    .endr
    andl    $0xffff0000, %eax
    orq     %gs:PERCPU_ESPFIX_STACK, %rax
    SWITCH_TO_USER_CR3 scratch=%rdi
    popq    %rdi
    swapgs
    movq    %rax, %rsp
    popq    %rax
    jmp     native_irq_return_iret

# Entry: RSP = pt_regs of kernel mode, IF=0; GS and CR3 as the interrupted code had them.
# Exit:  in the interrupted code.  Its IRETQ is not user mode's: a fault here would come with the kernel's GS.
.globl restore_regs_and_return_to_kernel
restore_regs_and_return_to_kernel:
    POP_REGS
    addq    $8, %rsp
    iretq

# Called first by all entries that cannot hit the instructions around a SWAPGS: the saved CS tells whose GS is live.
# Entry: RSP at the return address, above it ORIG_AX and the hardware's frame; DF and AC clear, IF=0.
#        From user mode: on the trampoline or an IST stack, user GS, user CR3.
#        From kernel mode: on the interrupted stack, kernel GS and CR3, but for two instructions that can fault with
#        the user's GS: native_irq_return_iret (with the user's CR3 too) and gs_change.
# Exit:  RSP = pt_regs, from user mode on the task stack; kernel GS, kernel CR3; all registers clobbered.
.globl error_entry
error_entry:
    PUSH_AND_CLEAR_REGS_OF_CALLER
    testb   $3, PT_REGS_CS(%rsp)
    jz      .Lerror_entry_from_kernel

    swapgs
    SWITCH_TO_KERNEL_CR3 scratch=%rax
    # The trampoline stack must be empty again for the next entry, and only the task stack may sleep.
    movq    %rsp, %rsi
    movq    %gs:PERCPU_TOP_OF_STACK, %rsp
    .irp field, SS, SP, FLAGS, CS, IP, ORIG_AX, DI, SI, DX, CX, AX, R8, R9, R10, R11, BX, BP, R12, R13, R14, R15
    pushq   PT_REGS_\field(%rsi)
    .endr
    RETURN_TO_CALLER_IN_RDI

.Lerror_entry_from_kernel:
    leaq    native_irq_return_iret(%rip), %rcx
    cmpq    %rcx, PT_REGS_IP(%rsp)
    je      .Lerror_entry_bad_iret
    leaq    gs_change(%rip), %rcx
    cmpq    %rcx, PT_REGS_IP(%rsp)
    jne     .Lerror_entry_kernel_gs
    # A selector that cannot be loaded.  The exception table sends this exception to the fixup behind gs_change, which
    # counts on the kernel's GS, so no SWAPGS undoes this one.
    swapgs
.Lerror_entry_kernel_gs:
    RETURN_TO_CALLER_IN_RDI

    # The return to user mode failed.  RSP is on the trampoline stack, and regs->sp at the frame that IRETQ refused.
    # fixup_bad_iret(regs) makes of both the pt_regs that the exception would have had one instruction later, in user
    # mode, at the top of the task stack; we go on from there.  It runs below them, so C never runs on the trampoline.
.Lerror_entry_bad_iret:
    swapgs
    SWITCH_TO_KERNEL_CR3 scratch=%rax
    movq    %rdi, %r12
    movq    %rsp, %rdi
    movq    %gs:PERCPU_TOP_OF_STACK, %rsp
    subq    $PT_REGS_SIZE, %rsp
    call    fixup_bad_iret
    movq    %rax, %rsp
    movq    %r12, %rdi
    xorl    %r12d, %r12d
    RETURN_TO_CALLER_IN_RDI
