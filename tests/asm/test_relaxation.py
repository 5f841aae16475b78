"""Random programs of branches, alignments and symbolic data, compared with GNU as and ld."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from gas_reference import differences, link, needs_gas

from asm import AssemblyError, assemble_text

CODE_SECTIONS = (".text", '.section .x,"ax"', '.section .init.text,"ax",@progbits')


def program(seed: int) -> str:
    choose = random.Random(seed)
    count = choose.randrange(20, 120)
    labels = [f"l{number}" for number in range(count // 4 + 1)]
    waiting = choose.sample(labels, len(labels))
    sections = CODE_SECTIONS[: choose.choice([1, 1, 2, 3])]
    lines = [".globl l0, l1", ".text", "1: 2: nop"]
    for _ in range(count):
        if waiting and choose.random() < 0.3:
            lines.append(f"{waiting.pop()}:")
        one, two = choose.choice(labels), choose.choice(labels)
        kinds = [
            f"{choose.choice(['jmp', 'je', 'jne', 'jg'])} {one}",
            f"{choose.choice(['jmp', 'je', 'jne', 'jg'])} {two}",
            f"jmp {one}",
            f"call {one}",
            f".p2align {choose.randrange(8)}{choose.choice(['', '', ',,' + str(choose.randrange(1, 20)), ',0xcc'])}",
            f".skip {choose.randrange(1, 130)}",
            f".fill {choose.randrange(1, 40)},{choose.randrange(1, 9)},{choose.randrange(1 << 32)}",
            f".quad {one}, {one}+8, {two}-.",
            f".long {one}-.",
            f"leaq {one}+{choose.randrange(-300, 300)}(%rip),%rax",
            f"movq ${one},%rax; pushq ${two}; movabs ${two}-4,%rcx",
            f"movq %gs:{one}+8(%rip),%rax; movl $5,{one}(%rip); testb $3,%gs:{one}; cmpl $1000,{two}+4(%rip)",
            "1: jmp 1b; jne 1f; nop; 1: nop",
            choose.choice(["jmp .+2", "jmp .", "jne .+130", "jmp .-130"]),
            '.pushsection .ex,"a"; .balign 4; .long 1b-., 2b-.; .popsection',
            choose.choice(["nop", "movq %rax,%rbx", "addq $1000,%rsp", "swapgs", ".byte 1,2,3"]),
        ]
        if len(sections) > 1:
            kinds.append(choose.choice(sections))
        else:
            kinds += [f".long {one}-{two}, .-{two}", f"pushq $({one}-{two})", f"movl $({one}-{two}),%eax"]
        lines.append(choose.choice(kinds))
    lines.append(".text")
    lines += [f"{label}: nop" for label in waiting]
    return "\n".join([*lines, "1: 2: nop", *(f"{section}; nop" for section in sections)]) + "\n"


@needs_gas
@pytest.mark.parametrize("seed", range(60))
def test_same_layout_as_gas(seed: int, tmp_path: Path) -> None:
    source = program(seed)
    image = assemble_text(source, name="random", base=0xFFFF_FFFF_8100_0000)
    assert differences(image, link(source, image, tmp_path)) == []


def test_sections_start_a_page_where_permissions_change() -> None:
    source = '.text; nop; .section .x,"ax"; .balign 16; nop; .data; .byte 1; .section .y,"aw"; .byte 2; .text; nop'
    image = assemble_text(source, name="t", base=0x10000)
    places = {segment.name: (segment.address, segment.flags) for segment in image.segments}
    assert places == {
        ".text": (0x10000, "rx"),
        ".x": (0x10010, "rx"),
        ".data": (0x11000, "rw"),
        ".y": (0x11001, "rw"),
    }


def test_circular_sizes_are_an_error_not_a_hang() -> None:
    source = "a: .skip b - a + 1\nb: nop\n"
    with pytest.raises(AssemblyError, match=r"section \.text|do not settle"):
        assemble_text(source, name="t", base=0)
