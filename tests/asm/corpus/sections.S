# Sections and what moves between them.
.section .entry.text, "ax", @progbits
.globl entry
.type entry, @function
entry:
    jmp in_text
    call in_text
    jne 1f
    .pushsection .rodata.table, "a", @progbits
    .quad entry, 1f, in_text
    .long 1f - ., entry - .
    .popsection
1:  ret
.size entry, . - entry
.text
in_text:
    nop
    .pushsection .data
    .quad in_text
    .pushsection .rodata.table
    .quad 2f
    .popsection
    .byte 1
    .popsection
2:  ret
.previous
    .byte 0x90, 0x90
.previous
    nop
.section .rodata, "a"
    .ascii "read only"
.data
.hidden datum
.local datum
datum:
    .quad datum
.bss
    .balign 16
buffer:
    .skip 100
    .zero 20
    .balign 64
    .quad 0
.section .more.bss, "aw", @nobits
    .skip 64
other_buffer:
    .skip 8
.text
    leaq buffer(%rip), %rax
    leaq other_buffer+4(%rip), %rax
    jmp entry
.section ".init.text", "ax"
    call entry
.section .data..percpu, "aw"
    .quad buffer, other_buffer
.section .entry.text
    jmp 2b
