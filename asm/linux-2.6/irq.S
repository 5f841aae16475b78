# Interrupts, and the way out that they share with exceptions and slow system calls.

.section .text,"ax",@progbits

.set NR_VECTORS, 256

# One stub a vector, 16 bytes each.  The vector is complemented, so that orig_ax is negative: not a system call.
.balign 16, 0xcc
.globl interrupt
interrupt:
.set vector, FIRST_EXTERNAL_VECTOR
.rept NR_VECTORS - FIRST_EXTERNAL_VECTOR
    pushq   $~vector
    jmp     common_interrupt
    .balign 16, 0xcc
.set vector, vector + 1
.endr

# Call func(regs) on the IRQ stack, if this is the first interrupt; its top word leads back.
# Entry: RSP at ORIG_AX; IF=0; user GS if user mode was interrupted, else the kernel's.  An interrupt cannot hit where
#        that is not so, for IF is clear there.
# Exit:  by ret_from_intr, which comes next to each use.
.macro INTERRUPT func
    cld
    SAVE_ARGS
    leaq    -ARGOFFSET(%rsp), %rdi
    # RBP lies where BX of a whole frame would, and below it nothing is written: the frame is partial.
    pushq   %rbp
    movq    %rsp, %rbp
    testl   $3, PT_REGS_CS(%rdi)
    jz      .Lirq_from_kernel_\@
    swapgs
.Lirq_from_kernel_\@:
    # From -1 to 0: the first.  MOV to RSP and the word that leads back are one instruction apart; NMIs do not mind.
    incl    %gs:PDA_IRQCOUNT
    cmoveq  %gs:PDA_IRQSTACKPTR, %rsp
    pushq   %rbp
    call    \func
.endm

.globl common_interrupt
common_interrupt:
    INTERRUPT do_IRQ

# Entry: RSP on the IRQ stack or on the interrupted one, RBP = where the interrupted RBP lies, below a partial frame;
#        kernel GS.
.globl ret_from_intr
ret_from_intr:
    cli
    decl    %gs:PDA_IRQCOUNT
    leave
# Entry: RSP = partial frame; IF=0, kernel GS.
.globl exit_intr
exit_intr:
    GET_THREAD_INFO %rcx
    testl   $3, ARG_CS(%rsp)
    jz      retint_kernel
# Entry: RCX = thread_info.  The frame is user mode's.
.globl retint_with_reschedule
retint_with_reschedule:
    movl    $_TIF_WORK_MASK, %edi
.globl retint_check
retint_check:
    movl    TI_FLAGS(%rcx), %edx
    andl    %edi, %edx
    jnz     retint_careful
# Entry: RSP = frame of user mode, complete but for the lower six registers, which are live; IF=0, kernel GS.
.globl retint_swapgs
retint_swapgs:
    swapgs
    jmp     restore_args

# Entry: RSP = the same of any mode; GS as there.
.globl retint_restore_args
retint_restore_args:
    cli
.globl restore_args
restore_args:
    RESTORE_ARGS skip=8
    # May fault (a frame made by sigreturn or a tracer), with CS the kernel's and GS the user's.  error_entry knows this
    # instruction by its label, and the exception table sends what C makes of it to bad_iret.
.globl iret_label
iret_label:
    iretq
EXTABLE iret_label, bad_iret

# Entry: kernel GS, on the task stack, where the frame that IRETQ refused is still at RSP.
# Exit:  none: the task dies of SIGSEGV, whatever the fault was.
.globl bad_iret
bad_iret:
    movl    $SIGSEGV, %edi
    sti
    jmp     do_exit

# Entry: as retint_check, RCX = thread_info, EDX = work, EDI = the flags that count.
.globl retint_careful
retint_careful:
    btl     $TIF_NEED_RESCHED, %edx
    jnc     retint_signal
    sti
    pushq   %rdi
    call    schedule
    popq    %rdi
    GET_THREAD_INFO %rcx
    cli
    jmp     retint_check

.globl retint_signal
retint_signal:
    testl   $_TIF_DO_NOTIFY_MASK, %edx
    jz      retint_swapgs
    sti
    SAVE_REST
    # Not a system call: nothing to restart.
    movq    $-1, PT_REGS_ORIG_AX(%rsp)
    xorl    %esi, %esi
    movq    %rsp, %rdi
    call    do_notify_resume
    RESTORE_REST
    cli
    GET_THREAD_INFO %rcx
    jmp     retint_with_reschedule

# Back to kernel mode, perhaps with another task in between: only if that code can be preempted (no lock held, and
# interrupts on, which excludes all code around a SWAPGS).
# Entry: RSP = partial frame of kernel mode, RCX = thread_info; IF=0, kernel GS.
.globl retint_kernel
retint_kernel:
    cmpl    $0, TI_PREEMPT_COUNT(%rcx)
    jnz     retint_restore_args
    btl     $TIF_NEED_RESCHED, TI_FLAGS(%rcx)
    jnc     retint_restore_args
    testl   $X86_EFLAGS_IF, ARG_FLAGS(%rsp)
    jz      retint_restore_args
    call    preempt_schedule_irq
    jmp     exit_intr

# Vectors of the local APIC.  Entry: the hardware's frame at RSP, else as INTERRUPT.
.macro APICINTERRUPT name, num, func
.balign 16, 0xcc
.globl \name
\name:
    pushq   $~\num
    INTERRUPT \func
    jmp     ret_from_intr
.endm

APICINTERRUPT apic_timer_interrupt, LOCAL_TIMER_VECTOR, smp_apic_timer_interrupt
APICINTERRUPT error_interrupt, ERROR_APIC_VECTOR, smp_error_interrupt
APICINTERRUPT spurious_interrupt, SPURIOUS_APIC_VECTOR, smp_spurious_interrupt
APICINTERRUPT thermal_interrupt, THERMAL_APIC_VECTOR, smp_thermal_interrupt
APICINTERRUPT threshold_interrupt, THRESHOLD_APIC_VECTOR, mce_threshold_interrupt
# From other CPUs.
APICINTERRUPT reschedule_interrupt, RESCHEDULE_VECTOR, smp_reschedule_interrupt
APICINTERRUPT call_function_interrupt, CALL_FUNCTION_VECTOR, smp_call_function_interrupt
APICINTERRUPT call_function_single_interrupt, CALL_FUNCTION_SINGLE_VECTOR, smp_call_function_single_interrupt

# A sender of TLB shootdowns picks one of several vectors, so that they do not wait for each other.
.irp n, 0, 1, 2, 3, 4, 5, 6, 7
APICINTERRUPT invalidate_interrupt\n, (INVALIDATE_TLB_START_VECTOR + \n), smp_invalidate_interrupt
.endr
