# The FPU's registers, which C leaves alone: user mode's stay in the CPU while the kernel works for the same task.

.section .text,"ax",@progbits

# void save_fpregs(struct fxregs_state *to).  It has 512 bytes, 16-byte aligned.
# Entry and exit: kernel GS, CR0.TS clear, any stack.  Clobbers nothing.
.balign 16, 0xcc
.globl save_fpregs
save_fpregs:
    fxsave64 (%rdi)
    ret

# void restore_fpregs(const struct fxregs_state *from).  Its MXCSR has no reserved bits set (C saw to that).
# Entry and exit: as save_fpregs.
.balign 16, 0xcc
.globl restore_fpregs
restore_fpregs:
    fxrstor64 (%rdi)
    ret

.section .rodata,"a",@progbits

# What a program and a signal handler begin with: all x87 exceptions masked, extended precision; SSE the same.
.balign 64
.globl init_fpstate
init_fpstate:
    .word   0x37f
    .fill   22, 1, 0
    .long   0x1f80
    .fill   484, 1, 0
