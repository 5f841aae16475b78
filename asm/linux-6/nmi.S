# NMI.  The CPU blocks NMIs from the delivery of one to the next IRETQ, no matter whose: a page fault or a machine
# check inside the handler unblocks them early.  The IST then puts the next frame right over the first, so the first
# must have been copied away, and the next must know that it is nested and only ask the outer one to run again.
#
# The NMI stack while kernel mode is interrupted, from its top:
#
#   original frame     SS SP FLAGS CS IP     the hardware's, of the newest NMI
#   saved RDX                                of the newest NMI
#   NMI executing                            1 while the frames below are in use
#   iret frame         SS SP FLAGS CS IP     what the handler returns by; a nested NMI points it at repeat_nmi
#   outermost frame    SS SP FLAGS CS IP     of the code that the first NMI interrupted; never changed
#   pt_regs            the outermost frame is its tail
#
# Not covered, nor can software do so: an IRETQ that unblocks NMIs before the first frame is copied away, or
# between the last clearing of "NMI executing" and the IRETQ when the next NMI hits while another IST stack is in
# use.  It takes a machine check or a breakpoint on those very instructions.

.section .entry.text,"ax",@progbits

# Offsets from the saved RDX (where RSP is until the kind of NMI is known) ...
.set NMI_ORIG_IP, 8
.set NMI_ORIG_CS, 16
.set NMI_ORIG_FLAGS, 24
.set NMI_ORIG_SP, 32
.set NMI_ORIG_SS, 40
.set NMI_STACK_TOP, 48
.set NMI_EXECUTING, -8
.set NMI_OUTERMOST, -88
# ... and from the outermost frame, where RSP is at repeat_nmi.
.set OUTERMOST_TO_IRET, 40
.set OUTERMOST_TO_EXECUTING, 80
# From the iret frame.
.set IRET_TO_EXECUTING, 40

# Entry: RSP on the NMI stack, at the hardware's frame; NMIs blocked, IF=0; any GS, any CR3.
# Exit:  in the interrupted code by IRETQ, which unblocks NMIs.
.balign 16, 0xcc
.globl asm_exc_nmi
asm_exc_nmi:
    CLEAR_ENTRY_FLAGS
    # One scratch register; more words than this one must not be written before the tests below.
    pushq   %rdx
    testb   $3, NMI_ORIG_CS(%rsp)
    jz      .Lnmi_from_kernel

    # User mode: no NMI handler is at work on this CPU, and GS is the user's for sure.  Go on on the task stack; the
    # NMI stack is free at once, so that an early IRETQ does no harm.
    swapgs
    SWITCH_TO_KERNEL_CR3 scratch=%rdx
    movq    %rsp, %rdx
    movq    %gs:PERCPU_TOP_OF_STACK, %rsp
    PUSH_IRET_FRAME_OF %rdx, NMI_ORIG_IP
    pushq   $-1
    movq    (%rdx), %rdx
    PUSH_AND_CLEAR_REGS
    movq    %rsp, %rdi
    call    exc_nmi
    # No work loop: signals and rescheduling wait for an interrupt (irq_work raises one if need be).
    jmp     swapgs_restore_regs_and_return_to_usermode

# Entry: RSP at the saved RDX on the NMI stack, RDX free, everything else the interrupted code's.
.Lnmi_from_kernel:
    # Interrupted while the iret frame was being made?  It must not be changed now, and need not be: the handler has
    # yet to run, and serves for this NMI too.
    leaq    repeat_nmi(%rip), %rdx
    cmpq    NMI_ORIG_IP(%rsp), %rdx
    ja      .Lnmi_not_in_repeat
    leaq    end_repeat_nmi(%rip), %rdx
    cmpq    NMI_ORIG_IP(%rsp), %rdx
    ja      nested_nmi_out
.Lnmi_not_in_repeat:
    cmpq    $1, NMI_EXECUTING(%rsp)
    je      nested_nmi

    # The outer NMI may have cleared the word and not yet returned: RSP is on this stack then.  But so may be any RSP
    # that user mode brought along through SYSCALL.  DF tells: the outer NMI sets it, and SYSCALL clears it.
    leaq    NMI_STACK_TOP(%rsp), %rdx
    cmpq    NMI_ORIG_SP(%rsp), %rdx
    jb      first_nmi
    subq    $EXCEPTION_STACK_SIZE, %rdx
    cmpq    NMI_ORIG_SP(%rsp), %rdx
    ja      first_nmi
    testq   $X86_EFLAGS_DF, NMI_ORIG_FLAGS(%rsp)
    jz      first_nmi

# Entry: as .Lnmi_from_kernel; the frames of an outer NMI are in use below.
# Exit:  back in the outer NMI by nested_nmi_out; its own IRETQ goes to repeat_nmi, with RSP at its outermost frame.
.globl nested_nmi
nested_nmi:
    leaq    NMI_OUTERMOST(%rsp), %rdx
    # Skip the "NMI executing" word, then overwrite the iret frame.
    subq    $8, %rsp
    pushq   $__KERNEL_DS
    pushq   %rdx
    pushq   $X86_EFLAGS_FIXED
    pushq   $__KERNEL_CS
    leaq    repeat_nmi(%rip), %rdx
    pushq   %rdx
    addq    $48, %rsp

# Entry: RSP at the saved RDX, everything else as it was interrupted.
.globl nested_nmi_out
nested_nmi_out:
    popq    %rdx
    iretq

# Entry: as .Lnmi_from_kernel; nothing below RSP is in use.
.globl first_nmi
first_nmi:
    movq    (%rsp), %rdx
    # Room for "NMI executing" and the iret frame, which repeat_nmi fills in.
    pushq   $0
    subq    $40, %rsp
    # The outermost frame, from the original SS downwards: each push moves source and target alike.  48 = what RSP has
    # moved since the saved RDX.
    .rept 5
    pushq   NMI_ORIG_SS+48(%rsp)
    .endr

# Reached from above, and by the IRETQ of an NMI that was nested into.
# Entry: RSP at the outermost frame, everything else (registers, GS, CR3) the interrupted code's.
.globl repeat_nmi
repeat_nmi:
    movq    $1, OUTERMOST_TO_EXECUTING(%rsp)
    # No register is free.  POP computes its address after it has moved RSP: both offsets count from one place.
    .irp word, 32, 24, 16, 8, 0
    pushq   \word(%rsp)
    popq    OUTERMOST_TO_IRET+\word(%rsp)
    .endr
.globl end_repeat_nmi
end_repeat_nmi:
    pushq   $-1
    # The interrupted code may be any kernel code, so what holds for other IST entries holds here.
    call    paranoid_entry
    movq    %rsp, %rdi
    call    exc_nmi
    RESTORE_CR3_AND_GS_AFTER_PARANOID

# Entry: RSP = pt_regs on the NMI stack; GS and CR3 those of the interrupted code; NMIs may be unblocked.
# Exit:  by the iret frame.
.globl nmi_restore
nmi_restore:
    POP_REGS
    # ORIG_AX and the outermost frame.
    addq    $(8 + OUTERMOST_TO_IRET), %rsp
    # From the next write to the IRETQ only DF shows that this stack is in use.  IRETQ restores it.
    std
    movq    $0, IRET_TO_EXECUTING(%rsp)
    iretq
