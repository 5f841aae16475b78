# For events that may hit between an entry and its SWAPGS, or between the exit's SWAPGS and its IRETQ: there the saved
# CS says kernel and GS is the user's, so GS_BASE itself has to be looked at.

.section .entry.text,"ax",@progbits

# Called first by such an entry, on its IST stack.
# Entry: RSP at the return address, above it ORIG_AX and the hardware's frame; DF and AC clear, IF=0; any GS, any CR3.
# Exit:  RSP = pt_regs on the same stack; kernel CR3, GS_BASE = this CPU's per-CPU base; all registers clobbered.
#        R14 = CR3 of the interrupted code.
#        RBX = its GS_BASE (CONFIG_FSGSBASE), or else 1 if it had the user's GS and the exit must swap again, 0 if not.
#        paranoid_exit needs both; C preserves them.
.globl paranoid_entry
paranoid_entry:
    PUSH_AND_CLEAR_REGS_OF_CALLER
    # CR3 first: what tells the per-CPU base by CPU number is not mapped for the user.
    SAVE_AND_SWITCH_TO_KERNEL_CR3 scratch=%rax, save=%r14
    .if CONFIG_FSGSBASE
    # User code may have put a kernel-looking value there, so the base is not examined but replaced.  KERNEL_GS_BASE
    # stays untouched, whatever it holds.
    rdgsbase %rbx
    movl    $__CPUNODE_SEG, %eax
    # The limit of this segment carries the CPU number, and above it the node.
    lsl     %eax, %eax
    andl    $0xfff, %eax
    leaq    __per_cpu_offset(%rip), %rdx
    movq    (%rdx,%rax,8), %rax
    wrgsbase %rax
    .else
    # Kernel addresses are negative, and user code cannot set such a base without the kernel's help.
    # RBX is 0 already.
    movl    $MSR_GS_BASE, %ecx
    rdmsr
    testl   %edx, %edx
    js      .Lparanoid_gs_is_kernel
    swapgs
    movl    $1, %ebx
.Lparanoid_gs_is_kernel:
    .endif
    RETURN_TO_CALLER_IN_RDI

# Entry: RSP = pt_regs of kernel mode on an IST stack; IF=0, R14 and RBX from paranoid_entry, kernel GS and CR3.
# Exit:  in the interrupted code, with its GS and CR3.
.globl paranoid_exit
paranoid_exit:
    RESTORE_CR3_AND_GS_AFTER_PARANOID
    jmp     restore_regs_and_return_to_kernel
