# Alignment, in code and data.
.macro PADS directive
 .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 23, 29, 31
    .p2align 5
    .skip \n, 0xcc
    \directive
    ret
 .endr
.endm
.text
    PADS ".p2align 4"
    PADS ".balign 32"
    PADS ".align 16"
    PADS ".p2align 4,,7"
    PADS ".p2align 4,0x90"
    PADS ".p2align 4,0xcc"
    PADS ".p2align 4,0,9"
    PADS ".balign 8, 0x90, 3"
.irp n, 0, 1, 49, 50, 51, 100, 120, 166, 167, 168, 169, 170, 176, 179, 180, 123, 124, 125, 126, 127, 128, 129, 130, 200, 254, 255
    .p2align 8
    .skip \n, 0xcc
    .p2align 8
.endr
    nop
    .p2align 6
    nop
    .balign 1
    .balign 0
    .p2align 0
    .p2align 3
after:
.section .rodata, "a"
    .byte 1
    .balign 16
    .byte 2
    .p2align 5, 0xff
    .byte 3
    .align 8, , 3
    .byte 4
    .balign 64
.section .early.text, "ax", @progbits
    nop
    .balign 128
    nop
.data
    .byte 1
    .balign 4096
    .quad after
.text
x1: nop
    .p2align 0
    .balign 1
x2: pushq $(x2 - x1)
    .p2align 2
x3: pushq $(x3 - x1)
