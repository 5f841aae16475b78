# Macros and loops.
.macro NONE
    nop
.endm
.macro ONE a
    .ascii "<\a>"
.endm
.macro DEFAULTS a=1, b=2 c=3, d
    .ascii "<\a|\b|\c|\d>"
.endm
.macro REQUIRED reg:req, off=8
    movq %\reg, \off(%rsp)
.endm
.macro VARARG first, rest:vararg
    .ascii "<\first>"
    .byte \rest
.endm
.macro UNIQUE
    jmp .Lunique\@
    .byte \@
.Lunique\@:
.endm
.macro SEPARATED name
\name\()_begin:
    .byte 1
\name\()_end\():
.endm
.macro NESTED n
    .if \n
    .byte \n
    NESTED "(\n - 1)"
    .endif
.endm
.macro DEFINES name, value
    .macro \name x
    .byte \value, \x
    .endm
.endm
.macro EXITS x
    .byte 1
    .if \x
    .byte 2
    .exitm
    .endif
    .byte 3
.endm
.macro STATEMENTS text
    \text
.endm
.macro BOTH_UNIQUE
    .byte \@
    UNIQUE
    .byte \@
.endm
.text
    NONE
    none
    ONE
    ONE a
    ONE "a b"
    ONE 1 + 2
    ONE (1 + 2)
    ONE 8(%rax)
    ONE "a,b"
    ONE 'x'
    ONE a=b
    ONE %rax
    ONE $5
    DEFAULTS
    DEFAULTS x
    DEFAULTS x, y, z, w
    DEFAULTS x y z w
    DEFAULTS , y
    DEFAULTS x,, z
    DEFAULTS c=7
    DEFAULTS x, d = 9
    DEFAULTS b=4, a=5
    DEFAULTS 1 -2
    DEFAULTS 1 - 2
    DEFAULTS %rax %rbx
    DEFAULTS (a b) c
    REQUIRED rax
    REQUIRED rbx, 16
    REQUIRED off=24, reg=rcx
    VARARG a, 1
    VARARG a, 1, 2, 3+4
    UNIQUE
    UNIQUE
    BOTH_UNIQUE
    SEPARATED foo
    NESTED 3
    DEFINES INNER, 42
    INNER 7
    EXITS 0
    EXITS 1
    STATEMENTS "nop; nop"
    STATEMENTS "movq %rax, %rbx"
    STATEMENTS nop
.purgem ONE
.macro ONE a
    .byte \a
.endm
    ONE 9
.rept 3
    .byte 1
.endr
.rept 0
    .error "never"
.endr
.rept 2
    .rept 2
    nop
    .endr
    .byte 2
.endr
.irp x, 1, 2, 3
    .byte \x
.endr
.irp reg, rax, rbx, r12
    pushq %\reg
.endr
.irp x
    .ascii "<\x>"
.endr
.irp x, "a b", c
    .ascii "<\x>"
.endr
.irp x, 1, 2
  .irp y, 3, 4
    .byte \x * 16 + \y
  .endr
.endr
.irpc c, 0123
    .byte \c
.endr
.irpc c, abc
    .ascii "\c-"
.endr
.macro LOOPING n
    .rept \n
    .byte \n, \@
    .endr
    .irp z, \n, 5
    .byte \z + \n
    .endr
.endm
    LOOPING 2
.set count, 0
.rept 4
    .byte count
    .set count, count + 1
.endr
.macro PUSH_ALL regs:vararg
    .irp r, \regs
    pushq %\r
    .endr
.endm
    PUSH_ALL rax, rbx, rcx
.macro IDT vector, handler, has_error=0
    .if \has_error == 0
    pushq $-1
    .endif
    pushq $\vector
    jmp \handler
.endm
handler:
.set vector, 0
.rept 40
    IDT vector, handler, (vector >= 8 && vector <= 14)
    .p2align 3
    vector = vector + 1
.endr
