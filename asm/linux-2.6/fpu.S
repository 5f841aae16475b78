# The FPU's registers, which stay in the CPU until another task wants them.  CR0.TS is set while they are not the current
# task's: then its first use of them is #NM.  So TS follows the registers: whoever saves them sets it, whoever loads them
# clears it.

.section .text,"ax",@progbits

# void save_fpregs(struct fxregs_state *to): the registers are nobody's afterwards.  It has 512 bytes, 16-byte aligned.
# Entry: kernel GS, CR0.TS clear, any stack.  Exit: CR0.TS set.  Clobbers RAX.
.balign 16, 0xcc
.globl save_fpregs
save_fpregs:
    fxsave64 (%rdi)

# void stts(void).
# Entry: any stack.  Exit: CR0.TS set.  Clobbers RAX.
.globl stts
stts:
    movq    %cr0, %rax
    orq     $X86_CR0_TS, %rax
    movq    %rax, %cr0
    ret

# void restore_fpregs(const struct fxregs_state *from).  Its MXCSR has no reserved bits set (C saw to that).
# Entry: as stts.  Exit: CR0.TS clear.  Clobbers nothing.
.balign 16, 0xcc
.globl restore_fpregs
restore_fpregs:
    clts
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
