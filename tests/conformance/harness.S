# Runs the cases one after another: loads a case's state, enters it with IRETQ, catches whatever event ends it, and sends
# what differs from the state loaded over the debug port 0xe9 as text (see decode.py).  The constants and the F_* offsets
# come from layout.py and fields.py; tables.py has the tables, cases follow as data and code (image.py).

.text
.globl _start
_start:
    movq    $KERNEL + HARNESS_STACK, %rsp
    call    own_tables
    movq    $-1, case_number(%rip)
    movl    first_case(%rip), %eax
    decq    %rax
    movq    %rax, case_number(%rip)

next_case:
    movq    $KERNEL + HARNESS_STACK, %rsp
    call    own_tables
    incq    case_number(%rip)
    movq    case_number(%rip), %rax
    cmpl    last_case(%rip), %eax
    ja      power_off
    movb    $'#', %al
    call    put_char
    movq    case_number(%rip), %rdi
    call    put_hex
    movb    $'\n', %al
    call    put_char
    imulq   $CASE_SIZE, case_number(%rip), %r15
    leaq    case_table(%rip), %rax
    addq    %rax, %r15
    movq    %r15, this_case(%rip)

# Fresh data pages and tables, then the case's changes; what was there goes to the undo list.
    leaq    KERNEL_DATA_PAGE, %rdi
    xorl    %eax, %eax
    movl    $KDATA_WORDS, %ecx
    rep stosq
    leaq    USER_DATA_PAGE, %rdi
    movl    $KDATA_WORDS, %ecx
    rep stosq
    leaq    pristine_gdt(%rip), %rsi
    movq    $KERNEL + GDT, %rdi
    movl    $GDT_WORDS, %ecx
    rep movsq
    movq    F_PATCHES(%r15), %rcx
    movq    F_PATCH_LIST(%r15), %rsi
    leaq    undo_list(%rip), %rdi
    testq   %rcx, %rcx
    jz      2f
1:  movq    (%rsi), %rax
    movq    (%rax), %rdx
    movq    %rdx, (%rdi)
    movq    8(%rsi), %rdx
    movq    %rdx, (%rax)
    addq    $16, %rsi
    addq    $8, %rdi
    decq    %rcx
    jnz     1b
2:  movq    %cr3, %rax
    movq    %rax, %cr3
    lgdt    F_GDT_LIMIT+6(%r15)
    lidt    F_IDT_LIMIT+6(%r15)
    movl    $TSS_SELECTOR, %eax
    ltr     %ax
    movw    F_LDTR(%r15), %ax
    lldt    %ax

# MSRs; selectors before the bases that loading them may change.
    movw    F_DS(%r15), %ds
    movw    F_ES(%r15), %es
    movw    F_FS(%r15), %fs
    movw    F_GS(%r15), %gs
    leaq    msr_list(%rip), %rbx
3:  movl    (%rbx), %ecx
    movl    4(%rbx), %esi
    movl    (%r15, %rsi), %eax
    movl    4(%r15, %rsi), %edx
    wrmsr
    addq    $8, %rbx
    leaq    msr_list_end(%rip), %rax
    cmpq    %rax, %rbx
    jb      3b
    fninit
    ldmxcsr mxcsr(%rip)

# What memory holds before the case.
    leaq    memory_before(%rip), %rdi
    call    gather
    movq    F_HANDLER(%r15), %rax
    movq    %rax, handler(%rip)
    cmpl    $0, F_APIC(%r15)
    je      4f
    movl    $0x1ff, APIC_PAGE + 0xf0
4:
    movq    F_DR0(%r15), %rax
    movq    %rax, %dr0
    movq    F_DR1(%r15), %rax
    movq    %rax, %dr1
    movq    F_DR2(%r15), %rax
    movq    %rax, %dr2
    movq    F_DR3(%r15), %rax
    movq    %rax, %dr3
    movq    F_DR6(%r15), %rax
    movq    %rax, %dr6
    movq    F_CR2(%r15), %rax
    movq    %rax, %cr2
    movq    F_CR4(%r15), %rax
    movq    %rax, %cr4
    movq    F_CR0(%r15), %rax
    movq    %rax, %cr0
    movq    F_CR8(%r15), %rax
    movq    %rax, %cr8
    pushq   F_SS(%r15)
    pushq   F_RSP(%r15)
    pushq   F_RFLAGS(%r15)
    pushq   F_CS(%r15)
    pushq   F_RIP(%r15)
    movq    F_DR7(%r15), %rax
    movq    %rax, %dr7
    movq    F_RAX(%r15), %rax
    movq    F_RCX(%r15), %rcx
    movq    F_RDX(%r15), %rdx
    movq    F_RBX(%r15), %rbx
    movq    F_RBP(%r15), %rbp
    movq    F_RSI(%r15), %rsi
    movq    F_RDI(%r15), %rdi
    movq    F_R8(%r15), %r8
    movq    F_R9(%r15), %r9
    movq    F_R10(%r15), %r10
    movq    F_R11(%r15), %r11
    movq    F_R12(%r15), %r12
    movq    F_R13(%r15), %r13
    movq    F_R14(%r15), %r14
    movq    F_R15(%r15), %r15
