# Tables.

.section .rodata,"a",@progbits
    .balign 4096

.set GATE_DPL0, 0x8e
.set GATE_DPL3, 0xee

# One IdtSource: the boot code cannot have the gates themselves assembled, for a gate splits its address in three.
.macro GATE vector, handler, ist=0, type_attr=GATE_DPL0
    .quad   \handler
    .long   \vector
    .word   \ist, \type_attr
.endm

.globl idt_source
idt_source:
    GATE X86_TRAP_DE, asm_exc_divide_error
    GATE X86_TRAP_DB, asm_exc_debug, IST_DB
    GATE X86_TRAP_NMI, asm_exc_nmi, IST_NMI
    GATE X86_TRAP_BP, asm_exc_int3, 0, GATE_DPL3
    GATE X86_TRAP_OF, asm_exc_overflow, 0, GATE_DPL3
    GATE X86_TRAP_BR, asm_exc_bounds
    GATE X86_TRAP_UD, asm_exc_invalid_op
    GATE X86_TRAP_NM, asm_exc_device_not_available
    GATE X86_TRAP_DF, asm_exc_double_fault, IST_DF
    GATE X86_TRAP_OLD_MF, asm_exc_coproc_segment_overrun
    GATE X86_TRAP_TS, asm_exc_invalid_tss
    GATE X86_TRAP_NP, asm_exc_segment_not_present
    GATE X86_TRAP_SS, asm_exc_stack_segment
    GATE X86_TRAP_GP, asm_exc_general_protection
    GATE X86_TRAP_PF, asm_exc_page_fault
    GATE X86_TRAP_SPURIOUS, asm_exc_spurious_interrupt_bug
    GATE X86_TRAP_MF, asm_exc_coprocessor_error
    GATE X86_TRAP_AC, asm_exc_alignment_check
    GATE X86_TRAP_MC, asm_exc_machine_check, IST_MCE
    GATE X86_TRAP_XF, asm_exc_simd_coprocessor_error
    GATE X86_TRAP_VE, asm_exc_virtualization_exception
    GATE X86_TRAP_CP, asm_exc_control_protection
    GATE X86_TRAP_VC, asm_exc_vmm_communication, IST_VC
    GATE INT80_VECTOR, entry_INT80_compat, 0, GATE_DPL3
    GATE IRQ_MOVE_CLEANUP_VECTOR, asm_sysvec_irq_move_cleanup
    GATE LOCAL_TIMER_VECTOR, asm_sysvec_apic_timer_interrupt
    GATE DEFERRED_ERROR_VECTOR, asm_sysvec_deferred_error
    GATE IRQ_WORK_VECTOR, asm_sysvec_irq_work
    GATE X86_PLATFORM_IPI_VECTOR, asm_sysvec_x86_platform_ipi
    GATE REBOOT_VECTOR, asm_sysvec_reboot
    GATE THRESHOLD_APIC_VECTOR, asm_sysvec_threshold
    GATE THERMAL_APIC_VECTOR, asm_sysvec_thermal
    GATE CALL_FUNCTION_SINGLE_VECTOR, asm_sysvec_call_function_single
    GATE CALL_FUNCTION_VECTOR, asm_sysvec_call_function
    GATE RESCHEDULE_VECTOR, asm_sysvec_reschedule_ipi
    GATE ERROR_APIC_VECTOR, asm_sysvec_error_interrupt
    GATE SPURIOUS_APIC_VECTOR, asm_sysvec_spurious_apic_interrupt
    GATE 0, 0

# Where kernel code may fault, and where it goes on if so (ExTableEntry).  C looks here before it gives up.
    .balign 8
.globl __start___ex_table
__start___ex_table:
    .quad   gs_change, .Lbad_gs
    .quad   .Lload_ds, .Lbad_ds
    .quad   .Lload_es, .Lbad_es
    .quad   .Lload_fs, .Lbad_fs
.globl __stop___ex_table
__stop___ex_table:

.section .data,"aw",@progbits
    .balign 4096

# The 256 gates: a page of its own, which cpu_entry_area maps again read-only.
.globl idt_table
idt_table:
    .fill   NR_VECTORS * 16, 1, 0

# CPU number -> per-CPU base.  Filled in before the CPUs start.
.globl __per_cpu_offset
__per_cpu_offset:
    .fill   MAX_CPUS, 8, 0
