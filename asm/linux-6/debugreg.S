# The debug registers, which belong to the task whose tracer set them.

.section .text,"ax",@progbits

# void load_debugregs(const u64 addresses[4], u64 dr7).
# Entry and exit: kernel GS and CR3, any stack; kernel text and data have no breakpoint, so nothing in here traps.
# Clobbers RAX.
.balign 16, 0xcc
.globl load_debugregs
load_debugregs:
    # Off first: no breakpoint may have the length of one and the address of another.
    xorl    %eax, %eax
    movq    %rax, %dr7
    movq    (%rdi), %rax
    movq    %rax, %dr0
    movq    8(%rdi), %rax
    movq    %rax, %dr1
    movq    16(%rdi), %rax
    movq    %rax, %dr2
    movq    24(%rdi), %rax
    movq    %rax, %dr3
    movq    %rsi, %dr7
    ret