enter_case:
    iretq

# Every stub arrives here with nothing changed but `vector`.  MOV and PUSHFQ leave the flags alone.
caught:
    movq    %rax, after+F_RAX(%rip)
    movq    %rcx, after+F_RCX(%rip)
    movq    %rdx, after+F_RDX(%rip)
    movq    %rbx, after+F_RBX(%rip)
    movq    %rsp, after+F_RSP(%rip)
    movq    %rbp, after+F_RBP(%rip)
    movq    %rsi, after+F_RSI(%rip)
    movq    %rdi, after+F_RDI(%rip)
    movq    %r8, after+F_R8(%rip)
    movq    %r9, after+F_R9(%rip)
    movq    %r10, after+F_R10(%rip)
    movq    %r11, after+F_R11(%rip)
    movq    %r12, after+F_R12(%rip)
    movq    %r13, after+F_R13(%rip)
    movq    %r14, after+F_R14(%rip)
    movq    %r15, after+F_R15(%rip)
    movq    $KERNEL + HARNESS_STACK, %rsp
    pushfq
    popq    after+F_RFLAGS(%rip)
    pushq   $2
    popfq                               # TF and AC off, DF clear
    xorl    %eax, %eax
    movw    %cs, %ax
    movq    %rax, after+F_CS(%rip)
    movw    %ss, %ax
    movq    %rax, after+F_SS(%rip)
    cmpl    $0, draining(%rip)
    jne     drained
    movw    %ds, %ax
    movq    %rax, after+F_DS(%rip)
    movw    %es, %ax
    movq    %rax, after+F_ES(%rip)
    movw    %fs, %ax
    movq    %rax, after+F_FS(%rip)
    movw    %gs, %ax
    movq    %rax, after+F_GS(%rip)
    sldt    %ax
    movq    %rax, after+F_LDTR(%rip)
    movq    %dr7, %rax                  # #DB if DR7.GD is still set: then DR7 reads with GD clear
    movq    %rax, after+F_DR7(%rip)
    movl    $0x400, %eax
    movq    %rax, %dr7
    movq    %dr6, %rax
    movq    %rax, after+F_DR6(%rip)
    movq    %dr0, %rax
    movq    %rax, after+F_DR0(%rip)
    movq    %dr1, %rax
    movq    %rax, after+F_DR1(%rip)
    movq    %dr2, %rax
    movq    %rax, after+F_DR2(%rip)
    movq    %dr3, %rax
    movq    %rax, after+F_DR3(%rip)
    movq    %cr0, %rax
    movq    %rax, after+F_CR0(%rip)
    movq    %cr2, %rax
    movq    %rax, after+F_CR2(%rip)
    movq    %cr4, %rax
    movq    %rax, after+F_CR4(%rip)
    movq    %cr8, %rax
    movq    %rax, after+F_CR8(%rip)
    leaq    msr_list(%rip), %rbx
    leaq    after(%rip), %rdi
4:  movl    (%rbx), %ecx
    movl    4(%rbx), %esi
    rdmsr
    movl    %eax, (%rdi, %rsi)
    movl    %edx, 4(%rdi, %rsi)
    addq    $8, %rbx
    leaq    msr_list_end(%rip), %rax
    cmpq    %rax, %rbx
    jb      4b
    cmpw    $256, vector(%rip)
    jae     5f
    movq    after+F_RSP(%rip), %rsi
    leaq    frame(%rip), %rdi
    movl    $6, %ecx
    rep movsq
5:  movq    this_case(%rip), %r15
    leaq    memory_after(%rip), %rdi
    call    gather

# The machine as the harness wants it: controls first, then memory, then segments.
    movl    $DEFAULT_CR0, %eax
    movq    %rax, %cr0
    movl    $DEFAULT_CR4, %eax
    movq    %rax, %cr4
    xorl    %eax, %eax
    movq    %rax, %cr8
    movl    $0xc0000080, %ecx
    movl    $DEFAULT_EFER, %eax
    xorl    %edx, %edx
    wrmsr
    movq    F_PATCHES(%r15), %rcx       # undone last to first: two patches may hit one word
    testq   %rcx, %rcx
    jz      7f
    movq    %rcx, %rdx
    shlq    $4, %rdx
    movq    F_PATCH_LIST(%r15), %rsi
    addq    %rdx, %rsi
    leaq    undo_list(%rip), %rdi
    leaq    (%rdi, %rcx, 8), %rdi
6:  subq    $16, %rsi
    subq    $8, %rdi
    movq    (%rsi), %rax
    movq    (%rdi), %rdx
    movq    %rdx, (%rax)
    movq    %cr3, %rax
    movq    %rax, %cr3
    decq    %rcx
    jnz     6b
7:

# Report: vector, frame, fields that differ, memory words that differ.
    movb    $'v', %al
    call    put_char
    movzwl  vector(%rip), %edi
    call    put_hex
    cmpw    $256, vector(%rip)
    jae     9f
    leaq    frame(%rip), %rbp
    movl    $6, %ebx
