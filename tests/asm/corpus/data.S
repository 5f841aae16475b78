# Data directives.
.data
start:
    .byte 0, 1, 255, -1, -128, 'a', '\n', 'b', '\'', '"', ' '
    .byte
    .word 1, 0xffff, -1
    .short 2 ; .value 3 ; .hword 4 ; .2byte 5
    .long 1, 0xffffffff, -1, 0x80000000
    .int 1 ; .4byte 2
    .quad 1, 0xffffffffffffffff, -1, 0x8000000000000000, 18446744073709551615
    .8byte 3
    .quad 0b1011, 0777, 0x1F, 10
    .ascii "plain"
    .ascii "a", "b" , "c"
    .ascii "two " "joined"
    .ascii "esc: \b\f\n\r\t\\\" \101\60\7 \x41\x7f\x1234 end"
    .ascii "# // /* ; not comments"
    .ascii ""
    .asciz "zero"
    .asciz "a", "b"
    .string "string", ""
    .ascii "utf8: äß€"
    .zero 3
    .skip 2
    .skip 3, 0xaa
    .space 4
    .space 2, 7
    .skip 0
    .fill 3
    .fill 3, 2
    .fill 3, 2, 0x1234
    .fill 2, 8, 0x1122334455667788
    .fill 2, 4, -1
    .fill 2, 8, -1
    .fill 0, 4, 1
    .fill 2, 1, 0x1ff
    .fill forward - start - (forward - start) + 3, 1, 9
    .skip (stop - forward) * 2, 5
forward:
    .long . - start, . - start, . - start
    .quad ., . + 8, . - 4
stop:
    .org start + 0x400
    .byte 1
    .org 0x410, 0xee
    .byte 2
    . = 0x420
    .byte 3
    . = . + 5
    .byte 4
    .org . + 3, 1
end:
    .byte 5 /* a comment */ , /* another */ 6
    .byte 7 # comment
    .byte 8
/* a comment
   over lines */ .byte 9 ; .byte 10 ;; .byte 11
# a whole line ; .byte 99
    .byte 12; # .byte 13
label_a: label_b: .byte 14
 spaced : .byte 15
    .quad label_a, label_b, spaced
