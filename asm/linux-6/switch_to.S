# From one stack to another: tasks, softirqs, the end of a task that went wrong; and the load of a user's GS selector.
# All of it is called from C and runs on the kernel's page tables only.

.section .text,"ax",@progbits

# task_struct *__switch_to_asm(prev, next).  On the stack of a task that does not run lies an InactiveTaskFrame, and
# task->sp points at it.
# Entry: RDI = prev = the current task, RSI = next; IF=0, kernel GS.
# Exit:  on next's stack, in C's __switch_to(prev, next), which returns to next's caller with prev in RAX.
.balign 16, 0xcc
.globl __switch_to_asm
__switch_to_asm:
    pushq   %rbp
    pushq   %rbx
    pushq   %r12
    pushq   %r13
    pushq   %r14
    pushq   %r15
    movq    %rsp, TASK_SP(%rdi)
    movq    TASK_SP(%rsi), %rsp
    popq    %r15
    popq    %r14
    popq    %r13
    popq    %r12
    popq    %rbx
    popq    %rbp
    jmp     __switch_to

# Where a new task begins: copy_thread made its InactiveTaskFrame return here.
# Entry: RSP = the task's pt_regs, RAX = prev, RBX = a kernel thread's function or 0, R12 = its argument; IF=0,
#        kernel GS.
# Exit:  to user mode as the pt_regs say, once C has come back (a kernel thread's function that returns has exec'ed).
.balign 16, 0xcc
.globl ret_from_fork_asm
ret_from_fork_asm:
    movq    %rax, %rdi
    movq    %rsp, %rsi
    movq    %rbx, %rdx
    movq    %r12, %rcx
    call    ret_from_fork
    jmp     swapgs_restore_regs_and_return_to_usermode

# void call_do_softirq_on_irqstack(void): __do_softirq() on the hard-IRQ stack, for a caller on a task stack.  Whoever
# is on that stack already stays where he is.
# Entry and exit: IF=0 (softirqs themselves run with interrupts on), kernel GS; clobbers what C may.
.balign 16, 0xcc
.globl call_do_softirq_on_irqstack
call_do_softirq_on_irqstack:
    cmpq    $0, %gs:PERCPU_HARDIRQ_STACK_INUSE
    jne     __do_softirq
    movq    $1, %gs:PERCPU_HARDIRQ_STACK_INUSE
    movq    %gs:PERCPU_HARDIRQ_STACK_PTR, %rax
    # The top word leads back.
    movq    %rsp, -8(%rax)
    leaq    -8(%rax), %rsp
    call    __do_softirq
    popq    %rsp
    movq    $0, %gs:PERCPU_HARDIRQ_STACK_INUSE
    ret

# void rewind_stack_and_make_dead(int signr): the current task cannot go on, wherever it is.  What its stack holds is
# lost, except the pt_regs of user mode at its end.
# Entry: RDI = signal, any stack, kernel GS, IF=0.
# Exit:  none; make_task_dead does not return.
.balign 16, 0xcc
.globl rewind_stack_and_make_dead
rewind_stack_and_make_dead:
    xorl    %ebp, %ebp
    movq    %gs:PERCPU_TOP_OF_STACK, %rsp
    subq    $PT_REGS_SIZE, %rsp
    call    make_task_dead
    ud2

# void stop_this_cpu(void): this CPU has nothing more to do, ever; only an NMI or INIT gets through.
# Entry: any stack.
# Exit:  none.
.balign 16, 0xcc
.globl stop_this_cpu
stop_this_cpu:
    cli
.Lstopped:
    hlt
    jmp     .Lstopped

# void asm_load_gs_index(u16 selector).  MOV to GS writes GS_BASE, which is this CPU's own just now: with the user's
# swapped in, it changes that one.
# Entry: RDI = selector, IF=0, kernel GS.
# Exit:  kernel GS, KERNEL_GS_BASE = base of the segment; 0 if the selector is none that can be loaded.  Clobbers RAX.
.balign 16, 0xcc
.globl asm_load_gs_index
asm_load_gs_index:
    swapgs
    # May fault with the user's GS: error_entry knows this instruction by its label.
.globl gs_change
gs_change:
    movl    %edi, %gs
.Lgs_loaded:
    # AMD: SWAPGS must not pass the load.
    mfence
    swapgs
    ret

# Where the exception table sends a fault at gs_change, with the kernel's GS (error_entry).
.Lbad_gs:
    swapgs
    # A null selector leaves the base alone on AMD's CPUs; one that is not null does not.
    movl    $__USER_DS, %eax
    movl    %eax, %gs
    xorl    %eax, %eax
    movl    %eax, %gs
    jmp     .Lgs_loaded
