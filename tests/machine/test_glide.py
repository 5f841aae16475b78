"""Gliding: several instructions in one run of the engine, with the same states between them as single steps have."""

import pytest
from bare import CODE, KERNEL, bare, xapic
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.arch import PAGE_SIZE, Rflags
from emu.lab.sweep.state import _REGISTERS
from emu.machine.glide import glide
from emu.machine.machine import Machine

DATA = KERNEL + 0x18_0000
PLAIN = f"""
    movl    $3, %ecx
    movq    ${DATA}, %rdi
    cmpl    $4, %ecx
    sbbq    %rdx, %rdx
    pushfq
    popq    %rax
    movq    %rax, (%rdi)
    std
    addb    $0x7F, %cl
    cld
    negl    (%rdi)
    jo      1f
    nop
1:  call    2f
    hlt
2:  setc    8(%rdi)
    ret
"""


def state(machine: Machine) -> tuple[object, ...]:
    core = machine.cores[0]
    return (
        core.clock,
        core.cpu.ip,
        core.cpu.flags,
        _REGISTERS.unpack_from(core.cpu.save()),
        machine.memory.snapshot().data,
    )


def stepped(text: str, boundaries: int) -> list[tuple[object, ...]]:
    it = bare(text)
    found = []
    for _ in range(boundaries):
        it.run(1)
        found.append(state(it.machine))
    return found


def glided(text: str, boundaries: int) -> tuple[bool, list[tuple[object, ...]]]:
    it = bare(text)
    it.run(1)  # hooks are new before the first run
    found = [state(it.machine)]
    there = glide(it.core, it.core.clock + boundaries - 1, lambda: found.append(state(it.machine)))
    if there:
        assert state(it.machine) == found[-1]
    return there, found


def test_each_state_is_that_of_a_single_step():
    there, found = glided(PLAIN, 16)
    assert there
    assert found == stepped(PLAIN, 16)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from([line for line in PLAIN.split("\n") if line and ":" not in line and "hlt" not in line
                                 and "jo" not in line and "ret" not in line]), min_size=1, max_size=12))  # fmt: skip
def test_of_any_instructions_each_state_is_that_of_a_single_step(lines):
    text = f"movq ${DATA}, %rdi\n pushq %rdi\n" + "\n".join(lines) + "\n hlt"
    assert glided(text, len(lines) + 2) == (True, stepped(text, len(lines) + 2))


@pytest.mark.parametrize(
    ("instruction", "plain"),
    [
        ("hlt", 1),
        ("ud2", 1),
        ("movq 0, %rax", 1),  # a page fault
        ("movl $1, %eax\n rorq %rax\n movq (%rax), %rax", 3),  # a general-protection fault
        ("inb $0x60, %al", 1),
        ("cpuid", 1),
        ("rep stosb", 1),
        ("3: loop 3b", 1),
        ("movb $0x90, 4f(%rip)\n nop\n 4: nop", 1),  # writes to its own page
    ],
)
def test_what_is_not_plain_is_known_too_late_and_what_came_before_is_right(instruction, plain):
    text = f"movl $5, %ecx\n movq ${DATA}, %rdi\n {instruction}\n hlt"
    there, found = glided(text, 9)
    assert not there
    assert len(found) == plain + 1
    assert found == stepped(text, plain + 1)


@pytest.mark.parametrize("instruction", ["rep stosb", "3: loop 3b", "movb $0x90, 4f(%rip)\n nop\n 4: nop"])
def test_what_is_not_plain_is_so_as_the_last_instruction_too(instruction):
    it = bare(f"movl $5, %ecx\n movq ${DATA}, %rdi\n {instruction}\n nop\n hlt")
    it.run(2)
    looks = []
    assert not glide(it.core, it.core.clock + 1, lambda: looks.append(it.core.clock))
    assert not looks


@pytest.mark.parametrize("special", ["swapgs", "iretq", "wrmsr", "lgdt (%rdi)"])
def test_it_ends_before_an_instruction_that_has_semantics(special):
    it = bare(f"nop\n nop\n nop\n {special}\n hlt")
    it.machine.observe_instructions(it.code.instructions())
    it.run(1)
    looks = []
    assert glide(it.core, 9, lambda: looks.append(it.core.clock))
    assert looks == [2, 3]
    assert it.core.cpu.ip == CODE + 3
    assert glide(it.core, 9, lambda: looks.append(it.core.clock))
    assert looks == [2, 3]


def test_it_ends_at_a_breakpoint_and_does_not_begin_at_one():
    it = bare("nop\n nop\n nop\n nop\n nop\n hlt")
    it.core.set_breakpoints({CODE + 3})
    it.run(1)
    looks = []
    for _ in range(2):
        assert glide(it.core, 9, lambda: looks.append(it.core.clock))
    assert (looks, it.core.clock) == ([2, 3], 3)


def raise_nmi(core):
    core.raise_nmi()


def single_step(core):
    core.cpu.flags |= Rflags.TF


def data_breakpoint(core):
    core.cpu.state.dr[7] = 1 << 16 | 1 << 1
    core.cpu.mark_dirty()


def halt(core):
    core.halted = True


@pytest.mark.parametrize("due", [raise_nmi, single_step, data_breakpoint, halt])
def test_it_does_not_begin_while_something_else_is_due(due):
    it = bare("nop\n nop\n nop\n hlt")
    it.run(1)
    due(it.core)
    looks = []
    assert glide(it.core, 3, lambda: looks.append(it.core.clock))
    assert (looks, it.core.clock) == ([], 1)


def test_it_ends_where_a_timer_is_due():
    it = bare("nop\n nop\n nop\n nop\n nop\n hlt")
    it.run(1)
    it.core.apic.deadline = 3
    looks = []
    assert glide(it.core, 5, lambda: looks.append(it.core.clock))
    assert (looks, it.core.clock) == ([2, 3], 3)


def test_an_error_of_who_looks_is_raised():
    it = bare("nop\n nop\n nop\n nop\n hlt")
    it.run(1)

    def look():
        raise ValueError(it.core.clock)

    with pytest.raises(ValueError, match=r"^2$"):
        glide(it.core, 4, look)


def test_runs_without_a_lookout_have_none():
    it = bare("nop\n" * 20 + "hlt")
    it.run(1)
    looks = []
    assert glide(it.core, 4, lambda: looks.append(it.core.clock))
    it.run(10)
    assert (looks, it.core.clock) == ([2, 3, 4], 14)


def test_code_that_the_host_has_written_is_what_is_executed():
    it = bare("nop\n nop\n nop\n nop\n hlt")
    it.run(3)
    it.core.cpu.ip = CODE
    it.machine.memory.note_code((CODE - KERNEL) // PAGE_SIZE)
    it.machine.memory.write(CODE - KERNEL + 1, b"\xfd")  # std
    seen = []
    assert glide(it.core, 6, lambda: seen.append(it.core.cpu.flags & Rflags.DF))
    assert seen == [0, Rflags.DF, Rflags.DF]


def test_a_device_that_may_tell_the_time_is_not_read():
    it = xapic("nop\n movl 0x390(%rdx), %eax\n nop\n hlt")
    it.run(1)
    looks = []
    assert not glide(it.core, 9, lambda: looks.append(it.core.clock))
    assert looks == [2]
