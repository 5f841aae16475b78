# The data segments of user mode, which 64-bit mode does without: 32-bit programs and descriptors of their own need them.

.section .text,"ax",@progbits

# void load_user_segments(u16 ds, u16 es, u16 fs).  GS has asm_load_gs_index.  A selector that cannot be loaded becomes
# null.  MOV to FS writes its base too.
# Entry and exit: kernel GS and CR3, any stack.  Clobbers RDI, RSI, RDX.
.balign 16, 0xcc
.globl load_user_segments
load_user_segments:
.Lload_ds:
    movl    %edi, %ds
.Lload_es:
    movl    %esi, %es
.Lload_fs:
    movl    %edx, %fs
    ret
.Lbad_ds:
    xorl    %edi, %edi
    jmp     .Lload_ds
.Lbad_es:
    xorl    %esi, %esi
    jmp     .Lload_es
.Lbad_fs:
    xorl    %edx, %edx
    jmp     .Lload_fs

# void load_LDT(u16 selector).
# Entry and exit: kernel GS and CR3, any stack.  Clobbers nothing.
.balign 16, 0xcc
.globl load_LDT
load_LDT:
    lldt    %di
    ret
