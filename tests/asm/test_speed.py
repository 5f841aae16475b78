"""Assembling must stay out of the way: a kernel image in tens of milliseconds."""

from __future__ import annotations

import sys
from types import FrameType

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


def calls(source: str) -> tuple[int, int]:
    """(calls of functions that assembling takes, statements): a measure that no other process disturbs."""
    number = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal number
        number += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        image = assemble_text(source, name="t", base=0)
    finally:
        sys.setprofile(None)
    return number, len(image.statements)


def test_the_work_grows_with_the_statements_and_is_little_for_each() -> None:
    definition, body = LINES.split(".endm\n")
    head = definition + ".endm\nlabel:\n"
    calls(head + body)  # fills caches
    few, few_statements = calls(head + body * 30)
    many, statements = calls(head + body * 300)
    assert (few_statements, statements) == (300, 3000)
    assert many < 10.5 * few
    assert many < 200 * statements  # 134; some 50 ms on an idle machine
