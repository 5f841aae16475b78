# Device interrupts and the local APIC's own.  IF=0 throughout, except inside C.

.section .entry.text,"ax",@progbits

.set FIRST_SYSTEM_VECTOR, LOCAL_TIMER_VECTOR
.set NR_VECTORS, 256

# The hardware does not say which vector was taken: one stub a vector does, in the place of an error code.  16 bytes
# each, so that the boot code finds them by their number.  A vector above 0x7f is pushed negative or as 32 bits; its
# low byte counts.
.balign 16, 0xcc
.globl irq_entries_start
irq_entries_start:
.set vector, FIRST_EXTERNAL_VECTOR
.rept FIRST_SYSTEM_VECTOR - FIRST_EXTERNAL_VECTOR
    pushq   $vector
    jmp     asm_common_interrupt
    .balign 16, 0xcc
.set vector, vector + 1
.endr

# System vectors that have no entry of their own; the IDT gets these first.
.globl spurious_entries_start
spurious_entries_start:
.set vector, FIRST_SYSTEM_VECTOR
.rept NR_VECTORS - FIRST_SYSTEM_VECTOR
    pushq   $vector
    jmp     asm_spurious_interrupt
    .balign 16, 0xcc
.set vector, vector + 1
.endr

# cfunc(regs, vector) on the IRQ stack where that is due.
# Entry: the vector at RSP, above it the hardware's frame; GS and CR3 of user mode if that was interrupted, else the
#        kernel's.
# Exit:  by error_return.
.macro IDTENTRY_IRQ name, cfunc
.balign 16, 0xcc
.globl \name
\name:
    CLEAR_ENTRY_FLAGS
    call    error_entry
    movq    %rsp, %rdi
    movzbl  PT_REGS_ORIG_AX(%rsp), %esi
    movq    $-1, PT_REGS_ORIG_AX(%rsp)
    CALL_ON_IRQSTACK_COND \cfunc
    jmp     error_return
.endm

IDTENTRY_IRQ asm_common_interrupt, common_interrupt
IDTENTRY_IRQ asm_spurious_interrupt, spurious_interrupt

# cfunc(regs) on the IRQ stack where that is due.
# Entry: the hardware's frame at RSP; GS and CR3 as for IDTENTRY_IRQ.
# Exit:  by error_return.
.macro IDTENTRY_SYSVEC name, cfunc
.balign 16, 0xcc
.globl \name
\name:
    CLEAR_ENTRY_FLAGS
    pushq   $-1
    call    error_entry
    movq    %rsp, %rdi
    CALL_ON_IRQSTACK_COND \cfunc
    jmp     error_return
.endm

# The same for an interrupt that is over in a few instructions and needs no stack of its own.
.macro IDTENTRY_SYSVEC_SIMPLE name, cfunc
.balign 16, 0xcc
.globl \name
\name:
    CLEAR_ENTRY_FLAGS
    pushq   $-1
    IDTENTRY_BODY \cfunc, 0
.endm

IDTENTRY_SYSVEC asm_sysvec_apic_timer_interrupt, sysvec_apic_timer_interrupt
IDTENTRY_SYSVEC asm_sysvec_error_interrupt, sysvec_error_interrupt
IDTENTRY_SYSVEC asm_sysvec_spurious_apic_interrupt, sysvec_spurious_apic_interrupt
IDTENTRY_SYSVEC asm_sysvec_thermal, sysvec_thermal
IDTENTRY_SYSVEC asm_sysvec_threshold, sysvec_threshold
IDTENTRY_SYSVEC asm_sysvec_deferred_error, sysvec_deferred_error
IDTENTRY_SYSVEC asm_sysvec_irq_work, sysvec_irq_work
IDTENTRY_SYSVEC asm_sysvec_x86_platform_ipi, sysvec_x86_platform_ipi
# From other CPUs.
IDTENTRY_SYSVEC_SIMPLE asm_sysvec_reschedule_ipi, sysvec_reschedule_ipi
IDTENTRY_SYSVEC asm_sysvec_call_function, sysvec_call_function
IDTENTRY_SYSVEC asm_sysvec_call_function_single, sysvec_call_function_single
IDTENTRY_SYSVEC asm_sysvec_reboot, sysvec_reboot
IDTENTRY_SYSVEC asm_sysvec_irq_move_cleanup, sysvec_irq_move_cleanup
