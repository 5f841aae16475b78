"""What a program finds on its stack and in its memory."""

import struct

from booted import in_user, start, user_program

from emu.arch import PAGE_SIZE
from emu.machine.profile import Profile
from kernel_stubs import uaccess, vma
from kernel_stubs.abi import TASK_SIZE_MAX, VmFlags
from kernel_stubs.elf import UserProgram
from kernel_stubs.exec import STACK_TOP

AT_NAMES = {
    6: "PAGESZ", 7: "BASE", 8: "FLAGS", 9: "ENTRY", 11: "UID", 12: "EUID", 13: "GID", 14: "EGID", 15: "PLATFORM",
    16: "HWCAP", 17: "CLKTCK", 23: "SECURE", 25: "RANDOM", 26: "HWCAP2", 31: "EXECFN",
}  # fmt: skip


def words(it, at):
    while True:
        yield uaccess.get_user(it.cpu, at)
        at += 8


def parse(it):
    """(argv, envp, auxv) as a C library reads them."""
    source = words(it, it.core.cpu.sp)
    argc = next(source)

    def strings():
        found = []
        while (at := next(source)) != 0:
            found.append(uaccess.strncpy_from_user(it.cpu, at, 1 << 20))
        return found

    argv = strings()
    assert len(argv) == argc
    envp = strings()
    auxv = {}
    while (kind := next(source)) != 0:
        auxv[kind] = next(source)
    return argv, envp, auxv


def test_arguments_environment_and_auxiliary_vector():
    it = in_user(argv=(b"user", b"", b"x" * 9000), envp=(b"A=1", b"B=2"))
    argv, envp, auxv = parse(it)
    assert argv == [b"user", b"", b"x" * 9000]
    assert envp == [b"A=1", b"B=2"]
    assert set(auxv) == set(AT_NAMES)
    assert (auxv[6], auxv[9], auxv[11]) == (PAGE_SIZE, it.program.entry, 1000)
    assert uaccess.strncpy_from_user(it.cpu, auxv[31], 100) == b"/user"
    assert uaccess.strncpy_from_user(it.cpu, auxv[15], 100) == b"x86_64"
    assert auxv[25] + 16 < STACK_TOP


def test_no_arguments_become_an_empty_one():
    assert parse(in_user(argv=()))[0] == [b""]


def test_random_bytes_follow_the_seed():
    def random(seed):
        it = in_user(seed=seed)
        return uaccess.copy_from_user(it.cpu, parse(it)[2][25], 16)

    assert random(1) == random(1) != random(2)


def test_hwcap2_tells_of_fsgsbase():
    assert parse(in_user())[2][26] == 2
    assert parse(in_user(profile=Profile(fsgsbase=False)))[2][26] == 0


def test_the_stack_area_ends_at_the_top_and_grows():
    it = in_user()
    stack = vma.areas(it.system.kernel, it.cpu.mm)[-1]
    assert stack.end == TASK_SIZE_MAX
    assert stack.flags & VmFlags.GROWSDOWN
    assert not stack.flags & VmFlags.EXEC


def test_only_touched_pages_are_in_memory():
    text = "_start: jmp _start\n.data\nbig: .fill 100000, 1, 7\n"
    it = in_user(text)
    space = it.cpu.mm
    present = vma.present_pages(it.system.kernel, space, 0, TASK_SIZE_MAX)
    assert len(present) <= 4
    assert uaccess.copy_from_user(it.cpu, it.program.symbols["big"] + 99_999, 1) == b"\7"


def test_a_tail_beyond_the_file_is_zero():
    base = user_program("_start: jmp _start\n.data\nvalue: .quad -1\n")
    first, second = base.segments
    grown = type(second)(
        second.address, second.file_offset, second.file_size, second.file_size + 3 * PAGE_SIZE, second.flags
    )
    data = base.data + b"\xee" * PAGE_SIZE
    it = start(UserProgram("user", data, (first, grown), base.entry, symbols=base.symbols)).to("_start")
    at = base.symbols["value"]
    assert uaccess.copy_from_user(it.cpu, at, 8) == b"\xff" * 8
    assert uaccess.copy_from_user(it.cpu, at + 8, 3 * PAGE_SIZE) == bytes(3 * PAGE_SIZE)
    assert it.cpu.mm.brk == (at + 8 + 4 * PAGE_SIZE - 1) & -PAGE_SIZE
    assert struct.calcsize("Q") == 8
