# Tasks: the switch from one to another, where a new one begins, kernel threads; softirqs; a user's GS selector.

.section .text,"ax",@progbits

# What user mode's system call would have left, for code that calls sys_* functions from the kernel: a return to `rip`
# in kernel mode with interrupts on.  In: RSP anywhere.  Out: RSP at ORIG_AX.  Clobbers RAX.
.macro FAKE_STACK_FRAME rip
    xorl    %eax, %eax
    pushq   $__KERNEL_DS
    pushq   %rax
    pushq   $(X86_EFLAGS_IF | X86_EFLAGS_FIXED)
    pushq   $__KERNEL_CS
    pushq   \rip
    pushq   %rax
.endm

.macro UNFAKE_STACK_FRAME
    addq    $48, %rsp
.endm

# task *switch_to(prev, next).  task->sp is RSP of a task that does not run: at these registers, or for a new one, which
# has TIF_FORK set, at its pt_regs.
# Entry: RDI = prev = the current task, RSI = next; IF=0, kernel GS.
# Exit:  on next's stack, prev in RAX; a new task goes to ret_from_fork.
.globl switch_to
switch_to:
    pushfq
    pushq   %rbp
    pushq   %rbx
    pushq   %r12
    pushq   %r13
    pushq   %r14
    pushq   %r15
    movq    %rsp, TASK_SP(%rdi)
    movq    TASK_SP(%rsi), %rsp
    # C makes next the current task: pda.pcurrent, kernelstack and oldrsp, TSS.sp0.
    call    __switch_to
.globl thread_return
thread_return:
    GET_THREAD_INFO %rcx
    btrl    $TIF_FORK, TI_FLAGS(%rcx)
    movq    %rax, %rdi
    jc      ret_from_fork
    popq    %r15
    popq    %r14
    popq    %r13
    popq    %r12
    popq    %rbx
    popq    %rbp
    popfq
    ret

# Entry: RSP = the new task's pt_regs, RDI = prev; IF=0, kernel GS.
# Exit:  as the pt_regs say: by SYSRETQ for a child of fork, by IRETQ for a 32-bit one or a kernel thread.
.globl ret_from_fork
ret_from_fork:
    # The flags are prev's, and may hold what its user mode left there.
    pushq   kernel_eflags(%rip)
    popfq
    call    schedule_tail
    GET_THREAD_INFO %rcx
    testl   $_TIF_WORK_SYSCALL_EXIT, TI_FLAGS(%rcx)
    jnz     rff_trace
.globl rff_action
rff_action:
    RESTORE_REST
    testl   $3, ARG_CS(%rsp)
    jz      int_ret_from_sys_call
    testl   $_TIF_IA32, TI_FLAGS(%rcx)
    jnz     int_ret_from_sys_call
    RESTORE_TOP_OF_STACK %rdi, ARGOFFSET
    jmp     ret_from_sys_call
.globl rff_trace
rff_trace:
    movq    %rsp, %rdi
    call    syscall_trace_leave
    GET_THREAD_INFO %rcx
    jmp     rff_action

# long kernel_thread(fn, arg, flags): a new task that calls fn(arg).  It gets a copy of this frame, so it begins at
# child_rip with fn in RDI and arg in RSI; its RSP is for do_fork to make, as stack_start = -1 says.
# Entry: RDI, RSI, RDX; kernel GS.
# Exit:  RAX = pid or an error.
.globl kernel_thread
kernel_thread:
    FAKE_STACK_FRAME $child_rip
    SAVE_ALL
    movq    %rdx, %rdi
    orq     kernel_thread_flags(%rip), %rdi
    movq    $-1, %rsi
    movq    %rsp, %rdx
    xorl    %ecx, %ecx
    xorl    %r8d, %r8d
    xorl    %r9d, %r9d
    call    do_fork
    movq    %rax, PT_REGS_AX(%rsp)
    RESTORE_ALL
    UNFAKE_STACK_FRAME
    ret

# Entry: by IRETQ of ret_from_fork; RDI = fn, RSI = arg, RSP on the new task's stack; IF=1, kernel GS.
# Exit:  none.
.globl child_rip
child_rip:
    # No caller.
    pushq   $0
    movq    %rdi, %rax
    movq    %rsi, %rdi
    call    *%rax
    movl    %eax, %edi
    call    do_exit
    ud2

# long kernel_execve(name, argv, envp): a kernel thread becomes a user program.
# Entry: RDI, RSI, RDX; kernel GS.
# Exit:  in user mode as sys_execve made the frame; back here with an error if it failed.
.globl kernel_execve
kernel_execve:
    FAKE_STACK_FRAME $0
    SAVE_ALL
    movq    %rsp, %rcx
    call    sys_execve
    movq    %rax, PT_REGS_AX(%rsp)
    RESTORE_REST
    testq   %rax, %rax
    jz      int_ret_from_sys_call
    RESTORE_ARGS
    UNFAKE_STACK_FRAME
    ret

# void call_softirq(void): __do_softirq() on the IRQ stack, unless an interrupt is on it.
# Entry and exit: IF=0, kernel GS; clobbers what C may.
.globl call_softirq
call_softirq:
    pushq   %rbp
    movq    %rsp, %rbp
    incl    %gs:PDA_IRQCOUNT
    cmoveq  %gs:PDA_IRQSTACKPTR, %rsp
    # The word that leads back.
    pushq   %rbp
    call    __do_softirq
    leave
    decl    %gs:PDA_IRQCOUNT
    ret

# void load_gs_index(unsigned selector).  MOV to GS writes GS_BASE, which is the PDA just now: with the user's swapped
# in, it changes that one.
# Entry: RDI = selector, kernel GS.
# Exit:  kernel GS, KERNEL_GS_BASE = base of the segment, 0 if the selector is none that can be loaded.  Clobbers RAX.
.globl load_gs_index
load_gs_index:
    pushfq
    cli
    swapgs
    # May fault with the user's GS: error_entry knows this instruction by its label.
.globl gs_change
gs_change:
    movl    %edi, %gs
.Lgs_loaded:
    mfence
    swapgs
    popfq
    ret
EXTABLE gs_change, bad_gs

# Entry: kernel GS (error_entry).
.globl bad_gs
bad_gs:
    swapgs
    xorl    %eax, %eax
    movl    %eax, %gs
    jmp     .Lgs_loaded

# void load_user_segments(u16 ds, u16 es, u16 fs): what C has as loadsegment().  A selector that cannot be loaded becomes
# null.  MOV to FS writes its base too.
# Entry and exit: kernel GS, any stack.  Clobbers RDI, RSI, RDX.
.globl load_user_segments
load_user_segments:
.Lload_ds:
    movl    %edi, %ds
.Lload_es:
    movl    %esi, %es
.Lload_fs:
    movl    %edx, %fs
    ret
EXTABLE .Lload_ds, .Lbad_ds
EXTABLE .Lload_es, .Lbad_es
EXTABLE .Lload_fs, .Lbad_fs
.Lbad_ds:
    xorl    %edi, %edi
    jmp     .Lload_ds
.Lbad_es:
    xorl    %esi, %esi
    jmp     .Lload_es
.Lbad_fs:
    xorl    %edx, %edx
    jmp     .Lload_fs

# void load_LDT(u16 selector).
# Entry and exit: kernel GS, any stack.  Clobbers nothing.
.globl load_LDT
load_LDT:
    lldt    %di
    ret
