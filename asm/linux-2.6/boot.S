# From the loader to the first task's user mode, once for each CPU; and kernel text that C needs as real code.

.section .text,"ax",@progbits

# Entry: CPL0, long mode, paging on with the kernel's tables, IF=0; RDI = this CPU's CpuBoot; no usable stack, IDT,
# TSS or GS.
# Exit:  by return_to_first_task.
.globl startup_64
startup_64:
    movq    %rdi, %rbx
    # The boot stack is the first task's: leave room at its end, where start_kernel makes that task's pt_regs.
    movq    CPU_BOOT_STACK(%rbx), %rsp
    subq    $PT_REGS_SIZE, %rsp

    lgdt    CPU_BOOT_GDT(%rbx)
    movl    $__KERNEL_DS, %eax
    movl    %eax, %ss
    # 64-bit mode needs no other data segments.  Loading GS zeroes its base; the MSRs come later.
    xorl    %eax, %eax
    movl    %eax, %ds
    movl    %eax, %es
    movl    %eax, %fs
    movl    %eax, %gs
    pushq   $__KERNEL_CS
    leaq    .Lboot_kernel_cs(%rip), %rax
    pushq   %rax
    lretq
.Lboot_kernel_cs:

    # All CPUs share one IDT; the first makes it.
    cmpq    $0, CPU_BOOT_CPU_NUMBER(%rbx)
    jne     .Lboot_idt_made
    call    idt_setup
.Lboot_idt_made:
    # Its base is an alias in cpu_entry_area, read-only.
    lidt    CPU_BOOT_IDT(%rbx)

    movq    CPU_BOOT_CR4(%rbx), %rax
    movq    %rax, %cr4
    movq    CPU_BOOT_CR0(%rbx), %rax
    movq    %rax, %cr0
    # Nobody's FPU registers: who uses them first gets his own.
    call    stts

    # EFER, STAR, LSTAR, SYSCALL_MASK, GS_BASE, ...
    movq    CPU_BOOT_MSR_COUNT(%rbx), %r12
    leaq    CPU_BOOT_MSRS(%rbx), %rsi
    testq   %r12, %r12
    jz      .Lboot_msrs_done
.Lboot_next_msr:
    movl    MSR_SETTING_INDEX(%rsi), %ecx
    movl    MSR_SETTING_LOW(%rsi), %eax
    movl    MSR_SETTING_HIGH(%rsi), %edx
    wrmsr
    addq    $MSR_SETTING_SIZE, %rsi
    decq    %r12
    jnz     .Lboot_next_msr
.Lboot_msrs_done:

    movl    $GDT_ENTRY_TSS_SELECTOR, %eax
    ltr     %ax

    movq    %rbx, %rdi
    call    start_kernel

# Entry: kernel GS, IF=0; the pt_regs at the end of the current task's stack say where user mode begins.
# Exit:  at CPL3, by IRETQ.
.globl return_to_first_task
return_to_first_task:
    movq    %gs:PDA_KERNELSTACK, %rsp
    addq    $(PDA_STACKOFFSET - PT_REGS_SIZE), %rsp
    RESTORE_REST
    jmp     int_ret_from_sys_call

# Fill idt_table: the stubs' interrupt gates, then idt_source's rows over them.
# Entry and exit: any stack.  Preserves RBX.
.globl idt_setup
idt_setup:
    movl    $0x8e00, %edx
    movl    $FIRST_EXTERNAL_VECTOR, %ecx
    leaq    interrupt(%rip), %rsi
.Lidt_vector:
    movq    %rsi, %rax
    call    idt_set_gate
    addq    $16, %rsi
    incl    %ecx
    cmpl    $NR_VECTORS, %ecx
    jb      .Lidt_vector

    leaq    idt_source(%rip), %rsi
.Lidt_row:
    movq    IDT_SOURCE_HANDLER(%rsi), %rax
    testq   %rax, %rax
    jz      .Lidt_done
    movl    IDT_SOURCE_VECTOR(%rsi), %ecx
    movzwl  IDT_SOURCE_TYPE_ATTR(%rsi), %edx
    shll    $8, %edx
    movzwl  IDT_SOURCE_IST(%rsi), %edi
    orl     %edi, %edx
    call    idt_set_gate
    addq    $IDT_SOURCE_SIZE, %rsi
    jmp     .Lidt_row
.Lidt_done:
    ret

# Write one 16-byte gate; its last word is 0 already.  RAX = handler, ECX = vector, EDX = IST index | type and DPL << 8.
# Entry and exit: any stack.  Clobbers RAX, R8, R9.
idt_set_gate:
    movl    %ecx, %r9d
    shll    $4, %r9d
    leaq    idt_table(%rip), %r8
    addq    %r9, %r8
    movw    %ax, (%r8)
    movw    $__KERNEL_CS, 2(%r8)
    movw    %dx, 4(%r8)
    shrq    $16, %rax
    movw    %ax, 6(%r8)
    shrq    $16, %rax
    movl    %eax, 8(%r8)
    ret

# Where a CPU waits when nothing is runnable.  STI's shadow keeps an interrupt from slipping in before HLT.
# Entry: kernel GS, IF=0, on a task stack.  No exit.
.globl cpu_idle_loop
cpu_idle_loop:
    sti
    hlt
    cli
    jmp     cpu_idle_loop

# Called from do_nmi: touch the page that a test chose, so that a real page fault and its IRETQ happen inside an NMI.
# Entry and exit: kernel GS, any stack.  Clobbers RAX.
.globl nmi_touch_scratch
nmi_touch_scratch:
    movq    %gs:PDA_DATA_OFFSET, %rax
    movq    PERCPU_NMI_SCRATCH(%rax), %rax
    movq    (%rax), %rax
    ret
