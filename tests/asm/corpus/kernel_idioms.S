# Idioms of kernel sources: alternatives, exception tables, IDT stubs, symbol annotations, pt_regs macros.
.macro ALTERNATIVE oldinstr, newinstr, feature
140:
    \oldinstr
141:
    .skip -(((144f-143f)-(141b-140b)) > 0) * ((144f-143f)-(141b-140b)), 0x90
142:
    .pushsection .altinstructions, "a"
    .long 140b - .
    .long 143f - .
    .word \feature
    .byte 142b-140b
    .byte 144f-143f
    .popsection
    .pushsection .altinstr_replacement, "ax"
143:
    \newinstr
144:
    .popsection
.endm
.macro _ASM_EXTABLE from, to, kind=1
    .pushsection "__ex_table", "a"
    .balign 4
    .long (\from) - .
    .long (\to) - .
    .long \kind
    .popsection
.endm
.macro SYM_FUNC_START name
    .globl \name
    .balign 16, 0x90
\name:
    endbr64
.endm
.macro SYM_FUNC_END name
    .type \name, @function
    .size \name, .-\name
.endm
.macro PUSH_REGS rdx=%rdx rcx=%rcx rax=%rax save_ret=0
    .if \save_ret
    pushq %rsi
    movq 8(%rsp), %rsi
    movq %rdi, 8(%rsp)
    .else
    pushq %rdi
    pushq %rsi
    .endif
    pushq \rdx
    pushq \rcx
    pushq \rax
    .irp n, 8, 9, 10, 11
    pushq %r\n
    .endr
.endm
.macro idtentry vector asmsym cfunc has_error_code:req
SYM_FUNC_START \asmsym
    .if \has_error_code == 0
    pushq $-1
    .endif
    .if \vector == 3
    testb $3, CS-ORIG_RAX(%rsp)
    jnz .Lfrom_usermode_no_gap_\@
    .rept 6
    pushq 5*8(%rsp)
    .endr
.Lfrom_usermode_no_gap_\@:
    .endif
    PUSH_REGS save_ret=1
    movq %rsp, %rdi
    .if \has_error_code == 1
    movq ORIG_RAX(%rsp), %rsi
    movq $-1, ORIG_RAX(%rsp)
    .endif
    call \cfunc
    jmp error_return
SYM_FUNC_END \asmsym
.endm
.set R15, 0
.set ORIG_RAX, 15*8
.set CS, 17*8
.set PTI_BIT, 12
.section .entry.text, "ax"
SYM_FUNC_START entry
    ALTERNATIVE "jmp .Lend", "", 100
    ALTERNATIVE "", "stac", 20
    ALTERNATIVE "call entry", "lfence; nop", (3*32+5)
    ALTERNATIVE "nop", "movq %gs:0x10, %rsp ; swapgs", 7
    swapgs
    PUSH_REGS rdx=$0 rax=$-38
    PUSH_REGS $1, $2
.Lend:
1:  rdmsr
2:
    _ASM_EXTABLE 1b, 2b
    _ASM_EXTABLE 1b, .Lend, kind=9
    movq %cr3, %rax
    andq $(~((1 << PTI_BIT) | (1 << 11))), %rax
    btq $63, %rax
    jnc .Lnext
.Lnext:
    andq $~((1 << 12) | 0xfff), %rax
    orq $(1 << PTI_BIT), %rax
    movl $(1 << 31 | 0x33), %edx
    leaq R15+8(%rsp), %rdi
    cmpq $(2f - 1b), ORIG_RAX-R15(%rsp)
2:  sysretq
    int3
SYM_FUNC_END entry
idtentry 0, asm_exc_divide_error, handler, has_error_code=0
idtentry 3 asm_exc_int3 handler has_error_code=0
idtentry 14 asm_exc_page_fault handler has_error_code=1
    .balign 8
SYM_FUNC_START irq_entries_start
    vector = 0x20
    .rept (256 - vector)

0:
    .byte 0x6a, vector
    jmp common

    .fill 0b + 8 - ., 1, 0xcc
    vector = vector+1
    .endr
SYM_FUNC_END irq_entries_start
common:
    ret
handler:
    ret
error_return:
    iretq
.rodata_table = . - entry
.data
    .quad entry, asm_exc_page_fault