8:  movb    $' ', %al
    call    put_char
    movq    (%rbp), %rdi
    call    put_hex
    addq    $8, %rbp
    decl    %ebx
    jnz     8b
9:  movb    $'\n', %al
    call    put_char
    movl    $'=', %r12d
    movq    %r15, %rbx
    leaq    after(%rip), %rbp
    movl    $COMPARED, %r13d
    call    put_differences
    movl    $'m', %r12d
    leaq    memory_before(%rip), %rbx
    leaq    memory_after(%rip), %rbp
    movl    $MEMORY_WORDS, %r13d
    call    put_differences
    cmpl    $0, F_APIC(%r15)
    je      next_case

# Interrupts and NMIs that the case left behind come in now and are dropped.
    movl    $1, draining(%rip)
    movl    $8, %ecx
10: movl    $0, APIC_PAGE + 0xb0
    decl    %ecx
    jnz     10b
    movq    %rsp, %rax
    pushq   $KERNEL_DS
    pushq   %rax
    pushq   $2
    pushq   $KERNEL_CS
    leaq    11f(%rip), %rax
    pushq   %rax
    iretq
11: sti
    movl    $64, %ecx
12: decl    %ecx
    jnz     12b
    cli
    movl    $0, draining(%rip)
    jmp     next_case
drained:
    movl    $0, APIC_PAGE + 0xb0
    movq    after+F_RSP(%rip), %rsp
    movq    after+F_RAX(%rip), %rax
    iretq

power_off:
    movb    $'.', %al
    call    put_char
    movb    $'\n', %al
    call    put_char
    movb    $0, %al
    movl    $0xf4, %edx
    outb    %al, %dx
    leaq    farewell(%rip), %rbx
    movl    $8, %ebp
    movl    $0x8900, %edx
1:  movb    (%rbx), %al
    outb    %al, %dx
    incq    %rbx
    decl    %ebp
    jnz     1b
2:  hlt
    jmp     2b

# The harness's own tables and segments.
own_tables:
    movl    $PML4, %eax
    movq    %rax, %cr3
    leaq    pristine_gdt(%rip), %rsi
    movq    $KERNEL + GDT, %rdi
    movl    $GDT_WORDS, %ecx
    rep movsq
    lgdt    own_gdtr(%rip)
    lidt    own_idtr(%rip)
    movl    $KERNEL_DS, %eax
    movw    %ax, %ss
    movw    %ax, %ds
    movw    %ax, %es
    popq    %rax
    pushq   $KERNEL_CS
    pushq   %rax
    movl    $DEFAULT_CR0, %eax
    movq    %rax, %cr0
    movl    $DEFAULT_CR4, %eax
    movq    %rax, %cr4
    .byte   0x48, 0xcb                  # lretq

# Copies the words that a case may change to (%rdi).
gather:
    movq    $KERNEL_DATA_PAGE, %rsi
    movl    $KDATA_WORDS, %ecx
    rep movsq
    movq    $USER_DATA_PAGE, %rsi
    movl    $KDATA_WORDS, %ecx
    rep movsq
    movq    $KERNEL + GDT, %rsi
    movl    $GDT_WORDS, %ecx
    rep movsq
    ret

# Lines "<r12b><index> <value>" for each of %r13d words at %rbp that differs from its word at %rbx.
put_differences:
    xorl    %r14d, %r14d
1:  movq    (%rbp, %r14, 8), %rax
    cmpq    (%rbx, %r14, 8), %rax
    je      2f
    movl    %r12d, %eax
    call    put_char
    movq    %r14, %rdi
    call    put_hex
    movb    $' ', %al
    call    put_char
    movq    (%rbp, %r14, 8), %rdi
    call    put_hex
    movb    $'\n', %al
    call    put_char
2:  incl    %r14d
    cmpl    %r13d, %r14d
    jb      1b
    ret

# %rdi as hexadecimal digits without leading zeros.
put_hex:
    movl    $64, %ecx
    bsrq    %rdi, %rax
    jz      1f
    movl    %eax, %ecx
    andl    $0x3c, %ecx
    jmp     2f
1:  xorl    %ecx, %ecx
2:  movq    %rdi, %rax
    shrq    %cl, %rax
    andl    $15, %eax
    leaq    digits(%rip), %rdx
    movb    (%rdx, %rax), %al
    call    put_char
    subl    $4, %ecx
    jns     2b
    ret

put_char:
    outb    %al, $0xe9
    ret

.balign 8
digits:
    .ascii  "0123456789abcdef"
farewell:
    .ascii  "Shutdown"
own_gdtr:
    .word   GDT_WORDS * 8 - 1
    .quad   KERNEL + GDT
    .balign 8
own_idtr:
    .word   0xfff
    .quad   KERNEL + IDT
    .balign 8
mxcsr:
    .long   0x1f80, 0
first_case:
    .long   0
last_case:
    .long   0
case_number:
    .quad   0
this_case:
    .quad   0
vector:
    .quad   0
handler:
    .quad   0
draining:
    .long   0, 0
