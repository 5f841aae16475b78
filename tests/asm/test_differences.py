"""Where we differ from gas on purpose. Each entry is checked on both sides, so that the list stays true."""

from __future__ import annotations

from pathlib import Path

import pytest
from gas_reference import Refused, link, needs_gas, run

from asm import AssemblyError, Image, assemble_text

# (what, source, why)
WE_REFUSE = [
    ("cut immediate", "cmpb $0xffffffff, %al", "the number has bits that the instruction loses"),
    ("cut data", ".data; .byte 0x1ff", "gas warns and stores 0xff"),
    ("64-bit displacement", "mov 0x123456789abc, %rax", "movabs says that the address is meant to be absolute"),
    ("string escape", r'.data; .ascii "\q"', "gas drops the backslash"),
    ("division by zero", ".data; .byte 1 / 0", "gas warns and divides by one"),
    ("long shift", ".data; .byte 1 << 64", "gas warns and gives zero"),
    ("negative size", ".data; .skip -5", "gas warns and ignores it"),
    ("default size", "movsd; stos", "gas guesses movsl and stosl"),
    ("16-bit branch", "jmp *%ax", "no kernel has one"),
    ("AVX-512", "vmovups %zmm0, (%rax)", "nor this"),
    ("unusual extension", "movsxd %eax, %ebx", "nor this"),
    ("guessed extension", "movzx (%rax), %ebx", "movzbl or movzwl says which"),
    ("preprocessor", "nop\n#define X 1", "a comment for gas, surely not for the author"),
    (
        "long sum of addresses",
        ".data; a: .quad " + "+".join("(b-a)" for _ in range(200)) + "; jmp b; b:",
        "depth limit",
    ),
    ("undefined", "call nowhere", "left to the linker by gas, and there is none here"),
    ("subsection", ".text 1; nop", "nobody here needs them"),
    ("unallocated section", '.section .comment; .ascii "x"', "it would not be in the image"),
    ("16-bit code", ".code32; nop", "the image is 64-bit"),
    ("large alignment", ".p2align 20", "more than 64 KiB"),
]
WE_ACCEPT = [
    ("double slash", "nop // comment", b"\x90", "the C preprocessor would have removed it"),
    ("across sections", '.data; .quad b - a; .text; a: nop; b: .section .x, "ax"; nop', None, "addresses are known"),
    ("icebp", "icebp", b"\xf1", "its usual name; gas knows only int1"),
    ("default suffix", "iret", b"\xcf", "gas warns"),
]


@needs_gas
@pytest.mark.parametrize(("source", "why"), [entry[1:] for entry in WE_REFUSE], ids=[entry[0] for entry in WE_REFUSE])
def test_gas_takes_it_and_we_do_not(source: str, why: str, tmp_path: Path) -> None:
    assert why
    (tmp_path / "a.S").write_text(source + "\n")
    run("as", "--64", "a.S", "-o", "a.o", cwd=tmp_path)
    with pytest.raises(AssemblyError):
        assemble_text(source, name="a.S", base=0)


@needs_gas
@pytest.mark.parametrize(
    ("source", "code", "why"), [entry[1:] for entry in WE_ACCEPT], ids=[entry[0] for entry in WE_ACCEPT]
)
def test_we_take_it(source: str, code: bytes | None, why: str, tmp_path: Path) -> None:
    assert why
    image = assemble_text(source, name="a.S", base=0)
    if code is not None:
        assert image.segments[0].data == code


@needs_gas
def test_a_difference_across_sections_is_an_error_for_gas(tmp_path: Path) -> None:
    source = '.data; .quad b - a; .text; a: jmp b; .section .x, "ax"; b: nop\n'
    image = assemble_text(source, name="a.S", base=0x1000)
    assert image.read(image.segments[0].address, 8) == (image.symbol("b") - image.symbol("a")).to_bytes(8, "little")
    with pytest.raises(Refused):
        link(source, Image(segments=image.segments, symbols={}), tmp_path)
