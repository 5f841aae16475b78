# Exceptions.  A gate's routine puts pt_regs on the right stack, calls its C function, and leaves.
# On entry to all of these: IF=0; the hardware's frame at RSP, with an error code below it if the vector has one.

.section .entry.text,"ax",@progbits

# pt_regs' ORIG_AX slot holds the error code for a moment; -1 afterwards says "not a system call" to signal delivery.
# In: RSP = pt_regs.  Out: RSI = error code.
.macro TAKE_ERROR_CODE
    movq    PT_REGS_ORIG_AX(%rsp), %rsi
    movq    $-1, PT_REGS_ORIG_AX(%rsp)
.endm

# What follows once ORIG_AX is on the stack.
.macro IDTENTRY_BODY cfunc, has_error_code
    call    error_entry
    movq    %rsp, %rdi
    .if \has_error_code
    TAKE_ERROR_CODE
    .endif
    call    \cfunc
    jmp     error_return
.endm

# An exception on sp0 (from user mode) or on the interrupted stack (from kernel mode).
# Entry: user GS and CR3 if user mode was interrupted, else the kernel's (error_entry knows two exceptions).
# Exit:  by error_return.
.macro IDTENTRY name, cfunc, has_error_code
.balign 16, 0xcc
.globl \name
\name:
    CLEAR_ENTRY_FLAGS
    .if \has_error_code == 0
    pushq   $-1
    .endif
    IDTENTRY_BODY \cfunc, \has_error_code
.endm

# An exception on an IST stack, which can hit any instruction.  From user mode it is an ordinary one: error_entry
# leaves the IST stack, and C may sleep.  From kernel mode nothing is known of GS and CR3; C runs on the IST stack,
# with `kernel_cfunc`, and nothing is rescheduled on the way out.
# Entry: RSP on the vector's IST stack, any GS, any CR3.
# Exit:  by error_return or paranoid_exit.
.macro IDTENTRY_IST name, user_cfunc, kernel_cfunc, has_error_code
.balign 16, 0xcc
.globl \name
\name:
    CLEAR_ENTRY_FLAGS
    .if \has_error_code == 0
    pushq   $-1
    .endif
    testb   $3, FRAME_CS(%rsp)
    jnz     .Lfrom_user_\@
    call    paranoid_entry
    movq    %rsp, %rdi
    .if \has_error_code
    TAKE_ERROR_CODE
    .endif
    call    \kernel_cfunc
    jmp     paranoid_exit
.Lfrom_user_\@:
    IDTENTRY_BODY \user_cfunc, \has_error_code
.endm

IDTENTRY asm_exc_divide_error, exc_divide_error, 0
IDTENTRY asm_exc_overflow, exc_overflow, 0
IDTENTRY asm_exc_bounds, exc_bounds, 0
IDTENTRY asm_exc_invalid_op, exc_invalid_op, 0
IDTENTRY asm_exc_device_not_available, exc_device_not_available, 0
IDTENTRY asm_exc_coproc_segment_overrun, exc_coproc_segment_overrun, 0
IDTENTRY asm_exc_invalid_tss, exc_invalid_tss, 1
IDTENTRY asm_exc_segment_not_present, exc_segment_not_present, 1
IDTENTRY asm_exc_stack_segment, exc_stack_segment, 1
IDTENTRY asm_exc_general_protection, exc_general_protection, 1
# CR2 is read by C, before anything there can fault.
IDTENTRY asm_exc_page_fault, exc_page_fault, 1
IDTENTRY asm_exc_spurious_interrupt_bug, exc_spurious_interrupt_bug, 0
IDTENTRY asm_exc_coprocessor_error, exc_coprocessor_error, 0
IDTENTRY asm_exc_alignment_check, exc_alignment_check, 1
IDTENTRY asm_exc_simd_coprocessor_error, exc_simd_coprocessor_error, 0
IDTENTRY asm_exc_virtualization_exception, exc_virtualization_exception, 0
IDTENTRY asm_exc_control_protection, exc_control_protection, 1

IDTENTRY_IST asm_exc_debug, exc_debug_user, exc_debug, 0
IDTENTRY_IST asm_exc_machine_check, exc_machine_check_user, exc_machine_check, 0
IDTENTRY_IST asm_exc_vmm_communication, user_exc_vmm_communication, kernel_exc_vmm_communication, 1

# #BP.  Text patching plants INT3 in kernel code and has exc_int3 emulate what stood there; a CALL needs room above
# the frame for its return address.  So a kernel frame moves down by its own six words.
# Entry and exit: as IDTENTRY.
.balign 16, 0xcc
.globl asm_exc_int3
asm_exc_int3:
    CLEAR_ENTRY_FLAGS
    pushq   $-1
    testb   $3, FRAME_CS(%rsp)
    jnz     .Lint3_no_gap
    .rept 6
    pushq   FRAME_SS(%rsp)
    .endr
.Lint3_no_gap:
    IDTENTRY_BODY exc_int3, 0

# #DF.  Always the paranoid way, for it may come of a stack that is unusable in either mode.  It is an abort, with one
# exception: of an IRETQ that failed on the espfix stack C makes the #GP of the user mode that was to be returned to.
# It puts that pt_regs' tail at the top of the trampoline stack, points regs->sp at its orig_ax (an error code, 0) and
# regs->ip at asm_exc_general_protection, and returns; GS and CR3 are the user's again then, as that entry expects.
# Entry: RSP on the DF stack, error code (0) at RSP, any GS, any CR3.
# Exit:  by paranoid_exit, if C returns.
.balign 16, 0xcc
.globl asm_exc_double_fault
asm_exc_double_fault:
    CLEAR_ENTRY_FLAGS
    call    paranoid_entry
    movq    %rsp, %rdi
    TAKE_ERROR_CODE
    movq    %cr2, %rdx
    call    exc_double_fault
    jmp     paranoid_exit
