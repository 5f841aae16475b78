# Instruction forms of kernel entry code, without symbols.
.text
    swapgs
    sysretq
    sysretl
    iretq
    iretl
    syscall
    sysenter
    sysexitl
    sysexitq
    wrmsr
    rdmsr
    rdtsc
    rdtscp
    rdpmc
    cpuid
    lgdt (%rax)
    lidt 8(%rsp)
    sgdt (%rdi)
    sidt -16(%rbp)
    lldt %ax
    ltr %di
    str %ax
    sldt %eax
    lretq
    lretl
    lretq $8
    ret
    ret $16
    movq %cr0, %rax
    movq %rax, %cr3
    movq %cr2, %r12
    movq %cr4, %rbx
    movq %r8, %cr8
    movq %rax, %dr7
    movq %dr6, %rsi
    mov %db0, %rax
    movl %eax, %ds
    movw %ax, %gs
    mov %ax, %fs
    movl %gs, %eax
    movw %ds, %ax
    mov %es, %rax
    movw (%rax), %ss
    mov %fs, 8(%rsp)
    pushq %fs
    popq %gs
    movq %gs:0x10, %rsp
    movq %rsp, %gs:0x1008
    movl %gs:0, %eax
    addl $1, %gs:0x20
    incl %gs:8(%rax,%rcx,8)
    movq %fs:-8, %rax
    movq %gs:16(%rip), %rax
    pushq %gs:0x30
    popq %gs:(%rsi)
    cmpl $-1, %gs:0x40
    movq %ss:(%rsp), %rax
    movq %ds:(%rbp), %rax
    movq %cs:(%rax), %rbx
    pushq $0
    pushq $-1
    pushq $0x33
    pushq $0x1234
    pushq $~(1 << 30)
    push %rax
    pushq %r15
    pushq 8(%rsp)
    popq %rcx
    pushfq
    popfq
    testb $3, 0x88(%rsp)
    testb $3, 8(%rsp)
    testl $0x200, %eax
    testl $0x10000, (%rdi)
    testq $-128, %rax
    andq $-16, %rsp
    andq $0xfffffffffffff000, %rsp
    orq $0x800, %rax
    btq $63, %rax
    btsq $63, %rax
    btrl $9, (%rsp)
    btrq $12, %rax
    bt %rax, %rbx
    rdgsbase %rax
    wrgsbase %r11
    rdfsbase %eax
    wrfsbase %rbx
    rdpid %rax
    stac
    clac
    fxsave (%rax)
    fxsave64 (%rax)
    fxrstor64 64(%rsp)
    xsave (%rdi)
    xsave64 (%rdi)
    xrstor (%rdi)
    xsaves (%rdi)
    fninit
    ldmxcsr (%rsp)
    endbr64
    endbr32
    lfence
    mfence
    sfence
    verw 0x10(%rip)
    verw (%rax)
    ud2
    ud1 %eax, %ebx
    int3
    int $3
    int $0x80
    int $0x20
    cmpxchgq %rcx, (%rdx)
    lock cmpxchgq %rcx, (%rdx)
    lock; cmpxchgl %ecx, (%rdx)
    lock cmpxchg16b %gs:(%rsi)
    lock incl (%rax)
    lock orl $1, %gs:8
    lock xaddl %eax, (%rbx)
    lock btsq $3, (%rax)
    rep movsq
    rep; movsb
    rep stosq
    rep stosl
    repne scasb
    repe cmpsb
    rep nop
    lodsq
    cld
    std
    cli
    sti
    pause
    hlt
    nop
    nopl (%rax)
    nopw %cs:0(%rax,%rax,1)
    nopl 8(%rax,%rcx,2)
    lsl %ax, %eax
    lsl %eax, %eax
    lslq %rcx, %rdx
    lar %cx, %eax
    verr %ax
    cmovneq %rax, %rbx
    cmovs %eax, %r9d
    cmovaeq 8(%rsp), %r10
    setc %al
    setne 8(%rsp)
    bswap %eax
    bswapq %r9
    xchg %rax, %rsp
    xchgq %rdi, (%rsp)
    xchg %rax, %rax
    movabs $0x1122334455667788, %rax
    movabsq $-1, %r10
    movabs 0x1122334455667788, %rax
    movabs %al, 0x1122334455667788
    movq $0x1122334455667788, %rax
    movq $0xffffffff, %rax
    movq $-1, %rax
    mov $1, %rax
    mov $0x80000000, %rdx
    movl $0xffffffff, %eax
    mov $-1, %ecx
    movb $0xff, %al
    movb %ah, %bl
    movb $1, %ch
    movw $0xffff, %ax
    movzbl %al, %eax
    movzwl 8(%rsp), %ecx
    movslq %eax, %rbx
    movsxd %eax, %rbx
    cltq
    cqto
    cltd
    leave
    enter $16, $0
    jmp *%rax
    jmp *8(%rsp)
    jmp *(%rax,%rcx,8)
    jmp *0x1000(,%rax,8)
    call *%r11
    callq *(%rax)
    call *0x20(%rbx)
    call *%gs:0x18
    notrack jmp *%rax
    ljmpl *(%rax)
    rex64 ljmp *(%rax)
    lcalll *8(%rsp)
    in %dx, %al
    inb $0x60, %al
    outb %al, $0x80
    outl %eax, %dx
    insb
    rep outsl
    invlpg (%rdi)
    invpcid (%rsp), %rax
    wbinvd
    clts
    smsw %ax
    monitor
    mwait
    vmcall
    xgetbv
    xsetbv
    sub $-128, %rsp
    add $128, %rsp
    addq $8, %rsp
    subq $0x1000, %rsp
    leaq -8(%rsp), %rsp
    leaq 0(%rbp,%rcx,4), %rdi
    leal (%eax), %ebx
    xorl %eax, %eax
    xor %r15d, %r15d
    shlq $16, %rdx
    shl %rax
    sarq $16, %rax
    shrl %cl, %eax
    rolw $8, %ax
    shldq $4, %rax, %rbx
    imulq $24, %rax, %rax
    imul %rbx, %rax
    mulq (%rax)
    popcnt %rax, %rbx
    bsfq %rax, %rcx
    tzcnt %eax, %ecx
    clflush (%rax)
    prefetchw (%rdi)
    prefetcht0 64(%rsi)
    movups %xmm0, (%rdi)
    movdqa (%rsi), %xmm7
    movq %rax, %xmm0
    pxor %xmm1, %xmm1
    movnti %rax, (%rdi)
    cs
    nop
    data16 nop
    addr32 movl (%eax), %ebx
    SWAPGS
    MOVQ %RAX, %RBX
