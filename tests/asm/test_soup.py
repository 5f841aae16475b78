"""Whatever comes in, an Image or an AssemblyError comes out, soon."""

from __future__ import annotations

import gc
import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asm import AssemblyError, Image, assemble_text
from asm.unit import Unit

WORDS = [
    "nop", "movq", "mov", "jmp", "je", "call", "lock", "rep", "addl", "pushq", "swapgs", "movabs", "loop", "lsl",
    "nopl", "rdpid", "movb", ".byte", ".quad", ".long", ".ascii", ".skip", ".fill", ".org", ".p2align", ".balign",
    ".set", ".if", ".ifc", ".ifdef", ".else", ".elseif", ".endif", ".macro", ".endm", ".exitm", ".rept", ".irp",
    ".irpc", ".endr", ".purgem", ".section", ".text", ".data", ".bss", ".pushsection", ".popsection", ".previous",
    ".globl", ".type", ".size", ".include", ".error", "M", "a:", "b:", "1:", "1b", "1f", "a", "b", "x", "=", ".",
    ",", ",", "(", ")", "+", "-", "*", "/", "<<", "==", "&&", "!", "~", "$", "%rax", "%ah", "%sil", "%eax", "%gs:",
    "%xmm0", "%cr3", "%rip", "(%rax)", "8(%rsp)", "(%rax,%rbx,4)", "a(%rip)", "$1", "$a", "$-1", "$0x100000000",
    "0", "1", "5", "0x10", "-1", '"s"', '"', "'", "'c'", "\\", "\\@", "\\x", "\\()", "{", "}", "@function", '"ax"',
    ":req", ":vararg", "/*", "*/", "#", "//", ";", ";", "\n", "\n", "\n", "\n", "\t", "\0", "ä",
]  # fmt: skip


def check(text: str) -> None:
    began = time.process_time()
    result: Image | AssemblyError
    try:
        result = assemble_text(text, name="soup", base=0xFFFF_FFFF_8100_0000)
    except AssemblyError as error:
        result = error
    if isinstance(result, AssemblyError):
        assert result.diagnostics
        assert all(diagnostic.message for diagnostic in result.diagnostics)
    else:
        result.instructions()
        Image.from_elf(result.to_elf())
    assert time.process_time() - began < 5


SLOW = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SLOW
@given(st.lists(st.sampled_from(WORDS), max_size=60))
def test_word_soup(words: list[str]) -> None:
    check(" ".join(words))


@SLOW
@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=5), max_size=20))
def test_statement_soup(lines: list[list[str]]) -> None:
    check("\n".join(" ".join(line) for line in lines))


@SLOW
@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    check(data.decode("latin-1"))


@SLOW
@given(st.text(alphabet=st.characters(min_codepoint=9, max_codepoint=126), max_size=120))
def test_random_text(text: str) -> None:
    check(text)


@SLOW
@given(
    st.sampled_from(["movq", "mov", "addl", "jmp", "call", "lock incl", "lea", "push", "testb", "imul", "shl", "lsl"]),
    st.lists(st.sampled_from([word for word in WORDS if word[0] in "$%(-0158.ab*" or "(" in word]), max_size=4),
)
def test_operand_soup(mnemonic: str, operands: list[str]) -> None:
    check(f"a: {mnemonic} {','.join(operands)}")


def test_errors_keep_nothing_alive() -> None:
    def units() -> int:
        gc.collect()
        return sum(isinstance(thing, Unit) for thing in gc.get_objects())

    before = units()
    for _ in range(3):
        check("frobnicate %rax\nmovq %rax\n.bogus\njmp nowhere")
    assert units() <= before
