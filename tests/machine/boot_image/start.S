# Start of the test images: multiboot header, 32-bit entry, long mode, start of further CPUs; then main() in C.
# Page tables map the first 4 GiB where they are, user and supervisor.  A CPU's stack is chosen by its turn to come here.

#define STACK 8192
#define CPUS 8

.text
    .balign 4
    .long   0x1badb002, 0, -0x1badb002
.code32
.globl start
start:
    movl    %ebx, multiboot_info
    lgdt    gdt_pointer
    ljmp    $0x18, $start32

start32:                                # every CPU, with our 32-bit segments
    movl    $0x10, %eax
    movl    %eax, %ds
    movl    %eax, %es
    movl    %eax, %ss
    movl    $STACK, %esp
    lock xaddl %esp, next_stack
    movl    %cr4, %eax
    orl     $0x620, %eax                # PAE, OSFXSR, OSXMMEXCPT
    movl    %eax, %cr4
    movl    $pml4, %eax
    movl    %eax, %cr3
    movl    $0xc0000080, %ecx
    rdmsr
    orl     $0x901, %eax                # SCE, LME, NXE
    wrmsr
    movl    $0x80010033, %eax
    movl    %eax, %cr0
    ljmp    $0x08, $start64

.code64
.globl start64
start64:
    movl    $0x10, %eax
    movl    %eax, %ss
    cmpl    $stacks + STACK, %esp
    jne     another
    movl    multiboot_info, %edi
    call    main
    movl    %eax, %edi
    call    leave
1:  hlt
    jmp     1b
another:
    call    main_of_another
1:  hlt
    jmp     1b

# Entered by a boot loader that has set up long mode: RDI is the multiboot information.
.globl enter64
enter64:
    movl    %edi, multiboot_info
    lgdt    gdt_pointer
    movl    $stacks + STACK, %esp
    pushq   $0x08
    pushq   $start64
    lretq

# What a startup IPI begins with, wherever it was copied to: position independent, in real mode.
.code16
.globl trampoline, trampoline_end
trampoline:
    cli
    movw    %cs, %ax
    movw    %ax, %ds
    lgdtl   trampoline_pointer - trampoline
    movl    %cr0, %eax
    orl     $1, %eax
    movl    %eax, %cr0
    ljmpl   $0x18, $start32
    .balign 4
trampoline_pointer:
    .word   gdt_end - gdt - 1
    .long   gdt
trampoline_end:

.data
.balign 8
.globl gdt
gdt:
    .quad   0
    .quad   0x00af9b000000ffff          # 0x08 64-bit code
    .quad   0x00cf93000000ffff          # 0x10 data
    .quad   0x00cf9b000000ffff          # 0x18 32-bit code
    .quad   0x00cff3000000ffff          # 0x20 user data
    .quad   0x00affb000000ffff          # 0x28 user code
gdt_end:
gdt_pointer:
    .word   gdt_end - gdt - 1
    .quad   gdt
.balign 4
next_stack:
    .long   stacks + STACK
.globl multiboot_info
multiboot_info:
    .long   0

.balign 4096
pml4:
    .quad   pdpt + 7
    .fill   511, 8, 0
pdpt:
    .quad   pd + 7, pd + 0x1007, pd + 0x2007, pd + 0x3007
    .fill   508, 8, 0
pd:
    n = 0
    .rept   2048
    .quad   n << 21 | 0x87
    n = n + 1
    .endr

.bss
.balign 16
stacks:
    .skip   STACK * CPUS

.section .note.GNU-stack, "", @progbits
