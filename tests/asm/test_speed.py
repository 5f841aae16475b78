"""Assembling must stay out of the way: a kernel image in tens of milliseconds."""

from __future__ import annotations

import time

from asm import assemble_text

LINES = """
.macro SAVE reg, off
    movq %\\reg, \\off(%rsp)
.endm
1:  movq %gs:0x10, %rsp
    testb $3, 8(%rsp)
    jnz 1b
    SAVE rax, 16
    SAVE rbx, 24
    swapgs
    addq $8, %rsp
    leaq label(%rip), %rdi
    .p2align 4
    .quad label, . - label
"""


def test_three_thousand_statements() -> None:
    definition, body = LINES.split(".endm\n")
    source = definition + ".endm\nlabel:\n" + body * 300
    times = []
    for _ in range(3):
        began = time.perf_counter()
        image = assemble_text(source, name="t", base=0)
        times.append(time.perf_counter() - began)
    assert 2900 <= len(image.statements) <= 3000
    assert min(times) < 0.5  # some 50 ms on an idle machine
