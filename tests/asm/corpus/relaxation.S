# Jumps at the edges of their range, around alignments, and ones that push each other out of range.
.text
    jmp 1f ; .skip 127 ; 1:
    jmp 1f ; .skip 128 ; 1:
    je 1f ; .skip 127 ; 1:
    je 1f ; .skip 128 ; 1:
1:  .skip 126 ; jmp 1b
1:  .skip 127 ; jmp 1b
1:  .skip 126 ; jne 1b
1:  .skip 127 ; jne 1b
chain0: jmp chain1 ; .skip 120 ; jmp chain2
chain1: jmp chain3 ; .skip 118 ; jmp chain0
chain2: jne chain1 ; .skip 123 ; jne chain3
chain3: jmp chain2
.irp distance, 100, 110, 115, 118, 120, 122, 124, 126, 127, 128, 130
    jmp 1f
    jne 2f
    .skip \distance
    .p2align 4
1:  jmp 3f
    .skip 7
    .p2align 3,,4
2:  .skip 101
3:  jne 1b
.endr
.rept 60
    jne 9f
.endr
    .skip 8
9:  nop
    jmp .
    jmp .+2
    jmp .-120
    jne .+100
    jmp chain0 + 5
    .skip later - earlier, 0x90
earlier:
    jmp later
    .skip 100
later:
    .org . + (later - earlier) / 4
    jmp later
