# System calls of 32-bit programs: number in EAX, arguments in EBX ECX EDX ESI EDI EBP.

.section .text,"ax",@progbits

# From the 32-bit registers to C's.  `ebp`: the sixth argument is in EBP, not in R9D already.
.macro IA32_ARG_FIXUP ebp=1
    movl    %edi, %r8d
    .if \ebp
    movl    %ebp, %r9d
    .endif
    xchgl   %ecx, %esi
    movl    %ebx, %edi
    movl    %edx, %edx
.endm

# The arguments once more, for a tracer may have changed them; 32 bits of each, whatever it wrote.  RAX = the number.
# In: RSP at pt_regs.  EBX and EBP come with RESTORE_REST.
.macro LOAD_ARGS32
    movl    PT_REGS_CX(%rsp), %ecx
    movl    PT_REGS_DX(%rsp), %edx
    movl    PT_REGS_SI(%rsp), %esi
    movl    PT_REGS_DI(%rsp), %edi
    movl    PT_REGS_R9(%rsp), %r9d
    movl    %eax, %eax
.endm

# R8 to R11 do not exist for the program, but the frame is C's to look at.
# In: RSP at pt_regs.
.macro CLEAR_RREGS
    .irp number, 11, 10, 9, 8
    movq    $0, PT_REGS_R\number(%rsp)
    .endr
.endm

# SYSENTER.  The CPU saves nothing: RIP is lost (the vDSO's landing pad is known), RSP is in EBP, and points at the
# saved EBP, the sixth argument.  IF is clear; TF, NT and AC are the user's still.
# Entry: RSP = SYSENTER_ESP, 0: there is no stack before the third instruction, so only events with an IST may hit.
#        User GS.
# Exit:  by SYSEXIT or by int_ret_from_sys_call.
.globl ia32_sysenter_target
ia32_sysenter_target:
    swapgs
    movq    %gs:PDA_KERNELSTACK, %rsp
    addq    $PDA_STACKOFFSET, %rsp
    # IF was set, or SYSENTER would not be: before RFLAGS are saved.
    sti
    movl    %ebp, %ebp
    pushq   $__USER_DS
    pushq   %rbp
    pushfq
    GET_THREAD_INFO %r10
    pushq   $__USER32_CS
    pushq   TI_SYSENTER_RETURN(%r10)
    movl    %eax, %eax
    pushq   %rax
    cld
    SAVE_ARGS r8_r11=0
    # 32 bits cannot reach the kernel, so this load needs no other check.
.Lsysenter_arg6:
    movl    (%rbp), %r9d
EXTABLE .Lsysenter_arg6, ia32_badarg
    GET_THREAD_INFO %r10
    orl     $TS_COMPAT, TI_STATUS(%r10)
    testl   $_TIF_WORK_SYSCALL_ENTRY, TI_FLAGS(%r10)
    jnz     sysenter_tracesys
.Lsysenter_do_call:
    cmpl    $(IA32_NR_syscalls - 1), %eax
    ja      ia32_badsys
    IA32_ARG_FIXUP ebp=0
    call    *ia32_sys_call_table(,%rax,8)
    movq    %rax, ARG_AX(%rsp)
    GET_THREAD_INFO %r10
    cli
    testl   $_TIF_ALLWORK_MASK, TI_FLAGS(%r10)
    jnz     int_ret_from_sys_call

# Entry: RSP = frame, R10 = thread_info, RAX = result; IF=0, kernel GS.
# Exit:  at CPL3 in compatibility mode, EIP from EDX, ESP from ECX; user GS.
.globl sysexit_from_sys_call
sysexit_from_sys_call:
    andl    $~TS_COMPAT, TI_STATUS(%r10)
    # POPFQ must not let interrupts in: RSP is about to be the user's.  STI does, with SYSEXIT in its shadow.
    andl    $~X86_EFLAGS_IF, ARG_FLAGS(%rsp)
    movl    ARG_IP(%rsp), %edx
    RESTORE_ARGS skip=24, rax=0, rcx=0, rdx=0, r8_r10=0, r11=0
    popfq
    popq    %rcx
    swapgs
    sti
    sysexit

.globl sysenter_tracesys
sysenter_tracesys:
    # The tracer is to see the sixth argument where INT 0x80 has it.
    xchgl   %r9d, %ebp
    SAVE_REST
    CLEAR_RREGS
    movq    %r9, PT_REGS_R9(%rsp)
    movq    $-ENOSYS, PT_REGS_AX(%rsp)
    movq    %rsp, %rdi
    call    syscall_trace_enter
    LOAD_ARGS32
    RESTORE_REST
    xchgl   %ebp, %r9d
    cmpl    $(IA32_NR_syscalls - 1), %eax
    ja      int_ret_from_sys_call
    jmp     .Lsysenter_do_call

# SYSCALL from compatibility mode, which AMD's CPUs alone have.
# Entry: RSP the user's, where the sixth argument lies; RCX = return EIP, R11 = RFLAGS, EBP = what ECX was; IF, DF, TF
#        clear; user GS.
# Exit:  by SYSRETL or by int_ret_from_sys_call.
.globl ia32_cstar_target
ia32_cstar_target:
    swapgs
    movl    %esp, %r8d
    movq    %gs:PDA_KERNELSTACK, %rsp
    sti
    SAVE_ARGS skip=8, rcx=0, r8_r11=0
    movl    %eax, %eax
    movq    %rax, ARG_ORIG_AX(%rsp)
    movq    %rcx, ARG_IP(%rsp)
    movq    %rbp, ARG_CX(%rsp)
    movl    %ebp, %ecx
    movq    $__USER32_CS, ARG_CS(%rsp)
    movq    $__USER_DS, ARG_SS(%rsp)
    movq    %r11, ARG_FLAGS(%rsp)
    movq    %r8, ARG_SP(%rsp)
