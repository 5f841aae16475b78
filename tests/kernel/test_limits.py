"""Programs that want too much or ruin themselves: they end as under the host's kernel, in bounded time and memory."""

import re

import pytest
from booted import start
from c_programs import HAS_GCC, compiled
from programs import native, outcome

from emu.machine.end import EndKind
from kernel_stubs import mm
from kernel_stubs.errno import Errno

EXIT = "movl $60, %eax\n syscall\n"
MAP = """
    movl $9, %eax
    xorl %edi, %edi
    movl ${size}, %esi
    movl $3, %edx
    movl $0x22, %r10d
    movq $-1, %r8
    xorl %r9d, %r9d
    syscall
"""
TOUCH = """
1:  movb $1, (%rax)
    addq $0x1000, %rax
    loop 1b
"""
HOG = MAP.format(size=0x400000) + "movl $0x400, %ecx\n" + TOUCH
SMALL = 4 << 20


@pytest.mark.skipif(not HAS_GCC, reason="gcc is not installed")
@pytest.mark.parametrize(("name", "kernel"), [("badends", "linux-6"), ("limits", "linux-2.6")])
def test_the_end_is_that_of_a_native_run(name, kernel):
    """`make matrix` has the other kernel and 32-bit programs too."""
    path = compiled(name)
    assert outcome(path, kernel=kernel) == native(path)


def killed(it):
    """Pids in the console's lines about the OOM killer."""
    return [int(found[1]) for note in it.notes if (found := re.match(r"Out of memory: Killed process (\d+) ", note))]


def test_the_console_says_who_was_killed_and_what_it_had():
    it = start(f"_start: {HOG} jmp _start", ram_bytes=SMALL)
    assert it.run().text == "killed by SIGKILL"
    (line,) = [note for note in it.notes if note.startswith("Out of memory")]
    found = re.fullmatch(
        r"Out of memory: Killed process 1 \(user\) total-vm:(\d+)kB, anon-rss:(\d+)kB, file-rss:(\d+)kB, "
        r"shmem-rss:0kB, UID:1000 pgtables:(\d+)kB oom_score_adj:0",
        line,
    )
    total, anonymous, _, tables = (int(number) for number in found.groups())
    assert 4096 <= total < 4096 + 4096 + 4096
    assert 3000 < anonymous < SMALL >> 10
    assert 4 * 6 <= tables < 100


def test_the_greedy_child_is_killed_and_not_the_parent_that_faults():
    it = start(
        f"""
    _start: movl $57, %eax
        syscall
        testl %eax, %eax
        jz hog
        movl %eax, %ebx
        {MAP.format(size=0x100000)}
        movl $0x100, %ecx
    again: movb $1, (%rax)
        addq $0x1000, %rax
        pushq %rax
        pushq %rcx
        movl $24, %eax
        syscall
        popq %rcx
        popq %rax
        loop again
        movl $61, %eax
        movl %ebx, %edi
        leaq status(%rip), %rsi
        xorl %edx, %edx
        xorl %r10d, %r10d
        syscall
        movl status(%rip), %edi
        {EXIT}
    hog: {MAP.format(size=0x300000)}
        movl $0x300, %ecx
        {TOUCH}
    rest: movl $24, %eax
        syscall
        jmp rest
    .data
    status: .quad 0
    """,
        ram_bytes=SMALL,
    )
    assert it.run().text == "exited with status 9"
    assert killed(it) == [2]


def test_memory_that_nobody_touches_is_refused_only_when_there_could_never_be_enough():
    it = start(f"_start: {MAP.format(size=SMALL + 4096)} negl %eax\n movl %eax, %edi\n {EXIT}", ram_bytes=SMALL)
    assert it.run().text == f"exited with status {Errno.ENOMEM}"


def test_a_system_call_that_finds_no_memory_ends_the_process():
    it = start(
        f"""
    _start: {MAP.format(size=0x400000)}
        movq %rax, %rdi
        movl $0x400000, %esi
        xorl %edx, %edx
        movl $318, %eax
        syscall
        xorl %edi, %edi
        {EXIT}
    """,
        ram_bytes=SMALL,
    )
    assert it.run().text == "killed by SIGKILL"
    assert killed(it) == [1]


def test_a_process_that_fills_pipes_without_end_is_killed():
    it = start(
        f"""
    _start: movl $22, %eax
        leaq ends(%rip), %rdi
        syscall
        movl ends+4(%rip), %edi
        leaq _start(%rip), %rsi
        movl $16, %ebx
    1:  movl $4096, %edx
        movl $1, %eax
        syscall
        testq %rax, %rax
        js failed
        decl %ebx
        jnz 1b
        jmp _start
    failed: movl %eax, %edi
        {EXIT}
    .data
    ends: .quad 0
        .fill 4096, 1, 0
    """,
        ram_bytes=2 << 20,
    )
    assert it.run().text == "killed by SIGKILL"
    assert killed(it) == [1]


def test_a_fork_bomb_that_touches_memory_ends_by_the_oom_killer_again_and_again():
    it = start(
        f"""
    _start: movl $57, %eax
        syscall
        {MAP.format(size=0x10000)}
        movl $0x10, %ecx
        {TOUCH}
        jmp _start
    """,
        ram_bytes=SMALL,
    )
    end = it.run(500_000)
    memory = it.system.machine.memory
    assert end.kind is EndKind.LIMIT or end.text == "killed by SIGKILL"
    assert len(killed(it)) > 1
    assert mm.kernel_data(memory).nr_tasks <= 32
    assert mm.memory_info(memory).allocated <= SMALL // 4096
    assert len(it.system.binding.running) <= 32


def test_sigkill_ends_a_process_that_waits_for_its_vfork_child():
    it = start(f"""
    _start: movl $57, %eax
        syscall
        testl %eax, %eax
        jz parent
        movl %eax, %ebx
        movl $24, %eax
        syscall
        movl $62, %eax
        movl %ebx, %edi
        movl $9, %esi
        syscall
        movl $61, %eax
        movl %ebx, %edi
        leaq status(%rip), %rsi
        xorl %edx, %edx
        xorl %r10d, %r10d
        syscall
        movl status(%rip), %edi
        {EXIT}
    parent: movl $58, %eax
        syscall
        testl %eax, %eax
        jnz parent
    child: movl $24, %eax
        syscall
        jmp child
    .data
    status: .quad 0
    """)
    assert it.run().text == "exited with status 9"
