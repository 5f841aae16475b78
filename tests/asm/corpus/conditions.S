# Conditional assembly.
.set YES, 1
.set NO, 0
.macro CHECK condition
    .if \condition
    .byte 1
    .else
    .byte 0
    .endif
.endm
.data
before:
    .byte 1, 2, 3
after:
    CHECK "YES"
    CHECK "NO"
    CHECK "YES && !NO"
    CHECK "YES + NO == 1"
    CHECK "after - before == 3"
    CHECK ". - before > 100"
    CHECK "-1 > 0"
    CHECK "YES == 1 || NO == 1"
.if NO
    .byte 10
    unknown_instruction %foo
    .error "not reached"
    .if YES
    .byte 11
    .else
    .byte 12
    .endif
.elseif YES
    .byte 13
.elseif YES
    .byte 14
.else
    .byte 15
.endif
.if NO
.elseif NO
.else
    .byte 16
.endif
.ifdef YES
    .byte 20
.endif
.ifdef NEVER
    .byte 21
.else
    .byte 22
.endif
.ifndef NEVER
    .byte 23
.endif
.ifdef before
    .byte 24
.endif
.ifdef later
    .byte 25
.endif
later:
.macro BLANK a
    .ifb \a
    .byte 30
    .else
    .byte 31
    .endif
    .ifnb \a
    .byte 32
    .endif
.endm
    BLANK
    BLANK x
.macro SAME a, b
    .ifc \a, \b
    .byte 40
    .else
    .byte 41
    .endif
    .ifnc \a,\b
    .byte 42
    .endif
.endm
    SAME rax, rax
    SAME rax, rbx
    SAME "a b", "a b"
.ifc a + b, a+b
    .byte 43
.endif
.ifc "a","a"
    .byte 44
.endif
.ifeq NO
    .byte 50
.endif
.ifne YES
    .byte 51
.endif
.ifgt YES
    .byte 52
.endif
.ifge NO
    .byte 53
.endif
.iflt YES
    .byte 54
.endif
.ifle NO
    .byte 55
.endif
