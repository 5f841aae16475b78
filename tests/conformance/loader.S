# Boot sector of the oracles' disk: reads the image to physical 0x10000, enters 64-bit mode and jumps to the harness.
# SECTORS, ENTRY and KERNEL come from the command line (--defsym).  Interrupt controllers are masked: a case starts every
# event itself.  Tables at 0x1000-0x4fff map the first 2 MiB at 0 and at KERNEL; the harness brings its own.

.code16
start:
    cli
    xorw    %ax, %ax
    movw    %ax, %ds
    movw    %ax, %ss
    movw    $0x7c00, %sp
    ljmp    $0, $1f
1:  movw    $(SECTORS / 64), %cx
    sti
read:
    pushw   %cx
    movb    $0x42, %ah
    movb    $0x80, %dl
    movw    $packet, %si
    int     $0x13
    jc      fail
    popw    %cx
    addw    $0x800, packet + 6
    addw    $64, packet + 8
    loop    read
    cli
    movb    $0xff, %al
    outb    %al, $0x21
    outb    %al, $0xa1
    inb     $0x92, %al
    orb     $2, %al
    andb    $0xfe, %al
    outb    %al, $0x92
    xorw    %ax, %ax
    movw    %ax, %es
    movw    $0x1000, %di
    movw    $0x2000, %cx
    cld
    rep stosw
    movl    $0x2003, 0x1000
    movl    $0x2003, 0x1ff8
    movl    $0x3003, 0x2000
    movl    $0x3003, 0x2ff0
    movl    $0x0083, 0x3000
    lgdt    gdtr
    movl    $0x20, %eax
    movl    %eax, %cr4
    movl    $0x1000, %eax
    movl    %eax, %cr3
    movl    $0xc0000080, %ecx
    xorl    %edx, %edx
    movl    $0x901, %eax
    wrmsr
    movl    $0x80000011, %eax
    movl    %eax, %cr0
    ljmp    $0x10, $long_mode
fail:
    movb    $'!', %al
    outb    %al, $0xe9
    hlt

.code64
long_mode:
    movabsq $ENTRY, %rax
    jmp     *%rax

.balign 8
gdt:
    .quad   0, 0, 0x00af9b000000ffff
gdtr:
    .word   23
    .long   gdt
packet:                                 # INT 13h AH=42h: 64 sectors at a time
    .word   16, 64, 0, 0x1000
    .quad   1

    .org    510
    .word   0xaa55