.Lcstar_arg6:
    movl    (%r8), %r9d
EXTABLE .Lcstar_arg6, ia32_badarg
    GET_THREAD_INFO %r10
    orl     $TS_COMPAT, TI_STATUS(%r10)
    testl   $_TIF_WORK_SYSCALL_ENTRY, TI_FLAGS(%r10)
    jnz     cstar_tracesys
.Lcstar_do_call:
    cmpl    $(IA32_NR_syscalls - 1), %eax
    ja      ia32_badsys
    IA32_ARG_FIXUP ebp=0
    call    *ia32_sys_call_table(,%rax,8)
    movq    %rax, ARG_AX(%rsp)
    GET_THREAD_INFO %r10
    cli
    testl   $_TIF_ALLWORK_MASK, TI_FLAGS(%r10)
    jnz     int_ret_from_sys_call

# Entry: RSP = frame, R10 = thread_info, RAX = result; IF=0, kernel GS.
# Exit:  at CPL3 in compatibility mode, user GS.
.globl sysretl_from_sys_call
sysretl_from_sys_call:
    andl    $~TS_COMPAT, TI_STATUS(%r10)
    RESTORE_ARGS skip=-ARG_ORIG_AX, rax=0, rcx=0, r8_r10=0, r11=0
    movl    ARG_IP(%rsp), %ecx
    movl    ARG_FLAGS(%rsp), %r11d
    movl    ARG_SP(%rsp), %esp
    swapgs
    sysretl

.globl cstar_tracesys
cstar_tracesys:
    xchgl   %r9d, %ebp
    SAVE_REST
    CLEAR_RREGS
    movq    %r9, PT_REGS_R9(%rsp)
    movq    $-ENOSYS, PT_REGS_AX(%rsp)
    movq    %rsp, %rdi
    call    syscall_trace_enter
    LOAD_ARGS32
    RESTORE_REST
    xchgl   %ebp, %r9d
    cmpl    $(IA32_NR_syscalls - 1), %eax
    ja      int_ret_from_sys_call
    jmp     .Lcstar_do_call

# INT 0x80, from 32-bit or 64-bit code.  The gate has DPL 3 and no device may be given this vector.
# Entry: RSP on the task stack, the hardware's frame there; IF=0, user GS.
# Exit:  by int_ret_from_sys_call.
.globl ia32_syscall
ia32_syscall:
    swapgs
    sti
    movl    %eax, %eax
    pushq   %rax
    cld
    SAVE_ARGS r8_r11=0
    GET_THREAD_INFO %r10
    orl     $TS_COMPAT, TI_STATUS(%r10)
    testl   $_TIF_WORK_SYSCALL_ENTRY, TI_FLAGS(%r10)
    jnz     ia32_tracesys
.Lia32_do_call:
    cmpl    $(IA32_NR_syscalls - 1), %eax
    ja      ia32_badsys
    IA32_ARG_FIXUP
    call    *ia32_sys_call_table(,%rax,8)
# Entry: RSP = frame, RAX = result; kernel GS.
.globl ia32_sysret
ia32_sysret:
    movq    %rax, ARG_AX(%rsp)
    jmp     int_ret_from_sys_call

.globl ia32_tracesys
ia32_tracesys:
    SAVE_REST
    CLEAR_RREGS
    movq    $-ENOSYS, PT_REGS_AX(%rsp)
    movq    %rsp, %rdi
    call    syscall_trace_enter
    LOAD_ARGS32
    RESTORE_REST
    cmpl    $(IA32_NR_syscalls - 1), %eax
    ja      int_ret_from_sys_call
    jmp     .Lia32_do_call

.globl ia32_badsys
ia32_badsys:
    movq    $0, ARG_ORIG_AX(%rsp)
    movq    $-ENOSYS, %rax
    jmp     ia32_sysret

# Where the exception table sends a fault on the sixth argument.
.globl ia32_badarg
ia32_badarg:
    movq    $-EFAULT, %rax
    jmp     ia32_sysret

# As PTREGSCALL (ptregs.S), for frames that are complete.
.macro PTREGSCALL32 label, func, arg
.globl \label
\label:
    leaq    \func(%rip), %rax
    leaq    (8 - ARGOFFSET)(%rsp), \arg
    jmp     ia32_ptregs_common
.endm

PTREGSCALL32 stub32_rt_sigreturn, sys32_rt_sigreturn, %rdi
PTREGSCALL32 stub32_sigreturn, sys32_sigreturn, %rdi
PTREGSCALL32 stub32_sigaltstack, sys32_sigaltstack, %rdx
PTREGSCALL32 stub32_execve, sys32_execve, %rcx
PTREGSCALL32 stub32_fork, sys_fork, %rdi
PTREGSCALL32 stub32_clone, sys32_clone, %rdx
PTREGSCALL32 stub32_vfork, sys_vfork, %rdi
PTREGSCALL32 stub32_iopl, sys_iopl, %rsi

# Entry: RAX = the function; the return address at RSP is not used, for all of these go by the slow way out.
.globl ia32_ptregs_common
ia32_ptregs_common:
    popq    %r11
    SAVE_REST
    call    *%rax
    RESTORE_REST
    jmp     ia32_sysret
