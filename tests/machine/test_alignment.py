"""Alignment checks of user mode: #AC (SDM volume 3A, 6.15, interrupt 17)."""

import pytest
from bare import CODE, USER_CS, USER_STACK, bare

from emu.arch import Cr0, Rflags, Vector
from emu.machine.end import EndKind
from emu.machine.profile import Profile
from emu.machine.registers import RAX

AC = int(Rflags.AC)


def checked(text, *, vendor="intel", flags=2 | AC):
    it = bare(text, user=True, flags=flags, profile=Profile(vendor))
    cpu = it.core.cpu
    cpu.set_control(cr0=cpu.cr0 | Cr0.AM)
    cpu.set_register(RAX, 0x1234_5678_9ABC_DEF0)
    return it


def bytes_at(it, address, size):
    return it.machine.memory.read(address, size)


@pytest.mark.parametrize(
    ("text", "aligned"),
    [
        ("movb %al, 1(%rsp)", True), ("movw %ax, 2(%rsp)", True), ("movw %ax, 1(%rsp)", False),
        ("movl %eax, 4(%rsp)", True), ("movl %eax, 2(%rsp)", False), ("movq %rax, 4(%rsp)", False),
        ("addl %eax, 2(%rsp)", False), ("lock addq %rax, 4(%rsp)", False), ("movl 3(%rsp), %ecx", False),
        ("pushw %ax\n pushq %rax", False), ("subq $4, %rsp\n call . + 5", False), ("movsd %xmm0, 4(%rsp)", False),
    ],
)  # fmt: skip
def test_a_misaligned_access_of_user_mode_is_ac_before_anything_changes(text, aligned):
    it = checked(f"{text}\n hlt")
    it.run()
    assert it.entered() == (Vector.GP if aligned else Vector.AC)  # HLT, at its end
    if not aligned:
        error_code, _, cs, flags, *_ = it.frame(error_code=True)
        assert (error_code, cs, flags & (AC | Rflags.RF)) == (0, USER_CS, AC | Rflags.RF)
        assert not any(bytes_at(it, USER_STACK, 16))


@pytest.mark.parametrize("vendor", ["intel", "amd"])
def test_unaligned_moves_of_16_bytes_are_ac_on_amd_alone(vendor):
    it = checked("movups %xmm0, 8(%rsp)\n hlt", vendor=vendor)
    it.run()
    assert it.entered() == (Vector.AC if vendor == "amd" else Vector.GP)


def test_popf_turns_alignment_checks_on_for_the_next_instruction_and_off():
    popf = "pushfq\n xorq $0x40000, (%rsp)\n popfq"
    it = checked(f"{popf}\n nop\n {popf}\n movl %eax, 1(%rsp)\n {popf}\n here: movl %eax, 1(%rsp)\n hlt", flags=2)
    it.run()
    assert it.entered() == Vector.AC
    assert it.frame(error_code=True)[1] == it.code.symbols["here"]


def test_a_store_over_two_pages_is_taken_back_on_both():
    it = checked("movl %eax, 0xffe(%rsp)")
    it.machine.memory.write(USER_STACK + 0xFF8, bytes(range(16)))
    it.run()
    assert it.entered() == Vector.AC
    assert bytes_at(it, USER_STACK + 0xFF8, 16) == bytes(range(16))


def test_without_cr0_am_or_at_cpl_0_nothing_is_checked():
    it = checked("movl %eax, 1(%rsp)\n hlt")
    it.core.cpu.set_control(cr0=it.core.cpu.cr0 & ~Cr0.AM)
    it.run()
    assert it.entered() == Vector.GP
    it = bare("movl %eax, 1(%rsp)\n hlt", flags=2 | AC, profile=Profile(smap=False))
    it.core.cpu.set_control(cr0=it.core.cpu.cr0 | Cr0.AM)
    assert it.run().kind is EndKind.HALTED
    assert it.core.cpu.ip == CODE + 5


def test_a_page_that_is_not_there_goes_before_alignment():
    it = checked("movl %eax, 0x400001(%rsp)")
    it.run()
    assert it.entered() == Vector.PF


def test_checks_do_not_stay_behind():
    it = checked("movl %eax, 1(%rsp)")
    it.run()
    watched = it.core.cpu.accesses, it.core.cpu.overwritten
    it.core.halted = False
    it.run(3)
    assert watched == ([], [])
    assert not it.core.alignment.on
