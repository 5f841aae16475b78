# Tables.

.section .rodata,"a",@progbits

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
    GATE X86_TRAP_DE, divide_error
    GATE X86_TRAP_DB, debug, DEBUG_STACK
    GATE X86_TRAP_NMI, nmi, NMI_STACK
    GATE X86_TRAP_BP, int3, DEBUG_STACK, GATE_DPL3
    GATE X86_TRAP_OF, overflow, 0, GATE_DPL3
    GATE X86_TRAP_BR, bounds
    GATE X86_TRAP_UD, invalid_op
    GATE X86_TRAP_NM, device_not_available
    GATE X86_TRAP_DF, double_fault, DOUBLEFAULT_STACK
    GATE X86_TRAP_OLD_MF, coprocessor_segment_overrun
    GATE X86_TRAP_TS, invalid_TSS
    GATE X86_TRAP_NP, segment_not_present
    GATE X86_TRAP_SS, stack_segment, STACKFAULT_STACK
    GATE X86_TRAP_GP, general_protection
    GATE X86_TRAP_PF, page_fault
    GATE X86_TRAP_SPURIOUS, spurious_interrupt_bug
    GATE X86_TRAP_MF, coprocessor_error
    GATE X86_TRAP_AC, alignment_check
    GATE X86_TRAP_MC, machine_check, MCE_STACK
    GATE X86_TRAP_XF, simd_coprocessor_error
    GATE IA32_SYSCALL_VECTOR, ia32_syscall, 0, GATE_DPL3
    GATE LOCAL_TIMER_VECTOR, apic_timer_interrupt
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7
    GATE (INVALIDATE_TLB_START_VECTOR + \n), invalidate_interrupt\n
    .endr
    GATE THRESHOLD_APIC_VECTOR, threshold_interrupt
    GATE THERMAL_APIC_VECTOR, thermal_interrupt
    GATE CALL_FUNCTION_SINGLE_VECTOR, call_function_single_interrupt
    GATE CALL_FUNCTION_VECTOR, call_function_interrupt
    GATE RESCHEDULE_VECTOR, reschedule_interrupt
    GATE ERROR_APIC_VECTOR, error_interrupt
    GATE SPURIOUS_APIC_VECTOR, spurious_interrupt
    GATE 0, 0

# A table of C functions by number; the numbers that SYSCALL_ENTRY leaves out are sys_ni_syscall's.
.macro SYSCALL_ENTRY nr, name
    .rept \nr - next_nr
    .quad   sys_ni_syscall
    .endr
    .quad   \name
    .set next_nr, \nr + 1
.endm

    .balign 8
.globl sys_call_table
sys_call_table:
.set next_nr, 0
.include "sys_call_table.inc"

.globl ia32_sys_call_table
ia32_sys_call_table:
.set next_nr, 0
.include "ia32_sys_call_table.inc"
    .rept IA32_NR_syscalls - next_nr
    .quad   sys_ni_syscall
    .endr

# RFLAGS that a new task begins with, and the clone flags of every kernel thread.
.globl kernel_eflags
kernel_eflags:
    .quad   X86_EFLAGS_FIXED
.globl kernel_thread_flags
kernel_thread_flags:
    .quad   KERNEL_THREAD_FLAGS

.section __ex_table,"a",@progbits
.globl __stop___ex_table
__stop___ex_table:

.section .data,"aw",@progbits
    .balign 4096

# The 256 gates: a page of its own, which cpu_entry_area maps again read-only.
.globl idt_table
idt_table:
    .fill   NR_VECTORS * 16, 1, 0

# CPU number -> PDA, and -> data area.  Filled in before the CPUs start.
.globl _cpu_pda
_cpu_pda:
    .fill   MAX_CPUS, 8, 0
.globl __per_cpu_offset
__per_cpu_offset:
    .fill   MAX_CPUS, 8, 0
