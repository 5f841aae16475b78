"""Directives, one behaviour a test. Bytes are compared with gas in the corpus; here is what gas cannot show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from asm import AssemblyError, Image, assemble_file, assemble_text


def build(source: str, **options: Mapping[str, int]) -> Image:
    return assemble_text(source, name="t.S", base=0x1000, **options)  # type: ignore[arg-type]


def data(source: str, **options: Mapping[str, int]) -> bytes:
    return b"".join(segment.data for segment in build(source, **options).segments)


def errors(source: str, **options: Mapping[str, int]) -> list[str]:
    with pytest.raises(AssemblyError) as caught:
        build(source, **options)
    return str(caught.value).splitlines()


def test_double_slash_is_a_comment_anywhere() -> None:
    assert data("nop // comment\n// nop\nnop") == b"\x90\x90"


def test_block_comment_spans_lines_and_keeps_line_numbers() -> None:
    image = build("/* a\nb */ nop\nnop")
    assert [statement.position.line for statement in image.statements] == [2, 3]


@pytest.mark.parametrize("line", ["#include <a.h>", "#define A 1", "  #ifdef X", "#endif"])
def test_preprocessor_lines_are_refused(line: str) -> None:
    assert "C preprocessor" in errors(line)[0]


def test_hash_with_blank_is_a_comment() -> None:
    assert data("# include this\n# define that\nnop") == b"\x90"


def test_constants_act_as_set_at_the_head() -> None:
    assert data(".byte N\n.if N == 5\n.byte 1\n.endif\npushq $N", constants={"N": 5}) == b"\x05\x01\x6a\x05"


def test_constants_can_be_set_anew() -> None:
    assert data("N = N + 1\n.byte N", constants={"N": 5}) == b"\x06"


def test_externals_are_addresses_known_only_at_the_end() -> None:
    image = build("call f\n.quad f + 1", externals={"f": 0x2000})
    assert image.segments[0].data == b"\xe8" + (0x2000 - 0x1005).to_bytes(4, "little") + (0x2001).to_bytes(8, "little")
    assert image.externals == {"f": 0x2000}


def test_a_definition_wins_over_an_external() -> None:
    image = build("f: .quad f", externals={"f": 0x2000})
    assert image.symbols["f"] == 0x1000
    assert image.externals == {}


def test_includes_look_in_virtual_files_then_beside_the_file_then_in_include_dirs(tmp_path: Path) -> None:
    library = tmp_path / "lib"
    library.mkdir()
    (tmp_path / "main.S").write_text('.include "a.inc"\n.include "b.inc"\n.include "c.inc"\n')
    (tmp_path / "a.inc").write_text(".byte 99\n")
    (tmp_path / "b.inc").write_text(".byte 2\n")
    (library / "b.inc").write_text(".byte 99\n")
    (library / "c.inc").write_text(".byte 3\n")
    image = assemble_file(tmp_path / "main.S", base=0, include_dirs=[library], virtual_files={"a.inc": ".byte 1\n"})
    assert image.segments[0].data == b"\1\2\3"
    assert [Path(statement.position.file).name for statement in image.statements] == ["a.inc", "b.inc", "c.inc"]


def test_include_of_itself_ends() -> None:
    with pytest.raises(AssemblyError, match="nested"):
        assemble_text('.include "me"', name="me", base=0, virtual_files={"me": '.include "me"'})


def test_missing_include() -> None:
    assert errors('nop\n.include "none.inc"') == ['t.S:2: .include "none.inc": no such file']


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(AssemblyError, match="cannot read"):
        assemble_file(tmp_path / "none.S", base=0)


def test_bss_reads_as_zero_and_takes_no_data() -> None:
    assert data(".bss\n.skip 4\n.quad 0") == bytes(12)
    for line in (".byte 1", ".quad label\nlabel:", "nop", ".skip 4, 1", ".p2align 4, 1", '.ascii "a"'):
        assert "holds no data" in errors(f".bss\n{line}")[0] or "initialised data" in errors(f".bss\n{line}")[0]


def test_error_and_err_and_warning() -> None:
    assert errors('.error "my message"\n.err\n.error') == [
        "t.S:1: my message",
        "t.S:2: .error in the source",
        "t.S:3: .error in the source",
    ]
    assert data('.warning "only that"\nnop') == b"\x90"


def test_code64_yes_code32_no() -> None:
    assert data(".code64\nnop") == b"\x90"
    assert "64-bit" in errors(".code32")[0]


def test_symbol_declarations_are_accepted() -> None:
    image = build(
        ".globl a, b\n.global c\n.local d\n.extern e\n.hidden a\n.type a, @function\n.type b,%object\n"
        "a: b: c: d: nop\n.size a, . - a\n"
    )
    assert image.globals == {"a", "b", "c"}
    assert list(image.symbols) == ["a", "b", "c", "d"]


def test_local_labels_are_not_symbols() -> None:
    assert build(".La: 1: b: nop; jmp .La; jmp 1b").symbols == {"b": 0x1000}


def test_alias_of_a_label_is_a_symbol_and_a_constant_is_not() -> None:
    assert build("a: nop\n.set b, a + 1\nc = 5\n").symbols == {"a": 0x1000, "b": 0x1001}


def test_pushsection_nests_and_previous_swaps() -> None:
    image = build(
        ".text\nnop\n.pushsection .data\n.byte 1\n.pushsection .text\nret\n.popsection\n.byte 2\n.popsection\nnop"
    )
    assert [(s.name, s.data) for s in image.segments] == [(".text", b"\x90\xc3\x90"), (".data", b"\1\2")]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (".bogus", "unknown directive .bogus"),
        (".glbl x", "did you mean .globl"),
        (".balign 3", "not a power of two"),
        (".p2align 40", "not in 0..16"),
        (".byte 256", "does not fit in 1 byte"),
        (".byte -256", "does not fit in 1 byte"),
        (".long 0x100000000", "does not fit in 4 bytes"),
        (".quad 0x10000000000000000", "does not fit in 64 bits"),
        (".byte 08", "bad number"),
        (".byte 1 2", "unexpected '2'"),
        (".byte 1 +", "ends too early"),
        (".byte (1", "ends too early"),
        (".byte ,", "missing expression"),
        (".byte 1/0", "division by zero"),
        (".ascii abc", "expected a string"),
        ('.ascii "a', "unterminated string"),
        (r'.ascii "\q"', "unknown escape"),
        (".skip -1", "negative size"),
        (".skip 1 << 40", "more than a section may have"),
        (".org 0x7fffffffffff", "larger than"),
        (".byte 1,2\n.org 1", "backwards"),
        (".fill 1, 9", "not in 0..8"),
        (".section", "needs a name"),
        ('.section .x, "q"', "flag 'q'"),
        ('.section .x, "a", @what', "unknown section type"),
        ('.section .text, "aw"', "already"),
        ('.section .note, ""\n.byte 1', 'no "a" flag'),
        (".text 1", "subsections"),
        (".popsection", "without .pushsection"),
        (".pushsection .data", "without .popsection"),
        (".previous", "without a section before"),
        (".type a", "bad .type"),
        (".globl 1a", "bad symbol name"),
        (".set a", "expected a name"),
        (".set a, a + 1", "in terms of itself"),
        ("a = b\nb = a", "in terms of itself"),
        ("a: nop\na: nop", "already defined at t.S:1"),
        ("a: nop\na = 1", "already defined at t.S:1"),
        (".equiv a, 1\n.equiv a, 2", "already defined"),
        (".if", "missing expression"),
        (".if label\n.endif\nlabel:", "known here"),
        (".if nothing\n.endif", "undefined symbol nothing"),
        (".if 1", ".if without .endif"),
        (".endif", ".endif without .if"),
        (".else", ".else without .if"),
        (".if 1\n.else\n.else\n.endif", "second .else"),
        (".rept x", "loop without .endr"),
        (".rept -1\n.endr", "negative count"),
        (".endr", ".endr without"),
        (".endm", ".endm without"),
        (".exitm", "outside a macro"),
        ("jmp 1b", "no label 1: before"),
        ("jmp 1f", "no label 1: after"),
        ("jmp lable\nlabel: nop", "undefined symbol lable; did you mean label?"),
        ("nop\0nop", "invalid character"),
        ("\ufeffnop", "invalid character"),
        ("nöp", "invalid character"),
        ("/* open", "unterminated /*"),
    ],
)
def test_faults_are_named(source: str, message: str) -> None:
    assert message in "\n".join(errors(source))
