# System calls of 64-bit programs, and the ways out: SYSRETQ if nothing has happened, else IRETQ.

.section .text,"ax",@progbits

# SYSCALL from 64-bit mode.
# Entry: RSP the user's (it may point anywhere), RCX = return RIP, R11 = RFLAGS, RAX = number; IF, DF, TF clear; user
#        GS.
# Exit:  SYSRETQ or IRETQ with RSP the user's, user GS.
.globl system_call
system_call:
    swapgs
    # No register is free, but the PDA is there.  An NMI up to the next instruction has a stack of its own.
    movq    %rsp, %gs:PDA_OLDRSP
    movq    %gs:PDA_KERNELSTACK, %rsp
    # __switch_to keeps oldrsp for each task, so the task may lose the CPU from here on.
    sti
    SAVE_ARGS skip=8, rcx=0
    movq    %rax, ARG_ORIG_AX(%rsp)
    movq    %rcx, ARG_IP(%rsp)
    GET_THREAD_INFO %rcx
    testl   $_TIF_WORK_SYSCALL_ENTRY, TI_FLAGS(%rcx)
    jnz     tracesys
    cmpq    $__NR_syscall_max, %rax
    ja      badsys
    # C takes its fourth argument in RCX, which SYSCALL overwrites; the ABI has it in R10.
    movq    %r10, %rcx
    call    *sys_call_table(,%rax,8)
    movq    %rax, ARG_AX(%rsp)

# Entry: RSP = partial frame at the end of the task stack, its AX the result; kernel GS; EDI is set here.
# Exit:  by SYSRETQ, unless there is work.
.globl ret_from_sys_call
ret_from_sys_call:
    movl    $_TIF_ALLWORK_MASK, %edi
# Entry: EDI = the flags that count as work.
.globl sysret_check
sysret_check:
    # Work that comes after this test comes by an interrupt, and that is let in only at CPL 3.
    cli
    GET_THREAD_INFO %rcx
    movl    TI_FLAGS(%rcx), %edx
    andl    %edi, %edx
    jnz     sysret_careful
    movq    ARG_IP(%rsp), %rcx
    # R11's slot has RFLAGS: SYSCALL put them there.  RIP is the one that SYSCALL left behind, so SYSRETQ cannot fault:
    # the last page below the hole is never mapped, and whoever changes the frame makes it go the slow way.
    RESTORE_ARGS rcx=0
    movq    %gs:PDA_OLDRSP, %rsp
.globl sysret_unsafe_stack
sysret_unsafe_stack:
    swapgs
    sysretq

# Entry: as sysret_check; EDX = work, IF=0.
.globl sysret_careful
sysret_careful:
    btl     $TIF_NEED_RESCHED, %edx
    jnc     sysret_signal
    sti
    pushq   %rdi
    call    schedule
    popq    %rdi
    jmp     sysret_check

# Entry: as sysret_careful.
# Exit:  by IRETQ, for signal delivery changes the frame.  ptregscall_common completes it first.
.globl sysret_signal
sysret_signal:
    sti
    testl   $_TIF_DO_NOTIFY_MASK, %edx
    jz      .Lsysret_other_work
    leaq    do_notify_resume(%rip), %rax
    leaq    -ARGOFFSET(%rsp), %rdi
    xorl    %esi, %esi
    call    ptregscall_common
    movl    $_TIF_WORK_MASK, %edi
    cli
    jmp     int_with_check
    # A system call that is traced or single-stepped on its way out only.
.Lsysret_other_work:
    SAVE_REST
    FIXUP_TOP_OF_STACK %r11
    RESTORE_REST
    jmp     int_ret_from_sys_call

# Entry: RSP = partial frame; RAX = a number that is none.
.globl badsys
badsys:
    movq    $-ENOSYS, ARG_AX(%rsp)
    jmp     ret_from_sys_call

# A tracer, seccomp or the audit wants to see the system call: the whole frame is made for them.
# Entry: RSP = partial frame, registers the user's except RCX; IF=1, kernel GS.
# Exit:  by int_ret_from_sys_call.
.globl tracesys
tracesys:
    SAVE_REST
    movq    $-ENOSYS, PT_REGS_AX(%rsp)
    FIXUP_TOP_OF_STACK %rdi
    movq    %rsp, %rdi
    call    syscall_trace_enter
    # RAX = the number, which the tracer may have changed, as it may the arguments.
    LOAD_ARGS
    RESTORE_REST
    cmpq    $__NR_syscall_max, %rax
    ja      int_ret_from_sys_call
    movq    %r10, %rcx
    call    *sys_call_table(,%rax,8)
    movq    %rax, ARG_AX(%rsp)

# The slow way out, by IRETQ.
# Entry: RSP = frame complete but for the lower six registers, which are live; kernel GS.
# Exit:  in user mode as the frame says, or in kernel mode (a kernel thread).
.globl int_ret_from_sys_call
int_ret_from_sys_call:
    cli
    testl   $3, ARG_CS(%rsp)
    jz      retint_restore_args
    movl    $_TIF_ALLWORK_MASK, %edi
# Entry: EDI = the flags that count as work; IF=0.
.globl int_with_check
int_with_check:
    GET_THREAD_INFO %rcx
    movl    TI_FLAGS(%rcx), %edx
    andl    %edi, %edx
    jnz     int_careful
    andl    $~TS_COMPAT, TI_STATUS(%rcx)
    jmp     retint_swapgs

# Entry: as int_with_check; EDX = work.
.globl int_careful
int_careful:
    btl     $TIF_NEED_RESCHED, %edx
    jnc     int_very_careful
    sti
    pushq   %rdi
    call    schedule
    popq    %rdi
    cli
    jmp     int_with_check

# Entry: as int_careful.  The end of a traced system call is told once: EDI forgets those flags.
.globl int_very_careful
int_very_careful:
    sti
    SAVE_REST
    testl   $_TIF_WORK_SYSCALL_EXIT, %edx
    jz      int_signal
    pushq   %rdi
    leaq    8(%rsp), %rdi
    call    syscall_trace_leave
    popq    %rdi
    andl    $~_TIF_WORK_SYSCALL_EXIT, %edi
    jmp     int_restore_rest

# Entry: RSP = pt_regs, EDX = work, EDI as above; IF=1.
.globl int_signal
int_signal:
    testl   $_TIF_DO_NOTIFY_MASK, %edx
    jz      .Lint_notified
    movq    %rsp, %rdi
    xorl    %esi, %esi
    call    do_notify_resume
.Lint_notified:
    movl    $_TIF_WORK_MASK, %edi
.globl int_restore_rest
int_restore_rest:
    RESTORE_REST
    cli
    jmp     int_with_check
