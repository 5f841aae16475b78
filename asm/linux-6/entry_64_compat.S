# System calls of 32-bit programs: number in EAX, arguments in EBX ECX EDX ESI EDI EBP.
#
# C finds them in pt_regs as user mode had them, orig_ax zero-extended, ax = -ENOSYS.  SYSENTER and SYSCALL are issued
# by the vDSO alone, which saves what the CPU overwrites: its EBP holds, or points at, what is missing in pt_regs, and
# C returns to its landing pad.

.section .entry.text,"ax",@progbits

# INT 0x80, from 32-bit or 64-bit code.  The gate has DPL 3 and no device may be given this vector: the entry takes it
# for granted that user mode was interrupted.
# Entry: RSP on the trampoline stack, the hardware's frame there; IF=0, user GS, user CR3.
# Exit:  by swapgs_restore_regs_and_return_to_usermode.
.balign 16, 0xcc
.globl entry_INT80_compat
entry_INT80_compat:
    CLEAR_ENTRY_FLAGS
    # The ABI has 32 bits of the number; the rest of RAX is the caller's.
    movl    %eax, %eax
    pushq   %rax
    pushq   %rdi
    swapgs
    SWITCH_TO_KERNEL_CR3 scratch=%rdi
    movq    %rsp, %rdi
    movq    %gs:PERCPU_TOP_OF_STACK, %rsp
    PUSH_IRET_FRAME_OF %rdi, 16
    pushq   8(%rdi)
    movq    (%rdi), %rdi
    PUSH_AND_CLEAR_REGS ax=$-ENOSYS
    # do_int80_syscall_32(regs) also does the work pending before user mode, and returns with IF=0.
    movq    %rsp, %rdi
    call    do_int80_syscall_32
    jmp     swapgs_restore_regs_and_return_to_usermode

# SYSENTER, from 32-bit or 64-bit code.  The CPU saves nothing: RIP is lost (the landing pad's is known), RSP is in EBP.
# It clears IF, but not TF, NT, DF and AC: with TF the instructions up to __end_SYSENTER_singlestep_region trap, one by
# one, with GS the user's at first; exc_debug has to let that pass, with TF kept.
# Entry: RSP = SYSENTER_ESP, the end of the trampoline stack; IF=0, user GS, user CR3.
# Exit:  by SYSRETL or by swapgs_restore_regs_and_return_to_usermode.
.balign 16, 0xcc
.globl entry_SYSENTER_compat
entry_SYSENTER_compat:
.globl __begin_SYSENTER_singlestep_region
__begin_SYSENTER_singlestep_region:
    swapgs
    pushq   %rax
    SWITCH_TO_KERNEL_CR3 scratch=%rax
    popq    %rax
    movq    %gs:PERCPU_TOP_OF_STACK, %rsp
    # SP and IP are for do_SYSENTER_32 to fill in, as is IF.
    pushq   $__USER_DS
    pushq   $0
    pushfq
    pushq   $__USER32_CS
    pushq   $0
.globl entry_SYSENTER_compat_after_hwframe
entry_SYSENTER_compat_after_hwframe:
    CLEAR_ENTRY_FLAGS
    movl    %eax, %eax
    pushq   %rax
    PUSH_AND_CLEAR_REGS ax=$-ENOSYS
    # NT would make our IRETQ fault, TF would trap at every instruction of C, and AC without SMAP is the user's still.
    testl   $(X86_EFLAGS_NT | X86_EFLAGS_AC | X86_EFLAGS_TF), PT_REGS_FLAGS(%rsp)
    jz      .Lsysenter_flags_fixed
    pushq   $X86_EFLAGS_FIXED
    popfq
.Lsysenter_flags_fixed:
    movq    %rsp, %rdi
    # POPFQ itself traps once more, before the MOVQ.
.globl __end_SYSENTER_singlestep_region
__end_SYSENTER_singlestep_region:
    call    do_SYSENTER_32
    testl   %eax, %eax
    jz      swapgs_restore_regs_and_return_to_usermode
    jmp     sysret32_from_system_call

# SYSCALL from compatibility mode, which AMD's CPUs alone have.
# Entry: RSP the user's (it may point anywhere), RCX = return EIP, R11 = RFLAGS, EBP = what ECX was; IF DF TF AC
#        clear by SYSCALL_MASK; user GS, user CR3.
# Exit:  by SYSRETL or by swapgs_restore_regs_and_return_to_usermode.
.balign 16, 0xcc
.globl entry_SYSCALL_compat
entry_SYSCALL_compat:
    swapgs
    movq    %rsp, %gs:PERCPU_TSS_SP2
    SWITCH_TO_KERNEL_CR3 scratch=%rsp
    movq    %gs:PERCPU_TOP_OF_STACK, %rsp
.globl entry_SYSCALL_compat_safe_stack
entry_SYSCALL_compat_safe_stack:
    pushq   $__USER_DS
    pushq   %gs:PERCPU_TSS_SP2
    pushq   %r11
    pushq   $__USER32_CS
    pushq   %rcx
.globl entry_SYSCALL_compat_after_hwframe
entry_SYSCALL_compat_after_hwframe:
    movl    %eax, %eax
    pushq   %rax
    # The vDSO pushed EBP before it moved ECX there; do_fast_syscall_32 reads it back.
    PUSH_AND_CLEAR_REGS ax=$-ENOSYS, cx=%rbp
    movq    %rsp, %rdi
    call    do_fast_syscall_32
    testl   %eax, %eax
    jz      swapgs_restore_regs_and_return_to_usermode

# SYSRETL takes EIP from ECX, RFLAGS from R11, and loads flat 32-bit segments.  C said that the frame is just that.
# Entry: RSP = pt_regs on the task stack; IF=0, kernel GS, kernel CR3.
# Exit:  at CPL3 in compatibility mode, ESP the user's, user GS, user CR3; ECX and R11 as SYSRETL needs them.
.globl sysret32_from_system_call
sysret32_from_system_call:
    POP_REGS_BELOW_DI
    movq    PT_REGS_IP-PT_REGS_DI(%rsp), %rcx
    movq    PT_REGS_FLAGS-PT_REGS_DI(%rsp), %r11
    LEAVE_TASK_STACK_FOR_SYSRET
.globl entry_SYSRETL_compat_unsafe_stack
entry_SYSRETL_compat_unsafe_stack:
    swapgs
    sysretl
.globl entry_SYSRETL_compat_end
entry_SYSRETL_compat_end:
    int3
