# Operators and their ranks, which are not those of C.
.data
a:  .quad 2 + 3 * 4, (2 + 3) * 4, 2 * 3 + 4, 10 - 3 - 2, 100 / 7 / 2, 100 % 7
    .quad 1 << 4 + 1, 1 + 1 << 4, 0xf0 >> 4, -1 >> 60, -1 << 60
    .quad 6 | 1 + 8, 6 & 3 + 1, 6 ^ 3 * 2, 5 ! 1, 1 | 2 & 3 ^ 4
    .quad -5 / 2, -5 % 2, 5 / -2, 5 % -2, -5 * -3
    .quad ~0, ~5, -~5, ~-5, !0, !5, !!5, - - 5, +5
    .quad 1 == 1, 1 == 2, 1 != 2, 1 <> 2, 1 < 2, 2 < 1, 1 <= 1, 2 >= 3, 3 > 2, -1 < 0
    .quad 1 + 1 == 2, 1 == 2 == 0, 3 & 1 == 1, (3 & 1) == 1
    .quad 1 && 0, 1 && 2, 0 || 0, 0 || 3, 1 == 1 && 2 == 2, 0 && 1 || 1, 1 || 0 && 0
    .quad 'a', 'a' + 1, '\n', ' ', '\\'
    .quad 0x7fffffffffffffff + 1, 0xffffffffffffffff + 1, 0xffffffff81000000 - 0xffffffff80000000
    .quad 0x8000000000000000 / 2, 0x8000000000000000 >> 1
b:  .quad b - a, (b - a) * 2, (b - a) / 8, b - a + 1, a - b, b - (a + 8), -(a - b)
    .quad b > a, a > b, b == b, a != b
    .quad c - a, (c - a) / 8, c - b
x = 5
    .quad x, x + 1, -x
x = x * 2
    .quad x
.equ y, x + 1
    .quad y, y == 11
.set z, c - b
    .quad z
.set place, . - a
    .quad place
    .quad 010, 0b101, 0xAbC, 0X10
1:  .quad 1f - 1b
1:  .quad 1b - 1b
1:
c:  .byte c - b, -1, ~0
