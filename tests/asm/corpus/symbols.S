# Symbols in every place where an instruction can hold one.
.globl _start, table, external_after
.set EARLY, 0x18
.set BIG, 0x1234
.text
_start:
    movq %gs:EARLY, %rsp
    movq %gs:EARLY+8, %rsp
    movq %gs:table, %rax
    movq %gs:table+8(%rip), %rax
    movq %gs:table(,%rax,8), %rbx
    movq table(%rip), %rax
    movq table+16(%rip), %rax
    movq table-4(%rip), %rax
    movq EARLY(%rip), %rax
    movq LATE(%rip), %rax
    movq EARLY(%rsp), %rax
    movq LATE(%rsp), %rax
    movq BIG(%rsp), %rax
    movq EARLY-0x18(%rsp), %rax
    movq %gs:LATE, %rax
    movl $5, table(%rip)
    movq $5, table(%rip)
    movb $5, table(%rip)
    movw $5, table(%rip)
    movw $0x1234, table+2(%rip)
    cmpl $1000, table(%rip)
    cmpq $-1, table(%rip)
    testb $3, EARLY(%rsp)
    testb $3, table(%rip)
    testl $3, %gs:table
    movq $table, table(%rip)
    imulq $300, table(%rip), %rax
    shlq $3, table(%rip)
    shlq table(%rip)
    btsq $3, table(%rip)
    lock btsl $3, table(%rip)
    lock cmpxchgq %rax, table(%rip)
    cmpxchg16b table(%rip)
    leaq table(%rip), %rdi
    leaq _start(%rip), %rdi
    leaq .Llocal(%rip), %rdi
    leaq 1f(%rip), %rdi
1:  leaq 1b(%rip), %rdi
    leaq .(%rip), %rax
    leaq .+4(%rip), %rax
    leaq (table - 8)(%rip), %rax
    leaq -8+table(%rip), %rax
    movq $_start, %rax
    mov $_start, %rax
    movabs $_start, %rax
    movabsq $table+8, %rbx
    movabs table, %rax
    movabs %eax, table
    pushq $_start
    pushq $.Llocal
    pushq $EARLY
    pushq $LATE
    addq $LATE, %rsp
    addq $EARLY, %rsp
    addl $LATE, %eax
    subq $(2f - 1b), %rsp
    subq $(1b - _start), %rsp
    movl $(2f - 1b), %eax
    movb $(2f - 3f), %al
    movw $(2f - 1b), %ax
    andl $~LATE, %eax
    testb $LATE, %al
    cmpq $table, %rax
    movl $LATE, 8(%rsp)
    movl $LATE, table(%rip)
    movq $table, 8(%rsp)
    movb $LATE, %gs:table
    jmp *table(%rip)
    jmp *table(,%rax,8)
    call *table(,%rax,8)
    call *table+8(%rip)
    call _start
    call external
    jmp external
    jne external
    call external_after
    jmp external_after
    call .Llocal
    leaq external(%rip), %rax
    movq $external, %rax
    movabs $external+8, %rax
    lgdt table(%rip)
    lidt table+10(%rip)
    verw table(%rip)
    fxsave table(%rip)
    lsl table(%rip), %eax
    nopl table(%rip)
    invlpg table(%rip)
    prefetchw table(%rip)
    jrcxz 2f
    loop 2f
    jecxz 2f
2:  nop
3:  nop
.Llocal:
    xbegin .Llocal
    ret
external_after:
    ret
.set LATE, 0x28
.set alias, _start + 4
.set chained, alias + 4
    jmp alias
    leaq chained(%rip), %rax
    .quad alias, chained
.data
    .balign 8
table:
    .quad _start, table, external, external+8, .Llocal, 1b
    .quad table + 8, 8 + table, table - 8, alias
    .quad 2b - 1b, . - table, table - .
    .long 1b - ., 2b - ., external - ., _start - . + 4
    .long 2b - 1b, LATE, EARLY
    .word 2b - 1b, LATE
    .byte 2b - 3b, LATE
    .quad LATE + 4, -LATE, ~LATE, LATE * 2, LATE << 4
