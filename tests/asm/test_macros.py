"""Macros and loops: what gas cannot show, above all positions and errors."""

from __future__ import annotations

import pytest

from asm import AssemblyError, Position, assemble_text, preprocess


def errors(source: str) -> list[str]:
    with pytest.raises(AssemblyError) as caught:
        assemble_text(source, name="t.S", base=0)
    return str(caught.value).splitlines()


def test_position_is_the_line_of_the_body_and_sites_are_the_calls_outermost_first() -> None:
    image = assemble_text(".macro IN\nnop\n.endm\n.macro OUT\nIN\n.endm\nOUT\nnop", name="t", base=0)
    inner, plain = image.statements
    assert (inner.position, inner.macro_sites) == (Position("t", 2), (Position("t", 7), Position("t", 5)))
    assert (plain.position, plain.macro_sites) == (Position("t", 8), ())
    assert image.addresses_of("t", 2) == image.addresses_of("t", 5) == image.addresses_of("t", 7) == [0]


def test_text_is_the_expanded_source() -> None:
    image = assemble_text(".macro SAVE r\n  movq   %\\r, (%rsp) # save\n.endm\nSAVE rax", name="t", base=0)
    assert image.statements[0].text == "movq %rax, (%rsp)"


def test_loops_have_no_site() -> None:
    image = assemble_text(".rept 2\nnop\n.endr", name="t", base=0)
    assert [(s.position.line, s.macro_sites) for s in image.statements] == [(2, ()), (2, ())]


def test_error_names_the_line_and_every_call() -> None:
    source = ".macro IN\nfrob\n.endm\n.macro OUT\nIN\n.endm\nOUT"
    assert errors(source)[0].endswith("  in macro used at t.S:5  in macro used at t.S:7")
    assert errors(source)[0].startswith("t.S:2: unknown instruction frob")


def test_all_errors_are_reported() -> None:
    source = "frob\n.macro M a:req\nfrob \\a\n.endm\nM\nM 1\n.bogus\nmovq %rax\njmp nowhere\n.byte 999"
    lines = [line.split(":")[1] for line in errors(source)]
    assert lines == ["1", "5", "3", "7", "8", "9", "10"]  # line 3 is in the macro that line 6 calls


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (".macro M a:req\n.endm\nM", "needs the argument 'a'"),
        (".macro M a\n.endm\nM 1, 2", "too many arguments for macro M, which takes 1"),
        (".macro M\n.endm\nM 1", "takes 0"),
        (".macro M alpha\n.endm\nM alpa=1", "no parameter 'alpa'; did you mean alpha?"),
        (".macro M a, b\n.endm\nM a=1, 2", "positional argument after keyword"),
        (".macro M a:what\n.endm", "unknown qualifier 'what'"),
        (".macro M a, a\n.endm", "two parameters a"),
        (".macro M a:vararg, b\n.endm", "follows the vararg"),
        (".macro M(a)\n.endm", "bad parameter list"),
        (".macro M\nnop", ".macro without .endm"),
        (".macro\n.endm", "missing macro name"),
        (".macro M\n.endm\n.macro M\n.endm", "already defined"),
        (".macro .byte\n.endm", "name of the directive"),
        (".purgem M", "no macro M"),
        (".macro M\nM\n.endm\nM", "nested more than"),
        (".macro M a\nM \\a\\a\n.endm\nM aaaaaaaaaaaaaaaa", "more than 65536 characters"),
        (".macro M\n.if 1\n.endm\nM", ".if without .endif"),
        (".macro M\n.endif\n.endm\n.if 1\nM\n.endif", ".endif without .if"),
        (".irp\n.endr", "needs a name"),
        (".macro M a\n\\b\n.endm\nM 1", "not a statement"),
    ],
)
def test_faults_are_named(source: str, message: str) -> None:
    assert message in "\n".join(errors(source))


def test_endless_loops_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocess, "MAX_STATEMENTS", 10_000)
    assert "more than 10000 statements" in errors(".rept 1 << 40\n.set x, 1\n.endr")[-1]


def test_exponential_recursion_ends() -> None:
    with pytest.raises(AssemblyError, match=r"nested more than|too many errors"):
        assemble_text(".macro M\nM\nM\n.endm\nM", name="t", base=0)


def test_a_thousand_errors_stop_early() -> None:
    assert "too many errors" in errors(".rept 5000\nfrob\n.endr\n.rept 5000\n.bogus\n.endr")[-1]
