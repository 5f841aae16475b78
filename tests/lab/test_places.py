from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asm import Image, assemble_text
from emu.errors import ScenarioError
from emu.lab.places import Places

KERNEL = assemble_text(
    """
.macro TWICE
    pushq %rax
    popq %rax
.endm
.globl entry
entry:
    swapgs
    movq %rsp, %rax
    TWICE
entry_safe:
    TWICE
    call other
    iretq
other:
    ret
""",
    name="dir/entry.S",
    base=0xFFFF_FFFF_8100_0000,
)
USER = assemble_text("_start: nop\nloop: jmp loop\n", name="s.toml", base=0x400000, first_line=4)
START = 0xFFFF_FFFF_8100_0000


def no_program() -> Image:
    raise AssertionError("the program was asked for")


KERNEL_ONLY = Places(KERNEL, no_program)
BOTH = Places(KERNEL, lambda: USER)


def offsets(text: str) -> list[int]:
    return sorted(address - START for address in KERNEL_ONLY.boundary(text, "here").addresses)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("entry", [0]),
        ("entry+0x3", [3]),
        ("entry+3", [3]),
        ("entry:popq", [7]),
        ("entry:call", [10]),
        ("entry:iret", [15]),
        (f"{START:#x}", [0]),
        ("entry.S:9", [3]),
        ("dir/entry.S:9", [3]),
    ],
)
def test_a_boundary_is_found(text: str, expected: list[int]) -> None:
    assert offsets(text) == expected


def test_a_line_with_a_macro_call_is_its_first_instruction() -> None:
    assert offsets("entry.S:10") == [6]


def test_a_line_of_a_macro_body_is_every_use() -> None:
    assert offsets("entry.S:3") == [6, 8]


def test_labels_that_begin_with_the_name_are_part_of_the_routine() -> None:
    assert KERNEL_ONLY.boundary("entry:call", "here").name == "entry_safe+0x2"


def test_a_range_gives_every_boundary_with_both_ends() -> None:
    found = KERNEL_ONLY.boundaries("entry..entry:call", "here")
    assert [boundary.name for boundary in found] == [
        "entry", "entry+0x3", "entry+0x6", "entry+0x7", "entry_safe", "entry_safe+0x1", "entry_safe+0x2",
    ]  # fmt: skip


def test_names_of_the_program_have_a_prefix() -> None:
    assert BOTH.boundary("user:loop", "here").addresses == {0x400001}
    assert BOTH.boundary("user:s.toml:5", "here").addresses == {0x400001}
    found = BOTH.boundaries("user:_start..user:loop", "here")
    assert [boundary.name for boundary in found] == ["user:_start", "user:loop"]


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("entri", r"^here: no symbol 'entri' in the image; near: entry"),
        ("entri:call", r"^here: no symbol 'entri'"),
        ("entry+0x4", r"^here: entry\+0x4 is not the start of an instruction; near: \+0x3, \+0x6"),
        ("entry+0x9999", r"^here: entry\+0x9999 is not the start of an instruction$"),
        ("entry:sysretq", r"^here: no 'sysretq' in entry; it has "),
        ("other:iretq", r"^here: no 'iretq' in other; it has retq?$"),
        ("entry.S:100", r"^here: no instruction at entry.S:100; near: "),
        ("other.S:1", r"^here: no file 'other.S' in the image; it is made of entry.S$"),
        ("", r"^here: '' is no place"),
        ("entry+", r"^here: 'entry\+' is no place"),
        ("user:lop", r"^here: no symbol 'lop' in the image; near: loop$"),
    ],
)
def test_a_wrong_boundary_is_explained(text: str, pattern: str) -> None:
    with pytest.raises(ScenarioError, match=pattern):
        BOTH.boundary(text, "here")


@pytest.mark.parametrize("text", ["entry", "..", "entry..", "other..entry", "entry..user:loop", "entry..nothing"])
def test_a_wrong_range_is_explained(text: str) -> None:
    with pytest.raises(ScenarioError, match=r"^here: "):
        BOTH.boundaries(text, "here")


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("nothing", "no symbol 'nothing'"),
        ("percpu:top", r"the per-CPU area has no 'top'; it has tss, "),
        ("task:", "the task has no ''"),
        ("regs:rip", r"pt_regs has no 'rip'; it has r15, "),
        ("tss:ist8", r"the TSS has no 'ist8'; it has sp0, "),
        ("idt:256", "the IDT has no gate '256'"),
        ("what ever", r"'what ever' is no address; give a number, symbol, symbol\+0x8, user:..., percpu:..."),
    ],
)
def test_a_wrong_address_is_explained(text: str, pattern: str) -> None:
    with pytest.raises(ScenarioError, match=re.escape("here: ") + ".*" + pattern):
        KERNEL_ONLY.address(text, "here")


@given(st.text(max_size=30) | st.text(alphabet="entryuser:+.0x19 ", max_size=20))
def test_any_text_is_a_place_or_a_clear_message(text: str) -> None:
    for find in (BOTH.boundary, BOTH.boundaries, BOTH.address):
        complaint = ""
        try:
            find(text, "here")
        except ScenarioError as error:
            complaint = str(error)
        assert not complaint or complaint.startswith("here: ")
