"""Image: symbols, lines, instructions, memory."""

from __future__ import annotations

import pickle
from itertools import pairwise

import pytest

from asm import Image, OutsideImage, Statement, UnknownSymbol, assemble_text

BASE = 0xFFFF_FFFF_8100_0000
SOURCE = """\
.globl _start, other
first: also_first:
    swapgs
_start:
    movq %gs:0x10, %rsp
    jmp skip
    .quad first, 0x9090909090909090
skip:
    .byte 0x0f, 0x0b
    .byte 0x0f
    .byte 0x01, 0xca
    rep; movsq
    lock
    incl (%rax)
    rdpid %rax
    .p2align 4
other:
    ret
.data
datum:
    .quad 1
"""


@pytest.fixture(scope="module")
def image() -> Image:
    return assemble_text(SOURCE, name="/some/where/code.S", base=BASE)


def test_symbols_in_order_of_definition(image: Image) -> None:
    assert list(image.symbols) == ["first", "also_first", "_start", "skip", "other", "datum"]
    assert image.symbol("_start") == BASE + 3 == image.entry
    assert image.globals == {"_start", "other"}


def test_unknown_symbol_has_near_names(image: Image) -> None:
    with pytest.raises(UnknownSymbol) as caught:
        image.symbol("_strat")
    assert "_start" in caught.value.near


@pytest.mark.parametrize(
    ("offset", "name"),
    [(0, "first"), (2, "first+0x2"), (3, "_start"), (0xC, "_start+0x9"), (0x1000, "datum"), (0x1001, "datum+0x1")],
)
def test_symbolize(image: Image, offset: int, name: str) -> None:
    assert image.symbolize(BASE + offset) == name


def test_symbolize_outside_is_hexadecimal(image: Image) -> None:
    assert image.symbolize(0x1234) == "0x1234"
    assert image.symbolize(BASE + 0x800) == hex(BASE + 0x800)
    assert image.locate(BASE - 1) is None


def test_symbols_do_not_reach_into_the_next_segment() -> None:
    image = assemble_text("code: nop\n.data\n.quad 0\nlate: .quad 1", name="t", base=0)
    assert image.symbolize(0x1000) == "0x1000"
    assert image.symbolize(0x1008) == "late"


def test_lines(image: Image) -> None:
    statement = image.line_at(BASE + 5)
    assert statement is not None
    assert (statement.position.line, statement.address, statement.text) == (5, BASE + 3, "movq %gs:0x10, %rsp")
    assert image.line_at(BASE - 1) is None
    assert image.line_at(BASE + 0x900) is None


def test_addresses_of_full_name_and_base_name(image: Image) -> None:
    assert image.addresses_of("code.S", 5) == image.addresses_of("/some/where/code.S", 5) == [BASE + 3]
    assert image.addresses_of("code.S", 1) == image.addresses_of("other.S", 5) == []


def test_instructions_follow_the_source_and_leave_data_out(image: Image) -> None:
    names = [instruction.mnemonic for instruction in image.instructions()]
    expected = ["swapgs", "movq", "jmp", "ud2", "clac", "rep movsq", "lock incl", "rdpid %rax", "nop", "retq"]
    assert [name.split(" ")[0] for name in names[:3]] == expected[:3]
    assert names[3:5] == ["ud2", "clac"]
    assert names[5].startswith("rep movsq")
    assert names[6].startswith("lock incl")
    assert names[7].startswith("rdpid")
    assert names[-1].startswith("ret")
    assert all(
        instruction.data == image.read(instruction.address, instruction.size) for instruction in image.instructions()
    )


def test_instruction_at_a_boundary_only(image: Image) -> None:
    found = image.instruction_at(BASE + 3)
    assert found is not None
    assert (found.size, found.mnemonic, found.operands) == (9, "movq", "%gs:0x10, %rsp")
    assert image.instruction_at(BASE + 4) is None
    assert image.instruction_at(image.symbol("datum")) is None


def test_read(image: Image) -> None:
    assert image.read(BASE, 3) == b"\x0f\x01\xf8"
    assert image.read(image.symbol("datum"), 8) == (1).to_bytes(8, "little")
    with pytest.raises(OutsideImage):
        image.read(image.symbol("datum") + 4, 8)
    with pytest.raises(OutsideImage):
        image.read(BASE - 1, 2)


def test_read_spans_adjacent_segments() -> None:
    image = assemble_text('.byte 1\n.section .x,"ax"\n.byte 2', name="t", base=0)
    assert image.read(0, 2) == b"\1\2"


def test_hash_is_identity_and_pickle_keeps_all(image: Image) -> None:
    again = pickle.loads(pickle.dumps(image))
    assert again != image
    assert hash(image) != hash(again)
    assert (again.segments, again.symbols, again.statements, again.entry, again.globals) == (
        image.segments,
        image.symbols,
        image.statements,
        image.entry,
        image.globals,
    )


def test_entry_can_be_chosen() -> None:
    assert assemble_text("nop\na: nop", name="t", base=0, entry="a").entry == 1
    assert assemble_text("nop\na: nop", name="t", base=0).entry == 0
    with pytest.raises(Exception, match="the entry: undefined symbol c"):
        assemble_text("nop\na: nop", name="t", base=0, entry="c")


def test_statements_cover_the_segments_without_overlap(image: Image) -> None:
    text = [s for s in image.statements if s.address < BASE + 0x1000]
    for before, after in pairwise(text):
        assert before.address + before.size == after.address
    assert isinstance(text[0], Statement)


def test_empty_source() -> None:
    image = assemble_text("", name="t", base=0x1000)
    assert image.segments == ()
    assert image.instructions() == ()
    assert Image.from_elf(image.to_elf()).segments == ()
